//! Help while typing: colours, completion, the signature of what is being called, and whether an input is finished.
//! Owns no knowledge of names: `script/live/console/complete.rs` does.

use super::commands;
use super::indent::Indent;
use crate::script::lang::lex::{self, Kind};
use crate::script::live::console::Repl;
use crate::script::live::console::complete::{self, Known};
use rustyline::completion::Completer;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use std::borrow::Cow;
use std::cell::Cell;

/// Bytes of an input: the parser takes more than linear time for some long texts.
pub(super) const LONGEST: usize = 1 << 16;

/// Enough of a value for a list of variables.
const VALUE: usize = 40;
/// Columns of the prompt, about.
const PROMPT: usize = 14;

/// Where a prompt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On its own.
    Session,
    /// Between two steps of a run.
    Pause,
}

/// Helps whoever types.
pub struct LineHelper {
    known: Known,
    colours: bool,
    history: HistoryHinter,
    indent: Indent,
    /// Whether the lines read so far are the beginning of an input.
    unfinished: Cell<bool>,
}

impl LineHelper {
    pub fn new(colours: bool, indent: Indent) -> Self {
        let (known, history) = (Known::default(), HistoryHinter {});
        Self { known, colours, history, indent, unfinished: Cell::new(false) }
    }

    /// Whether reading stopped in the middle of an input.
    pub fn unfinished(&self) -> bool {
        self.unfinished.get()
    }

    /// Takes note of what there is now.
    pub fn update(&mut self, repl: &Repl<'_, '_>, place: Place) {
        if self.known.entries.is_empty() {
            self.known.entries = repl.entries().to_vec();
            self.known.commands = commands::names();
        }
        self.known.variables = repl.variables(VALUE);
        self.known.functions = repl.own_functions();
        self.known.modules = repl.modules();
        if place == Place::Pause {
            self.known.functions.extend(["continue", "next", "stop"].map(str::to_string));
        }
    }
}

impl Helper for LineHelper {}

impl Completer for LineHelper {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(match self.indent.waiting(at) {
            Some((from, text)) => (from, vec![text]),
            None => complete::candidates(line, at, &self.known),
        })
    }
}

impl Hinter for LineHelper {
    type Hint = String;

    /// The signature of the call around the cursor, else what the history suggests; at the end of the input only.
    fn hint(&self, line: &str, at: usize, context: &Context<'_>) -> Option<String> {
        if at < line.len() || line.trim().is_empty() {
            return None;
        }
        match complete::signature(line, &self.known) {
            // What is typed with a hint in sight must not become part of the input by a press of the right arrow.
            Some(signature) => Some(fitting(&format!("   {signature}"), line)),
            None => self.history.hint(line, at, context).filter(|hint| !hint.contains('\n')),
        }
    }
}

/// What the rest of the last line has room for.
fn fitting(hint: &str, line: &str) -> String {
    let used = line.lines().last().map_or(0, |last| last.chars().count()) + PROMPT;
    let room = super::draw::width().saturating_sub(used + 1);
    match hint.chars().count() <= room {
        true => hint.to_string(),
        false => hint.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    }
}

impl Validator for LineHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        let unfinished = input.len() <= LONGEST && !input.trim_start().starts_with(':') && lex::unfinished(input);
        self.unfinished.set(unfinished);
        Ok(if unfinished { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Highlighter for LineHelper {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if !self.colours || line.trim_start().starts_with(':') {
            return Cow::Borrowed(line);
        }
        let pieces = lex::pieces(line);
        let painted = pieces.iter().enumerate().map(|(i, piece)| {
            let next = pieces.get(i + 1).map_or("", |next| next.text);
            match colour(piece.kind, next) {
                Some(code) => format!("\u{1b}[{code}m{}\u{1b}[0m", piece.text),
                None => piece.text.to_string(),
            }
        });
        Cow::Owned(painted.collect())
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        match self.colours {
            true => Cow::Owned(format!("\u{1b}[1;32m{prompt}\u{1b}[0m")),
            false => Cow::Borrowed(prompt),
        }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        match self.colours {
            true => Cow::Owned(format!("\u{1b}[2m{hint}\u{1b}[0m")),
            false => Cow::Borrowed(hint),
        }
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        self.colours
    }
}

fn colour(kind: Kind, next: &str) -> Option<&'static str> {
    match kind {
        Kind::Keyword => Some("35"),
        Kind::Text => Some("32"),
        Kind::Number => Some("36"),
        Kind::Comment => Some("2"),
        Kind::Word if next.starts_with('(') => Some("34"),
        Kind::Word | Kind::Space | Kind::Sign => None,
    }
}
