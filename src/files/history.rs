//! The prompt's history: rustyline reads and writes its file by itself, and is kept from what is no file.

use super::location::{anywhere, require_file};
use rustyline::history::History;
use std::path::Path;

/// Reads a history. One that is not there, or cannot be read, is an empty one.
pub fn load(history: &mut impl History, path: &Path) {
    if require_file(&anywhere(path)).is_ok() {
        history.load(path).ok();
    }
}

/// Appends what is new. A history that cannot be kept is no reason to stop somebody's work.
pub fn append(history: &mut impl History, path: &Path) {
    if require_file(&anywhere(path)).is_ok() {
        history.append(path).ok();
    }
}
