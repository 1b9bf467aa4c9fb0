//! Whether there is memory for something large: asked before it is taken, so that a script ends with an error and not
//! by the hand of the operating system.
//!
//! Owns no accounting: what is free is read from the system by `machine.rs` (Linux; elsewhere nothing is known and nothing
//! refused).

use super::machine::{addressable, field, free, system};
use crate::error::{Error, Kind, Result};
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
    if let Some(left) = addressable().filter(|left| bytes > *left) {
        let what = format!("out of memory: {} more are needed, and the process may take {}", size(bytes), size(left));
        return Err(Error::new(Kind::Memory, what).hint("the limit is the shell's (ulimit -v) or the job's"));
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
    const MIB: f64 = (1_u64 << 20) as f64;
    match bytes as f64 {
        x if x < GIB / 10.0 => format!("{:.0} MiB", (x / MIB).ceil()),
        x => format!("{:.1} GiB", x / GIB),
    }
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
