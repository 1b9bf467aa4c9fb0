//! What a person sees: the command line, progress, tables and lists.

pub mod bench;
pub mod cli;
mod inspect;
mod list;
mod out;
mod progress;
mod run;
mod table;
