//! The forms of operations for values on a device: how kernels are launched, what is kept for the backward pass, and
//! that pass.
//!
//! Types. A model has a compute type, f32 or bf16 (`Tape::compute`). The residual stream is f32, and so are the weights
//! of norms, biases, log-probs, and every sum inside a kernel; matrices, and what norms and linear maps give, are of the
//! compute type. The gradient of a value has the value's type, that of a parameter is f32.
//!
//! Owns no kernel: those are `gpu/kernels`.

pub mod adamw;
mod attention;
mod attention_lists;
pub mod check;
pub mod chunks;
mod columns;
pub mod decode;
mod divergence;
pub mod dot;
pub(super) mod elementwise;
mod gather;
mod launch;
mod linear;
mod logprob;
mod norms;
mod rotary;
pub(super) mod sums;

#[cfg(all(test, feature = "emulate"))]
mod attention_tests;
#[cfg(all(test, feature = "emulate"))]
mod heads_tests;
#[cfg(all(test, feature = "emulate"))]
mod linear_tests;
#[cfg(all(test, feature = "emulate"))]
mod routines_tests;
#[cfg(all(test, feature = "emulate"))]
mod rows_tests;

pub(in crate::kernel) use attention_lists::Lists;
