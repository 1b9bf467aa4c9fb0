//! What `rhopo check` says: what is wrong, where, and the way out.

use crate::script::lang::diagnostics::{Diagnostic, Frame};
use rhai::Position;

/// Something wrong, where, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub label: String,
    /// From 1; 0 where it has no place.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn at(label: &str, pos: Position, message: String, hint: Option<String>) -> Self {
        let (line, column) = (pos.line().unwrap_or(0), pos.position().unwrap_or(1));
        Self { label: label.to_string(), line, column, message, hint }
    }

    /// A script that does not compile has one finding: where it stops.
    pub(super) fn of(diagnostic: Diagnostic, label: &str) -> Self {
        let frame = diagnostic.frames.into_iter().next();
        let (label, line, column) = frame.map_or((label.to_string(), 0, 0), |f| (f.label, f.line, f.column));
        Self { label, line, column, message: diagnostic.message, hint: diagnostic.hint }
    }
}

impl From<Finding> for Diagnostic {
    fn from(f: Finding) -> Self {
        let frame = Frame { label: f.label, line: f.line, column: f.column, what: "here".into() };
        let frames = if f.line > 0 { vec![frame] } else { Vec::new() };
        Self { message: f.message, hint: f.hint, frames, interrupted: false }
    }
}
