//! The documentation and the structure of the source are what they say.

mod algorithm_pages;
mod blocks;
mod circles;
mod examples;
#[cfg(feature = "cuda")]
mod kernels;
mod layering;
mod reference;
