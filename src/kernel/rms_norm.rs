//! RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467): y = x / sqrt(mean(x²) + eps) · w.

use super::host;
use super::simd::{simd, sum_by};
use super::tape::{Tape, Var, plain_backward};
use crate::error::Result;
use candle_core::{D, Tensor};

/// x `[N,k·W]`, w `[W]` → `[N,k·W]`: every W numbers of a row are a group of their own (k heads, or k = 1).
pub fn rms_norm(tape: &mut Tape, x: &Var, w: &Var, eps: f64) -> Result<Var> {
    let width = w.value.dim(0)?;
    let n = x.value.elem_count() / width;
    let (xv, wv) = (x.clone(), w.clone());
    if !tape.fused(&x.value) {
        let y = plain(&x.value, &w.value, eps)?;
        return Ok(tape.push(y, &[x, w], move |dy, grads| {
            let [dx, dw] = plain_backward([&xv.value, &wv.value], dy, |[x, w]| plain(x, w, eps))?;
            grads.add_owned(&xv, dx)?;
            grads.add_owned(&wv, dw)
        }));
    }
    let y = {
        let (x, w) = (host::read(&x.value)?, host::read(&w.value)?);
        host::make_rows(n, width, |first, y| forward(&x[first * width..][..y.len()], &w, eps as f32, y))
    };
    Ok(tape.push(host::tensor(y, x.value.dims())?, &[x, w], move |dy, grads| {
        let dy = dy.contiguous()?;
        let (dy, x, w) = (host::read(&dy)?, host::read(&xv.value)?, host::read(&wv.value)?);
        if wv.needs_grad() {
            grads.accumulate(&wv, |dw| {
                host::sum_rows(dw, n, |rows, sum| {
                    let (from, to) = (rows.start * width, rows.end * width);
                    weight_backward(&x[from..to], &dy[from..to], eps as f32, sum);
                });
            })?;
        }
        if !xv.needs_grad() {
            return Ok(());
        }
        let dx = host::make_rows(n, width, |first, block| {
            let (from, to) = (first * width, first * width + block.len());
            input_backward(&x[from..to], &w, &dy[from..to], eps as f32, block);
        });
        grads.add_owned(&xv, host::tensor(dx, xv.value.dims())?)
    }))
}

/// The plain composition.
pub fn plain(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    let groups = x.reshape(((), w.dim(0)?))?;
    let scale = (groups.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok(groups.broadcast_div(&scale)?.broadcast_mul(w)?.reshape(x.dims())?)
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
