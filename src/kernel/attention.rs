//! Causal grouped-query attention over packed segments, with a sliding window and a soft cap of the scores where asked:
//! softmax(scale·q·kᵀ)·v, its backward pass recomputing the probabilities from the saved log-sum-exp (Dao et al. 2022,
//! arXiv:2205.14135).
//!
//! Work is cut by tree and key head; each piece sums in an order of its own, so threads never change the bits.

use super::awake::map_each;
use super::gemm::{Mat, Packed, Start, matmul_serial};
use super::host;
use super::op::{Operation, tensors};
use super::segments::{Segment, Segments, before_window};
use super::simd::{exp, max, simd, sum_by};
use super::softcap::{self, cap, uncap};
use super::tape::{Grads, Tape, Var};
use crate::error::Result;
use candle_core::{D, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Query rows handled at a time.
const BLOCK: usize = 60;

/// Numbers of heads: query heads share key heads in equal groups. How far back they look and what becomes of their
/// scores belongs to them too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    pub query: usize,
    pub key: usize,
    pub dim: usize,
    /// A query sees this many tokens of its row at most, its own included (at least 1); all of them where `None`.
    pub window: Option<usize>,
    /// What q·k is multiplied by.
    pub scale: f32,
    /// The scaled scores never pass ±this.
    pub softcap: Option<f32>,
}

impl Heads {
    /// Heads that see all tokens before them, their scores divided by √dim.
    pub fn new(query: usize, key: usize, dim: usize) -> Self {
        Self { query, key, dim, window: None, scale: 1.0 / (dim as f32).sqrt(), softcap: None }
    }

    pub(super) fn group(&self) -> usize {
        self.query / self.key
    }

    /// Caps raw scores q·k where these heads do so. Returns what the numbers still have to be multiplied by.
    pub(super) fn capped(&self, scores: &mut [f32]) -> f32 {
        let Some(by) = self.softcap else { return self.scale };
        scores.iter_mut().for_each(|x| *x *= self.scale);
        cap(scores, by);
        1.0
    }
}

/// q `[N, query*dim]`, k and v `[N, key*dim]` → `[N, query*dim]`.
pub fn attention(tape: &mut Tape, q: &Var, k: &Var, v: &Var, segments: &Arc<Segments>, heads: Heads) -> Result<Var> {
    tape.apply(Attention { segments: segments.clone(), heads }, [q, k, v])
}

#[derive(Clone)]
pub(super) struct Attention {
    pub(super) segments: Arc<Segments>,
    pub(super) heads: Heads,
}

impl Operation<3> for Attention {
    type Saved = Saved;

    fn host(&self, _: &Tape, inputs: [&Var; 3]) -> Result<(Tensor, Saved)> {
        let (out, lse) = forward(tensors(inputs)?, &self.segments, self.heads)?;
        Ok((out.clone(), Saved { inputs: inputs.map(Var::clone), out, lse }))
    }

    fn backward(&self, saved: &Saved, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let [dq, dk, dv] = backward(saved, dy, &self.segments, self.heads)?;
        let [q, k, v] = &saved.inputs;
        grads.add_owned(q, dq)?;
        grads.add_owned(k, dk)?;
        grads.add_owned(v, dv)
    }

    /// With one mask over all tokens.
    fn plain(&self, [q, k, v]: &[Tensor; 3]) -> Result<Tensor> {
        attention_over(q, k, v, self.segments.visible(self.heads.window), self.heads)
    }
}

/// What the backward pass needs beside the gradient.
pub(super) struct Saved {
    /// q, k and v
    inputs: [Var; 3],
    out: Tensor,
    /// The log-sum-exp of each row of scores, `[N, query]`.
    pub(super) lse: Vec<f32>,
}

