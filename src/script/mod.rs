//! The Rhai layer.

pub mod value;
pub mod lex;
pub mod limits;
pub mod registry;
pub mod options;
pub mod loader;
pub mod diagnostics;
mod wording;
mod operands;
pub mod render;
pub mod surprises;
pub mod surroundings;
pub mod callee;
pub mod bind;
pub mod between;
pub mod live;
pub mod host;
pub mod builder;
pub mod check;
pub mod definitions;
pub mod library;
pub mod reference;
pub mod pages;
pub mod testing;
pub mod console;
pub mod workbench;
