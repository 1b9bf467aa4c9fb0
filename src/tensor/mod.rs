//! The `Tensor` value that scripts see, its differentiation, and random numbers.
//!
//! Values live on their device; the arithmetic itself runs on the host in f64 and rounds once to the tensor's
//! type, so every function is as accurate as its type allows and there is one implementation to prove. Large tensors
//! are computed on all cores (`blocks`), with the same bits for any number of them. The model's work is `kernel`'s.

pub mod arrange;
pub(crate) mod blocks;
pub(crate) mod cells;
mod create;
mod display;
pub(crate) mod elementwise;
mod lanes;
pub(crate) mod masked;
mod matmul;
pub mod ops;
pub mod reduce;
pub mod rng;
pub mod shape;
pub mod simd;
mod statistics;
pub mod tape;
pub(crate) mod value;

#[cfg(test)]
pub(crate) mod gradient_tests;
#[cfg(test)]
pub(crate) mod large_tests;

pub use candle_core::{DType, Device};
pub(crate) use create::count;
pub use elementwise::Op;
pub use statistics::randint;
pub use value::Tensor;
