//! Fused differentiable operations on packed rows, each beside its plain composition, and the tape that joins them.
//!
//! A fused kernel serves f32 on the CPU; elsewhere, and on a `Tape::plain`, the plain composition runs.

pub mod attention;
pub mod decode;
pub mod divergence;
pub mod elementwise;
pub mod gemm;
pub mod host;
pub mod layer_norm;
pub mod linear;
pub mod logprob;
pub mod rms_norm;
pub mod rotary;
pub mod segments;
pub mod simd;
pub mod softcap;
pub mod tape;
mod tile;

#[cfg(test)]
mod tests;
