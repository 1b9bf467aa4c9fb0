//! What a run tells the person watching it. Owns the vocabulary only: `ui` draws it.

use std::path::Path;
use std::rc::Rc;

/// Where the run keeps what was told, as text.
pub type Log = Rc<dyn Fn(&str)>;

/// Where a run stands after a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub step: u64,
    /// The last step that is planned.
    pub total: u64,
    /// Seconds since the step loop began.
    pub seconds: f64,
    /// Steps done in those seconds.
    pub done: u64,
    /// The names that say most of what was logged in the step, first the one that says most.
    pub numbers: Vec<(String, f64)>,
}

/// A small table of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Implemented by whatever shows a run.
pub trait Reporter {
    /// A step loop begins, whose last step this is.
    fn begin(&self, _: u64) {}
    /// A step is done.
    fn step(&self, _: &Status) {}
    /// The step loop is over.
    fn end(&self) {}
    fn table(&self, _: &Table) {}
    /// A run has been opened, which goes on whether anybody reads its output or not; it keeps what is told.
    fn opened(&self, _: Log) {}
    /// The run has ended, and everything is in its folder.
    fn written(&self, folder: &Path) {
        self.note(&format!("written to {}", folder.display()));
    }
    /// An evaluation begins within a loop, or ends.
    fn evaluating(&self, _: bool) {}
    /// A line of information about the run.
    fn note(&self, text: &str);
    /// A line that the script prints: the program's own output.
    fn print(&self, text: &str);
    /// Somebody talks in the middle of a loop: nothing is drawn until `go_on`.
    fn hold(&self) {}
    fn go_on(&self) {}
    /// Asked after a step that Ctrl-C was to be the last: whether to pause there instead of ending.
    fn wants_pause(&self) -> bool {
        false
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn note(&self, _: &str) {}
    fn print(&self, _: &str) {}
}