/// Queries `[Q, query*dim]` over keys and values `[K, key*dim]`; `visible` `[Q,K]` holds 1 where a query sees a key.
pub fn attention_over(q: &Tensor, k: &Tensor, v: &Tensor, visible: Vec<u8>, heads: Heads) -> Result<Tensor> {
    let (queries, keys, device) = (q.dim(0)?, k.dim(0)?, q.device());
    let split = |x: &Tensor, n: usize, count: usize| -> Result<Tensor> {
        Ok(x.reshape((n, count, heads.dim))?.transpose(0, 1)?.contiguous()?)
    };
    let spread = |x: &Tensor| -> Result<Tensor> {
        let shape = (heads.key, heads.group(), keys, heads.dim);
        let x = split(x, keys, heads.key)?.unsqueeze(1)?;
        Ok(x.expand(shape)?.contiguous()?.reshape((heads.query, keys, heads.dim))?)
    };
    let scores = split(q, queries, heads.query)?.matmul(&spread(k)?.transpose(1, 2)?.contiguous()?)?; // [heads,Q,K]
    let mut scores = (scores * f64::from(heads.scale))?;
    if let Some(by) = heads.softcap {
        scores = softcap::plain(&scores, by)?;
    }
    let visible = Tensor::from_vec(visible, (1, queries, keys), device)?.broadcast_as(scores.shape())?;
    let hidden = Tensor::new(f32::NEG_INFINITY, device)?.to_dtype(scores.dtype())?.broadcast_as(scores.shape())?;
    let p = candle_nn::ops::softmax(&visible.where_cond(&scores, &hidden)?, D::Minus1)?;
    Ok(p.matmul(&spread(v)?)?.transpose(0, 1)?.contiguous()?.reshape((queries, heads.query * heads.dim))?)
}

/// One piece of work: a tree and a key head.
pub(super) struct Piece<'a> {
    pub(super) tokens: Range<usize>,
    pub(super) segments: &'a [Segment],
    pub(super) head: usize,
}

pub(super) fn pieces(segments: &Segments, heads: Heads) -> Vec<Piece<'_>> {
    segments
        .trees()
        .flat_map(|(tokens, segments)| (0..heads.key).map(move |head| Piece { tokens: tokens.clone(), segments, head }))
        .collect()
}

/// Columns of one head, rows `range`, of a `[N, count*dim]` matrix.
pub(super) fn head_rows(x: &[f32], range: Range<usize>, head: usize, count: usize, dim: usize) -> Mat<'_> {
    let width = count * dim;
    Mat::strided(&x[range.start * width + head * dim..], range.len(), dim, width)
}

/// Joins what the pieces of every tree computed, `[tokens, columns]` per key head, into `[N, key*columns]`.
pub(super) fn join<'a>(
    segments: &Segments,
    heads: Heads,
    columns: usize,
    part: impl Fn(usize) -> &'a [f32] + Sync,
) -> Vec<f32> {
    let width = heads.key * columns;
    let sizes: Vec<usize> = segments.trees().map(|(tokens, _)| tokens.len() * width).collect();
    host::make_parts(&sizes, |tree, out| {
        for head in 0..heads.key {
            let rows = part(tree * heads.key + head).chunks_exact(columns);
            for (out, row) in out.chunks_exact_mut(width).zip(rows) {
                out[head * columns..(head + 1) * columns].copy_from_slice(row);
            }
        }
    })
}

/// Some query rows of a segment and the keys that at least one of them sees, side by side as columns.
pub(super) struct Block<'a> {
    segment: &'a Segment,
    pub(super) rows: Range<usize>,
    window: Option<usize>,
    /// Tokens that the first row has in all, its own included.
    first: usize,
    /// Tokens before every row's window.
    before: usize,
}

/// Blocks of a segment's query rows.
pub(super) fn blocks(segment: &Segment, window: Option<usize>) -> impl Iterator<Item = Block<'_>> {
    segment.range().step_by(BLOCK).map(move |from| {
        let first = segment.context_len() + from + 1 - segment.start;
        let rows = from..(from + BLOCK).min(segment.start + segment.len);
        Block { segment, rows, window, first, before: before_window(first, window) }
    })
}

impl Block<'_> {
    /// Columns.
    pub(super) fn keys(&self) -> usize {
        self.first + self.rows.len() - 1 - self.before
    }

    /// The columns that row i of the block sees.
    pub(super) fn visible(&self, i: usize) -> Range<usize> {
        let seen = self.first + i;
        before_window(seen, self.window) - self.before..seen - self.before
    }

    /// The tokens of the columns, each range with its first column.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.segment.seen(self.rows.end - 1, self.before).scan(0, |column, range| {
            let at = *column;
            *column += range.len();
            Some((at, range))
        })
    }
}

