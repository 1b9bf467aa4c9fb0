//! Whether there is memory for something large: asked before it is taken, so that a script ends with an error and not
//! by the hand of the operating system.
//!
//! Owns no accounting: what is free is read from the system (Linux; elsewhere nothing is known and nothing refused).

use crate::error::{Error, Kind, Result};
use crate::files;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stays free whatever a script does, for the rest of the machine.
const RESERVE: u64 = 512 << 20;
/// Smaller things are not worth a look; what they add up to is looked at between operations.
const SMALL: u64 = 1 << 20;

/// Bytes that the process may hold; 0 is no limit of its own.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Limits what the process may hold, whatever the machine has.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// # Errors
/// No room for `bytes` more.
pub fn room(bytes: u64) -> Result<()> {
    if bytes < SMALL { Ok(()) } else { look(bytes) }
}

/// # Errors
/// Nothing left to go on with.
pub fn enough() -> Result<()> {
    look(0)
}

fn look(bytes: u64) -> Result<()> {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit > 0
        && let Some(held) = held()
        && held.saturating_add(bytes) > limit
    {
        let what = format!(
            "out of memory: {} are held, {} more are needed, and the limit is {}",
            size(held),
            size(bytes),
            size(limit)
        );
        return Err(Error::new(Kind::Memory, what).hint("the limit is --max-memory"));
    }
    match free() {
        Some(free) if bytes.saturating_add(RESERVE) > free => {
            let what = format!("out of memory: {} more are needed, and {} are free", size(bytes), size(free));
            Err(Error::new(Kind::Memory, what).hint("fewer or smaller models, batches and tensors at a time; what a variable holds is freed when it is set anew"))
        }
        _ => Ok(()),
    }
}

fn size(bytes: u64) -> String {
    const GIB: f64 = (1_u64 << 30) as f64;
    format!("{:.1} GiB", bytes as f64 / GIB)
}

/// What the machine can still give: its own, or what the control group leaves.
fn free() -> Option<u64> {
    let kib = field(&system("/proc/meminfo")?, "MemAvailable:")?;
    let group = |name: &str| system(&format!("/sys/fs/cgroup/{name}"))?.trim().parse::<u64>().ok();
    let grouped = group("memory.max").zip(group("memory.current")).map(|(most, now)| most.saturating_sub(now));
    Some((kib << 10).min(grouped.unwrap_or(u64::MAX)))
}

/// What the machine has.
pub fn total() -> Option<u64> {
    field(&system("/proc/meminfo")?, "MemTotal:").map(|kib| kib << 10)
}

/// The most that this process has held.
pub fn peak() -> Option<u64> {
    field(&system("/proc/self/status")?, "VmHWM:").map(|kib| kib << 10)
}

/// What this process holds.
pub fn held() -> Option<u64> {
    field(&system("/proc/self/status")?, "VmRSS:").map(|kib| kib << 10)
}

fn system(path: &str) -> Option<String> {
    files::text(&files::anywhere(path)).ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused() {
        room(1 << 10).expect("a kilobyte");
        if free().is_some() {
            let e = room(1 << 50).expect_err("a petabyte");
            assert!(e.what.contains("1048576.0 GiB more are needed"), "{e}");
            assert!(held().is_some_and(|bytes| bytes > 1 << 20));
            // In this order: other tests take memory meanwhile.
            let now = held();
            assert!(peak() >= now);
        }
    }
}
