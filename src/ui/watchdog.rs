//! Ends the process where nothing else can: work of others that takes more time or memory than the command line allows, and
//! looks at neither. What looks ends by itself before that, and its run is saved.

use crate::budget::{self, memory};
use crate::ui::out;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(20);
/// How long work may take to notice that it is to end.
const GRACE: Duration = Duration::from_millis(500);
/// The share of the memory that may be held beyond the limit for a moment.
const BEYOND: u64 = 5;

/// What a process may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub time: Option<Duration>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// Watches from a thread of its own. `stop` is set when the time is over; the answer becomes true then.
pub(super) fn watch(bounds: Bounds, stop: &Arc<AtomicBool>) -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    if bounds.time.is_some() || bounds.memory.is_some() {
        let (stop, over) = (stop.clone(), over.clone());
        std::thread::spawn(move || look(bounds, &stop, &over));
    }
    over
}

fn look(bounds: Bounds, stop: &AtomicBool, over: &AtomicBool) {
    let begun = Instant::now();
    loop {
        std::thread::sleep(LOOK);
        if let Some(most) = bounds.time.filter(|most| begun.elapsed() > *most) {
            over.store(true, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
            let late = begun.elapsed().saturating_sub(most);
            let reason = match budget::has_ended() {
                false if late > GRACE => Some("in work that cannot be stopped"),
                true if late > 2 * GRACE && budget::is_held() => Some("and what it made takes long to be taken apart"),
                _ => None,
            };
            if let Some(reason) = reason {
                end(&format!("the script took more than {} s, {reason}", most.as_secs_f64()), "--max-seconds");
            }
        }
        let most = bounds.memory.map(|most| most + most / BEYOND);
        if let Some(held) = memory::held().filter(|held| most.is_some_and(|most| *held > most)) {
            let held = held as f64 / f64::from(1 << 30);
            end(
                &format!("out of memory: the script held {held:.1} GiB, in work that did not ask first"),
                "--max-memory",
            );
        }
    }
}

/// Nothing of the run can be saved: the thread that knows it does not answer.
fn end(what: &str, limit: &str) -> ! {
    out::note(&format!("Error: {what}\nHelp: the limit is {limit}"));
    std::process::exit(1)
}