fn forward([q, k, v]: [&Tensor; 3], segments: &Segments, heads: Heads) -> Result<(Tensor, Vec<f32>)> {
    let n = segments.tokens();
    let (q, k, v) = (host::read(q)?, host::read(k)?, host::read(v)?);
    let pieces = pieces(segments, heads);
    let group = heads.group();
    let done: Vec<(Vec<f32>, Vec<f32>)> = map_each(pieces.len(), |i| piece_forward(&q, &k, &v, &pieces[i], heads));
    let out = join(segments, heads, group * heads.dim, |piece| &done[piece].0);
    let lse = join(segments, heads, group, |piece| &done[piece].1); // [N, heads]
    Ok((host::tensor(out, &[n, heads.query * heads.dim])?, lse))
}

fn piece_forward(q: &[f32], k: &[f32], v: &[f32], piece: &Piece, heads: Heads) -> (Vec<f32>, Vec<f32>) {
    let (group, dim, first) = (heads.group(), heads.dim, piece.tokens.start);
    let mut out = vec![0.0; piece.tokens.len() * group * dim];
    let mut lse = vec![0.0; piece.tokens.len() * group];
    let (mut scores, mut scratch) = (Vec::new(), Packed::scratch());
    for segment in piece.segments {
        for block in blocks(segment, heads.window) {
            let (keys, rows) = (block.keys(), &block.rows);
            for g in 0..group {
                score(q, k, &block, piece.head * group + g, piece.head, heads, &mut scores, &mut scratch);
                for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                    let scale = heads.capped(&mut row[block.visible(i)]);
                    lse[(rows.start + i - first) * group + g] = softmax(row, block.visible(i), scale);
                }
                for (column, range) in block.ranges() {
                    let p = Mat::strided(&scores[column..], rows.len(), range.len(), keys);
                    let values = head_rows(v, range, piece.head, heads.key, dim);
                    let out = &mut out[(rows.start - first) * group * dim + g * dim..];
                    matmul_serial(p, values, out, group * dim, Start::Accumulate, &mut scratch);
                }
            }
        }
    }
    (out, lse)
}

/// q·kᵀ of one block of rows over all it may see: `[rows, keys]`, unscaled.
#[allow(clippy::too_many_arguments)] // one call's worth of indices, all of them needed
pub(super) fn score(
    q: &[f32],
    k: &[f32],
    block: &Block,
    head: usize,
    key_head: usize,
    heads: Heads,
    out: &mut Vec<f32>,
    scratch: &mut Packed,
) {
    let keys = block.keys();
    out.resize(block.rows.len() * keys, 0.0);
    let queries = head_rows(q, block.rows.clone(), head, heads.query, heads.dim);
    for (column, range) in block.ranges() {
        let keys_t = head_rows(k, range, key_head, heads.key, heads.dim).t();
        matmul_serial(queries, keys_t, &mut out[column..], keys, Start::Zero, scratch);
    }
}

/// The numbers `visible` of a row; the others become 0.
#[inline(always)]
pub(super) fn only(row: &mut [f32], visible: Range<usize>) -> &mut [f32] {
    row[..visible.start].fill(0.0);
    row[visible.end..].fill(0.0);
    &mut row[visible]
}

simd! {
    /// Softmax of scale·row over the numbers `visible`, 0 elsewhere; returns the log-sum-exp.
    pub(super) fn softmax(row: &mut [f32], visible: Range<usize>, scale: f32) -> f32 {
        let seen = only(row, visible);
        let top = max(seen) * scale;
        for x in seen.iter_mut() {
            *x = exp(*x * scale - top);
        }
        let total = sum_by(seen.len(), |i| seen[i]);
        let inverse = 1.0 / total;
        seen.iter_mut().for_each(|x| *x *= inverse);
        top + total.ln()
    }
}

simd! {
    /// Probabilities again, from scores and their log-sum-exp.
    pub(super) fn probabilities(row: &mut [f32], visible: Range<usize>, scale: f32, lse: f32) {
        for x in only(row, visible) {
            *x = exp(*x * scale - lse);
        }
    }
}

simd! {
    /// dS = P·(dP − Σ dO·O)·scale, written over dP.
    fn score_grad(p: &[f32], dp: &mut [f32], pull: f32, scale: f32) {
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - pull) * scale;
        }
    }
}

