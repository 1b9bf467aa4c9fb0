//! How errors travel through Rhai, and what is made of them: a message, a hint, and the places they passed.
//! Owns no printing and no drawing of source lines (`render.rs`).

use crate::error::{Error, Kind};
use crate::script::lang::in_use;
use crate::script::lang::loader::Loader;
use crate::script::lang::messages::{self, Context};
use crate::script::lang::operands;
use rhai::{Dynamic, EvalAltResult, Position};
use std::collections::BTreeMap;

impl From<Error> for Box<EvalAltResult> {
    /// The error itself is the token, so that its kind and hint survive the way through the script.
    fn from(e: Error) -> Self {
        let interrupted = e.kind == Kind::Interrupted;
        let token = Dynamic::from(e);
        // A script's `try` must not swallow the user's Ctrl-C.
        match interrupted {
            true => EvalAltResult::ErrorTerminated(token, Position::NONE).into(),
            false => EvalAltResult::ErrorRuntime(token, Position::NONE).into(),
        }
    }
}

/// A place in a script that an error passed on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub label: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What happened there: "here", "`loss` was called here".
    pub what: String,
}

/// An error that is ready to be shown.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub message: String,
    pub hint: Option<String>,
    /// From the root cause outwards; empty if the error has no place in a script.
    pub frames: Vec<Frame>,
    /// The user stopped the program: nothing went wrong.
    pub interrupted: bool,
}

impl From<Error> for Diagnostic {
    fn from(e: Error) -> Self {
        Self { interrupted: e.kind == Kind::Interrupted, message: e.what, hint: e.hint, frames: Vec::new() }
    }
}

impl Diagnostic {
    /// Follows `e` to its root cause; `label` is the script that was run.
    pub fn explain(e: &EvalAltResult, label: &str, context: &Context<'_>) -> Self {
        let mut calls = Vec::new();
        let root = unwind(e, label, context.origins, &mut calls);
        let message = messages::of(root.error, root.in_function, root.label, context);
        let interrupted = matches!(root.error, EvalAltResult::ErrorTerminated(token, _)
            if token.read_lock::<Error>().is_some_and(|e| e.kind == Kind::Interrupted));
        let position = match root.error {
            EvalAltResult::ErrorParsing(_, at) if at.is_none() => end_of(root.label, context.loader),
            e if in_use::method(e).is_some() => {
                messages::held(e, root.label, context).map_or(e.position(), |held| held.at)
            }
            other => other.position(),
        };
        let shapes = shapes_named(root.error, root.label, position, context);
        let here = frame(root.label, position, shapes.unwrap_or(message.here));
        let frames = here.into_iter().chain(shorten(calls.into_iter().rev().collect())).collect();
        Self { message: message.message, hint: message.hint, frames, interrupted }
    }
}

/// Behind the last letter of a text: what is missing is missing there.
fn end_of(label: &str, loader: &Loader) -> Position {
    let text = loader.text(label).unwrap_or_default();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let (Ok(line), Some(last)) = (u16::try_from(lines.len()), lines.last()) else { return Position::NONE };
    match u16::try_from(last.chars().count()) {
        Ok(column) if line > 0 => Position::new(line, column.max(1)),
        _ => Position::NONE,
    }
}

/// "`logp` is [4,6] (rows, tokens), `b.reward` is [3,1] (rows)": where two shapes do not fit, which variables have them.
fn shapes_named(e: &EvalAltResult, label: &str, position: Position, context: &Context<'_>) -> Option<String> {
    let EvalAltResult::ErrorRuntime(token, _) = e else { return None };
    let what = token.read_lock::<Error>().filter(|e| e.kind == Kind::Shape)?.what.clone();
    let shapes: Vec<&str> =
        what.split('[').skip(1).filter_map(|rest| rest.split_once(']').map(|(shape, _)| shape)).collect();
    let text = context.loader.text(label)?;
    let names = operands::at(text.lines().nth(position.line()? - 1)?, position.position()?);
    let ([first, second], [a, b, rest @ ..]) = (&shapes[..], &names[..]) else { return None };
    // Other texts name their shapes in an order of their own.
    let in_order = match rest.is_empty() {
        true => [" cannot combine shapes ", " cannot multiply shapes ", " do not fit the mask of shape "].as_slice(),
        false => &[" do not fit the mask of shape "],
    };
    if !in_order.iter().any(|words| what.contains(words)) {
        return None;
    }
    Some(format!("`{a}` is {}, `{b}` is {}", axes(first), axes(second)))
}

/// `[4,6] (rows, tokens)`
fn axes(shape: &str) -> String {
    let lengths: Vec<&str> = shape.split(',').collect();
    let named = match lengths[..] {
        [""] => return "a number".to_string(),
        ["1", "1"] => "one row, one column",
        ["1", _] => "one row, tokens",
        [_, "1"] => "rows, one column",
        [_, _] => "rows, tokens",
        [_] => "one axis",
        _ => return format!("[{shape}]"),
    };
    format!("[{shape}] ({named})")
}

/// Calls nearest to the error and nearest to the top; a recursion's thousand others say nothing new.
fn shorten(mut calls: Vec<Frame>) -> Vec<Frame> {
    const ENDS: usize = 4;
    if calls.len() > 2 * ENDS {
        let left_out = calls.len() - 2 * ENDS;
        calls.drain(ENDS..ENDS + left_out);
        calls[ENDS].what += &format!(" ({left_out} more calls in between)");
    }
    calls
}

/// The error that started it all, and the script it happened in.
struct Root<'a> {
    error: &'a EvalAltResult,
    label: &'a str,
    in_function: bool,
}

/// Walks inwards; `calls` collects the call sites, outermost first.
fn unwind<'a>(
    e: &'a EvalAltResult,
    label: &'a str,
    origins: &'a BTreeMap<String, String>,
    calls: &mut Vec<Frame>,
) -> Root<'a> {
    let mut root = Root { error: e, label, in_function: false };
    loop {
        match root.error {
            EvalAltResult::ErrorInFunctionCall(name, source, inner, pos) => {
                let what = match name.starts_with("anon$") {
                    true => "a closure was called here".to_string(),
                    false => format!("`{name}` was called here"),
                };
                calls.extend(frame(root.label, *pos, what));
                let known = if source.is_empty() { root.label } else { source };
                let label = origins.get(name).map_or(known, String::as_str);
                root = Root { error: inner, label, in_function: true };
            }
            EvalAltResult::ErrorInModule(name, inner, pos) => {
                calls.extend(frame(root.label, *pos, format!("{name} was loaded here")));
                root = Root { error: inner, label: name, in_function: false };
            }
            _ => return root,
        }
    }
}

fn frame(label: &str, pos: Position, what: impl Into<String>) -> Option<Frame> {
    let line = pos.line()?;
    Some(Frame { label: label.to_string(), line, column: pos.position().unwrap_or(1), what: what.into() })
}
