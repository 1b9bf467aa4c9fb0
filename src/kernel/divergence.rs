//! Linear → divergence: KL(softmax(z/temperature) ‖ softmax(z′/temperature)) over the whole vocabulary, without ever
//! holding more than a chunk of either model's `[U, V]` logits, forward or backward. z = h·Wᵀ and z′ = h′·W′ᵀ, each
//! soft-capped where its head asks.
//!
//! The second distribution is a constant: gradients flow to h and W alone. Where both are the same numbers, value and
//! gradient are exactly 0.

use super::gemm::{Mat, Start, matmul};
use super::host;
use super::logprob::{LmHead, Targets, chunks, plain_logits};
use super::simd::{exp, max, simd, sum_by};
use super::tape::{Stop, Tape, Var, plain_backward};
use crate::error::Result;
use candle_core::{D, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// The reference's side: h′ `[U,H′]` and W′ `[V,H′]`.
#[derive(Clone)]
pub struct Reference {
    pub hidden: Tensor,
    pub head: Tensor,
    pub softcap: Option<f32>,
}

/// h `[U,H]` → `[P,1]`: for each pair of `targets` the divergence at its row (nats); tokens do not matter.
pub fn linear_kl(tape: &mut Tape, h: &Var, head: &LmHead, reference: &Reference, targets: &Targets) -> Result<Var> {
    let (w, softcap) = (&head.weight, head.softcap);
    let (hv, wv, r, t) = (h.clone(), w.clone(), reference.clone(), targets.clone());
    let stop = tape.stop().clone();
    if !tape.fused(&h.value) || !tape.fused(&reference.hidden) {
        let y = plain([&h.value, &w.value], softcap, reference, targets)?;
        return Ok(tape.push(y, &[h, w], move |dy, grads| {
            let [dh, dw] = plain_backward([&hv.value, &wv.value], dy, |[h, w]| plain([h, w], softcap, &r, &t))?;
            grads.add_owned(&hv, dh)?;
            grads.add_owned(&wv, dw)
        }));
    }
    let stats = Arc::new(forward(&h.value, head, reference, targets.temperature, &stop)?);
    // Rounding may leave a divergence just below 0; a NaN stays one.
    let value = |&row: &u32| if stats[row as usize].kl < 0.0 { 0.0 } else { stats[row as usize].kl };
    let y: Vec<f32> = targets.rows.iter().map(value).collect();
    Ok(tape.push(host::tensor(y, &[targets.len(), 1])?, &[h, w], move |dy, grads| {
        let dy = dy.contiguous()?;
        let mut upstream = vec![0.0; stats.len()];
        t.rows.iter().zip(&*host::read(&dy)?).for_each(|(&row, dy)| upstream[row as usize] += dy);
        let (rows, width) = hv.value.dims2()?;
        let (hidden, weight) = (host::read(&hv.value)?, host::read(&wv.value)?);
        let (other, head) = (host::read(&r.hidden)?, host::read(&r.head)?);
        let scale = (1.0 / t.temperature) as f32;
        let mut dh = vec![0.0; rows * width];
        let others = chunks(&other, &head, r.hidden.dim(1)?, r.softcap);
        for (own, other) in chunks(&hidden, &weight, width, softcap).zip(others) {
            stop.check()?;
            let columns = own.columns.len();
            let (mut dz, z) = (own.logits(), other.logits());
            let capped = own.capped(&dz);
            dz.par_chunks_mut(columns).zip(z.par_chunks(columns)).with_min_len(8).enumerate().for_each(
                |(i, (row, other))| {
                    let at = own.rows.start + i;
                    match upstream[at] {
                        0.0 => row.fill(0.0), // zero upstream stays zero, whatever the logits are
                        g => logits_grad(row, other, scale, stats[at], g),
                    }
                },
            );
            own.uncap(&mut dz, &capped);
            let dz = Mat::new(&dz, own.rows.len(), columns);
            let part = &mut dh[own.rows.start * width..own.rows.end * width];
            if hv.needs_grad() {
                matmul(dz, own.weight(), part, width, Start::Accumulate);
            }
            grads.accumulate(&wv, |dw| {
                let part = &mut dw[own.columns.start * width..own.columns.end * width];
                matmul(dz.t(), own.hidden(), part, width, Start::Accumulate);
            })?;
        }
        grads.add_owned(&hv, host::tensor(dh, &[rows, width])?)
    }))
}

/// The plain composition: all logits at once.
pub fn plain([h, w]: [&Tensor; 2], softcap: Option<f32>, reference: &Reference, targets: &Targets) -> Result<Tensor> {
    let logp = |h: &Tensor, w: &Tensor, softcap: Option<f32>| -> Result<Tensor> {
        let logits = (plain_logits(h, w, softcap)? / targets.temperature)?;
        Ok(candle_nn::ops::log_softmax(&logits, D::Minus1)?)
    };
    let own = logp(h, w, softcap)?;
    let other = logp(&reference.hidden, &reference.head, reference.softcap)?.to_dtype(h.dtype())?.detach();
    let kl = (own.exp()? * (&own - other)?)?.sum_keepdim(D::Minus1)?; // [U,1]
    let rows = Tensor::new(&targets.rows[..], h.device())?;
    Ok(kl.index_select(&rows, 0)?)
}

/// What a row comes to: log Σ exp z of the policy and of the reference, and the divergence.
#[derive(Clone, Copy)]
struct Stats {
    lse: f32,
    other: f32,
    kl: f32,
}

fn forward(h: &Tensor, own: &LmHead, reference: &Reference, temperature: f64, stop: &Stop) -> Result<Vec<Stats>> {
    let ((rows, width), softcap) = (h.dims2()?, own.softcap);
    let (h, w) = (host::read(h)?, host::read(&own.weight.value)?);
    let (other, head) = (host::read(&reference.hidden)?, host::read(&reference.head)?);
    let scale = (1.0 / temperature) as f32;
    let begin = Running { top: f32::NEG_INFINITY, sum: 0.0 };
    let mut running = vec![Row { own: begin, other: begin, apart: 0.0 }; rows];
    let others = chunks(&other, &head, reference.hidden.dim(1)?, reference.softcap);
    for (own, other) in chunks(&h, &w, width, softcap).zip(others) {
        stop.check()?;
        let columns = own.columns.len();
        own.logits()
            .par_chunks(columns)
            .zip(other.logits().par_chunks(columns))
            .zip(&mut running[own.rows.clone()])
            .with_min_len(8)
            .for_each(|((own, other), row)| absorb(own, other, scale, row));
    }
    let finish = |row: &Row| {
        let [lse, other] = [row.own, row.other].map(|side| side.top + side.sum.ln());
        Stats { lse, other, kl: row.apart / row.own.sum - (lse - other) }
    };
    Ok(running.iter().map(finish).collect())
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

simd! {
    /// p·(log p − log p′ − KL)·g·scale over a row of logits, in place.
    fn logits_grad(row: &mut [f32], other: &[f32], scale: f32, stats: Stats, g: f32) {
        let shift = stats.lse - stats.other + stats.kl;
        for (x, y) in row.iter_mut().zip(other) {
            let z = *x * scale;
            *x = exp(z - stats.lse) * (z - *y * scale - shift) * g * scale;
        }
    }
}
