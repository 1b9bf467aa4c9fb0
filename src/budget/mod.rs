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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Memory is looked at whenever so much has been made since.
const LOOK: u64 = 8 << 20;
/// Pieces of work that were left alone, at most: each may take a core.
const MOST_LEFT: usize = 4;
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

/// A script runs: it holds values.
static HELD: AtomicBool = AtomicBool::new(false);

/// Notes that a script begins or has ended.
pub fn hold(holds: bool) {
    HELD.store(holds, Ordering::Relaxed);
}

/// Whether one runs: what takes long after it was asked to end is that what it made is taken apart.
pub fn is_held() -> bool {
    HELD.load(Ordering::Relaxed)
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

/// Work that was left alone and has not ended.
struct Strays(AtomicUsize);

static STRAYS: Strays = Strays(AtomicUsize::new(0));

/// Work on a thread of its own: ends with it, also by a panic or where no thread was given.
struct Working {
    /// The one who waits has gone, or the work has: the second to go sees the other.
    parted: Arc<AtomicBool>,
    strays: &'static Strays,
}

impl Drop for Working {
    fn drop(&mut self) {
        if self.parted.swap(true, Ordering::SeqCst) {
            self.strays.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Does work of others on a thread of its own, which is left alone once the work is no longer wanted or takes too long: nothing
/// can stop it there. None if it took too long.
///
/// # Errors
/// `Interrupted` as [`go_on`]; no memory; a system that gives no thread; much work that was left alone before and goes on.
pub fn apart<T: Send + 'static>(longest: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>> {
    STRAYS.apart(longest, work)
}

impl Strays {
    fn apart<T: Send + 'static>(
        &'static self,
        longest: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>> {
        let left = self.0.load(Ordering::SeqCst);
        if left >= MOST_LEFT {
            let what =
                format!("{left} pieces of work that were broken off still go on: nothing can end them from outside");
            return Err(Error::new(Kind::Internal, what).hint("wait until they have ended, or start rhopo again"));
        }
        let parted = Arc::new(AtomicBool::new(false));
        let working = Working { parted: parted.clone(), strays: self };
        let waited = wait(longest, (work, working));
        if !matches!(waited, Ok(Some(_))) {
            self.0.fetch_add(1, Ordering::SeqCst);
            if parted.swap(true, Ordering::SeqCst) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        waited
    }
}

fn wait<T: Send + 'static>(
    longest: Duration,
    work: (impl FnOnce() -> T + Send + 'static, Working),
) -> Result<Option<T>> {
    let (send, done) = mpsc::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let start = |size: usize| {
        let (send, work) = (send.clone(), work.clone());
        thread::Builder::new().name("apart".into()).stack_size(size).spawn(move || {
            let work = work.lock().expect("nobody else holds it").take();
            let (work, _working) = work.expect("one thread starts");
            // Nobody may wait any more.
            let _ = send.send(work());
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
    fn work_that_was_left_alone_is_bounded_until_it_has_ended() {
        static OWN: Strays = Strays(AtomicUsize::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        for _ in 0..MOST_LEFT {
            let ends = ends.clone();
            let work = move || {
                while !ends.load(Ordering::Relaxed) {
                    std::thread::sleep(WAIT);
                }
            };
            assert_eq!(OWN.apart(Duration::from_millis(1), work).expect("a thread"), None);
        }
        let e = OWN.apart(Duration::from_secs(60), || 7).expect_err("four go on");
        assert!(e.what.starts_with("4 pieces of work that were broken off still go on"), "{e}");
        ends.store(true, Ordering::Relaxed);
        while OWN.0.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(WAIT);
        }
        assert_eq!(OWN.apart(Duration::from_secs(60), || 7).expect("a thread"), Some(7));
        let panics = || -> u8 { panic!("as a parser of somebody else's may") };
        assert_eq!(OWN.apart(Duration::from_secs(60), panics).expect("a thread"), None);
        while OWN.0.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(WAIT);
        }
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
