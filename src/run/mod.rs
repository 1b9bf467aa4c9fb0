//! One program run: its session, folder, metrics, curves and interruption.

pub mod access;
pub mod bench;
pub mod check;
pub mod comparison;
pub mod converse;
pub mod device;
pub mod report;
pub mod interrupt;
pub mod metrics;
pub mod options;
pub mod folder;
pub mod gpu_bench;
pub mod plot;
pub mod evaluate;
pub mod handle;
pub mod step_loop;
pub mod heatmap;
mod show;
pub mod session;
mod lifecycle;
pub mod machine;
pub mod steps;

pub use handle::Run;
pub use report::{Reporter, Silent, Status, Table};
pub use session::{Launch, Session, Stream};
pub use step_loop::{Phase, StepLoop, Verdict};
