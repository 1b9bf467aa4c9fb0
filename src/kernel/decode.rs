//! Attention of one new token over the keys and values kept from the tokens before it.
//!
//! Owns the kept keys and values of a run of tokens; which runs a row sees is the caller's (`engine::solo::cache`).

use super::attention::{Heads, softmax};
use super::gemm::{Mat, Packed, Start, matmul_packed_serial};
use super::segments::before_window;
use super::simd::simd;

/// Keys and values of a run of tokens for one layer, kept for decoding: keys packed per head, values row-major.
pub struct KeyValues {
    keys: Vec<Packed>,
    values: Vec<f32>,
}

impl KeyValues {
    pub fn new(heads: Heads) -> Self {
        Self { keys: (0..heads.key).map(|_| Packed::growing(heads.dim)).collect(), values: Vec::new() }
    }

    /// Adds rows of keys and values, `[len, key*dim]` each.
    pub fn extend(&mut self, k: &[f32], v: &[f32]) {
        self.values.extend_from_slice(v);
        let dim = self.keys[0].rows();
        for row in k.chunks_exact(self.keys.len() * dim) {
            self.keys.iter_mut().zip(row.chunks_exact(dim)).for_each(|(keys, key)| keys.push_column(key));
        }
    }

    fn len(&self) -> usize {
        self.keys[0].cols()
    }
}

/// One query row `[query*dim]` over runs of keys and values, its own token's last. The sums have the order of
/// `attention`, so that a token's log-prob has the same bits when it is sampled and when it is scored.
pub fn attend_row(q: &[f32], runs: &[&KeyValues], heads: Heads, out: &mut [f32], scores: &mut Vec<f32>) {
    let (group, dim, width) = (heads.group(), heads.dim, heads.key * heads.dim);
    let total: usize = runs.iter().map(|run| run.len()).sum();
    let before = before_window(total, heads.window);
    scores.resize(group * total, 0.0);
    for head in 0..heads.key {
        let at = head * group * dim..(head + 1) * group * dim;
        for (column, skipped, run) in reached(runs, before) {
            let queries = Mat::new(&q[at.clone()], group, dim);
            matmul_packed_serial(queries, &run.keys[head], skipped, &mut scores[column..], total, Start::Zero);
        }
        let out = &mut out[at];
        out.fill(0.0);
        for (row, out) in scores.chunks_exact_mut(total).zip(out.chunks_exact_mut(dim)) {
            let scale = heads.capped(&mut row[before..]);
            softmax(&mut row[before..], 0..total - before, scale);
            for (column, skipped, run) in reached(runs, before) {
                let p = &row[column + skipped..column + run.len()];
                weigh(p, &run.values[skipped * width + head * dim..], width, out);
            }
        }
    }
}

/// The runs that go on past the first `before` tokens, each with its first column and how many of its own tokens are
/// among those.
fn reached<'a>(runs: &'a [&KeyValues], before: usize) -> impl Iterator<Item = (usize, usize, &'a KeyValues)> {
    let placed = runs.iter().scan(0, move |column, run| {
        let at = *column;
        *column += run.len();
        Some((at, before.saturating_sub(at), *run))
    });
    placed.filter(|(_, skipped, run)| *skipped < run.len())
}

simd! {
    /// out += Σ pᵢ·vᵢ, in order; vᵢ `width` numbers apart.
    fn weigh(p: &[f32], v: &[f32], width: usize, out: &mut [f32]) {
        for (v, p) in v.chunks(width).zip(p) {
            out.iter_mut().zip(v).for_each(|(o, v)| *o = p.mul_add(*v, *o));
        }
    }
}
