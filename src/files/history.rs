//! The prompt's history: rustyline reads and writes its file by itself, and is kept from what is no file.

use super::location::{anywhere, require_file};
use super::{bytes, write};
use rustyline::history::History;
use std::path::Path;

/// Reads a history. One that is not there, or cannot be read, is an empty one. Bytes in it that are no text are replaced:
/// rustyline would never add to it again.
pub fn load(history: &mut impl History, path: &Path) {
    let at = anywhere(path);
    if require_file(&at).is_err() || history.load(path).is_ok() {
        return;
    }
    if let Ok(held) = bytes(&at)
        && std::str::from_utf8(&held).is_err()
        && write(&at, String::from_utf8_lossy(&held).as_bytes()).is_ok()
    {
        history.clear().and_then(|()| history.load(path)).ok();
    }
}

/// Appends what is new. A history that cannot be kept is no reason to stop somebody's work.
pub fn append(history: &mut impl History, path: &Path) {
    if require_file(&anywhere(path)).is_ok() {
        history.append(path).ok();
    }
}
