//! A device beside the host's processor: arrays that lie in its memory, kernels and matrix products that run there.
//!
//! Owns everything that is peculiar to a device, and no operation: what a kernel means, and when it runs, is `kernel/`'s.
//! What drives the device stands behind `Backend`: CUDA's driver, or the emulator that runs the same kernels on the CPU
//! (feature `emulate`).

mod array;
mod backend;
pub mod catalogue;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
#[cfg(feature = "emulate")]
mod emulate;
mod kernel;
mod place;
mod product;

pub use array::{Array, DType, Number};
pub use backend::{Address, Backend, Facts, RawArg, RawOperand, RawProduct, Span};
pub use device::{Counters, Gpu};
#[cfg(feature = "emulate")]
pub use emulate::Emulator;
pub use kernel::{Arg, Grid, Kernel};
pub use place::Place;
pub use product::{Operand, Product, Start};

use crate::error::{Error, Kind, Result};

/// NVIDIA GPU number `index`.
///
/// # Errors
/// No such GPU; a library that is not found.
pub fn open(index: usize) -> Result<Gpu> {
    Err(Error::new(Kind::Device, format!("cuda:{index} cannot be used: this build cannot drive a GPU"))
        .hint("use --device cpu"))
}
