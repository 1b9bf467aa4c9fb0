//! Draws a diagnostic: the message, the lines of the script it happened in, the hint.

use crate::run::quote::masked;
use crate::script::lang::diagnostics::{Diagnostic, Frame};
use crate::script::lang::loader::Loader;
use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, sources};
use std::ops::Range;

type Span = (String, Range<usize>);

/// The text of an error, in colour if asked; ends with a line break.
pub fn render(diagnostic: &Diagnostic, loader: &Loader, colour: bool) -> String {
    let diagnostic = &printable(diagnostic);
    let shown: Vec<(&Frame, String)> =
        diagnostic.frames.iter().filter_map(|frame| Some((frame, text_of(frame, loader)?))).collect();
    let drawn = match shown.is_empty() {
        true => None,
        false => draw(diagnostic, &shown, colour),
    };
    drawn.unwrap_or_else(|| plain(diagnostic, colour))
}

/// Letters of a message, or of a line of the script, that are worth showing.
const LONGEST: usize = 2000;

/// Without control sequences, which a script can put anywhere, and no longer than a person reads.
fn printable(diagnostic: &Diagnostic) -> Diagnostic {
    let plain = |text: &str| {
        let shown: String = masked(text, "\n").chars().take(LONGEST).collect();
        if text.chars().nth(LONGEST).is_some() { shown + "…" } else { shown }
    };
    let frame = |frame: &Frame| Frame { what: plain(&frame.what), ..frame.clone() };
    Diagnostic {
        message: plain(&diagnostic.message),
        hint: diagnostic.hint.as_deref().map(plain),
        frames: diagnostic.frames.iter().map(frame).collect(),
        ..*diagnostic
    }
}

/// The name of a frame's file, as it is shown.
fn label_of(frame: &Frame) -> String {
    masked(&frame.label, "")
}

/// The text around a frame, if it has the line and the line is one to be shown. Letters keep their places.
fn text_of(frame: &Frame, loader: &Loader) -> Option<String> {
    let text = loader.text(&frame.label)?;
    let line = text.lines().nth(frame.line - 1)?;
    if line.chars().nth(LONGEST).is_some() {
        return None;
    }
    Some(masked(&text, "\n\r\t"))
}

fn plain(diagnostic: &Diagnostic, colour: bool) -> String {
    let head = if colour { "\u{1b}[31mError\u{1b}[0m" } else { "Error" };
    let mut text = format!("{head}: {}\n", diagnostic.message);
    for frame in &diagnostic.frames {
        text += &format!("  at {}:{}:{}: {}\n", label_of(frame), frame.line, frame.column, frame.what);
    }
    if let Some(hint) = &diagnostic.hint {
        text += &format!("  Help: {hint}\n");
    }
    text
}

fn draw(diagnostic: &Diagnostic, shown: &[(&Frame, String)], colour: bool) -> Option<String> {
    let span = |(frame, text): &(&Frame, String)| (label_of(frame), range(frame, text));
    let config = Config::new().with_color(colour).with_index_type(IndexType::Char);
    let mut report = Report::<Span>::build(ReportKind::Error, span(shown.first()?))
        .with_config(config)
        .with_message(&diagnostic.message);
    for (order, place) in shown.iter().enumerate() {
        let tint = if order == 0 { Color::Red } else { Color::Blue };
        let label = Label::new(span(place)).with_message(&place.0.what).with_color(tint).with_order(order as i32);
        report = report.with_label(label);
    }
    if let Some(hint) = &diagnostic.hint {
        report = report.with_help(hint);
    }
    let texts = shown.iter().map(|(frame, text)| (label_of(frame), text.clone()));
    let mut out = Vec::new();
    report.finish().write(sources(texts), &mut out).ok()?;
    let text = String::from_utf8(out).ok()?;
    // Trailing blanks have no meaning and would differ between terminals and snapshots.
    Some(text.lines().map(|line| format!("{}\n", line.trim_end())).collect())
}

/// The word at a frame's place, in characters from the start of the text.
fn range(frame: &Frame, text: &str) -> Range<usize> {
    let before: usize = text.split_inclusive('\n').take(frame.line - 1).map(|line| line.chars().count()).sum();
    let line = text.lines().nth(frame.line - 1).unwrap_or_default();
    let column = frame.column.clamp(1, line.chars().count().max(1)) - 1;
    let word = line.chars().skip(column).take_while(|c| c.is_alphanumeric() || *c == '_').count();
    let start = before + column;
    start..start + word.max(1)
}
