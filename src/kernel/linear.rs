//! y = x · W + b (+ residual) for weights stored either way round, with gradients added straight into the
//! accumulators of W and b.

use super::elementwise::add;
use super::gemm::{Mat, Packed, Start, matmul, product};
use super::host;
use super::tape::{Side, Tape, Var, plain_backward};
use crate::error::Result;
use candle_core::Tensor;

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[out,in]`: `nn.Linear` of most families.
    OutIn,
    /// `[in,out]`: GPT-2's `Conv1D`.
    InOut,
}

impl Layout {
    /// The weight as the matrix `[in,out]` that x is multiplied by.
    fn mat(self, w: &[f32], inputs: usize, outputs: usize) -> Mat<'_> {
        match self {
            Self::OutIn => Mat::new(w, outputs, inputs).t(),
            Self::InOut => Mat::new(w, inputs, outputs),
        }
    }

    /// (in, out) of a weight.
    fn sizes(self, w: &Tensor) -> Result<(usize, usize)> {
        let (rows, columns) = w.dims2()?;
        Ok(match self {
            Self::OutIn => (columns, rows),
            Self::InOut => (rows, columns),
        })
    }
}

/// x `[N,in]`, w as `layout` says, b `[out]` → `[N,out]`.
pub fn linear(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>, layout: Layout) -> Result<Var> {
    if tape.fused(&x.value) { fused(tape, x, w, Extra::of(b), layout) } else { fallback(tape, x, w, b, layout) }
}

/// As `linear`, added to `residual` `[N,out]`: without a bias the product's sums start from it.
pub fn linear_add(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>, residual: &Var, layout: Layout) -> Result<Var> {
    if b.is_none() && tape.fused(&x.value) {
        return fused(tape, x, w, Extra::Residual(residual), layout);
    }
    let y = linear(tape, x, w, b, layout)?;
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
pub fn plain(x: &Tensor, w: &Tensor, b: Option<&Tensor>, layout: Layout) -> Result<Tensor> {
    let y = match layout {
        Layout::OutIn => x.matmul(&w.t()?)?,
        Layout::InOut => x.matmul(w)?,
    };
    Ok(match b {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    })
}

fn fused(tape: &mut Tape, x: &Var, w: &Var, extra: Extra, layout: Layout) -> Result<Var> {
    let n = x.value.dim(0)?;
    let (inputs, outputs) = layout.sizes(&w.value)?;
    let packed =
        tape.packed(w, Side::Forward, || Ok(Packed::new(layout.mat(&host::read(&w.value)?, inputs, outputs))))?;
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
    let (to, wv, packs) = (x.sink(), w.clone(), tape.packs());
    // The weight's gradient alone reads x again.
    let kept = w.needs_grad().then(|| x.value.clone());
    let (bias, residual) = match extra {
        Extra::Nothing => (None, None),
        Extra::Bias(b) => (Some(b.clone()), None),
        Extra::Residual(r) => (None, Some(r.sink())),
    };
    let operands: Vec<&Var> = [Some(x), Some(w), extra.var()].into_iter().flatten().collect();
    Ok(tape.push(y, &operands, move |dy, grads| {
        let dy = dy.contiguous()?;
        if let Some(residual) = residual {
            grads.add_shared(residual, &dy)?;
        }
        let dy = host::read(&dy)?;
        if to.needs_grad() {
            let tape = Tape::forward_only(packs.clone());
            let packed = tape.packed(&wv, Side::Backward, || {
                Ok(Packed::new(layout.mat(&host::read(&wv.value)?, inputs, outputs).t()))
            })?;
            let dx = product(Mat::new(&dy, n, outputs), &packed, Start::Zero);
            grads.add_owned(to, host::tensor(dx, &[n, inputs])?)?;
        }
        if let Some(x) = &kept {
            let x = host::read(x)?;
            let (x, dy) = (Mat::new(&x, n, inputs), Mat::new(&dy, n, outputs));
            grads.accumulate(&wv, |dw| match layout {
                Layout::OutIn => matmul(dy.t(), x, dw, inputs, Start::Accumulate),
                Layout::InOut => matmul(x.t(), dy, dw, outputs, Start::Accumulate),
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

fn fallback(tape: &mut Tape, x: &Var, w: &Var, b: Option<&Var>, layout: Layout) -> Result<Var> {
    let y = plain(&x.value, &w.value, b.map(|b| &b.value), layout)?;
    let (xv, wv, bv) = (x.clone(), w.clone(), b.cloned());
    let operands: Vec<&Var> = [Some(x), Some(w), b].into_iter().flatten().collect();
    Ok(tape.push(y, &operands, move |dy, grads| {
        let [dx, dw] = plain_backward([&xv.value, &wv.value], dy, |[x, w]| plain(x, w, None, layout))?;
        grads.add_owned(&xv, dx)?;
        grads.add_owned(&wv, dw)?;
        match &bv {
            Some(b) => grads.add_owned(b, dy.sum(0)?),
            None => Ok(()),
        }
    }))
}
