//! The forms of operations for values on a device: how kernels are launched, what is kept for the backward pass, and
//! that pass.
//!
//! Types. A model has a compute type, f32 or bf16 (`Tape::compute`). The residual stream is f32, and so are the weights
//! of norms, biases, log-probs, and every sum inside a kernel; matrices, and what norms and linear maps give, are of the
//! compute type. The gradient of a value has the value's type, that of a parameter is f32.
//!
//! Owns no kernel: those are `gpu/kernels`.

pub mod adamw;
mod chunks;
mod columns;
mod divergence;
pub mod dot;
pub(super) mod elementwise;
mod gather;
mod launch;
mod linear;
mod logprob;
mod norms;
mod pending;
mod rotary;
pub(super) mod sums;

#[cfg(all(test, feature = "emulate"))]
mod heads_tests;
#[cfg(all(test, feature = "emulate"))]
mod linear_tests;
#[cfg(all(test, feature = "emulate"))]
mod routines_tests;
#[cfg(all(test, feature = "emulate"))]
mod rows_tests;

use crate::error::{Error, Kind};

/// What has no form for a device yet.
pub(crate) fn missing(what: &str) -> Error {
    Error::new(Kind::Device, format!("{what} cannot run on a device yet")).hint("use --device cpu")
}
