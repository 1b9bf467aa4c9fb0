//! What work may take: memory that there is, and time until somebody asks it to stop. Whoever makes something large or many
//! things, or computes for long without asking an engine, asks here first: a script must end with an error, and not by the
//! hand of the operating system.
//!
//! Owns no limits of scripts (`script/lang/limits.rs`) and no signals (`run/interrupt.rs`).

pub mod json;
mod machine;
pub mod memory;

use crate::error::{Error, Kind, Result};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Memory is looked at whenever so much has been made since.
const LOOK: u64 = 8 << 20;
/// How often work that is done apart is looked at.
const WAIT: Duration = Duration::from_millis(20);
/// What is nested deeply is dropped by calls within calls; only what is used of this becomes memory. The first that the
/// system gives is taken.
const STACKS: [usize; 2] = [1 << 30, 64 << 20];

thread_local! {
    /// Set when the work of this thread is no longer wanted.
    static STOP: RefCell<Arc<AtomicBool>> = RefCell::default();
}

/// From here on the work of this thread ends once `stop` is set.
pub fn obey(stop: &Arc<AtomicBool>) {
    STOP.set(stop.clone());
}

/// The flag that this thread's work obeys.
pub fn stop() -> Arc<AtomicBool> {
    STOP.with_borrow(Arc::clone)
}

/// Whether some work has ended because it was asked to.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Notes that some work ends because it was asked to.
pub fn end() {
    ENDED.store(true, Ordering::Relaxed);
}

/// What such work ends with.
pub fn interrupted() -> Error {
    end();
    Error::interrupted()
}

/// Whether any work has: what was asked to end and does not is in code that never looks.
pub fn has_ended() -> bool {
    ENDED.load(Ordering::Relaxed)
}

/// # Errors
/// `Interrupted`, once the work of this thread is no longer wanted.
pub fn go_on() -> Result<()> {
    let stopped = STOP.with_borrow(|stop| stop.load(Ordering::Relaxed));
    if stopped { Err(interrupted()) } else { Ok(()) }
}

/// Does work of others on a thread of its own, which is left alone once the work is no longer wanted or takes too long: nothing
/// can stop it there. None if it took too long.
///
/// # Errors
/// `Interrupted` as [`go_on`]; no memory; a system that gives no thread.
pub fn apart<T: Send + 'static>(longest: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>> {
    let (send, done) = mpsc::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let start = |size: usize| {
        let (send, work) = (send.clone(), work.clone());
        thread::Builder::new().name("apart".into()).stack_size(size).spawn(move || {
            let work = work.lock().expect("nobody else holds it").take();
            // Nobody may wait any more.
            let _ = send.send(work.expect("one thread starts")());
        })
    };
    let started = start(STACKS[0]).or_else(|_| start(STACKS[1]));
    started.map_err(|e| Error::new(Kind::Internal, format!("cannot start a thread: {e}")))?;
    drop((send, work));
    let begun = Instant::now();
    loop {
        match done.recv_timeout(WAIT) {
            Ok(made) => return Ok(Some(made)),
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < longest => {
                go_on()?;
                memory::enough()?;
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Counts what a loop makes: many small things are asked for like a large one.
#[derive(Debug, Default)]
pub struct Count {
    unseen: u64,
}

impl Count {
    /// Before so many bytes are made.
    ///
    /// # Errors
    /// No room for them; `Interrupted` as [`go_on`].
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        go_on()?;
        self.unseen = self.unseen.saturating_add(bytes);
        if self.unseen < LOOK {
            return Ok(());
        }
        self.unseen = 0;
        memory::room(bytes)?;
        memory::enough()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_too_long_is_left_alone() {
        assert_eq!(apart(Duration::from_secs(60), || 7).expect("a thread"), Some(7));
        let endless = || std::thread::sleep(Duration::from_secs(60));
        assert_eq!(apart(Duration::from_millis(30), endless).expect("a thread"), None);
    }

    #[test]
    fn work_ends_when_it_is_asked_to() {
        let stop = Arc::new(AtomicBool::new(false));
        std::thread::spawn(move || {
            go_on().expect("nobody asks");
            obey(&stop);
            Count::default().take(1).expect("not yet");
            stop.store(true, Ordering::Relaxed);
            assert_eq!(go_on().expect_err("asked").kind, Kind::Interrupted);
            assert_eq!(Count::default().take(1).expect_err("asked").kind, Kind::Interrupted);
        })
        .join()
        .expect("no panic");
        go_on().expect("another thread's work");
    }
}
