//! What scripts can say: the language, its library, its errors, and what finds mistakes in it.

#[path = "../common/mod.rs"]
mod common;

mod check;
mod errors;
mod in_rhai;
mod modules;
mod natives;
mod reserved;
mod stdlib;
mod stdlib_schedule;
mod tensor_scripts;
mod texts;
