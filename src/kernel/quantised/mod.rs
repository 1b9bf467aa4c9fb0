//! Matrices kept in few bits, and products over them: the weights of frozen models.
//!
//! `format.rs` says what is kept of a number, `matrix.rs` where, `unpack.rs` what number it comes to; `product.rs` is what
//! a decoder asks for, computed by `gemm.rs`. Nothing here is differentiated.

mod format;
mod matrix;
mod product;
mod unpack;

pub use format::{Blocks, Column, Format, Offset};
pub(super) use matrix::DEPTH;
pub use matrix::Matrix;
pub use product::{Addend, Product};

#[cfg(test)]
mod tests;
