//! Loops that do one thing as fast as the processor can: multiply-adds of f32 in registers, and reading memory.
//!
//! Owns no clock and no threads: `run::machine` measures with them.

use super::simd::{Level, level, simd};
use std::hint::black_box;

/// Sums that grow beside each other: at least the latency of a multiply-add times the units that compute them (4 cycles
/// and 2 units), and with what is multiplied and added no more than the 16 registers of AVX2.
const CHAINS: usize = 12;

/// Runs `rounds` of multiply-adds that depend on no memory; returns how many operations that were, 2 for each.
pub fn multiply_adds(rounds: usize) -> f64 {
    let (operations, sum) = chains(rounds);
    black_box(sum);
    operations
}

/// The operations, and the sum of all lanes of all chains.
fn chains(rounds: usize) -> (f64, f32) {
    let (lanes, sum) = match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` saw that the processor has these instructions.
        Level::Avx512 => (16, unsafe { avx512(rounds) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => (8, unsafe { avx2(rounds) }),
        _ => (4, portable(rounds)),
    };
    (2.0 * (rounds * CHAINS * lanes) as f64, sum)
}

/// By intrinsics, as the innermost tile of products: the compiler does not make vectors of so many sums by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rounds: usize) -> f32 {
    use std::arch::x86_64::*;
    // Unknown to the compiler, which would make one chain of equal ones.
    let mut sums = black_box([_mm512_set1_ps(1.0); CHAINS]);
    let (factor, term) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, term);
        }
    }
    sums.map(|sum| _mm512_reduce_add_ps(sum)).iter().sum()
}

/// As `avx512`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rounds: usize) -> f32 {
    use std::arch::x86_64::*;
    let mut sums = black_box([_mm256_set1_ps(1.0); CHAINS]);
    let (factor, term) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, term);
        }
    }
    let mut lanes = [[0.0; 8]; CHAINS];
    for (lanes, sum) in lanes.iter_mut().zip(sums) {
        // SAFETY: there is room for the 8 lanes.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    }
    lanes.as_flattened().iter().sum()
}

fn portable(rounds: usize) -> f32 {
    let mut sums = black_box([[1.0f32; 4]; CHAINS]);
    let (factor, term) = black_box((0.5f32, 0.25f32));
    for _ in 0..rounds {
        for lane in sums.as_flattened_mut() {
            *lane = lane.mul_add(factor, term);
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
        let each = 0.5 + 0.5f32.powi(4);
        at_every_level(|_| {
            let (operations, sum) = chains(3);
            assert_eq!(sum, (operations / 6.0) as f32 * each);
            assert_eq!(multiply_adds(3), operations);
        });
    }

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1003).collect();
        at_every_level(|_| assert_eq!(read(&words), 1002 * 1003 / 2));
    }
}
