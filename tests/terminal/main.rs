//! The command line and the prompt, as a user meets them.

#[path = "../common/mod.rs"]
mod common;

mod cli;
mod commands;
mod live;
mod repl;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod stand_in;
