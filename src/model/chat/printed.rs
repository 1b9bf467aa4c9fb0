//! Values as Python prints them: `str` of what stands in a text, `repr` of what stands in a list.

use minijinja::value::{Tuple, Value, ValueKind};
use std::fmt::Write;

/// Python's `str`.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map => repr(value),
        _ => value.to_string(),
    }
}

/// Python's `repr`.
pub(super) fn repr(value: &Value) -> String {
    let items = |value: &Value| -> Vec<String> {
        value.try_iter().map_or(Vec::new(), |items| items.map(|item| repr(&item)).collect())
    };
    match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
        }
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq if value.downcast_object_ref::<Tuple>().is_some() => match &items(value)[..] {
            [one] => format!("({one},)"),
            all => format!("({})", all.join(", ")),
        },
        ValueKind::Seq => format!("[{}]", items(value).join(", ")),
        ValueKind::Map if value.as_object().is_some_and(|map| map.try_iter_pairs().is_some()) => {
            let pairs = value.as_object().and_then(|map| map.try_iter_pairs()).into_iter().flatten();
            let pairs: Vec<String> = pairs.map(|(key, value)| format!("{}: {}", repr(&key), repr(&value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        _ => value.to_string(),
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

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            // Python escapes every white space but the plain one.
            c if c.is_whitespace() && c != ' ' => {
                let code = u32::from(c);
                let _ = if code < 0x100 { write!(out, "\\x{code:02x}") } else { write!(out, "\\u{code:04x}") };
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
