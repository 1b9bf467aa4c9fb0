//! Threads that stay awake: a pass over a model is hundreds of small parallel loops, and waking a thread that fell asleep
//! between two of them takes longer than most of them do.
//!
//! Owns no work of its own: the loops are the operations', on rayon's threads.

use crate::gpu::Place;
use rayon::Yield;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a pass waits at its start for the other threads, which may be busy with something else.
const PATIENCE: Duration = Duration::from_millis(1);
/// Looks for work without success before a thread offers its core to whoever else wants it.
const LOOKS: usize = 64;

/// One pass at a time keeps the threads awake; another one beside it finds them awake.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Runs `work` on a thread of the pool, while the pool's other threads look for parts of it without pause.
/// On a device the threads have nothing to do.
pub fn awake<T: Send>(place: &Place, work: impl FnOnce() -> T + Send) -> T {
    let others = rayon::current_num_threads() - 1;
    if others == 0 || matches!(place, Place::Gpu(_)) || TAKEN.swap(true, Ordering::Acquire) {
        return work();
    }
    let (_release, watch) = (Release, Watch::default());
    rayon::scope(|scope| {
        let _over = Over(&watch);
        for _ in 0..others {
            scope.spawn(|_| watch.keep());
        }
        watch.begin(others);
        work()
    })
}

/// What a pass and the threads that watch for its work tell each other.
#[derive(Default)]
struct Watch {
    watching: AtomicUsize,
    /// The pass has begun: who has not come by now would only be in its way, on its own thread perhaps.
    begun: AtomicBool,
    over: AtomicBool,
}

impl Watch {
    fn begin(&self, others: usize) {
        let start = Instant::now();
        while self.watching.load(Ordering::Relaxed) < others && start.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        self.begun.store(true, Ordering::Release);
    }

    fn keep(&self) {
        if self.begun.load(Ordering::Acquire) {
            return;
        }
        self.watching.fetch_add(1, Ordering::Relaxed);
        let mut looks = 0;
        while !self.over.load(Ordering::Acquire) {
            if let Some(Yield::Executed) = rayon::yield_now() {
                looks = 0;
                continue;
            }
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Ends the watch, also where the work panics.
struct Over<'a>(&'a Watch);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// Lets the next pass have the threads.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}
