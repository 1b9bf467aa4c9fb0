//! One program run: its session, folder, metrics, curves and interruption.

pub mod access;
pub mod bench;
pub mod checkpoint;
pub mod check;
pub mod comparison;
pub mod converse;
pub mod device;
pub mod report;
pub mod interrupt;
pub mod metrics;
mod exact;
pub mod options;
pub mod folder;
pub mod gpu_bench;
pub mod plot;
pub mod evaluate;
pub mod handle;
mod keeping;
mod launch;
pub mod step_loop;
pub mod heatmap;
mod show;
pub mod status;
mod suspect;
pub mod session;
mod lifecycle;
pub mod machine;
pub mod steps;

pub use handle::Run;
pub use keeping::EVAL;
pub use launch::Launch;
pub use report::{Reporter, Silent, Status, Table};
pub use session::{Session, Stream};
pub use step_loop::{Phase, StepLoop, Verdict};
