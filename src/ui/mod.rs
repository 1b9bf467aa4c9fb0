//! What a person sees: the command line, progress, tables and lists.

pub mod bench;
mod bounds;
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
#[cfg(target_os = "linux")]
mod overflow;
mod pages;
mod plot;
mod progress;
mod repl;
mod replay;
mod report;
mod resume;
mod run;
mod runs;
mod sweep;
mod table;
mod terminal;
mod test;
mod thread;
mod watchdog;
