//! Soft caps of Gemma 2 (Gemma Team 2024, arXiv:2408.00118): cap·tanh(x/cap), which lets no number pass ±cap.
//!
//! Owns the operation on activations (logits when sampling) and the loops over slices that `attention`, `logprob` and
//! `divergence` cap their own numbers with, so that a logit has the same bits wherever it is capped.

use super::host;
use super::op::{Operation, Tangent, given};
use super::simd::{simd, tanh};
use super::tape::{Grads, Sink, Tape, Var};
use crate::error::Result;
use candle_core::Tensor;

/// cap·tanh(x/cap) of each number of x.
pub fn softcap(tape: &mut Tape, x: &Var, by: f32) -> Result<Var> {
    tape.apply(Softcap { by }, [x])
}

#[derive(Clone)]
pub(super) struct Softcap {
    pub(super) by: f32,
}

impl Operation<1> for Softcap {
    /// Where the gradient of x goes, and the capped numbers.
    type Saved = (Sink, Tensor);

    fn host(&self, _: &Tape, [x]: [&Var; 1]) -> Result<(Tensor, Self::Saved)> {
        let y = {
            let x = host::read(x.tensor()?)?;
            host::make_rows(x.len(), 1, |at, y| {
                y.copy_from_slice(&x[at..at + y.len()]);
                cap(y, self.by);
            })
        };
        let y = host::tensor(y, x.value.dims())?;
        Ok((y.clone(), (x.sink(), y)))
    }

    fn backward(&self, (to, out): &Self::Saved, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let (dy, y) = (host::read(dy)?, host::read(out)?);
        let dx = host::make_rows(y.len(), 1, |at, dx| {
            dx.copy_from_slice(&dy[at..at + dx.len()]);
            uncap(dx, &y[at..at + dx.len()], self.by);
        });
        grads.add_owned(*to, host::tensor(dx, out.dims())?)
    }

    fn plain(&self, [x]: &[Tensor; 1]) -> Result<Tensor> {
        plain(x, self.by)
    }
}

impl Tangent<1> for Softcap {
    fn tangent(&self, _: &Tape, _: [&Var; 1], [dx]: [Option<&Tensor>; 1], (_, out): &Self::Saved) -> Result<Tensor> {
        let (dx, y) = (host::read(given(dx))?, host::read(out)?);
        let dy = host::make_rows(y.len(), 1, |at, dy| {
            dy.copy_from_slice(&dx[at..at + dy.len()]);
            uncap(dy, &y[at..at + dy.len()], self.by);
        });
        host::tensor(dy, out.dims())
    }
}

/// The plain composition.
pub(super) fn plain(x: &Tensor, by: f32) -> Result<Tensor> {
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
