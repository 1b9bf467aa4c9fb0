//! Soft caps of Gemma 2 (Gemma Team 2024, arXiv:2408.00118): cap·tanh(x/cap), which lets no number pass ±cap.
//!
//! Owns the operation on activations (logits when sampling) and the loops over slices that `attention`, `logprob` and
//! `divergence` cap their own numbers with, so that a logit has the same bits wherever it is capped.

use super::host;
use super::simd::{simd, tanh};
use super::tape::{Tape, Var, plain_backward};
use crate::error::Result;
use candle_core::Tensor;

/// cap·tanh(x/cap) of each number of x.
pub fn softcap(tape: &mut Tape, x: &Var, by: f32) -> Result<Var> {
    let xv = x.clone();
    if !tape.fused(&x.value) {
        return Ok(tape.push(plain(&x.value, by)?, &[x], move |dy, grads| {
            let [dx] = plain_backward([&xv.value], dy, |[x]| plain(x, by))?;
            grads.add_owned(&xv, dx)
        }));
    }
    let y = {
        let x = host::read(&x.value)?;
        host::make_rows(x.len(), 1, |at, y| {
            y.copy_from_slice(&x[at..at + y.len()]);
            cap(y, by);
        })
    };
    let y = host::tensor(y, x.value.dims())?;
    let (to, out) = (x.sink(), y.clone());
    Ok(tape.push(y, &[x], move |dy, grads| {
        let dy = dy.contiguous()?;
        let (dy, y) = (host::read(&dy)?, host::read(&out)?);
        let dx = host::make_rows(y.len(), 1, |at, dx| {
            dx.copy_from_slice(&dy[at..at + dx.len()]);
            uncap(dx, &y[at..at + dx.len()], by);
        });
        grads.add_owned(to, host::tensor(dx, out.dims())?)
    }))
}

/// The plain composition.
pub fn plain(x: &Tensor, by: f32) -> Result<Tensor> {
    let by = f64::from(by);
    Ok(((x / by)?.tanh()? * by)?)
}

simd! {
    /// x ← cap·tanh(x/cap)
    pub(super) fn cap(x: &mut [f32], by: f32) {
        let inverse = 1.0 / by;
        for x in x.iter_mut() {
            *x = by * tanh(*x * inverse);
        }
    }
}

simd! {
    /// A gradient of capped numbers y turned into that of the numbers before: dy ← dy·(1 − (y/cap)²). A zero stays
    /// zero, whatever y is.
    pub(super) fn uncap(dy: &mut [f32], y: &[f32], by: f32) {
        let inverse = 1.0 / by;
        for (dy, y) in dy.iter_mut().zip(y) {
            let t = y * inverse;
            let moved = *dy * (1.0 - t * t);
            *dy = if *dy == 0.0 { 0.0 } else { moved };
        }
    }
}
