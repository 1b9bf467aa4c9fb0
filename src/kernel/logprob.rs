//! Linear → log-probability: log softmax(logits/temperature) at given tokens, and the entropy, without ever holding
//! more than a chunk of the `[N, V]` logits, forward or backward. The logits are h·Wᵀ, soft-capped where the head asks.

use super::awake::{each_block, each_pair};
use super::cut::MC;
use super::gemm::{Columns, Mat, Packed, Start, matmul, matmul_columns, matmul_packed, product_into};
use super::host;
use super::op::Operation;
use super::packs::Side;
use super::simd::{exp, simd};
use super::softcap::{self, cap, uncap};
use super::softmax::{COLUMNS, Running, Scored, Softmax};
use super::tape::{Grads, Tape, Var};
use super::tile::MR;
use crate::error::Result;
use candle_core::{D, Tensor};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// A language-model head.
#[derive(Debug, Clone)]
pub struct LmHead {
    /// `[V,H]`
    pub weight: Var,
    /// The logits never pass ±this.
    pub softcap: Option<f32>,
}

/// Which logits are asked for: pairs of a row of h and a token, sorted by row. Rows that start several answers
/// appear in several pairs.
#[derive(Debug, Clone)]
pub struct Targets {
    pub rows: Arc<[u32]>,
    pub tokens: Arc<[u32]>,
    pub temperature: f64,
}

impl Targets {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Most numbers of a chunk (4 MiB of f32); it has as many columns as a block of a softmax at most.
const NUMBERS: usize = 1 << 20;
/// Rows of a chunk that one task handles between two products.
pub(super) const ROWS: usize = 8;

/// h `[U,H]` → `[P,2]`: for each pair the log-probability of its token and the entropy at its row (nats). What `found`
/// holds is not computed again, and what is computed stays in it. (On the host; a device's kernels find their own.)
pub fn linear_logprob(tape: &mut Tape, h: &Var, head: &LmHead, targets: &Targets, found: &Found) -> Result<Var> {
    let op = LinearLogprob { targets: targets.clone(), softcap: head.softcap, found: Some(found.clone()) };
    tape.finish(op, [h, &head.weight])
}

/// What the softmaxes of a pass come to, once somebody has found it: the sampler, or the first pass over the same rows.
pub type Found = Arc<OnceLock<Stats>>;

#[derive(Clone)]
pub(super) struct LinearLogprob {
    pub(super) targets: Targets,
    pub(super) softcap: Option<f32>,
    /// `None`: found anew in every pass.
    pub(super) found: Option<Found>,
}

impl Operation<2> for LinearLogprob {
    /// h and W, and what the softmax of each row came to.
    type Saved = ([Var; 2], Found);

    fn host(&self, tape: &Tape, inputs: [&Var; 2]) -> Result<(Tensor, Self::Saved)> {
        let found = self.found.clone().unwrap_or_default();
        let stats = match found.get() {
            Some(stats) => stats,
            None => {
                let stats = self.forward(tape, inputs)?;
                found.get_or_init(|| stats)
            }
        };
        let pair = |i: usize| {
            let token = Scored { softmax: stats.rows[self.targets.rows[i] as usize], z: stats.target[i] };
            [token.logprob(), token.entropy()]
        };
        let y: Vec<f32> = (0..self.targets.len()).flat_map(pair).collect();
        Ok((host::tensor(y, &[self.targets.len(), 2])?, (inputs.map(Var::clone), found)))
    }

    fn backward(&self, ([hv, wv], found): &Self::Saved, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let stats = found.get().expect("the forward pass found it");
        let upstream = Upstream::new(&self.targets, &host::read(dy)?, stats.rows.len());
        let (hidden, weight) = (host::read(hv.tensor()?)?, host::read(wv.tensor()?)?);
        let logits = Logits::new(grads.tape(), &hidden, (wv, &weight), self.softcap)?;
        let mut pull = Pull::new(hv, wv)?;
        let (mut packed, mut dz) = (Packed::scratch(), Vec::new());
        for columns in logits.columns() {
            let block = logits.block(columns, &mut packed);
            pull.turn(&block);
            for chunk in block.chunks() {
                grads.tape().stop().check()?;
                chunk.logits_grad(stats, &upstream, &self.targets, &mut dz);
                pull.add(&chunk, &dz, grads)?;
            }
        }
        pull.finish(grads)
    }

