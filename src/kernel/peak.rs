//! Loops that do one thing as fast as the processor can: multiply-adds of f32 in registers, and reading memory.
//!
//! Owns no clock and no threads: `run::machine` measures with them.

use super::simd::{Level, level, simd};
use std::hint::black_box;

/// Sums that grow beside each other: at least the latency of a multiply-add times the units that compute them (4 cycles
/// and 2 units on processors with AVX-512), and with what is added no more than the registers hold.
const CHAINS: usize = 12;

/// Runs `rounds` of multiply-adds that depend on no memory; returns how many operations that were, 2 for each.
pub fn multiply_adds(rounds: usize) -> f64 {
    let lanes = match level() {
        Level::Avx512 => {
            black_box(chains_of_16(rounds));
            16
        }
        Level::Avx2 | Level::Portable => {
            black_box(chains_of_8(rounds));
            8
        }
    };
    2.0 * (rounds * CHAINS * lanes) as f64
}

simd! {
    fn chains_of_16(rounds: usize) -> f32 {
        chains::<16>(rounds)
    }
}

simd! {
    fn chains_of_8(rounds: usize) -> f32 {
        chains::<8>(rounds)
    }
}

#[inline(always)]
fn chains<const LANES: usize>(rounds: usize) -> f32 {
    // The compiler knows none of these: equal chains would become one.
    let mut sums = black_box([[1.0f32; LANES]; CHAINS]);
    let (factor, term) = black_box((0.5f32, 0.25f32));
    for _ in 0..rounds {
        for sum in &mut sums {
            for lane in sum {
                *lane = lane.mul_add(factor, term);
            }
        }
    }
    sums.as_flattened().iter().sum()
}

simd! {
    /// The sum of `words`, each of which is read once.
    pub fn read(words: &[u64]) -> u64 {
        words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::forced::at_every_level;
    use super::*;

    #[test]
    fn what_is_counted_is_computed() {
        // Halved and a quarter added, again and again, everything goes to a half: from 1, after r rounds, 1/2 + 1/2^(r+1).
        let exact = |sums: usize| sums as f32 * (0.5 + 0.5f32.powi(4));
        at_every_level(|level| {
            let lanes = if level == Level::Avx512 { 16 } else { 8 };
            assert_eq!(multiply_adds(3), (2 * 3 * CHAINS * lanes) as f64);
            assert_eq!((chains_of_8(3), chains_of_16(3)), (exact(8 * CHAINS), exact(16 * CHAINS)));
        });
    }

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1003).collect();
        at_every_level(|_| assert_eq!(read(&words), 1002 * 1003 / 2));
    }
}
