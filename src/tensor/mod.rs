//! The `Tensor` value that scripts see, its differentiation, and random numbers.
//!
//! Values live on their device; the arithmetic itself runs on the host in f64 and rounds once to the tensor's
//! type, so every function is as accurate as its type allows and there is one implementation to prove. Script
//! tensors are `[B,T]` numbers, small beside the model's work; what is large belongs in `kernel`.

pub mod arrange;
mod create;
mod display;
mod elementwise;
mod lanes;
mod matmul;
pub mod memory;
pub mod ops;
pub mod reduce;
pub mod rng;
pub mod shape;
pub mod simd;
pub mod tape;
pub(crate) mod value;

#[cfg(test)]
pub(crate) mod gradient_tests;

pub use candle_core::{DType, Device};
pub(crate) use create::count;
pub use elementwise::Op;
pub use value::Tensor;
