//! RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467): y = x / sqrt(mean(x²) + eps) · (offset + w), where the offset is
//! 1 in Gemma and else 0.

use super::host;
use super::op::{Operation, Tangent};
use super::simd::{simd, sum_by};
use super::tape::{Grads, Tape, Var};
use crate::error::Result;
use candle_core::{D, Tensor};
use std::borrow::Cow;

/// An RMSNorm's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rms {
    pub eps: f64,
    /// Added to the weight.
    pub offset: f32,
}

/// x `[N,k·W]`, w `[W]` → `[N,k·W]`: every W numbers of a row are a group of their own (k heads, or k = 1).
pub fn rms_norm(tape: &mut Tape, x: &Var, w: &Var, rms: Rms) -> Result<Var> {
    tape.apply(rms, [x, w])
}

impl Operation<2> for Rms {
    /// x and w
    type Saved = [Var; 2];

    fn host(&self, _: &Tape, [x, w]: [&Var; 2]) -> Result<(Tensor, [Var; 2])> {
        let y = {
            let (x, w) = (host::read(x.tensor()?)?, host::read(w.tensor()?)?);
            let w = moved(&w, self.offset);
            host::make_rows(x.len() / w.len(), w.len(), |first, y| {
                forward(&x[first * w.len()..][..y.len()], &w, self.eps as f32, y);
            })
        };
        Ok((host::tensor(y, x.value.dims())?, [x.clone(), w.clone()]))
    }

    fn backward(&self, [xv, wv]: &[Var; 2], dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let (dy, x, w) = (host::read(dy)?, host::read(xv.tensor()?)?, host::read(wv.tensor()?)?);
        let (width, eps) = (w.len(), self.eps as f32);
        let n = x.len() / width;
        if wv.needs_grad() {
            grads.accumulate(wv, |dw| {
                host::sum_rows(dw, n, |rows, sum| {
                    let (from, to) = (rows.start * width, rows.end * width);
                    weight_backward(&x[from..to], &dy[from..to], eps, sum);
                });
            })?;
        }
        if !xv.needs_grad() {
            return Ok(());
        }
        let w = moved(&w, self.offset);
        let dx = host::make_rows(n, width, |first, block| {
            let (from, to) = (first * width, first * width + block.len());
            input_backward(&x[from..to], &w, &dy[from..to], eps, block);
        });
        grads.add_owned(xv, host::tensor(dx, xv.value.dims())?)
    }

    fn plain(&self, [x, w]: &[Tensor; 2]) -> Result<Tensor> {
        let groups = x.reshape(((), w.dim(0)?))?;
        let scale = (groups.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        let w = if self.offset == 0.0 { w.clone() } else { (w + f64::from(self.offset))? };
        Ok(groups.broadcast_div(&scale)?.broadcast_mul(&w)?.reshape(x.dims())?)
    }
}

impl Tangent<2> for Rms {
    fn tangent(&self, _: &Tape, [x, w]: [&Var; 2], [dx, dw]: [Option<&Tensor>; 2], _: &[Var; 2]) -> Result<Tensor> {
        let dims = x.value.dims().to_vec();
        let (x, w) = (host::read(x.tensor()?)?, host::read(w.tensor()?)?);
        let (width, w) = (w.len(), moved(&w, self.offset));
        let (dx, dw) = (dx.map(host::read).transpose()?, dw.map(host::read).transpose()?);
        let dw: &[f32] = dw.as_deref().unwrap_or_default();
        let y = host::make_rows(x.len() / width, width, |first, y| {
            let (from, to) = (first * width, first * width + y.len());
            let dx = dx.as_ref().map_or(&[][..], |dx| &dx[from..to]);
            tangent(&x[from..to], &w, [dx, dw], self.eps as f32, y);
        });
        host::tensor(y, &dims)
    }
}

/// offset + w
fn moved(w: &[f32], offset: f32) -> Cow<'_, [f32]> {
    if offset == 0.0 { Cow::Borrowed(w) } else { w.iter().map(|w| w + offset).collect() }
}

#[inline(always)]
fn inverse(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_by(x.len(), |i| x[i] * x[i]) / x.len() as f32 + eps).sqrt()
}

simd! {
    fn forward(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
        for (x, y) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())) {
            let r = inverse(x, eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * r * w;
            }
        }
    }
}

simd! {
    /// dx·r·w − x·r³·mean(x·dx)·w + x·r·dw, of which an empty dx or dw is zero.
    fn tangent(x: &[f32], w: &[f32], moved: [&[f32]; 2], eps: f32, y: &mut [f32]) {
        let ([dx, dw], n) = (moved, w.len());
        for (i, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
            let r = inverse(x, eps);
            if !dx.is_empty() {
                let dx = &dx[i * n..(i + 1) * n];
                let pull = sum_by(n, |i| x[i] * dx[i]) * r * r * r / n as f32;
                for i in 0..n {
                    y[i] = (dx[i] * r - x[i] * pull) * w[i];
                }
            }
            for (i, dw) in dw.iter().enumerate() {
                y[i] += x[i] * r * dw;
            }
        }
    }
}

simd! {
    fn input_backward(x: &[f32], w: &[f32], dy: &[f32], eps: f32, dx: &mut [f32]) {
        let n = w.len();
        for ((x, dy), dx) in x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            let r = inverse(x, eps);
            let pull = sum_by(n, |i| dy[i] * w[i] * x[i]) * r * r * r / n as f32;
            for i in 0..n {
                dx[i] = dy[i] * w[i] * r - x[i] * pull;
            }
        }
    }
}

simd! {
    fn weight_backward(x: &[f32], dy: &[f32], eps: f32, sum: &mut [f32]) {
        let n = sum.len();
        for (x, dy) in x.chunks_exact(n).zip(dy.chunks_exact(n)) {
            let r = inverse(x, eps);
            for i in 0..n {
                sum[i] += dy[i] * x[i] * r;
            }
        }
    }
}
