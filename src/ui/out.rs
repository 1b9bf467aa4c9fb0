//! Writing to the terminal without ever failing on a reader that went away, and without letting a text of others move its
//! cursor or change its colours: a prompt, an answer, a name. What is coloured by us says so.

use crate::error::Error;
use crate::files;
use crate::run::quote::visible;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::OnceLock;

/// Why standard output does not take what is written, if it is for more than that nobody reads it.
static FAILED: OnceLock<Error> = OnceLock::new();

/// The first failure of standard output: what was written to it is not whole.
pub(super) fn failure() -> Option<&'static Error> {
    FAILED.get()
}

/// Writes a line to standard output; false once nobody reads it any more, or it takes nothing more: whoever ends the program
/// asks for its `failure`. A program that reads it gets it as it is.
pub fn line(text: &str) -> bool {
    if stdout().is_terminal() { coloured_line(&visible(text)) } else { coloured_line(text) }
}

/// Writes a line to standard error. If that is gone there is nobody left to tell.
pub fn note(text: &str) {
    coloured_note(&visible(text));
}

/// As `line`, of a text whose control sequences are our own.
pub fn coloured_line(text: &str) -> bool {
    if failure().is_some() {
        return false;
    }
    let mut out = stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    if let Err(e) = &written
        && e.kind() != ErrorKind::BrokenPipe
    {
        FAILED.get_or_init(|| files::unwritable("standard output".as_ref(), e));
    }
    written.is_ok()
}

/// As `note`, of a text whose control sequences are our own.
pub fn coloured_note(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Writes to standard error without taking memory or waiting for whoever else writes there.
pub fn last(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
}
