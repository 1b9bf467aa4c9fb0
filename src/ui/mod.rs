//! What a person sees: the command line, progress, tables and lists.

pub mod bench;
mod check;
pub mod cli;
mod compare;
mod completions;
mod diff;
mod doc;
mod examples;
mod fold;
mod gpu;
mod inspect;
mod limits;
mod list;
mod man;
mod new;
pub(crate) mod out;
mod pages;
mod progress;
mod repl;
mod replay;
mod resume;
mod run;
mod runs;
mod table;
mod terminal;
mod test;
mod thread;
