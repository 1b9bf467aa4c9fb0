//! Linear → divergence between p = softmax(z/temperature) and p′ = softmax(z′/temperature) over the whole vocabulary, without
//! ever holding more than a chunk of either model's `[U, V]` logits, forward or backward. z = h·Wᵀ and z′ = h′·W′ᵀ, each
//! soft-capped where its head asks.
//!
//! The second distribution is a constant: gradients flow to h and W alone. Where both are the same numbers, value and
//! gradient are exactly 0.

use super::awake::each_pair;
use super::gemm::Packed;
use super::host;
use super::logprob::{LmHead, Logits, Pull, ROWS, Targets, plain_logits};
use super::op::Operation;
use super::simd::{exp, ln, max, simd, sum_by, sums_by};
use super::tape::{Grads, Tape, Var};
use super::value::Value;
use crate::error::Result;
use candle_core::{D, Tensor};

/// The reference's side: h′ `[U,H′]` and W′ `[V,H′]`.
#[derive(Clone)]
pub struct Reference {
    pub hidden: Value,
    pub head: Value,
    pub softcap: Option<f32>,
}

/// Which divergence of the policy's p from the reference's p′.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Divergence {
    /// KL(p ‖ p′)
    Full,
    /// KL(p′ ‖ p)
    Forward,
    /// beta·KL(p′ ‖ m) + (1 − beta)·KL(p ‖ m), m = beta·p′ + (1 − beta)·p (Agarwal et al. 2023, arXiv:2306.13649), for a
    /// beta above 0 and below 1 in f32.
    Jsd(f32),
}

impl Divergence {
    /// `Jsd` of a beta in [0, 1]; at its ends the two others, as GKD has them, where the formula itself is 0.
    pub fn jsd(beta: f64) -> Self {
        match beta as f32 {
            beta if beta <= 0.0 => Self::Forward,
            beta if beta >= 1.0 => Self::Full,
            beta => Self::Jsd(beta),
        }
    }
}

/// h `[U,H]` → `[P,1]`: for each pair of `targets` the divergence at its row (nats); tokens do not matter.
pub fn linear_divergence(
    tape: &mut Tape,
    (of, reference): (Divergence, &Reference),
    h: &Var,
    head: &LmHead,
    targets: &Targets,
) -> Result<Var> {
    let op = LinearDivergence { of, targets: targets.clone(), softcap: head.softcap, other: reference.softcap };
    let (hidden, weight) = (tape.constant(reference.hidden.clone()), tape.constant(reference.head.clone()));
    tape.finish(op, [h, &head.weight, &hidden, &weight])
}

/// Over h and W, and the reference's h′ and W′, which get no gradient.
#[derive(Clone)]
pub(super) struct LinearDivergence {
    pub(super) of: Divergence,
    pub(super) targets: Targets,
    pub(super) softcap: Option<f32>,
    /// The reference's soft cap.
    pub(super) other: Option<f32>,
}

impl Operation<4> for LinearDivergence {
    /// The inputs, and what each row came to.
    type Saved = ([Var; 4], Vec<Stats>);

    fn host(&self, tape: &Tape, inputs: [&Var; 4]) -> Result<(Tensor, Self::Saved)> {
        let stats = self.forward(tape, inputs)?;
        // Rounding may leave a divergence just below 0; a NaN stays one.
        let value = |&row: &u32| if stats[row as usize].value < 0.0 { 0.0 } else { stats[row as usize].value };
        let y: Vec<f32> = self.targets.rows.iter().map(value).collect();
        Ok((host::tensor(y, &[self.targets.len(), 1])?, (inputs.map(Var::clone), stats)))
    }

