//! The terminal that everything else here writes to: who reads it, whether it has colours, and errors on it.

use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::script::lang::render::render;
use crate::ui::out;
use std::io::IsTerminal;

/// The exit code after Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

/// Whether somebody is there to press a key.
pub(super) fn asks() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

pub(super) fn report(e: &Diagnostic, loader: &Loader) {
    out::coloured_note(render(e, loader, colours(&std::io::stderr())).trim_end());
}

/// Columns of the terminal that a stream is. Without one crossterm would start `tput`, each time.
pub(super) fn columns(stream: &impl IsTerminal) -> Option<usize> {
    let size = stream.is_terminal().then(crossterm::terminal::size);
    size.and_then(std::result::Result::ok).map(|(columns, _)| usize::from(columns))
}

/// Whether colours are wanted there.
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none() && !dumb
}
