//! What this machine can do at most, measured: multiply-adds of f32 and bytes read from memory, per second.
//!
//! Owns clock, threads and statistics; the loops are `kernel::peak`'s.

use crate::kernel::peak;
use crate::tensor::simd;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Limits of the threads in use. What shares the machine with us lowers what is measured, and nothing raises it: of two
/// measurements the better one is closer.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Operations per second, 2 for each multiply-add.
    pub operations: f64,
    /// Bytes per second.
    pub reading: f64,
    pub threads: usize,
    /// The instruction set of the kernels.
    pub instructions: &'static str,
}

/// Times that each limit is measured.
const TIMES: usize = 10;
/// Seconds that one measurement of multiply-adds takes at least, so that waking threads does not count.
const LEAST: f64 = 4e-3;
/// Bytes that are read: several times what caches hold.
const BUFFER: usize = 256 << 20;

impl Machine {
    /// Takes some tenths of a second.
    pub fn measure() -> Self {
        Self {
            operations: operations(),
            reading: reading(),
            threads: rayon::current_num_threads(),
            instructions: simd::level().name(),
        }
    }

    /// Of both the higher limits.
    pub fn or_better(self, other: Self) -> Self {
        let (operations, reading) = (self.operations.max(other.operations), self.reading.max(other.reading));
        Self { operations, reading, ..self }
    }

    /// Whether two measurements agree to a tenth in multiply-adds, as they do where nothing else is busy.
    pub fn is_close_to(&self, other: &Self) -> bool {
        (self.operations / other.operations).ln().abs() < 0.1
    }
}

fn operations() -> f64 {
    let once = |rounds: usize| {
        let start = Instant::now();
        let done: f64 = rayon::broadcast(|_| peak::multiply_adds(rounds)).into_iter().sum();
        (done, start.elapsed().as_secs_f64())
    };
    let mut rounds = 1024;
    while once(rounds).1 < LEAST {
        rounds *= 2;
    }
    let rate = |_| {
        let (done, seconds) = once(rounds);
        done / seconds
    };
    (0..TIMES).map(rate).fold(0.0, f64::max)
}

fn reading() -> f64 {
    // Written before it is read: untouched pages are all one page of zeros.
    let words: Vec<u64> = (0..BUFFER as u64 / 8).into_par_iter().collect();
    let part = words.len().div_ceil(rayon::current_num_threads());
    let rate = |_| {
        let start = Instant::now();
        let own = |thread: usize| words.chunks(part).nth(thread).map_or(0, peak::read);
        black_box(rayon::broadcast(|context| own(context.index())));
        BUFFER as f64 / start.elapsed().as_secs_f64()
    };
    (0..TIMES).map(rate).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_limits_are_kept() {
        let of = |operations, reading| Machine { operations, reading, threads: 1, instructions: "portable" };
        let best = of(2.0, 5.0).or_better(of(3.0, 4.0));
        assert_eq!((best.operations, best.reading), (3.0, 5.0));
        assert!(of(2.0, 1.0).is_close_to(&of(2.1, 9.0)) && !of(2.0, 1.0).is_close_to(&of(1.0, 1.0)));
    }

    #[test]
    fn limits_are_those_of_some_machine() {
        let machine = Machine::measure();
        assert!((1e7..1e15).contains(&machine.operations), "{machine:?}");
        assert!((1e7..1e14).contains(&machine.reading), "{machine:?}");
        assert_eq!(machine.threads, rayon::current_num_threads());
    }
}