    fn backward(&self, (inputs, stats): &Self::Saved, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let mut upstream = vec![0.0; stats.len()];
        self.targets.rows.iter().zip(&*host::read(dy)?).for_each(|(&row, dy)| upstream[row as usize] += dy);
        let [hv, wv, other_hv, other_wv] = inputs;
        let (hidden, weight) = (host::read(hv.tensor()?)?, host::read(wv.tensor()?)?);
        let (other_hidden, other_weight) = (host::read(other_hv.tensor()?)?, host::read(other_wv.tensor()?)?);
        let own = Logits::new(grads.tape(), &hidden, (wv, &weight), self.softcap)?;
        let other = Logits::new(grads.tape(), &other_hidden, (other_wv, &other_weight), self.other)?;
        let scale = (1.0 / self.targets.temperature) as f32;
        let mut pull = Pull::new(hv, wv)?;
        let [mut packed, mut other_packed] = [const { Packed::scratch() }; 2];
        let [mut dz, mut z] = [const { Vec::new() }; 2];
        for columns in own.columns() {
            let (own, other) = (own.block(columns.clone(), &mut packed), other.block(columns, &mut other_packed));
            let n = own.columns.len();
            pull.turn(&own);
            for (own_chunk, other) in own.chunks().zip(other.chunks()) {
                grads.tape().stop().check()?;
                own_chunk.logits(&mut dz);
                other.logits(&mut z);
                let capped = own_chunk.capped(&dz);
                each_pair((&mut dz, ROWS * n), (&mut z, ROWS * n), |i, dz, z| {
                    let rows = dz.chunks_exact_mut(n).zip(z.chunks_exact(n));
                    for ((row, other), at) in rows.zip(own_chunk.rows.start + i * ROWS..) {
                        match upstream[at] {
                            0.0 => row.fill(0.0), // zero upstream stays zero, whatever the logits are
                            g => match self.of {
                                Divergence::Full => full_grad(row, other, scale, stats[at], g),
                                Divergence::Forward => forward_grad(row, other, scale, stats[at], g),
                                Divergence::Jsd(beta) => jsd_grad(row, other, scale, stats[at], [beta, g]),
                            },
                        }
                    }
                });
                own_chunk.uncap(&mut dz, &capped);
                pull.add(&own_chunk, &dz, grads)?;
            }
        }
        pull.finish(grads)
    }

    /// All logits at once.
    fn plain(&self, [h, w, other, head]: &[Tensor; 4]) -> Result<Tensor> {
        let logp = |h: &Tensor, w: &Tensor, softcap: Option<f32>| -> Result<Tensor> {
            let logits = (plain_logits(h, w, softcap)? / self.targets.temperature)?;
            Ok(candle_nn::ops::log_softmax(&logits, D::Minus1)?)
        };
        let (own, other) = (logp(h, w, self.softcap)?, logp(other, head, self.other)?);
        let kl = |a: &Tensor, b: &Tensor| -> Result<Tensor> { Ok((a.exp()? * (a - b)?)?.sum_keepdim(D::Minus1)?) };
        let found = match self.of {
            Divergence::Full => kl(&own, &other)?,
            Divergence::Forward => kl(&other, &own)?,
            Divergence::Jsd(beta) => {
                let beta = f64::from(beta);
                let middle = ((other.exp()? * beta)? + (own.exp()? * (1.0 - beta))?)?.log()?;
                ((kl(&other, &middle)? * beta)? + (kl(&own, &middle)? * (1.0 - beta))?)?
            }
        }; // [U,1]
        let rows = Tensor::new(&self.targets.rows[..], h.device())?;
        Ok(found.index_select(&rows, 0)?)
    }
}

impl LinearDivergence {
    fn forward(&self, tape: &Tape, inputs: [&Var; 4]) -> Result<Vec<Stats>> {
        let begin = Running { top: f32::NEG_INFINITY, sum: 0.0 };
        let mut running = vec![Row { own: begin, other: begin, apart: 0.0 }; inputs[0].value.dim(0)?];
        let scale = (1.0 / self.targets.temperature) as f32;
        let turned = self.of == Divergence::Forward;
        self.each_row(tape, inputs, &mut running, |own, other, row| match turned {
            false => absorb(own, other, scale, row),
            true => absorb(other, own, scale, row),
        })?;
        let finish = |row: &Row| {
            let [first, second] = [row.own, row.other].map(|side| side.top + side.sum.ln());
            let value = row.apart / row.own.sum - (first - second);
            let [lse, other] = if turned { [second, first] } else { [first, second] };
            Stats { lse, other, value, inner: 0.0 }
        };
        let mut stats: Vec<Stats> = running.iter().map(finish).collect();
        if let Divergence::Jsd(beta) = self.of {
            // Only with both softmaxes known: Σ p·log(p/m) and Σ p′·log(p′/m).
            stats.iter_mut().for_each(|row| row.value = 0.0);
            self.each_row(tape, inputs, &mut stats, |own, other, row| absorb_jsd(own, other, scale, beta, row))?;
            stats.iter_mut().for_each(|row| row.value = beta * row.value + (1.0 - beta) * row.inner);
        }
        Ok(stats)
    }

