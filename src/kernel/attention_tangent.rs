//! The forward derivative of attention: how its value moves where queries, keys and values do. Probabilities are made
//! again from the saved log-sum-exp, as in the backward pass, and the work is cut as there.

use super::attention::{Attention, Heads, Piece, Saved, blocks, head_rows, join, only, pieces, probabilities, score};
use super::awake::map_each;
use super::gemm::{Mat, Packed, Start, matmul_serial};
use super::host;
use super::op::{Tangent, tensors};
use super::segments::Segments;
use super::simd::{simd, sum_by};
use super::softcap::uncap;
use super::tape::{Tape, Var};
use crate::error::Result;
use candle_core::Tensor;

impl Tangent<3> for Attention {
    fn tangent(&self, _: &Tape, inputs: [&Var; 3], tangents: [Option<&Tensor>; 3], saved: &Saved) -> Result<Tensor> {
        let [q, k, v] = tensors(inputs)?;
        let moved = |t: Option<&Tensor>, like: &Tensor| t.map_or_else(|| like.zeros_like(), |t| Ok(t.clone()));
        let [dq, dk, dv] = tangents;
        tangent([q, k, v], [moved(dq, q)?, moved(dk, k)?, moved(dv, v)?], saved, &self.segments, self.heads)
    }
}

fn tangent(
    [q, k, v]: [&Tensor; 3],
    [dq, dk, dv]: [Tensor; 3],
    saved: &Saved,
    segments: &Segments,
    heads: Heads,
) -> Result<Tensor> {
    let read = Moved {
        q: [&host::read(q)?, &host::read(&dq)?],
        k: [&host::read(k)?, &host::read(&dk)?],
        v: [&host::read(v)?, &host::read(&dv)?],
        lse: &saved.lse,
    };
    let pieces = pieces(segments, heads);
    let done: Vec<Vec<f32>> = map_each(pieces.len(), |i| piece_tangent(&read, &pieces[i], heads));
    let out = join(segments, heads, heads.group() * heads.dim, |piece| &done[piece]);
    host::tensor(out, &[segments.tokens(), heads.query * heads.dim])
}

/// Each with its tangent.
struct Moved<'a> {
    q: [&'a [f32]; 2],
    k: [&'a [f32]; 2],
    v: [&'a [f32]; 2],
    lse: &'a [f32],
}

/// dP·V + P·dV, dP = P·(dS − Σ P·dS), dS = scale·(dq·kᵀ + q·dkᵀ).
fn piece_tangent(read: &Moved, piece: &Piece, heads: Heads) -> Vec<f32> {
    let (group, dim, first) = (heads.group(), heads.dim, piece.tokens.start);
    let mut out = vec![0.0; piece.tokens.len() * group * dim];
    let (mut p, mut ds, mut more, mut scratch) = (Vec::new(), Vec::new(), Vec::new(), Packed::scratch());
    for segment in piece.segments {
        for block in blocks(segment, heads.window) {
            let (keys, rows) = (block.keys(), &block.rows);
            for g in 0..group {
                let head = piece.head * group + g;
                score(read.q[0], read.k[0], &block, head, piece.head, heads, &mut p, &mut scratch);
                score(read.q[1], read.k[0], &block, head, piece.head, heads, &mut ds, &mut scratch);
                score(read.q[0], read.k[1], &block, head, piece.head, heads, &mut more, &mut scratch);
                let scores = p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys)).zip(more.chunks_exact(keys));
                for (i, ((p, ds), more)) in scores.enumerate() {
                    let (seen, lse) = (block.visible(i), read.lse[(rows.start + i) * heads.query + head]);
                    let scale = heads.capped(&mut p[seen.clone()]);
                    let ds = only(ds, seen.clone());
                    ds.iter_mut().zip(&more[seen.clone()]).for_each(|(ds, more)| *ds = (*ds + more) * heads.scale);
                    if let Some(by) = heads.softcap {
                        uncap(ds, &p[seen.clone()], by);
                    }
                    probabilities(p, seen.clone(), scale, lse);
                    probability_tangent(&p[seen], ds);
                }
                for (column, range) in block.ranges() {
                    let p = Mat::strided(&p[column..], rows.len(), range.len(), keys);
                    let dp = Mat::strided(&ds[column..], rows.len(), range.len(), keys);
                    let out = &mut out[(rows.start - first) * group * dim + g * dim..];
                    let [values, moved] = read.v.map(|v| head_rows(v, range.clone(), piece.head, heads.key, dim));
                    matmul_serial(dp, values, out, group * dim, Start::Accumulate, &mut scratch);
                    matmul_serial(p, moved, out, group * dim, Start::Accumulate, &mut scratch);
                }
            }
        }
    }
    out
}

simd! {
    /// dP = P·(dS − Σ P·dS), written over dS.
    fn probability_tangent(p: &[f32], ds: &mut [f32]) {
        let p = &p[..ds.len()];
        let pull = sum_by(ds.len(), |i| p[i] * ds[i]);
        for (ds, p) in ds.iter_mut().zip(p) {
            *ds = p * (*ds - pull);
        }
    }
}
