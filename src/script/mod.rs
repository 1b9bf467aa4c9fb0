//! The Rhai layer.

pub mod registry;
pub mod options;
pub mod loader;
pub mod diagnostics;
mod wording;
pub mod render;
pub mod bind;
pub mod host;
