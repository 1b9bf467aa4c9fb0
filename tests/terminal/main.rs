//! The command line and the prompt, as a user meets them.

#[path = "../common/mod.rs"]
mod common;

mod cli;
mod commands;
mod compare;
#[cfg(all(feature = "emulate", unix))]
mod device_run;
mod help;
mod left;
mod live;
mod outputs;
mod pause;
mod plot;
mod repl;
mod report;
mod runs;
#[cfg(unix)]
mod safe_text;
mod simd;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod stand_in;
mod sweep;
