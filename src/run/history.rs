//! `metrics.jsonl` read back: the numbers of every step, and what was edited.

use crate::error::Result;
use crate::files::{self, Location};
use crate::run::edit::{self, Edit};
use crate::run::line::Line;
use crate::run::logged;
use serde_json::{Map, Value};

/// What the file holds.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub lines: Vec<Line>,
    pub edits: Vec<Edit>,
    /// How many lines could not be read.
    pub damaged: usize,
}

impl History {
    /// Of a text in which every line is whole; none where one cannot be read.
    pub(super) fn whole(text: &str) -> Option<Self> {
        let mut history = Self::default();
        let mut objects = text.lines().map(serde_json::from_str::<Map<String, Value>>);
        objects.all(|object| object.is_ok_and(|object| history.add(&object))).then_some(history)
    }

    /// Of the file of a run that may go on, or was killed: what is no line is counted, unless it is still being written.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(path: &Location) -> Result<Self> {
        Ok(Self::of(&String::from_utf8_lossy(&files::bytes(path)?)))
    }

    /// Of such a text.
    pub fn of(text: &str) -> Self {
        let mut history = Self::default();
        for object in logged::lines(text) {
            let read = object.is_some_and(|object| history.add(&object));
            history.damaged += usize::from(!read);
        }
        history
    }

    fn add(&mut self, object: &Map<String, Value>) -> bool {
        match (edit::is_event(object), Line::of(object)) {
            (true, _) => self.edits.extend(Edit::read(object)),
            (false, Some(line)) => self.lines.push(line),
            (false, None) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"event\":\"edit\",\"file\":\"script-2.rhai\"}\n\
                        {\"step\":2,\"event\":\"of a later version\"}\n{\"step\":2,\"loss\":0.25}\n";

    #[test]
    fn numbers_and_edits_are_told_apart() {
        let history = History::whole(TEXT).expect("whole");
        let losses: Vec<Option<f64>> = history.lines.iter().map(|line| line.get("loss")).collect();
        assert_eq!((losses, history.edits.len()), (vec![Some(0.5), Some(0.25)], 1));
        assert!(history.lines.iter().all(|line| line.numbers().all(|(_, x)| x.is_finite())), "no event is a number");
    }

    #[test]
    fn a_line_that_is_being_written_does_not_count() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = crate::files::anywhere(dir.path()).join("metrics.jsonl");
        let cut = format!("{TEXT}{{\"step\":3,\"lo");
        std::fs::write(&path, &cut).expect("written");
        let read = History::read(&path).expect("read");
        assert_eq!((read.lines.len(), read.damaged), (2, 0));
        assert!(History::whole(&cut).is_none());
    }

    #[test]
    fn damaged_lines_are_counted() {
        let history = History::of(&format!("{TEXT}garbage\n{{\"loss\":1}}\n{{\"step\":3,\"loss\":1e999}}\n"));
        let last = history.lines.last().and_then(|line| line.get("loss"));
        assert_eq!((history.lines.len(), history.damaged, last.map(f64::is_nan)), (3, 2, Some(true)));
        assert!(History::whole("garbage\n").is_none());
    }
}
