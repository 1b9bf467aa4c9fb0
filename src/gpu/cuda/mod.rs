//! NVIDIA's GPUs: libraries that are opened at run time, kernels compiled at run time, the driver, matrix products.
//!
//! Nothing of CUDA is needed to build: a machine without it learns at run time which library is missing, and where it
//! was looked for.

mod compile;
mod driver;
mod libraries;
mod products;
mod session;
mod source;
mod staging;

pub use compile::{Build, Compiled, Compiler, Usage};
pub use driver::open;
pub use libraries::{Found, Libraries, Library, Missing, libraries};
pub use session::cards;
