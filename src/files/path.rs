//! What there is at a path, and where a name leads that was found in a file.
//!
//! Owns no contents: nothing is opened. A link counts as what it leads to, except where its own function is asked.

use super::failure::no_file;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// Whether there is anything; a link that leads nowhere is nothing.
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// Whether there is a file: no folder, no device, no pipe.
pub fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// Whether there is a folder.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir()
}

/// Whether the path itself is a link, wherever it leads.
pub fn is_link(path: &Path) -> bool {
    path.is_symlink()
}

/// # Errors
/// There is something, and it is no file: reading a device may never end, and writing one replaces it.
pub fn require_file(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(about) if !about.is_file() => Err(no_file(path, about.is_dir())),
        _ => Ok(()),
    }
}

/// The absolute path without links and dots; none if nothing is there.
pub fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

/// Where `name` leads that the file at `path` names: from the folder of that file. An absolute name is what it says.
pub fn beside(path: &Path, name: impl AsRef<Path>) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(name)
}

/// Whether a name names something directly in a folder, so that `beside` cannot leave it.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != ".."
}
