//! JSON as files and scripts give it.

use crate::budget::{self, memory};
use crate::error::{Error, Result};
use serde_json::Value;

/// Digits that any whole number of 64 bits may have: longer ones are looked at.
const DIGITS: usize = 18;

/// The value that a text holds.
///
/// # Errors
/// What is not JSON; a whole number too long to be kept digit by digit, which would become another one.
pub fn parse(text: &str) -> Result<Value> {
    let place = |e: &serde_json::Error| match e.line() {
        0 | 1 => format!("column {}", e.column()),
        line => format!("line {line}, column {}", e.column()),
    };
    memory::room(budget::json::of_text(text.as_bytes()))?;
    let value = serde_json::from_str(text).map_err(|e| Error::value(format!("{}: {}", place(&e), reason(&e))))?;
    check_numbers(text)?;
    Ok(value)
}

/// What the parser says, without its own account of the place.
pub fn reason(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let told = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    format!("invalid JSON: {told}")
}

/// # Errors
/// A whole number that would become another one.
pub fn check_numbers(text: &str) -> Result<()> {
    match too_long(text) {
        None => Ok(()),
        Some(number) => Err(Error::value(format!("the whole number {number} has more digits than can be kept"))
            .hint("write it as a text, in quotes")),
    }
}

/// The first whole number beyond 64 bits that stands outside of the text's strings.
fn too_long(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    if !bytes.chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit()).any(|run| run.len() > DIGITS) {
        return None;
    }
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let rest = &text[at..];
                let end = rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(rest.len());
                let number = &rest[..end];
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                at += end;
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_kept_or_refused() {
        let said = |text: &str| parse(text).map(|value| value.to_string()).unwrap_or_else(|e| e.what);
        let kept = r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":"123456789012345678901234"}"#;
        assert_eq!(said(kept), kept);
        assert_eq!(said("[12345678901234567890123.0]"), "[1.2345678901234568e+22]", "no whole number");
        assert_eq!(
            said(r#"{"a\\": "\"", "b": [-9223372036854775809]}"#),
            "the whole number -9223372036854775809 has more digits than can be kept"
        );
        assert_eq!(said("{\"a\": }"), "column 7: invalid JSON: expected value");
    }
}