    /// All logits at once.
    fn plain(&self, [h, w]: &[Tensor; 2]) -> Result<Tensor> {
        let logits = (plain_logits(h, w, self.softcap)? / self.targets.temperature)?;
        let logp = candle_nn::ops::log_softmax(&logits, D::Minus1)?; // [U,V]
        let entropy = (logp.exp()? * &logp)?.sum_keepdim(D::Minus1)?.neg()?;
        let rows = Tensor::new(&self.targets.rows[..], h.device())?;
        let tokens = Tensor::new(&self.targets.tokens[..], h.device())?.unsqueeze(1)?;
        let at = logp.index_select(&rows, 0)?.gather(&tokens, 1)?;
        Ok(Tensor::cat(&[at, entropy.index_select(&rows, 0)?], 1)?)
    }
}

impl LinearLogprob {
    fn forward(&self, tape: &Tape, [h, w]: [&Var; 2]) -> Result<Stats> {
        let Self { targets, softcap, .. } = self;
        let rows = h.value.dim(0)?;
        let (h, numbers) = (host::read(h.tensor()?)?, host::read(w.tensor()?)?);
        let logits = Logits::new(tape, &h, (w, &numbers), *softcap)?;
        let scale = (1.0 / targets.temperature) as f32;
        let mut running = vec![Running::START; rows];
        let mut target = vec![0.0; targets.len()];
        let (mut packed, mut z) = (Packed::scratch(), Vec::new());
        for columns in logits.columns() {
            let block = logits.block(columns, &mut packed);
            let n = block.columns.len();
            for chunk in block.chunks() {
                tape.stop().check()?;
                chunk.logits(&mut z);
                each_pair((&mut running[chunk.rows.clone()], ROWS), (&mut z, ROWS * n), |_, running, z| {
                    running.iter_mut().zip(z.chunks_exact(n)).for_each(|(running, row)| running.absorb(row, scale));
                });
                for (at, pair) in chunk.pairs(targets) {
                    target[pair] = z[at] * scale;
                }
            }
        }
        Ok(Stats { rows: running.into_iter().map(Running::finish).collect(), target })
    }
}

/// Bytes that a chunk of the logits and the part of W for it, packed for ∂h, take; of capped logits there are two. What the
/// logits themselves read of W is the kept copy's, or as large once more where none is kept.
pub fn chunk_bytes(vocabulary: usize, width: usize, capped: bool) -> u64 {
    4 * (NUMBERS * if capped { 2 } else { 1 } + COLUMNS.min(vocabulary) * width) as u64
}

/// The plain composition of a head's logits.
pub(super) fn plain_logits(h: &Tensor, w: &Tensor, by: Option<f32>) -> Result<Tensor> {
    let logits = h.matmul(&w.t()?)?;
    by.map_or(Ok(logits.clone()), |by| softcap::plain(&logits, by))
}

/// What the softmax of each row of h comes to.
#[derive(Debug)]
pub struct Stats {
    /// `[U]`
    pub rows: Vec<Softmax>,
    /// z = logit / temperature at each pair's token, `[P]`.
    pub target: Vec<f32>,
}

/// The gradients of log-probability (summed over a row's pairs) and entropy, per row of h.
struct Upstream {
    rows: Vec<[f32; 2]>,
    /// Per pair: the log-probability's own.
    pairs: Vec<f32>,
}

impl Upstream {
    fn new(targets: &Targets, dy: &[f32], rows: usize) -> Self {
        let mut out = Self { rows: vec![[0.0; 2]; rows], pairs: Vec::with_capacity(targets.len()) };
        for (pair, dy) in targets.rows.iter().zip(dy.chunks_exact(2)) {
            let row = &mut out.rows[*pair as usize];
            row[0] += dy[0];
            row[1] += dy[1];
            out.pairs.push(dy[0]);
        }
        out
    }
}

/// The logits h·Wᵀ `[U,V]`, of which a chunk exists at a time: blocks of columns outside, rows inside. The cut depends on
/// U and V alone, and changes no bit.
pub(super) struct Logits<'a> {
    h: &'a [f32],
    w: &'a [f32],
    width: usize,
    softcap: Option<f32>,
    /// The whole of W, where a copy is kept.
    packed: Option<Arc<Packed>>,
}

