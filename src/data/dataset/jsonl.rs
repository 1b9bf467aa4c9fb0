//! Rows of JSON files: one object per line, or one array of objects.

use super::Take;
use super::place::Place;
use crate::budget::{self, Count, memory};
use crate::data::json::{self, reason};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Hands the rows to `take`, until it has enough; says whether it wants more.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 or not JSON, and what `take` refuses.
pub(super) fn read(path: &Location, take: &mut Take) -> Result<bool> {
    let label: Rc<str> = path.display().to_string().into();
    let failed = |e: std::io::Error| files::unreadable(path, &e);
    let mut file = BufReader::new(files::open(path)?);
    if file.fill_buf().map_err(failed)?.starts_with(BYTE_ORDER_MARK) {
        file.consume(BYTE_ORDER_MARK.len());
    }
    let mut line = Vec::new();
    let mut begun = false;
    let mut count = Count::default();
    for number in 1.. {
        line.clear();
        if !read_line(&mut file, &mut line, path)? {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if !begun && line.trim_ascii_start().starts_with(b"[") {
            // The lines before it count in what is said of a place.
            let mut text = vec![b'\n'; number - 1];
            text.append(&mut line);
            while read_line(&mut file, &mut text, path)? {}
            return array(path, &text, take);
        }
        begun = true;
        let place = Place::line(&label, number);
        let text = str::from_utf8(&line).map_err(|e| {
            Error::file(format!("{place}, byte {}: this is not UTF-8 text", e.valid_up_to() + 1))
                .hint("convert the file to UTF-8")
        })?;
        count.take(budget::json::of_text(text.as_bytes()))?;
        let value = serde_json::from_str(text).map_err(|e| {
            let what = format!("{place}, column {}: {}", e.column(), reason(&e));
            Error::file(what)
                .hint("every line holds one JSON object; an array of objects is fine if it is the whole file")
        })?;
        json::check_numbers(text).map_err(|e| Error { what: format!("{place}: {}", e.what), ..e })?;
        if !take(place, value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds the next line, with its end; false where there is none. A line may be longer than the memory.
fn read_line(file: &mut impl BufRead, line: &mut Vec<u8>, path: &Path) -> Result<bool> {
    const PART: u64 = 4 << 20;
    let before = line.len();
    loop {
        // A vector that grows holds its old numbers beside the new ones.
        memory::room(2 * line.len() as u64)?;
        budget::go_on()?;
        let part = file.take(PART).read_until(b'\n', line).map_err(|e| files::unreadable(path, &e))?;
        if part < PART as usize || line.ends_with(b"\n") {
            return Ok(line.len() > before);
        }
    }
}

fn array(path: &Path, text: &[u8], take: &mut Take) -> Result<bool> {
    memory::room(budget::json::of_text(text))?;
    let rows: Vec<Value> = serde_json::from_slice(text).map_err(|e| {
        Error::file(format!("{}, line {}, column {}: {}", path.display(), e.line(), e.column(), reason(&e)))
    })?;
    let numbers = str::from_utf8(text).map_or(Ok(()), json::check_numbers);
    numbers.map_err(|e| Error { what: format!("{}: {}", path.display(), e.what), ..e })?;
    let label: Rc<str> = path.display().to_string().into();
    for (i, row) in rows.into_iter().enumerate() {
        if !take(Place::row(&label, i + 1), row)? {
            return Ok(false);
        }
    }
    Ok(true)
}
