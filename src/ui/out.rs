//! Writing to the terminal without ever failing on a reader that went away.

use std::io::{ErrorKind, Write, stderr, stdout};

/// Writes a line to standard output; false once nobody reads it any more.
pub fn line(text: &str) -> bool {
    let mut out = stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_or_else(|e| e.kind() != ErrorKind::BrokenPipe, |()| true)
}

/// Writes a line to standard error. If that is gone there is nobody left to tell.
pub fn note(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}
