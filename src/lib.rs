//! rhopo: a runtime for research on policy-optimisation objectives for language models.
//!
//! The layers, lowest first; each may use those above it in this list only (`tests/docs/layering.rs` holds it).

pub mod error;
pub mod files;
pub mod tensor;
pub mod gpu;
pub mod kernel;
pub mod rl;
pub mod model;
pub mod engine;
pub mod data;
pub mod run;
pub mod script;
pub mod ui;

pub use error::{Error, Kind, Result};