simd! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let b = &b[..a.len()];
        sum_by(a.len(), |i| a[i] * b[i])
    }
}

fn backward(saved: &Saved, dy: &Tensor, segments: &Segments, heads: Heads) -> Result<[Tensor; 3]> {
    let n = segments.tokens();
    let [q, k, v] = &saved.inputs;
    let saved = Read {
        q: &host::read(q.tensor()?)?,
        k: &host::read(k.tensor()?)?,
        v: &host::read(v.tensor()?)?,
        out: &host::read(&saved.out)?,
        dy: &host::read(dy)?,
        lse: &saved.lse,
    };
    let pieces = pieces(segments, heads);
    let done: Vec<[Vec<f32>; 3]> = map_each(pieces.len(), |i| piece_backward(&saved, &pieces[i], heads));
    let group = heads.group() * heads.dim;
    let dq = host::tensor(join(segments, heads, group, |piece| &done[piece][0]), &[n, heads.query * heads.dim])?;
    let dk = host::tensor(join(segments, heads, heads.dim, |piece| &done[piece][1]), &[n, heads.key * heads.dim])?;
    let dv = host::tensor(join(segments, heads, heads.dim, |piece| &done[piece][2]), &[n, heads.key * heads.dim])?;
    Ok([dq, dk, dv])
}

/// The numbers that the backward pass reads.
struct Read<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    dy: &'a [f32],
    lse: &'a [f32],
}

fn piece_backward(saved: &Read, piece: &Piece, heads: Heads) -> [Vec<f32>; 3] {
    let (group, dim, first) = (heads.group(), heads.dim, piece.tokens.start);
    let tokens = piece.tokens.len();
    let (mut dq, mut dk, mut dv) = (vec![0.0; tokens * group * dim], vec![0.0; tokens * dim], vec![0.0; tokens * dim]);
    let (mut p, mut dp, mut capped, mut scratch) = (Vec::new(), Vec::new(), Vec::new(), Packed::scratch());
    for segment in piece.segments {
        for block in blocks(segment, heads.window) {
            let (keys, rows) = (block.keys(), &block.rows);
            for g in 0..group {
                let head = piece.head * group + g;
                score(saved.q, saved.k, &block, head, piece.head, heads, &mut p, &mut scratch);
                // dP = dO·Vᵀ has the shape of the scores, with v for k.
                score(saved.dy, saved.v, &block, head, piece.head, heads, &mut dp, &mut scratch);
                for (i, (p, dp)) in p.chunks_exact_mut(keys).zip(dp.chunks_exact_mut(keys)).enumerate() {
                    let t = rows.start + i;
                    let at = t * heads.query * dim + head * dim;
                    let (seen, lse) = (block.visible(i), saved.lse[t * heads.query + head]);
                    let pull = dot(&saved.dy[at..at + dim], &saved.out[at..at + dim]);
                    let scale = heads.capped(&mut p[seen.clone()]);
                    if heads.softcap.is_some() {
                        capped.clear();
                        capped.extend_from_slice(&p[seen.clone()]);
                    }
                    probabilities(p, seen.clone(), scale, lse);
                    score_grad(p, dp, pull, heads.scale);
                    if let Some(by) = heads.softcap {
                        uncap(&mut dp[seen], &capped, by);
                    }
                }
                let queries = head_rows(saved.q, rows.clone(), head, heads.query, dim);
                let upstream = head_rows(saved.dy, rows.clone(), head, heads.query, dim);
                for (column, range) in block.ranges() {
                    let p = Mat::strided(&p[column..], rows.len(), range.len(), keys);
                    let ds = Mat::strided(&dp[column..], rows.len(), range.len(), keys);
                    let local = (range.start - first) * dim;
                    let at_q = (rows.start - first) * group * dim + g * dim;
                    let keys = head_rows(saved.k, range, piece.head, heads.key, dim);
                    matmul_serial(ds, keys, &mut dq[at_q..], group * dim, Start::Accumulate, &mut scratch);
                    matmul_serial(ds.t(), queries, &mut dk[local..], dim, Start::Accumulate, &mut scratch);
                    matmul_serial(p.t(), upstream, &mut dv[local..], dim, Start::Accumulate, &mut scratch);
                }
            }
        }
    }
    [dq, dk, dv]
}
