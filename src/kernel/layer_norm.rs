//! LayerNorm (Ba, Kiros & Hinton 2016, arXiv:1607.06450): y = (x − mean(x)) / sqrt(var(x) + eps) · w + b, with the
//! biased variance.

use super::host;
use super::op::{Operation, Tangent, tensors};
use super::simd::{simd, sum_by};
use super::tape::{Grads, Tape, Var};
use crate::error::Result;
use candle_core::{D, Tensor};

/// x `[N,H]`, w and b `[H]` → `[N,H]`.
pub fn layer_norm(tape: &mut Tape, x: &Var, w: &Var, b: &Var, eps: f64) -> Result<Var> {
    tape.apply(LayerNorm { eps }, [x, w, b])
}

#[derive(Clone)]
pub(super) struct LayerNorm {
    pub(super) eps: f64,
}

impl Operation<3> for LayerNorm {
    /// x, w and b
    type Saved = [Var; 3];

    fn host(&self, _: &Tape, inputs: [&Var; 3]) -> Result<(Tensor, [Var; 3])> {
        let [x, w, b] = tensors(inputs)?;
        let (n, width) = x.dims2()?;
        let y = {
            let (x, w, b) = (host::read(x)?, host::read(w)?, host::read(b)?);
            host::make_rows(n, width, |first, y| {
                forward(&x[first * width..][..y.len()], &w, &b, self.eps as f32, y);
            })
        };
        Ok((host::tensor(y, &[n, width])?, inputs.map(Var::clone)))
    }

    fn backward(&self, [xv, wv, bv]: &[Var; 3], dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let (n, width) = xv.value.dims2()?;
        let (dy, x, w, eps) = (host::read(dy)?, host::read(xv.tensor()?)?, host::read(wv.tensor()?)?, self.eps as f32);
        if wv.needs_grad() {
            grads.accumulate(wv, |dw| {
                host::sum_rows(dw, n, |rows, sum| {
                    let (from, to) = (rows.start * width, rows.end * width);
                    weight_backward(&x[from..to], &dy[from..to], eps, sum);
                });
            })?;
        }
        if bv.needs_grad() {
            grads.accumulate(bv, |db| {
                host::sum_rows(db, n, |rows, sum| bias_backward(&dy[rows.start * width..rows.end * width], sum));
            })?;
        }
        if !xv.needs_grad() {
            return Ok(());
        }
        let dx = host::make_rows(n, width, |first, block| {
            let (from, to) = (first * width, first * width + block.len());
            input_backward(&x[from..to], &w, &dy[from..to], eps, block);
        });
        grads.add_owned(xv, host::tensor(dx, &[n, width])?)
    }

    fn plain(&self, [x, w, b]: &[Tensor; 3]) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        Ok(centred.broadcast_div(&scale)?.broadcast_mul(w)?.broadcast_add(b)?)
    }
}

impl Tangent<3> for LayerNorm {
    fn tangent(
        &self,
        _: &Tape,
        [x, w, _]: [&Var; 3],
        [dx, dw, db]: [Option<&Tensor>; 3],
        _: &[Var; 3],
    ) -> Result<Tensor> {
        let (n, width) = x.value.dims2()?;
        let (x, w) = (host::read(x.tensor()?)?, host::read(w.tensor()?)?);
        let dx = dx.map(host::read).transpose()?;
        let (dw, db) = (dw.map(host::read).transpose()?, db.map(host::read).transpose()?);
        let zeros = vec![0.0; width];
        let (dw, db) = (dw.as_deref().unwrap_or(&zeros), db.as_deref().unwrap_or(&zeros));
        let y = host::make_rows(n, width, |first, y| {
            let (from, to) = (first * width, first * width + y.len());
            let dx = dx.as_ref().map_or(&[][..], |dx| &dx[from..to]);
            tangent(&x[from..to], &w, Moved { x: dx, w: dw, b: db }, self.eps as f32, y);
        });
        host::tensor(y, &[n, width])
    }
}

/// The mean, and 1 / the standard deviation.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_by(x.len(), |i| x[i]) / n;
    let variance = sum_by(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

simd! {
    fn forward(x: &[f32], w: &[f32], b: &[f32], eps: f32, y: &mut [f32]) {
        for (x, y) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())) {
            let (mean, r) = moments(x, eps);
            for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                *y = (x - mean) * r * w + b;
            }
        }
    }
}

/// Tangents of the inputs; an empty one of x is zero.
struct Moved<'a> {
    x: &'a [f32],
    w: &'a [f32],
    b: &'a [f32],
}

simd! {
    /// dx̂·w + x̂·dw + db, x̂ = (x − mean)·r, dx̂ = r·(dx − mean(dx) − x̂·mean(x̂·dx)).
    fn tangent(x: &[f32], w: &[f32], moved: Moved, eps: f32, y: &mut [f32]) {
        let n = w.len();
        let (dx, dw, db) = (moved.x, &moved.w[..n], &moved.b[..n]);
        for (i, (x, y)) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).enumerate() {
            let (mean, r) = moments(x, eps);
            for i in 0..n {
                y[i] = (x[i] - mean) * r * dw[i] + db[i];
            }
            if !dx.is_empty() {
                let dx = &dx[i * n..(i + 1) * n];
                let level = sum_by(n, |i| dx[i]) / n as f32;
                let pull = sum_by(n, |i| dx[i] * (x[i] - mean)) * r * r / n as f32;
                for i in 0..n {
                    y[i] += r * (dx[i] - level - (x[i] - mean) * pull) * w[i];
                }
            }
        }
    }
}

simd! {
    /// With x̂ = (x − mean)·r and g = dy·w: dx = r·(g − mean(g) − x̂·mean(g·x̂)).
    fn input_backward(x: &[f32], w: &[f32], dy: &[f32], eps: f32, dx: &mut [f32]) {
        let n = w.len();
        for ((x, dy), dx) in x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            let (mean, r) = moments(x, eps);
            let level = sum_by(n, |i| dy[i] * w[i]) / n as f32;
            let pull = sum_by(n, |i| dy[i] * w[i] * (x[i] - mean)) * r * r / n as f32;
            for i in 0..n {
                dx[i] = r * (dy[i] * w[i] - level - (x[i] - mean) * pull);
            }
        }
    }
}

simd! {
    fn weight_backward(x: &[f32], dy: &[f32], eps: f32, sum: &mut [f32]) {
        let n = sum.len();
        for (x, dy) in x.chunks_exact(n).zip(dy.chunks_exact(n)) {
            let (mean, r) = moments(x, eps);
            for i in 0..n {
                sum[i] += dy[i] * (x[i] - mean) * r;
            }
        }
    }
}

simd! {
    fn bias_backward(dy: &[f32], sum: &mut [f32]) {
        for dy in dy.chunks_exact(sum.len()) {
            sum.iter_mut().zip(dy).for_each(|(s, g)| *s += g);
        }
    }
}