impl<'a> Logits<'a> {
    pub(super) fn new(
        tape: &Tape,
        h: &'a [f32],
        (w, numbers): (&Var, &'a [f32]),
        softcap: Option<f32>,
    ) -> Result<Self> {
        let (vocabulary, width) = w.value.dims2()?;
        let fill = |packed: &mut Packed| {
            packed.fill(Mat::new(numbers, vocabulary, width).t());
            Ok(())
        };
        Ok(Self { h, w: numbers, width, softcap, packed: tape.packed(w, Side::Forward, fill)? })
    }

    /// As `new`, by a matrix `[V,H]` of which no copy is kept, and without a cap.
    pub(super) fn of(h: &'a [f32], w: &'a [f32], width: usize) -> Self {
        Self { h, w, width, softcap: None, packed: None }
    }

    /// H
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Whether the logits of so many rows are a single chunk.
    pub(super) fn is_one_chunk(&self, rows: usize) -> bool {
        let vocabulary = self.w.len() / self.width;
        vocabulary <= COLUMNS && rows <= (NUMBERS / vocabulary / MC).max(1) * MC
    }

    /// The columns of each block, those of a block of a softmax.
    pub(super) fn columns(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let vocabulary = self.w.len() / self.width;
        (0..vocabulary).step_by(COLUMNS).map(move |from| from..(from + COLUMNS).min(vocabulary))
    }

    /// Some columns; where no copy of W is kept, its part for them is packed once, for all rows.
    pub(super) fn block<'b>(&'b self, columns: Range<usize>, scratch: &'b mut Packed) -> Block<'b> {
        let w = &self.w[columns.start * self.width..columns.end * self.width];
        let packed = match &self.packed {
            Some(all) => all.columns(columns.clone()),
            None => {
                scratch.fill(Mat::new(w, columns.len(), self.width).t());
                scratch.all()
            }
        };
        Block { h: self.h, w, width: self.width, softcap: self.softcap, columns, packed }
    }
}

/// All rows of h against some rows of W.
pub(super) struct Block<'a> {
    pub(super) columns: Range<usize>,
    h: &'a [f32],
    w: &'a [f32],
    width: usize,
    softcap: Option<f32>,
    packed: Columns<'a>,
}

impl Block<'_> {
    /// Chunks of nearly one size, in whole tiles, and where a block is as wide as can be in what one task walks over.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk<'_>> {
        let rows = self.h.len() / self.width;
        let most = (NUMBERS / self.columns.len() / MC).max(1) * MC;
        let step = rows.div_ceil(rows.div_ceil(most).max(1)).max(1).next_multiple_of(MR);
        (0..rows).step_by(step).map(move |from| Chunk { block: self, rows: from..(from + step).min(rows) })
    }
}

/// Some rows of a block.
pub(super) struct Chunk<'a> {
    pub(super) rows: Range<usize>,
    block: &'a Block<'a>,
}

/// What gradients of the logits, chunk by chunk, come to: ∂h `[U,H]`, and ∂W where it is gathered.
pub(super) struct Pull<'a> {
    hidden: &'a Var,
    weight: &'a Var,
    width: usize,
    dh: Vec<f32>,
    /// A block's part of W, packed for ∂h.
    turned: Packed,
}

impl<'a> Pull<'a> {
    pub(super) fn new(hidden: &'a Var, weight: &'a Var) -> Result<Self> {
        let (rows, width) = hidden.value.dims2()?;
        Ok(Self { hidden, weight, width, dh: vec![0.0; rows * width], turned: Packed::scratch() })
    }

    /// Before the chunks of a block.
    pub(super) fn turn(&mut self, block: &Block) {
        if self.hidden.needs_grad() {
            self.turned.fill(Mat::new(block.w, block.columns.len(), block.width));
        }
    }

    /// `dz` is the gradient of a chunk of that block, row-major.
    pub(super) fn add(&mut self, chunk: &Chunk, dz: &[f32], grads: &mut Grads) -> Result<()> {
        let (rows, columns, width) = (&chunk.rows, &chunk.block.columns, self.width);
        let dz = Mat::new(dz, rows.len(), columns.len());
        if self.hidden.needs_grad() {
            let part = &mut self.dh[rows.start * width..rows.end * width];
            matmul_packed(dz, &self.turned, part, width, Start::Accumulate);
        }
        grads.accumulate(self.weight, |dw| {
            let part = &mut dw[columns.start * width..columns.end * width];
            matmul(dz.t(), chunk.hidden(), part, width, Start::Accumulate);
        })
    }

