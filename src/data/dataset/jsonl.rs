//! Rows of JSON files: one object per line, or one array of objects.

use super::{Place, Take};
use crate::error::{Error, Result};
use crate::files;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Hands the rows to `take`, until it has enough; says whether it wants more.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 or not JSON, and what `take` refuses.
pub(super) fn read(path: &Path, take: &mut Take) -> Result<bool> {
    let failed = |e: std::io::Error| files::unreadable(path, &e);
    let mut file = BufReader::new(files::open(path)?);
    if file.fill_buf().map_err(failed)?.starts_with(BYTE_ORDER_MARK) {
        file.consume(BYTE_ORDER_MARK.len());
    }
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if number == 1 && line.trim_ascii_start().starts_with(b"[") {
            file.read_to_end(&mut line).map_err(failed)?;
            return array(path, &line, take);
        }
        let place = Place::line(path, number);
        let text = str::from_utf8(&line).map_err(|e| {
            Error::file(format!("{place}, byte {}: this is not UTF-8 text", e.valid_up_to() + 1))
                .hint("convert the file to UTF-8")
        })?;
        let value = serde_json::from_str(text).map_err(|e| {
            let what = format!("{place}, column {}: {}", e.column(), reason(&e));
            Error::file(what)
                .hint("every line holds one JSON object; an array of objects is fine if it is the whole file")
        })?;
        if !take(place, value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn array(path: &Path, text: &[u8], take: &mut Take) -> Result<bool> {
    let rows: Vec<Value> = serde_json::from_slice(text).map_err(|e| {
        Error::file(format!("{}, line {}, column {}: {}", path.display(), e.line(), e.column(), reason(&e)))
    })?;
    for (i, row) in rows.into_iter().enumerate() {
        if !take(Place::row(path, i + 1), row)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the parser says, without its own account of the place.
fn reason(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let told = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    format!("invalid JSON: {told}")
}
