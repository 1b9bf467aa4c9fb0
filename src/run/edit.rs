//! An edit of a run that goes on: a line of `metrics.jsonl` that holds no numbers.
//! Owns the line, and what it looks like in curves; the texts are kept by `editing.rs`.

use crate::files;
use serde_json::{Map, Value, json};

/// What a line is that holds no numbers; no number has this name and a text for its value.
const EVENT: &str = "event";
const EDIT: &str = "edit";
const REFUSED: &str = "refused";
/// Before the step in the names of files with what was said at a pause.
pub const SAID: &str = "pause";
/// Before the step in the names of files with the text of the script.
pub const SCRIPT: &str = "script";

/// Ends the name of the file that has a text as it was before its first edit.
pub const BEFORE: &str = "-before.rhai";

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The step from which on it is in effect.
    pub step: u64,
    /// The file of the run folder with the new text, or with what was said.
    pub file: String,
    /// The file that was edited; none for what was said at a pause.
    pub of: Option<String>,
    /// A function of it failed in that step: those from before it are back.
    pub refused: bool,
}

/// A place in curves where something was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub step: u64,
    pub label: String,
}

impl Edit {
    /// `{"step":12,"event":"edit","file":"script-12.rhai","of":"own.rhai"}`
    pub(super) fn to_json(&self) -> Value {
        let event = if self.refused { REFUSED } else { EDIT };
        let mut line = json!({ "step": self.step, EVENT: event, "file": self.file });
        if let Some(of) = &self.of {
            line["of"] = json!(of);
        }
        line
    }

    /// What `to_json` has written. A name that leads out of the folder is none that it writes.
    pub(super) fn read(line: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| line.get(name).and_then(Value::as_str);
        let refused = match text(EVENT)? {
            EDIT => false,
            REFUSED => true,
            _ => return None,
        };
        let file = text("file").filter(|name| files::is_plain(name) && name.ends_with(".rhai"))?;
        let of = text("of").map(str::to_string);
        Some(Self { step: line.get("step")?.as_u64()?, file: file.to_string(), of, refused })
    }

    /// What kind of text was changed: `script`, `module`, `task`, `reward`, `pause`.
    pub fn noun(&self) -> &str {
        self.file.split('-').next().unwrap_or_default()
    }

    /// Whether nothing of it is left. What was said at a pause stays, but for its functions.
    pub fn is_undone(&self) -> bool {
        self.refused && self.noun() != SAID
    }
}

/// Whether a line of `metrics.jsonl` says what happened, and holds no numbers of a step.
pub fn is_event(line: &Map<String, Value>) -> bool {
    line.get(EVENT).is_some_and(Value::is_string)
}

/// The edits that these lines tell of, each once, in their order.
pub fn edits(lines: &[Edit]) -> Vec<Edit> {
    let mut edits: Vec<Edit> = Vec::new();
    for line in lines {
        match edits.iter_mut().rev().find(|known| known.file == line.file && known.step == line.step) {
            Some(known) => known.refused = line.refused,
            None => edits.push(line.clone()),
        }
    }
    edits
}

/// A mark for every step with edits that are in effect.
pub fn marks(lines: &[Edit]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for edit in edits(lines).iter().filter(|edit| !edit.is_undone()) {
        let label = if edit.noun() == SAID { SAID } else { EDIT };
        match marks.iter_mut().find(|mark| mark.step == edit.step) {
            Some(mark) if mark.label.split(", ").any(|known| known == label) => {}
            Some(mark) => mark.label += &format!(", {label}"),
            None => marks.push(Mark { step: edit.step, label: label.to_string() }),
        }
    }
    marks.sort_by_key(|mark| mark.step);
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(step: u64, file: &str) -> Edit {
        let of = (!file.starts_with(SAID)).then(|| "own.rhai".to_string());
        Edit { step, file: file.into(), of, refused: false }
    }

    fn read(text: &str) -> Option<Edit> {
        Edit::read(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for edit in
            [edit(3, "script-3.rhai"), edit(4, "pause-4.rhai"), Edit { refused: true, ..edit(5, "task-5.rhai") }]
        {
            let text = edit.to_json().to_string();
            assert_eq!(read(&text), Some(edit), "{text}");
            assert!(is_event(&serde_json::from_str(&text).expect("JSON")));
        }
        assert_eq!(
            edit(12, "script-12.rhai").to_json().to_string(),
            r#"{"step":12,"event":"edit","file":"script-12.rhai","of":"own.rhai"}"#
        );
    }

    #[test]
    fn no_name_leads_out_of_the_folder_and_numbers_are_no_events() {
        for file in ["../script-1.rhai", "/etc/passwd", "..", "config.json", "a\\b.rhai", ""] {
            assert_eq!(read(&json!({ "step": 1, "event": "edit", "file": file }).to_string()), None, "{file}");
        }
        for numbers in [r#"{"step":1,"event":0.5}"#, r#"{"step":1,"event":null}"#, r#"{"step":1,"loss":1}"#] {
            assert!(!is_event(&serde_json::from_str(numbers).expect("JSON")), "{numbers}");
        }
        assert!(is_event(&serde_json::from_str(r#"{"step":1,"event":"later"}"#).expect("JSON")));
    }

    #[test]
    fn what_was_turned_down_has_no_mark_unless_it_was_tried_again() {
        let refused = |edit: Edit| Edit { refused: true, ..edit };
        let (script, said) = (edit(3, "script-3.rhai"), edit(3, "pause-3.rhai"));
        let labels = |lines: &[Edit]| marks(lines).into_iter().map(|mark| (mark.step, mark.label)).collect::<Vec<_>>();
        let at = |step: u64, label: &str| (step, label.to_string());
        assert_eq!(
            labels(&[script.clone(), said.clone(), edit(9, "task-9.rhai")]),
            [at(3, "edit, pause"), at(9, "edit")]
        );
        assert_eq!(labels(&[script.clone(), refused(script.clone())]), []);
        assert_eq!(labels(&[said.clone(), refused(said)]), [at(3, "pause")], "what it said beside functions stays");
        let again = [script.clone(), refused(script.clone()), script.clone()];
        assert_eq!((labels(&again), edits(&again).len()), (vec![at(3, "edit")], 1));
    }
}
