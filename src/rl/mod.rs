//! Advantages, divergences, clipping, pairs and masked reductions: pure functions of tensors.
//!
//! Reductions, pairs, divergences and clipping are differentiable; advantages are data and carry no graph.

pub mod advantage;
pub mod divergence;
pub mod mask;
pub mod pairs;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::tensor::{Tensor, ops, shape};

/// The mean over the n adjacent rows of its group in every row's place, `[B,1]`; differentiable.
///
/// # Errors
/// Another shape, or rows that do not divide into groups.
pub fn group_mean(x: &Tensor, n: usize) -> Result<Tensor> {
    let &[rows, 1] = x.dims() else {
        let found = shape::show(x.dims());
        return Err(Error::shape(format!("`group_mean` takes one number per row, shape [B,1], found {found}"))
            .hint("reduce to one number per row first: seq_sum(x, mask), seq_avg(x, mask)"));
    };
    if n == 0 || rows % n != 0 {
        return Err(Error::shape(format!("`group_mean`: {rows} rows do not divide into groups of {n}"))
            .hint("n is the number of answers per prompt, as in sample's option n"));
    }
    let groups = x.reshape(&[-1, n as i64])?; // [P,n]
    let means = groups.mean(Some(1))?; // [P,1]
    ops::MUL.on(&means, &Tensor::full(groups.dims(), 1.0, x.device())?.to_dtype(x.dtype())?)?.reshape(&[-1, 1])
}

/// `x` kept between `lo` and `hi`; the gradient passes inside and at the bounds.
///
/// # Errors
/// Two numbers as bounds of which the lower is above the upper; shapes that do not broadcast.
pub fn clip(x: &Tensor, lo: &Tensor, hi: &Tensor) -> Result<Tensor> {
    if lo.dims().is_empty() && hi.dims().is_empty() {
        let (low, high) = (lo.item()?, hi.item()?);
        if low > high {
            return Err(Error::value(format!("`clip`: the lower bound {low} is above the upper bound {high}"))
                .hint("a clip range is 0 or more: clip(ratio, 1 - range, 1 + range)"));
        }
    }
    ops::CLIP.on(x, lo, hi)
}
