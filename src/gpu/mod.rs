//! A device beside the host's processor: arrays that lie in its memory, kernels and matrix products that run there.
//!
//! Owns everything that is peculiar to a device, and no operation: what a kernel means, and when it runs, is `kernel/`'s.
//! What drives the device stands behind `Backend`: CUDA's driver, or the emulator that runs the same kernels on the CPU
//! (feature `emulate`).

mod array;
mod backend;
pub mod catalogue;
pub mod check;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
#[cfg(feature = "emulate")]
mod emulate;
mod kernel;
mod opened;
mod place;
mod product;

pub use array::{Array, DType, Number};
pub use backend::{Address, Backend, Facts, RawArg, RawOperand, RawProduct, Span};
pub use device::{Counters, Gpu};
#[cfg(feature = "emulate")]
pub use emulate::Emulator;
pub use kernel::{Arg, Grid, Kernel};
pub use opened::opened;
pub use place::Place;
pub use product::{Operand, Product, Start};

/// NVIDIA GPU number `index`.
///
/// # Errors
/// No such GPU; a library that is not found.
#[cfg(feature = "cuda")]
pub fn open(index: usize) -> crate::error::Result<Gpu> {
    opened(&format!("cuda:{index}"), || cuda::open(index))
}

/// # Errors
/// Always: this build knows no GPU.
#[cfg(not(feature = "cuda"))]
pub fn open(index: usize) -> crate::error::Result<Gpu> {
    use crate::error::{Error, Kind};
    let what = format!("cuda:{index} cannot be used: this rhopo was built without the feature `cuda`");
    Err(Error::new(Kind::Device, what).hint("use --device cpu"))
}
