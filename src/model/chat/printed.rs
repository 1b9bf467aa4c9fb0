//! Values as Python prints them: `str` of what stands in a text, `repr` of what stands in a list.

use super::fuel::Bounded;
use minijinja::Error;
use minijinja::value::{Tuple, Value, ValueKind};
use std::fmt::{self, Write};

/// Python's `str`.
///
/// # Errors
/// A text of more than `room` bytes: a list that holds another one several times is small, and its text is not.
pub(super) fn text(value: &Value, room: usize) -> Result<String, Error> {
    Bounded::of(room, |out| write_text(value, out))
}

/// Python's `repr`.
///
/// # Errors
/// As `text`.
pub(super) fn repr(value: &Value, room: usize) -> Result<String, Error> {
    Bounded::of(room, |out| write_repr(value, out))
}

fn write_text(value: &Value, out: &mut dyn Write) -> fmt::Result {
    match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map => write_repr(value, out),
        _ => write!(out, "{value}"),
    }
}

fn write_repr(value: &Value, out: &mut dyn Write) -> fmt::Result {
    match value.kind() {
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(x) => out.write_str(&float(x)),
            Err(_) => write!(out, "{value}"),
        },
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            let tuple = value.downcast_object_ref::<Tuple>().is_some();
            out.write_char(if tuple { '(' } else { '[' })?;
            let mut count = 0;
            for item in value.try_iter().into_iter().flatten() {
                out.write_str(if count > 0 { ", " } else { "" })?;
                write_repr(&item, out)?;
                count += 1;
            }
            out.write_str(if tuple && count == 1 { "," } else { "" })?;
            out.write_char(if tuple { ')' } else { ']' })
        }
        ValueKind::Map if value.as_object().is_some_and(|map| map.try_iter_pairs().is_some()) => {
            out.write_char('{')?;
            let pairs = value.as_object().and_then(|map| map.try_iter_pairs()).into_iter().flatten();
            for (i, (key, value)) in pairs.enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                write_repr(&key, out)?;
                out.write_str(": ")?;
                write_repr(&value, out)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

/// The shortest digits that come back as the same number; Python writes 1e-05 and 1e+16 where Rust writes 1e-5 and
/// 1e16.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    let text = format!("{x:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{digits}e{sign}{power:0>2}")
        }
    }
}

fn write_quoted(text: &str, out: &mut dyn Write) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            // Python escapes every white space but the plain one.
            c if c.is_whitespace() && c != ' ' => {
                let code = u32::from(c);
                if code < 0x100 { write!(out, "\\x{code:02x}")? } else { write!(out, "\\u{code:04x}")? }
            }
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}
