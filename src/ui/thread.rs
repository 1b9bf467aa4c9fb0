//! The thread on which scripts run: its stack is large, and a panic on it ends in an error that asks for a report.

use crate::error::{Error, Kind};
use crate::script::lang::loader::Loader;
use crate::ui::terminal::report;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// Dropping what is nested millions deep recurses; only what is used of this becomes memory. The first that the system
/// gives is taken.
const STACKS: [usize; 2] = [8 << 30, 512 << 20];

/// Does `work`, which returns the program's exit code.
pub(super) fn on_engine_thread(work: impl FnOnce() -> u8 + Send + 'static) -> ExitCode {
    // The panic becomes an error with its own text; the default hook would print a second one.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let work = Arc::new(Mutex::new(Some(work)));
    let start = |size: usize| {
        let work = work.clone();
        std::thread::Builder::new().name("engine".into()).stack_size(size).spawn(move || {
            let work = work.lock().expect("nobody else holds it").take();
            work.map_or(1, |work| work())
        })
    };
    let thread = start(STACKS[0]).or_else(|_| start(STACKS[1]));
    let failed = |e: Error| {
        report(&e.into(), &Loader::default());
        1
    };
    let code = match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => failed(Error::panicked(panic.as_ref())),
        Err(e) => failed(Error::new(Kind::Internal, format!("no thread could be started: {e}"))),
    };
    ExitCode::from(code)
}
