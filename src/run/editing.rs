//! What is kept of an edit while a run goes on: the text in the run folder, and the line of `metrics.jsonl` that says from
//! which step on it is in effect.

use crate::error::Result;
use crate::run::edit::{BEFORE, Edit, SAID, SCRIPT};
use crate::run::handle::Run;

/// A text that was edited.
#[derive(Debug, Clone, Copy)]
pub struct Edited<'a> {
    /// What it is to the run: `script`, `module`, `task`, `reward`.
    pub noun: &'a str,
    /// The file that was edited.
    pub label: &'a str,
    pub text: &'a str,
    /// As the run had it until now.
    pub before: Option<&'a str>,
}

impl Run {
    /// Keeps a text that is in effect from `step` on; returns the name of its file in the folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn keep_edit(&self, step: u64, edited: Edited<'_>) -> Result<String> {
        let Edited { noun, label, text, before } = edited;
        let known = self.edits();
        let others = known.iter().filter(|edit| edit.step == step && edit.noun() == noun);
        let others = others.filter(|edit| edit.of.as_deref() != Some(label)).count();
        let stem = if others == 0 { format!("{noun}-{step}") } else { format!("{noun}-{step}-{}", others + 1) };
        let file = format!("{stem}.rhai");
        self.folder().write(&file, text)?;
        // The script's first text is in the folder from the beginning.
        let first = noun != SCRIPT && !known.iter().any(|edit| edit.of.as_deref() == Some(label));
        if let Some(before) = before.filter(|_| first) {
            self.folder().write(&format!("{stem}{BEFORE}"), before)?;
        }
        self.record(Edit { step, file: file.clone(), of: Some(label.to_string()), refused: false })?;
        Ok(file)
    }

    /// Keeps what was said at the pause before `step`; returns the name of its file in the folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn keep_said(&self, step: u64, text: &str) -> Result<String> {
        let file = format!("{SAID}-{step}.rhai");
        self.record(Edit { step, file: file.clone(), of: None, refused: false })?;
        self.folder().write(&file, text)?;
        Ok(file)
    }

    /// What was kept in this file has failed in its first step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn turn_down(&self, file: &str) -> Result<()> {
        let edit = self.edits().into_iter().rev().find(|edit| edit.file == file);
        edit.map_or(Ok(()), |edit| self.record(Edit { refused: true, ..edit }))
    }
}
