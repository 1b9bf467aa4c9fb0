//! A person's own editor, started on a file and waited for.

use crate::error::{Error, Result};
use std::path::Path;
use std::process::Command;

/// Opens a file in `editor`, which may have arguments, and waits until it is closed.
///
/// # Errors
/// There is no such program, or it fails.
pub fn edit(editor: &str, path: &Path) -> Result<()> {
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let failed = |why: String| Error::file(format!("the editor {editor} failed: {why}")).hint("set $EDITOR to another");
    match Command::new(program).args(words).arg(path).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(e) => Err(failed(e.to_string())),
    }
}
