//! Differentiable operations on packed rows, each in its own file with a fused form for the host and its plain
//! composition, and the tape that joins them.
//!
//! The fused form serves f32 in the host's memory; elsewhere, and on a `Tape::plain`, the plain composition runs. `form.rs`
//! decides, and nobody else does.

pub mod adamw;
pub mod attention;
mod attention_tangent;
pub mod awake;
pub mod blend;
mod cut;
pub mod decode;
pub mod device;
pub mod divergence;
pub mod dot;
pub mod elementwise;
pub mod fisher;
pub mod form;
pub mod gemm;
pub mod gradients;
pub mod host;
pub mod layer_norm;
pub mod linear;
pub mod logprob;
pub mod op;
mod packed;
pub mod packs;
pub mod peak;
pub mod quantised;
pub mod rank;
pub mod rms_norm;
pub mod rotary;
pub mod segments;
pub mod simd;
pub mod softcap;
pub mod softmax;
pub mod tape;
mod tile;
mod tiles;
pub mod value;

#[cfg(test)]
mod entries_tests;
#[cfg(test)]
mod gemm_tests;
#[cfg(test)]
mod suite_tests;
#[cfg(test)]
mod tests;
