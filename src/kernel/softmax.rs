//! The softmax of a row of logits as numbers that are summed up block by block: what log-probs and entropies are made of.
//!
//! Owns the one order in which a row is summed: blocks of `COLUMNS`, in each the lanes of `simd`. Whoever holds a whole
//! row (`softmax`) and whoever sees its blocks one after the other (`Running`) come to the same bits.

use super::awake::map_each;
use super::simd::{exp, max, simd, sums_by};

/// Logits of a block.
pub const COLUMNS: usize = 4096;
/// Blocks from which on one row is worth cutting over threads.
const SHARED: usize = 8;

/// What a row of logits comes to; z = logits · scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Softmax {
    /// log Σ exp z
    pub lse: f32,
    /// Σ p·z, so that the entropy is lse − mean.
    pub mean: f32,
}

/// A token among the logits of its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    pub softmax: Softmax,
    /// logit · scale
    pub z: f32,
}

impl Scored {
    /// log p of the token (nats).
    pub fn logprob(self) -> f32 {
        self.z - self.softmax.lse
    }

    /// The entropy of the row (nats).
    pub fn entropy(self) -> f32 {
        self.softmax.lse - self.softmax.mean
    }
}

/// A softmax under way: the largest z so far, Σ exp(z − top) and Σ exp(z − top)·z.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    top: f32,
    sum: f32,
    weighted: f32,
}

impl Running {
    pub const START: Self = Self { top: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 };

    /// Goes on through the next block of logits.
    pub fn absorb(&mut self, block: &[f32], scale: f32) {
        let top = largest(block, scale).max(self.top);
        self.add(top, sums(block, scale, top));
    }

    /// Adds a block's sums, taken about `top`, the largest z up to its end.
    fn add(&mut self, top: f32, [sum, weighted]: [f32; 2]) {
        let carry = if self.sum == 0.0 { 0.0 } else { exp(self.top - top) };
        *self = Self { top, sum: self.sum * carry + sum, weighted: self.weighted * carry + weighted };
    }

    pub fn finish(self) -> Softmax {
        Softmax { lse: self.top + self.sum.ln(), mean: self.weighted / self.sum }
    }
}

/// The softmax of a whole row; a long one is cut over threads.
pub fn softmax(row: &[f32], scale: f32) -> Softmax {
    let mut tops = of_blocks(row, |_, block| largest(block, scale));
    for i in 1..tops.len() {
        tops[i] = tops[i].max(tops[i - 1]);
    }
    let parts = of_blocks(row, |i, block| sums(block, scale, tops[i]));
    let mut running = Running::START;
    tops.into_iter().zip(parts).for_each(|(top, part)| running.add(top, part));
    running.finish()
}

/// `f(number, block)` of every block of a row, in order.
pub fn of_blocks<T: Send>(row: &[f32], f: impl Fn(usize, &[f32]) -> T + Sync) -> Vec<T> {
    if row.len() < SHARED * COLUMNS {
        return row.chunks(COLUMNS).enumerate().map(|(i, block)| f(i, block)).collect();
    }
    map_each(row.len().div_ceil(COLUMNS), |i| f(i, &row[i * COLUMNS..row.len().min((i + 1) * COLUMNS)]))
}

simd! {
    fn largest(block: &[f32], scale: f32) -> f32 {
        max(block) * scale
    }
}

simd! {
    fn sums(block: &[f32], scale: f32, top: f32) -> [f32; 2] {
        sums_by(block.len(), |i| {
            let z = block[i] * scale;
            let e = exp(z - top);
            [e, e * z]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::simd::forced::at_every_level;
    use crate::tensor::rng::Key;

    fn logits(n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| (4.0 * Key::new(3).normal(i)) as f32).collect()
    }

    #[test]
    fn a_row_comes_to_the_same_bits_at_once_and_block_by_block() {
        for n in [1, 17, 4096, 10_000, 49_152] {
            let row = logits(n);
            let both = || {
                let mut running = Running::START;
                row.chunks(COLUMNS).for_each(|block| running.absorb(block, 0.7));
                [softmax(&row, 0.7), running.finish()]
            };
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
            let mut found: Vec<Softmax> = at_every_level(|_| both()).concat();
            found.extend(alone.install(both));
            assert!(found.iter().all(|softmax| *softmax == found[0]), "{n}: {found:?}");
        }
    }

    #[test]
    fn it_is_the_softmax() {
        let row = logits(10_000);
        let z: Vec<f64> = row.iter().map(|x| f64::from(*x) * 0.5).collect();
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        let mean = z.iter().map(|z| z.exp() / sum * z).sum::<f64>();
        let Softmax { lse, mean: found } = softmax(&row, 0.5);
        assert!((f64::from(lse) - sum.ln()).abs() < 2e-6, "{lse} for {}", sum.ln());
        assert!((f64::from(found) - mean).abs() < 2e-6, "{found} for {mean}");
    }
}
