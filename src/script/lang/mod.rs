//! The language: where scripts come from and how far they may go, what is known of them without running them, and what
//! their errors say. Below everything else in `script`; knows no function that scripts can call.

pub mod diagnostics;
pub mod functions;
pub mod host_state;
pub mod in_use;
pub mod lex;
pub mod library;
pub mod limits;
pub mod lints;
pub mod loader;
pub mod messages;
pub mod native;
pub mod no_value;
pub mod operands;
pub mod order;
pub mod python;
pub mod reference;
pub mod render;
pub mod value;