    pub(super) fn finish(self, grads: &mut Grads) -> Result<()> {
        let rows = self.dh.len() / self.width;
        grads.add_owned(self.hidden, host::tensor(self.dh, &[rows, self.width])?)
    }
}

impl<'a> Chunk<'a> {
    pub(super) fn hidden(&self) -> Mat<'a> {
        let Block { h, width, .. } = self.block;
        Mat::new(&h[self.rows.start * width..self.rows.end * width], self.rows.len(), *width)
    }

    /// Row-major, in place of what `logits` held.
    pub(super) fn logits(&self, logits: &mut Vec<f32>) {
        product_into(self.hidden(), self.block.packed, Start::Zero, logits);
        if let Some(by) = self.block.softcap {
            host::for_rows(logits, 1, |_, block| cap(block, by));
        }
    }

    /// Adds these logits, which are not capped, to others.
    pub(super) fn add_logits(&self, to: &mut [f32]) {
        let columns = self.block.columns.len();
        matmul_columns(self.hidden(), self.block.packed, to, columns);
    }

    pub(super) fn softcap(&self) -> Option<f32> {
        self.block.softcap
    }

    /// The logits that `uncapped` will need once the chunk's own are overwritten; nothing where they are not capped.
    pub(super) fn capped(&self, logits: &[f32]) -> Vec<f32> {
        if self.block.softcap.is_some() { logits.to_vec() } else { Vec::new() }
    }

    /// ∂loss/∂logits turned, in place, into the gradient of the products before the cap.
    pub(super) fn uncap(&self, dz: &mut [f32], capped: &[f32]) {
        if let Some(by) = self.block.softcap {
            host::for_rows(dz, 1, |at, block| uncap(block, &capped[at..at + block.len()], by));
        }
    }

    /// The pairs whose row and token lie in this chunk, as (index in `out` of the logit, index of the pair).
    fn pairs(&self, targets: &Targets) -> impl Iterator<Item = (usize, usize)> {
        let from = targets.rows.partition_point(|&r| (r as usize) < self.rows.start);
        let to = targets.rows.partition_point(|&r| (r as usize) < self.rows.end);
        let (rows, tokens) = (targets.rows.clone(), targets.tokens.clone());
        let (first, columns) = (self.rows.start, self.block.columns.clone());
        (from..to).filter(move |&i| columns.contains(&(tokens[i] as usize))).map({
            let (tokens, columns) = (targets.tokens.clone(), self.block.columns.clone());
            move |i| ((rows[i] as usize - first) * columns.len() + tokens[i] as usize - columns.start, i)
        })
    }

    /// ∂loss/∂(h·Wᵀ) of this chunk, in place of what `z` held.
    fn logits_grad(&self, stats: &Stats, upstream: &Upstream, targets: &Targets, z: &mut Vec<f32>) {
        self.logits(z);
        let capped = self.capped(z);
        let scale = (1.0 / targets.temperature) as f32;
        let columns = self.block.columns.len();
        each_block(z, ROWS * columns, |i, rows| {
            for (row, r) in rows.chunks_exact_mut(columns).zip(self.rows.start + i * ROWS..) {
                let [logprob, entropy] = upstream.rows[r];
                if logprob == 0.0 && entropy == 0.0 {
                    row.fill(0.0); // zero upstream stays zero, whatever the logits are
                } else {
                    softmax_grad(row, scale, stats.rows[r], [logprob, entropy]);
                }
            }
        });
        for (at, pair) in self.pairs(targets) {
            z[at] += upstream.pairs[pair] * scale;
        }
        self.uncap(z, &capped);
    }
}

simd! {
    /// −p·(g + e·(z − z̄))·scale over a row of logits, in place.
    fn softmax_grad(row: &mut [f32], scale: f32, softmax: Softmax, upstream: [f32; 2]) {
        let (Softmax { lse, mean }, [g, e]) = (softmax, upstream);
        for x in row.iter_mut() {
            let z = *x * scale;
            *x = -exp(z - lse) * (g + e * (z - mean)) * scale;
        }
    }
}
