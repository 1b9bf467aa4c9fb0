//! One line of numbers per step: merging, averaging, and `metrics.jsonl`.
//! Owns no meaning of the names (`names.rs`), and not the bytes of the event file beside it (`events.rs`).

use crate::error::{Error, Result};
use crate::files::{self, Location, Log};
use crate::run::edit::Edit;
use crate::run::events::{self, Events};
use crate::run::history::History;
use crate::run::line::Line;
use serde::{Deserialize, Serialize};

use std::time::{Duration, Instant};

/// Where `metrics.jsonl` stood.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MetricsState {
    /// Bytes of the lines that were whole.
    pub bytes: u64,
    /// Of these bytes.
    pub hash: String,
    pub open: Line,
    /// Bytes of the event file; older checkpoints do not say.
    #[serde(default)]
    pub events: Option<u64>,
}

/// The metrics of a run, written to disk line by line.
#[derive(Debug)]
pub struct Metrics {
    log: Log,
    /// The same numbers for TensorBoard.
    events: Events,
    path: Location,
    started: Instant,
    open: Line,
    closed: Vec<Line>,
    /// Edits of the step under way and of those before it.
    edits: Vec<Edit>,
    /// Edits that take effect at a step which has not begun.
    coming: Vec<Edit>,
}

impl Metrics {
    /// Creates the file, and the event file beside it; step 0 is open.
    pub fn create(path: &Location) -> Result<Self> {
        let (log, events) = (Log::create(path)?, Events::create(&path.with_file_name(events::FILE), 0.0)?);
        let path = path.clone();
        Ok(Self {
            log,
            events,
            path,
            started: Instant::now(),
            open: Line::default(),
            closed: Vec::new(),
            edits: Vec::new(),
            coming: Vec::new(),
        })
    }

    /// Goes on where a checkpoint was written, `seconds` into the run: what the file holds beyond that goes.
    ///
    /// # Errors
    /// A file that does not begin as the checkpoint has it; one that cannot be written.
    pub fn resume(path: &Location, state: &MetricsState, seconds: f64) -> Result<Self> {
        let changed = || {
            Error::file(format!("{} is not as the run left it", path.display()))
                .hint("put back its first lines, or begin a new run")
        };
        if !files::is_file(path) || files::digest_of(path, state.bytes)? != (state.bytes, state.hash.clone()) {
            return Err(changed());
        }
        let text = files::text(path)?;
        let kept = text.get(..state.bytes as usize).ok_or_else(changed)?;
        let History { lines: closed, edits, .. } = History::whole(kept).ok_or_else(changed)?;
        let log = Log::resume(path, state.bytes)?;
        let events = Events::resume(&path.with_file_name(events::FILE), state.events, seconds, &closed)?;
        let started = Instant::now().checked_sub(Duration::from_secs_f64(seconds)).unwrap_or_else(Instant::now);
        let (path, open, coming) = (path.clone(), state.open.clone(), Vec::new());
        Ok(Self { log, events, path, started, open, closed, edits, coming })
    }

    /// What a checkpoint keeps.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn state(&self) -> Result<MetricsState> {
        let (bytes, hash) = files::digest(&self.path)?;
        Ok(MetricsState { bytes, hash, open: self.open.clone(), events: Some(self.events.bytes()?) })
    }

    /// Seconds since the run began, those of earlier processes among them.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Adds a number to the open step; a name that comes again within it is averaged.
    pub fn log(&mut self, name: &str, value: f64) {
        self.open.add(name, value);
    }

    /// The step being logged.
    pub fn current(&self) -> &Line {
        &self.open
    }

    /// Adds an edit: a line of its own, before that of its step. It is written when the step has begun.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn edited(&mut self, edit: Edit) -> Result<()> {
        self.coming.push(edit);
        self.tell_edits(self.open.step)
    }

    /// What was edited so far; of a coming step as well.
    pub fn edits(&self) -> impl Iterator<Item = &Edit> {
        self.edits.iter().chain(&self.coming)
    }

    /// Writes the edits that take effect up to `step`. One that is told again, as its step comes again, has its line.
    fn tell_edits(&mut self, step: u64) -> Result<()> {
        let (now, coming) = std::mem::take(&mut self.coming).into_iter().partition(|edit| edit.step <= step);
        self.coming = coming;
        let now: Vec<Edit> = now;
        for edit in now {
            let last = self.edits.iter().rev().find(|known| known.file == edit.file);
            if last != Some(&edit) {
                self.log.line(&edit.to_json().to_string())?;
                self.edits.push(edit);
            }
        }
        Ok(())
    }

    /// The open step begins again: what it has logged is dropped.
    pub fn repeat(&mut self) {
        self.open.means.clear();
    }

    /// Writes the open line, if it holds anything, and opens `step`.
    pub fn advance(&mut self, step: u64) -> Result<()> {
        // A step that begins again has the line that is open.
        if step != self.open.step {
            self.write(step)?;
        }
        self.tell_edits(step)
    }

    fn write(&mut self, step: u64) -> Result<()> {
        let mut done = std::mem::replace(&mut self.open, Line { step, means: Vec::new() });
        if done.means.is_empty() {
            return Ok(());
        }
        let seconds = (self.seconds() * 1e3).round() / 1e3;
        let text = done.to_json(seconds).to_string();
        done.add("seconds", seconds);
        let written = self.log.line(&text).and_then(|()| self.events.line(&done));
        self.closed.push(done);
        written
    }

    /// Writes what is open. Nothing more is expected, but later numbers would make a further line.
    pub fn finish(&mut self) -> Result<()> {
        self.write(self.open.step)?;
        // Of a loop that was left at a pause, the step does not come.
        self.tell_edits(u64::MAX)
    }

    /// The lines that are written.
    pub fn lines(&self) -> &[Line] {
        &self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn lines(fill: impl FnOnce(&mut Metrics)) -> Vec<Value> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(&crate::files::anywhere(&path)).expect("a file");
        fill(&mut metrics);
        metrics.finish().expect("written");
        let text = std::fs::read_to_string(path).expect("readable");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn repeated_names_are_averaged_within_a_step_only() {
        let lines = lines(|m| {
            m.log("eval", 0.5);
            m.advance(1).expect("step");
            m.log("loss", 1.0);
            m.log("loss", 2.0);
            m.advance(2).expect("step");
            m.log("loss", 4.0);
            m.log("eval", 0.75);
        });
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["step"], &lines[0]["eval"]), (&json!(0), &json!(0.5)));
        assert_eq!((&lines[1]["step"], &lines[1]["loss"]), (&json!(1), &json!(1.5)));
        assert_eq!((&lines[2]["loss"], &lines[2]["eval"]), (&json!(4.0), &json!(0.75)));
    }

    #[test]
    fn one_number_that_is_none_does_not_hide_the_others() {
        let lines = lines(|m| [1.0, f64::NAN, 2.0, f64::INFINITY].into_iter().for_each(|x| m.log("a", x)));
        assert_eq!(lines[0]["a"], json!(1.5));
    }

    #[test]
    fn steps_without_numbers_leave_no_line_and_nan_is_null() {
        let lines = lines(|m| {
            m.advance(1).expect("step");
            m.advance(2).expect("step");
            m.log("loss", f64::NAN);
        });
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0]["step"], &lines[0]["loss"]), (&json!(2), &Value::Null));
    }
}
