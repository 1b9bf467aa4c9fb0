//! `t.map(|x| x == t[0])`: a closure that uses the variable which the method that calls it holds. Rhai says neither which
//! variable it is nor where; both are found in the text.

use crate::script::lang::lex::{self, Kind, Piece};
use rhai::{EvalAltResult, Position};

/// The method that Rhai names, as in `argument #1 of function 'map'`.
pub fn method(e: &EvalAltResult) -> Option<&str> {
    match e {
        EvalAltResult::ErrorDataRace(name, _) => name.split('\'').nth(1),
        _ => None,
    }
}

/// A variable that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub variable: String,
    /// What the method is called on: the variable, or something in it.
    pub receiver: String,
    /// Where the method's name stands.
    pub at: Position,
}

/// The variable that a method holds; none where the text has several such places, unless the `last` is meant.
pub fn find(text: &str, method: &str, last: bool) -> Option<Held> {
    let code = lex::code(text);
    let found: Vec<(usize, Piece<'_>)> = (2..code.len())
        .filter(|&at| code[at].text == method && code[at - 1].text == ".")
        .filter_map(|at| Some((at, owner(&code, at)?)))
        .filter(|(at, owner)| uses(&code, at + 1, owner.text))
        .collect();
    let (at, owner) = found.last().copied().filter(|_| last || found.len() == 1)?;
    let (line, column) = place(text, code[at].start);
    let receiver = text[owner.start..code[at - 1].start].trim_end().to_string();
    Some(Held { variable: owner.text.to_string(), receiver, at: Position::new(line, column) })
}

/// The variable that a chain of fields and indices begins with, which ends before the dot of `at`.
fn owner<'a>(code: &[Piece<'a>], at: usize) -> Option<Piece<'a>> {
    let mut end = at.checked_sub(2)?;
    loop {
        while code[end].text == "]" {
            end = opening(code, end)?.checked_sub(1)?;
        }
        if code[end].kind != Kind::Word {
            return None;
        }
        match end.checked_sub(1) {
            Some(dot) if code[dot].text == "." => end = dot.checked_sub(1)?,
            _ => return Some(code[end]),
        }
    }
}

/// Where the bracket that ends at `end` was opened.
fn opening(code: &[Piece<'_>], end: usize) -> Option<usize> {
    let mut depth = 0;
    (0..=end).rev().find(|&at| {
        match code[at].text {
            "]" | ")" | "}" => depth += 1,
            "[" | "(" | "{" | "#{" => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// Whether the arguments that open at `open` use the variable.
fn uses(code: &[Piece<'_>], open: usize, name: &str) -> bool {
    let mut depth = 0;
    for (at, piece) in code.iter().enumerate().skip(open) {
        match piece.text {
            "(" | "[" | "{" | "#{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            text if text == name && piece.kind == Kind::Word && code[at - 1].text != "." => return true,
            _ => {}
        }
        if depth == 0 {
            return false;
        }
    }
    false
}

/// Line and column of a byte, from 1.
fn place(text: &str, at: usize) -> (u16, u16) {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    (u16::try_from(line).unwrap_or(u16::MAX), u16::try_from(column).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, usize)> {
        find(text, "map", false).and_then(|held| Some((held.variable, held.at.line()?)))
    }

    #[test]
    fn the_variable_is_the_one_that_the_chain_begins_with() {
        assert_eq!(found("let a = 1;\nt.map(|x| x == t[0]);"), Some(("t".into(), 2)));
        assert_eq!(found("b.text.map(|t| t == b.text[0])"), Some(("b".into(), 1)));
        assert_eq!(found("rows[i + f(1)].names.map(|x| rows.len())"), Some(("rows".into(), 1)));
        assert_eq!(found("t.map(|x| x + 1); t"), None);
        assert_eq!(found("t.map(|x| x.t)"), None, "a field");
    }

    #[test]
    fn of_several_places_none_is_named_unless_the_last_is_meant() {
        let text = "t.map(|x| t[0]);\nu.map(|x| u[0]);";
        assert_eq!(found(text), None);
        let held = find(text, "map", true).expect("the last");
        assert_eq!((held.variable.as_str(), held.receiver.as_str(), held.at.line()), ("u", "u", Some(2)));
        let held = find("b.text .map(|t| t == b.text[0])", "map", false).expect("one");
        assert_eq!((held.variable.as_str(), held.receiver.as_str()), ("b", "b.text"));
    }
}
