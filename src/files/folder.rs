//! Folders: what they hold, making them, replacing whole ones.

use super::failure::{failed, unwritable};
use super::path::exists;
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a folder holds, sorted.
///
/// # Errors
/// No folder at `path`, or one that may not be read.
pub fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(path).and_then(|listed| listed.map(|entry| Ok(entry?.path())).collect());
    let mut found: Vec<PathBuf> = listed.map_err(|e| failed("read the folder", path, &e))?;
    found.sort();
    Ok(found)
}

/// Makes a folder and those above it; one that is there is fine.
///
/// # Errors
/// A place where none can be made.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| failed("make the folder", path, &e))
}

/// Fills a new folder through `fill`, and puts it in its place only when it is whole; what stood there goes.
///
/// # Errors
/// A place that cannot be written; the error of `fill`.
pub fn replace_folder(whole: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = whole.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let part = whole.with_file_name(name);
    let failed = |e: io::Error| unwritable(whole, &e);
    clear(&part).map_err(failed)?;
    fs::create_dir_all(&part).map_err(failed)?;
    fill(&part)?;
    clear(whole).map_err(failed)?;
    fs::rename(&part, whole).map_err(failed)
}

fn clear(path: &Path) -> io::Result<()> {
    if exists(path) { fs::remove_dir_all(path) } else { Ok(()) }
}

/// Removes a file.
///
/// # Errors
/// One that is not there or cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|e| failed("remove", path, &e))
}

/// A new folder among the system's temporary ones, which goes with the value.
///
/// # Errors
/// A system that gives none.
pub fn temporary_folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|e| Error::file(format!("cannot make a temporary folder: {e}")))
}

/// Where rhopo keeps what it can make again; none without a home folder.
pub fn cache_folder() -> Option<PathBuf> {
    // A relative path counts as none, as the XDG specification has it.
    let set = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(set.or_else(|| Some(std::env::home_dir()?.join(".cache")))?.join("rhopo"))
}
