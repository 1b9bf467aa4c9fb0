//! Writing to the terminal without ever failing on a reader that went away, and without letting a text of others move its
//! cursor or change its colours: a prompt, an answer, a name. What is coloured by us says so.

use crate::run::quote::visible;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};

/// Writes a line to standard output; false once nobody reads it any more. A program that reads it gets it as it is.
pub fn line(text: &str) -> bool {
    if stdout().is_terminal() { coloured_line(&visible(text)) } else { coloured_line(text) }
}

/// Writes a line to standard error. If that is gone there is nobody left to tell.
pub fn note(text: &str) {
    coloured_note(&visible(text));
}

/// As `line`, of a text whose control sequences are our own.
pub fn coloured_line(text: &str) -> bool {
    let mut out = stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_or_else(|e| e.kind() != ErrorKind::BrokenPipe, |()| true)
}

/// As `note`, of a text whose control sequences are our own.
pub fn coloured_note(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Writes to standard error without taking memory or waiting for whoever else writes there.
pub fn last(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
}
