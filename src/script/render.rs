//! Draws a diagnostic: the message, the lines of the script it happened in, the hint.

use crate::script::diagnostics::{Diagnostic, Frame};
use crate::script::loader::Loader;
use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, sources};
use std::ops::Range;

type Span = (String, Range<usize>);

/// The text of an error, in colour if asked; ends with a line break.
pub fn render(diagnostic: &Diagnostic, loader: &Loader, colour: bool) -> String {
    let shown: Vec<(&Frame, String)> =
        diagnostic.frames.iter().filter_map(|frame| Some((frame, loader.text(&frame.label)?))).collect();
    let drawn = match shown.is_empty() {
        true => None,
        false => draw(diagnostic, &shown, colour),
    };
    drawn.unwrap_or_else(|| plain(diagnostic, colour))
}

fn plain(diagnostic: &Diagnostic, colour: bool) -> String {
    let head = if colour { "\u{1b}[31mError\u{1b}[0m" } else { "Error" };
    let mut text = format!("{head}: {}\n", diagnostic.message);
    for frame in &diagnostic.frames {
        text += &format!("  at {}:{}:{}: {}\n", frame.label, frame.line, frame.column, frame.what);
    }
    if let Some(hint) = &diagnostic.hint {
        text += &format!("  Help: {hint}\n");
    }
    text
}

fn draw(diagnostic: &Diagnostic, shown: &[(&Frame, String)], colour: bool) -> Option<String> {
    let span = |(frame, text): &(&Frame, String)| (frame.label.clone(), range(frame, text));
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
    let texts = shown.iter().map(|(frame, text)| (frame.label.clone(), text.clone()));
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
