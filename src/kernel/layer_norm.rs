//! LayerNorm (Ba, Kiros & Hinton 2016, arXiv:1607.06450): y = (x − mean(x)) / sqrt(var(x) + eps) · w + b, with the
//! biased variance.

use super::host;
use super::simd::{simd, sum_by};
use super::tape::{Tape, Var, plain_backward};
use crate::error::Result;
use candle_core::{D, Tensor};

/// x `[N,H]`, w and b `[H]` → `[N,H]`.
pub fn layer_norm(tape: &mut Tape, x: &Var, w: &Var, b: &Var, eps: f64) -> Result<Var> {
    let (n, width) = x.value.dims2()?;
    let (xv, wv, bv) = (x.clone(), w.clone(), b.clone());
    if !tape.fused(&x.value) {
        let y = plain(&x.value, &w.value, &b.value, eps)?;
        return Ok(tape.push(y, &[x, w, b], move |dy, grads| {
            let [dx, dw, db] = plain_backward([&xv.value, &wv.value, &bv.value], dy, |[x, w, b]| plain(x, w, b, eps))?;
            grads.add_owned(&xv, dx)?;
            grads.add_owned(&wv, dw)?;
            grads.add_owned(&bv, db)
        }));
    }
    let eps = eps as f32;
    let y = {
        let (x, w, b) = (host::read(&x.value)?, host::read(&w.value)?, host::read(&b.value)?);
        host::make_rows(n, width, |first, y| forward(&x[first * width..][..y.len()], &w, &b, eps, y))
    };
    Ok(tape.push(host::tensor(y, &[n, width])?, &[x, w, b], move |dy, grads| {
        let dy = dy.contiguous()?;
        let (dy, x, w) = (host::read(&dy)?, host::read(&xv.value)?, host::read(&wv.value)?);
        if wv.needs_grad() {
            grads.accumulate(&wv, |dw| {
                host::sum_rows(dw, n, |rows, sum| {
                    let (from, to) = (rows.start * width, rows.end * width);
                    weight_backward(&x[from..to], &dy[from..to], eps, sum);
                });
            })?;
        }
        if bv.needs_grad() {
            grads.accumulate(&bv, |db| {
                host::sum_rows(db, n, |rows, sum| bias_backward(&dy[rows.start * width..rows.end * width], sum))
            })?;
        }
        if !xv.needs_grad() {
            return Ok(());
        }
        let dx = host::make_rows(n, width, |first, block| {
            let (from, to) = (first * width, first * width + block.len());
            input_backward(&x[from..to], &w, &dy[from..to], eps, block);
        });
        grads.add_owned(&xv, host::tensor(dx, &[n, width])?)
    }))
}

/// The plain composition.
pub fn plain(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok(centred.broadcast_div(&scale)?.broadcast_mul(w)?.broadcast_add(b)?)
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
