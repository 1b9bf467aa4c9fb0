//! Runs a command on the thread for scripts: a panic on it ends in an error that asks for a report.

use crate::error::Error;
use crate::run::thread::on_large_stack;
use crate::script::lang::loader::Loader;
#[cfg(target_os = "linux")]
use crate::ui::overflow;
use crate::ui::terminal::report;
use std::process::ExitCode;

/// Does `work`, which returns the program's exit code.
pub(super) fn on_engine_thread(work: impl FnOnce() -> u8 + Send) -> ExitCode {
    // The panic becomes an error with its own text; the default hook would print a second one.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let failed = |e: Error| {
        report(&e.into(), &Loader::default());
        1
    };
    let told = || {
        #[cfg(target_os = "linux")]
        overflow::tell();
        work()
    };
    let code = match on_large_stack(told) {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => failed(Error::panicked(panic.as_ref())),
        Err(e) => failed(e),
    };
    ExitCode::from(code)
}