    /// `f(logits, the reference's, the row's state)` of each row in blocks of the vocabulary, in order.
    fn each_row<T: Send>(
        &self,
        tape: &Tape,
        [h, w, other_h, other_w]: [&Var; 4],
        states: &mut [T],
        f: impl Fn(&[f32], &[f32], &mut T) + Sync,
    ) -> Result<()> {
        let (h, weight) = (host::read(h.tensor()?)?, host::read(w.tensor()?)?);
        let (other_h, other_weight) = (host::read(other_h.tensor()?)?, host::read(other_w.tensor()?)?);
        let own = Logits::new(tape, &h, (w, &weight), self.softcap)?;
        let other = Logits::new(tape, &other_h, (other_w, &other_weight), self.other)?;
        let [mut packed, mut other_packed] = [const { Packed::scratch() }; 2];
        let [mut z, mut other_z] = [const { Vec::new() }; 2];
        for columns in own.columns() {
            let (own, other) = (own.block(columns.clone(), &mut packed), other.block(columns, &mut other_packed));
            let n = own.columns.len();
            for (own, other) in own.chunks().zip(other.chunks()) {
                tape.stop().check()?;
                own.logits(&mut z);
                other.logits(&mut other_z);
                each_pair((&mut states[own.rows.clone()], ROWS), (&mut z, ROWS * n), |i, states, z| {
                    let others = other_z[i * ROWS * n..].chunks_exact(n);
                    for ((row, own), other) in states.iter_mut().zip(z.chunks_exact(n)).zip(others) {
                        f(own, other, row);
                    }
                });
            }
        }
        Ok(())
    }
}

/// What a row comes to: log Σ exp z of the policy and of the reference, and the divergence.
#[derive(Clone, Copy)]
pub(super) struct Stats {
    lse: f32,
    other: f32,
    value: f32,
    /// Of `Jsd`: KL(p ‖ m).
    inner: f32,
}

/// A softmax under way: the largest z so far and Σ exp(z − top).
#[derive(Clone, Copy)]
struct Running {
    top: f32,
    sum: f32,
}

/// Both softmaxes of a row, and Σ exp(z − top)·(z − z′).
#[derive(Clone, Copy)]
struct Row {
    own: Running,
    other: Running,
    apart: f32,
}

simd! {
    fn absorb(own: &[f32], other: &[f32], scale: f32, row: &mut Row) {
        let n = own.len();
        let other = &other[..n];
        let top = (max(own) * scale).max(row.own.top);
        let sum = sum_by(n, |i| exp(own[i] * scale - top));
        let apart = sum_by(n, |i| exp(own[i] * scale - top) * (own[i] * scale - other[i] * scale));
        let carry = if row.own.sum == 0.0 { 0.0 } else { exp(row.own.top - top) };
        row.apart = row.apart * carry + apart;
        row.own = Running { top, sum: row.own.sum * carry + sum };
        let top = (max(other) * scale).max(row.other.top);
        let sum = sum_by(n, |i| exp(other[i] * scale - top));
        let carry = if row.other.sum == 0.0 { 0.0 } else { exp(row.other.top - top) };
        row.other = Running { top, sum: row.other.sum * carry + sum };
    }
}

/// log(p/m) from d = log p′ − log p, m = beta·p′ + (1 − beta)·p; exactly 0 at 0.
#[inline(always)]
fn share(d: f32, beta: f32) -> f32 {
    let (keep, with, above) = if d > 0.0 { (beta, 1.0 - beta, d) } else { (1.0 - beta, beta, 0.0) };
    -above - ln(with.mul_add(exp(-d.abs()), keep))
}

simd! {
    fn absorb_jsd(own: &[f32], other: &[f32], scale: f32, beta: f32, row: &mut Stats) {
        let n = own.len();
        let (other, Stats { lse, other: other_lse, .. }) = (&other[..n], *row);
        let sums = sums_by(n, |i| {
            let (logp, reference) = (own[i] * scale - lse, other[i] * scale - other_lse);
            let d = reference - logp;
            let share = share(d, beta);
            [exp(logp) * share, exp(reference) * (d + share)]
        });
        row.inner += sums[0];
        row.value += sums[1];
    }
}

simd! {
    /// p·(log p − log p′ − KL)·g·scale over a row of logits, in place.
    fn full_grad(row: &mut [f32], other: &[f32], scale: f32, stats: Stats, g: f32) {
        let shift = stats.lse - stats.other + stats.value;
        for (x, y) in row.iter_mut().zip(other) {
            let z = *x * scale;
            *x = exp(z - stats.lse) * (z - *y * scale - shift) * g * scale;
        }
    }
}

simd! {
    /// (p − p′)·g·scale
    fn forward_grad(row: &mut [f32], other: &[f32], scale: f32, stats: Stats, g: f32) {
        for (x, y) in row.iter_mut().zip(other) {
            *x = (exp(*x * scale - stats.lse) - exp(*y * scale - stats.other)) * g * scale;
        }
    }
}

simd! {
    /// (1 − beta)·p·(log(p/m) − KL(p ‖ m))·g·scale
    fn jsd_grad(row: &mut [f32], other: &[f32], scale: f32, stats: Stats, by: [f32; 2]) {
        let [beta, g] = by;
        for (x, y) in row.iter_mut().zip(other) {
            let logp = *x * scale - stats.lse;
            let share = share(*y * scale - stats.other - logp, beta);
            *x = (1.0 - beta) * exp(logp) * (share - stats.inner) * g * scale;
        }
    }
}
