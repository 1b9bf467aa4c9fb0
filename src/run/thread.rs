//! The thread on which scripts run: its stack is large. Owns neither what runs there nor what is said when it fails.

use crate::error::{Error, Kind, Result};
use std::sync::Mutex;

/// Dropping what is nested millions deep recurses; only what is used of this becomes memory. The first that the system
/// gives is taken.
const STACKS: [usize; 2] = [8 << 30, 512 << 20];

/// Does `work` on a thread of its own and waits for it; of a panic there, what `JoinHandle::join` gives.
///
/// # Errors
/// The system gives no such thread.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<std::thread::Result<T>> {
    let work = &Mutex::new(Some(work));
    std::thread::scope(|scope| {
        let start = |size: usize| {
            std::thread::Builder::new().name("engine".into()).stack_size(size).spawn_scoped(scope, move || {
                let work = work.lock().expect("nobody else holds it").take();
                work.expect("one thread starts")()
            })
        };
        let thread = start(STACKS[0]).or_else(|_| start(STACKS[1]));
        let thread = thread.map_err(|e| {
            Error::new(Kind::Memory, format!("cannot start a thread with a stack of 512 MiB: {e}"))
                .hint("its addresses count, not its memory: raise the limit on addresses (ulimit -v)")
        })?;
        Ok(thread.join())
    })
}
