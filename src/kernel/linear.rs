//! y = x · Wᵀ + b (+ residual), with gradients added straight into the accumulators of W and b.

use super::elementwise::add;
use super::gemm::{Mat, Packed, Start, matmul, product};
use super::host;
use super::tape::{Side, Tape, Var, plain_backward};
use crate::error::Result;
use candle_core::Tensor;

/// x `[N,in]`, w `[out,in]` (Hugging Face's layout), b `[out]` → `[N,out]`.
pub fn linear(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>) -> Result<Var> {
    if tape.fused(&x.value) { fused(tape, x, w, Extra::of(b)) } else { fallback(tape, x, w, b) }
}

/// As `linear`, added to `residual` `[N,out]`: without a bias the product's sums start from it.
pub fn linear_add(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>, residual: &Var) -> Result<Var> {
    if b.is_none() && tape.fused(&x.value) {
        return fused(tape, x, w, Extra::Residual(residual));
    }
    let y = linear(tape, x, w, b)?;
    add(tape, residual, &y)
}

/// What the product's sums start from.
enum Extra<'a> {
    Nothing,
    Bias(&'a Var),
    Residual(&'a Var),
}

impl<'a> Extra<'a> {
    fn of(bias: Option<&'a Var>) -> Self {
        bias.map_or(Self::Nothing, Self::Bias)
    }

    fn var(&self) -> Option<&'a Var> {
        match self {
            Self::Nothing => None,
            Self::Bias(v) | Self::Residual(v) => Some(v),
        }
    }
}

/// The plain composition.
pub fn plain(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&w.t()?)?;
    Ok(match b {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    })
}

fn fused(tape: &mut Tape, x: &Var, w: &Var, extra: Extra) -> Result<Var> {
    let (n, inputs) = x.value.dims2()?;
    let (outputs, _) = w.value.dims2()?;
    let packed =
        tape.packed(w, Side::Forward, || Ok(Packed::new(Mat::new(&host::read(&w.value)?, outputs, inputs).t())))?;
    let y = {
        let x = host::read(&x.value)?;
        let from = extra.var().map(|v| host::read(&v.value)).transpose()?;
        let start = match (&extra, from.as_deref()) {
            (Extra::Bias(_), Some(bias)) => Start::Bias(bias),
            (Extra::Residual(_), Some(rows)) => Start::Rows(rows),
            _ => Start::Zero,
        };
        product(Mat::new(&x, n, inputs), &packed, start)
    };
    let y = host::tensor(y, &[n, outputs])?;
    let (xv, wv, packs) = (x.clone(), w.clone(), tape.packs());
    let (bias, residual) = match extra {
        Extra::Nothing => (None, None),
        Extra::Bias(b) => (Some(b.clone()), None),
        Extra::Residual(r) => (None, Some(r.clone())),
    };
    let operands: Vec<&Var> = [Some(x), Some(w), extra.var()].into_iter().flatten().collect();
    Ok(tape.push(y, &operands, move |dy, grads| {
        let dy = dy.contiguous()?;
        if let Some(residual) = &residual {
            grads.add_shared(residual, &dy)?;
        }
        let dy = host::read(&dy)?;
        if xv.needs_grad() {
            let tape = Tape::forward_only(packs.clone());
            let packed = tape
                .packed(&wv, Side::Backward, || Ok(Packed::new(Mat::new(&host::read(&wv.value)?, outputs, inputs))))?;
            let dx = product(Mat::new(&dy, n, outputs), &packed, Start::Zero);
            grads.add_owned(&xv, host::tensor(dx, &[n, inputs])?)?;
        }
        if wv.needs_grad() {
            let x = host::read(&xv.value)?;
            grads.accumulate(&wv, |dw| {
                matmul(Mat::new(&dy, n, outputs).t(), Mat::new(&x, n, inputs), dw, inputs, Start::Accumulate);
            })?;
        }
        if let Some(b) = &bias {
            grads.accumulate(b, |db| {
                host::sum_rows(db, n, |rows, sum| {
                    for row in dy[rows.start * outputs..rows.end * outputs].chunks_exact(outputs) {
                        sum.iter_mut().zip(row).for_each(|(s, g)| *s += g);
                    }
                });
            })?;
        }
        Ok(())
    }))
}

fn fallback(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>) -> Result<Var> {
    let y = plain(&x.value, &w.value, b.map(|b| &b.value))?;
    let (xv, wv, bv) = (x.clone(), w.clone(), b.cloned());
    let operands: Vec<&Var> = [Some(x), Some(w), b].into_iter().flatten().collect();
    Ok(tape.push(y, &operands, move |dy, grads| {
        let [dx, dw] = plain_backward([&xv.value, &wv.value], dy, |[x, w]| plain(x, w, None))?;
        grads.add_owned(&xv, dx)?;
        grads.add_owned(&wv, dw)?;
        match &bv {
            Some(b) => grads.add_owned(b, dy.sum(0)?),
            None => Ok(()),
        }
    }))
}
