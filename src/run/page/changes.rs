//! The script as it was run, and what was changed on the way: each edit against the text before it.

use super::cut::{Head, Left, cut, head_of};
use crate::files::Location;
use crate::run::edit::{self, BEFORE, Edit, SAID, SCRIPT};
use serde::Serialize;
use similar::TextDiff;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of a text.
pub(super) const LONGEST: u64 = 128 << 10;
/// Edits that are shown: the last ones.
const MOST: usize = 30;
/// Lines of one, and letters of a line.
const LINES: usize = 300;
const LINE: usize = 1000;
/// Lines around a change.
const AROUND: usize = 3;
/// A difference that takes longer is coarser.
const PATIENCE: Duration = Duration::from_millis(200);

/// A text with the number of its lines.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    text: String,
    lines: usize,
}

impl Listing {
    pub fn of(head: Head, left: &mut Left) -> Self {
        if head.more > 0 {
            left.say(format!("the last {} bytes of the script", head.more));
        }
        Self { lines: head.text.lines().count(), text: head.text }
    }
}

/// An edit as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    step: u64,
    /// What it changed: a file, or what a person said.
    what: String,
    file: String,
    refused: bool,
    said: bool,
    lines: Vec<Shown>,
}

/// A line of a difference, and what it is: `add`, `del`, `hunk`, or nothing of these.
#[derive(Debug, Serialize)]
struct Shown {
    kind: &'static str,
    text: String,
}

/// The edits of a run whose first text was `script`.
pub(super) fn of(folder: &Location, script: &str, told: &[Edit], left: &mut Left) -> Vec<Change> {
    let all = edit::edits(told);
    let first = all.len().saturating_sub(MOST);
    left.more(first, "earlier edit", "earlier edits");
    // The text of each file as it was before the edit that comes next.
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut changes = Vec::new();
    for (i, edit) in all.iter().enumerate() {
        let label = edit.of.clone().unwrap_or_default();
        let text = head_of(&folder.join(&edit.file), LONGEST).map(|head| head.text);
        if i >= first {
            let before = texts.get(&label).cloned().or_else(|| match edit.noun() {
                SCRIPT => Some(script.to_string()),
                _ => head_of(&folder.join(edit.file.replace(".rhai", BEFORE)), LONGEST).map(|head| head.text),
            });
            changes.push(change(edit, &label, before.as_deref(), text.as_deref(), left));
        }
        if let Some(text) = text.filter(|_| !edit.refused) {
            texts.insert(label, text);
        }
    }
    changes
}

fn change(edit: &Edit, label: &str, before: Option<&str>, text: Option<&str>, left: &mut Left) -> Change {
    let said = edit.noun() == SAID;
    let mut lines = match (text, before) {
        (None, _) => vec![Shown { kind: "hunk", text: format!("{} is not in the folder", edit.file) }],
        (Some(text), Some(before)) if !said => difference(before, text),
        (Some(text), _) => text.lines().map(|line| Shown { kind: "", text: line.to_string() }).collect(),
    };
    if lines.is_empty() {
        lines.push(Shown { kind: "hunk", text: "the same text as before".into() });
    }
    left.more(
        lines.len().saturating_sub(LINES),
        &format!("line of the edit at step {}", edit.step),
        &format!("lines of the edit at step {}", edit.step),
    );
    lines.truncate(LINES);
    lines.iter_mut().for_each(|line| line.text = cut(&line.text, LINE));
    let what = if said { "said at the pause".to_string() } else { cut(label, LINE) };
    Change { step: edit.step, what, file: edit.file.clone(), refused: edit.refused, said, lines }
}

fn difference(before: &str, text: &str) -> Vec<Shown> {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(before, text);
    let unified = diff.unified_diff().context_radius(AROUND).missing_newline_hint(false).to_string();
    let kind = |line: &str| match line.as_bytes().first() {
        Some(b'+') => "add",
        Some(b'-') => "del",
        Some(b'@') => "hunk",
        _ => "",
    };
    unified.lines().map(|line| Shown { kind: kind(line), text: line.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(step: u64, file: &str, of: &str) -> Edit {
        let of = (!of.is_empty()).then(|| of.to_string());
        Edit { step, file: file.into(), of, refused: false }
    }

    #[test]
    fn each_edit_is_shown_against_the_text_before_it() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("script-2.rhai", "let a = 2;\n"),
            ("script-3.rhai", "broken\n"),
            ("script-4.rhai", "let a = 3;\n"),
            ("task-5.rhai", "new\n"),
            ("task-5-before.rhai", "old\n"),
            ("pause-6.rhai", "- said;\n"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let refused = Edit { refused: true, ..edit(3, "script-3.rhai", "own.rhai") };
        let told = [
            edit(2, "script-2.rhai", "own.rhai"),
            edit(3, "script-3.rhai", "own.rhai"),
            refused,
            edit(4, "script-4.rhai", "own.rhai"),
            edit(5, "task-5.rhai", "task.rhai"),
            edit(6, "pause-6.rhai", ""),
            edit(7, "script-7.rhai", "own.rhai"),
        ];
        let mut left = Left::default();
        let changes = of(&crate::files::anywhere(dir.path()), "let a = 1;\n", &told, &mut left);
        let lines = |i: usize| -> Vec<(&str, &str)> {
            changes[i]
                .lines
                .iter()
                .map(|line| (line.kind, line.text.as_str()))
                .filter(|(kind, _)| *kind != "hunk")
                .collect()
        };
        assert_eq!(lines(0), [("del", "-let a = 1;"), ("add", "+let a = 2;")]);
        assert!(changes[1].refused && !changes[2].refused);
        assert_eq!(
            lines(2),
            [("del", "-let a = 2;"), ("add", "+let a = 3;")],
            "what was turned down is nothing before"
        );
        assert_eq!(lines(3), [("del", "-old"), ("add", "+new")]);
        assert_eq!(lines(4), [("", "- said;")], "what was said is no difference");
        assert_eq!(changes[5].lines[0].text, "script-7.rhai is not in the folder");
        assert_eq!(left.told(), [""; 0]);
    }

    #[test]
    fn many_and_long_edits_leave_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let text: String = (0..5000).map(|i| format!("line {i} {}\n", "x".repeat(i))).collect();
        std::fs::write(dir.path().join("script-1.rhai"), &text).expect("written");
        let told: Vec<Edit> = (0..100).map(|step| edit(step, "script-1.rhai", "own.rhai")).collect();
        let mut left = Left::default();
        let changes = of(&crate::files::anywhere(dir.path()), "", &told, &mut left);
        assert_eq!(changes.len(), MOST);
        assert!(changes.iter().all(|change| change.lines.len() <= LINES));
        assert!(left.told().contains(&"70 earlier edits".to_string()));
        let all = change(&told[0], "own.rhai", Some(""), Some(&text), &mut Left::default());
        assert_eq!(all.lines.len(), LINES);
    }
}
