//! The documentation and the structure of the source are what they say.

mod algorithm_pages;
mod blocks;
mod circles;
#[cfg(unix)]
mod commands;
mod embedding;
mod examples;
mod fences;
#[cfg(feature = "cuda")]
mod kernels;
mod layering;
mod metric_names;
mod reference;
