//! Bounds of commands that run no script and read what others have written.

use crate::budget::{self, memory};
use crate::ui::limits::gibibytes;
use crate::ui::watchdog::{self, Bounds};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

// What is written here as documentation would become the help of each of these commands.
#[derive(Debug, Clone, clap::Args)]
struct BoundArgs {
    /// End with an error after this many seconds [default: no limit]
    #[arg(long, value_name = "S")]
    max_seconds: Option<u64>,
    /// Most memory that the command may hold, in GiB [default: what the machine has]
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    max_memory: Option<u64>,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Bounded<A: clap::Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    bounds: BoundArgs,
}

impl<A: clap::Args> Bounded<A> {
    /// What the command was given, once its bounds hold.
    pub fn begin(self) -> A {
        let BoundArgs { max_seconds, max_memory } = self.bounds;
        if let Some(bytes) = max_memory {
            memory::set_limit(bytes);
        }
        let stop = Arc::new(AtomicBool::new(false));
        budget::obey(&stop);
        watchdog::watch(Bounds { time: max_seconds.map(Duration::from_secs), memory: max_memory }, &stop);
        self.args
    }
}
