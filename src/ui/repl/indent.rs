//! Indentation of an input that goes on: a new line stands four columns behind the line of the bracket that is open, and a
//! closing bracket that begins a line stands below that line.

use crate::script::lang::lex::{self, Kind, Piece};
use rustyline::{Cmd, ConditionalEventHandler, Event, EventContext, KeyCode, KeyEvent, RepeatCount};
use std::sync::{Arc, Mutex};

const STEP: usize = 4;
/// Keys that this handles: those that end a line, and closing brackets.
pub const KEYS: [KeyEvent; 6] = [
    KeyEvent(KeyCode::Enter, rustyline::Modifiers::NONE),
    KeyEvent(KeyCode::Char('J'), rustyline::Modifiers::CTRL),
    KeyEvent(KeyCode::Char('M'), rustyline::Modifiers::CTRL),
    KeyEvent(KeyCode::Char(')'), rustyline::Modifiers::NONE),
    KeyEvent(KeyCode::Char(']'), rustyline::Modifiers::NONE),
    KeyEvent(KeyCode::Char('}'), rustyline::Modifiers::NONE),
];

/// Indents while somebody types at the end of an input. A key gives the editor one command, and only a completion takes away
/// and puts in: so such changes wait for the completer.
#[derive(Clone, Default)]
pub struct Indent {
    waiting: Arc<Mutex<Option<Change>>>,
}

/// What stands before the cursor goes, and something else comes.
struct Change {
    gone: usize,
    text: String,
}

impl Indent {
    /// What the completer is to do instead of completing: where what is replaced begins, and by what.
    pub fn waiting(&self, cursor: usize) -> Option<(usize, String)> {
        let Change { gone, text } = self.waiting.lock().ok()?.take()?;
        Some((cursor.saturating_sub(gone), text))
    }

    fn command(&self, gone: usize, text: String) -> Cmd {
        match (gone, self.waiting.lock()) {
            (1.., Ok(mut waiting)) => {
                *waiting = Some(Change { gone, text });
                Cmd::Complete
            }
            _ => Cmd::Insert(1, text),
        }
    }
}

impl ConditionalEventHandler for Indent {
    fn handle(&self, event: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let input = context.line();
        if context.pos() < input.len() || input.trim_start().starts_with(':') {
            return None;
        }
        match event.get(0)? {
            KeyEvent(KeyCode::Char(bracket @ (')' | ']' | '}')), _) => {
                let surplus = blank(input)?.saturating_sub(closing(input)?);
                (surplus > 0).then(|| self.command(surplus, bracket.to_string()))
            }
            // A line that stays empty keeps no spaces.
            _ => Some(self.command(blank(input).unwrap_or(0), format!("\n{}", " ".repeat(next(input)?)))),
        }
    }
}

/// The spaces before the next line of an input that goes on; none where the input is whole, or where spaces would become
/// part of a text or a comment.
fn next(input: &str) -> Option<usize> {
    let pieces = lex::pieces(input);
    let inside = pieces.last().is_some_and(|piece| !piece.closed);
    if inside || !lex::unfinished(input) {
        return None;
    }
    Some(open(&pieces).map_or(0, |at| spaces(input, at)) + STEP)
}

/// The spaces before a closing bracket: those of the line where what it closes was opened.
fn closing(input: &str) -> Option<usize> {
    open(&lex::pieces(input)).map(|at| spaces(input, at))
}

/// Where the innermost bracket stands that is open at the end.
fn open(pieces: &[Piece<'_>]) -> Option<usize> {
    let mut opened = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.kind == Kind::Sign) {
        match piece.text {
            "(" | "[" | "{" => opened.push(piece.start),
            ")" | "]" | "}" => drop(opened.pop()),
            _ => {}
        }
    }
    opened.pop()
}

/// The spaces that the line around a place begins with.
fn spaces(input: &str, at: usize) -> usize {
    let line = &input[input[..at].rfind('\n').map_or(0, |end| end + 1)..];
    line.len() - line.trim_start_matches(' ').len()
}

/// The spaces of the last line, where there is nothing else in it.
fn blank(input: &str) -> Option<usize> {
    let line = &input[input.rfind('\n')? + 1..];
    line.chars().all(|c| c == ' ').then_some(line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_bracket_indents_the_next_line() {
        assert_eq!(next("fn f(x) {"), Some(4));
        assert_eq!(next("fn f(x) {\n    let y = g(["), Some(8), "two brackets of one line are one step");
        assert_eq!(next("fn f(x) {\n    if x {\n        1;\n    }"), Some(4));
        assert_eq!(next("let x = "), Some(4));
        assert_eq!(next("#{ a: \"{\","), Some(4), "a bracket in a text is none");
        for whole in ["1 + 1", "fn f() { 1 }", "", "let x = `open", "/* open {"] {
            assert_eq!(next(whole), None, "{whole}");
        }
    }

    #[test]
    fn a_closing_bracket_stands_below_its_line() {
        assert_eq!((closing("fn f(x) {\n    "), blank("fn f(x) {\n    ")), (Some(0), Some(4)));
        assert_eq!(closing("fn f(x) {\n    if x {\n        "), Some(4));
        assert_eq!((closing("1"), blank("fn f() {\n    x "), blank("  ")), (None, None, None));
    }
}
