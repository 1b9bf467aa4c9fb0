//! Advantages, divergences, clipping, pairs and masked reductions: pure functions of tensors.
//!
//! Reductions, pairs, divergences and clipping are differentiable; advantages are data and carry no graph.

pub mod advantage;
pub mod divergence;
pub mod mask;
pub mod pairs;

#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::tensor::{Tensor, ops};

/// `x` kept between `lo` and `hi`; the gradient passes inside and at the bounds.
pub fn clip(x: &Tensor, lo: &Tensor, hi: &Tensor) -> Result<Tensor> {
    ops::CLIP.on(x, lo, hi)
}
