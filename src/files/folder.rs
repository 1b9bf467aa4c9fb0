//! Folders: what they hold, making them, replacing whole ones so that a process may be killed at any moment.

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

/// Fills a new folder through `fill`, and puts it in its place only when it is whole and on the disk. What stood there is
/// there until then, whenever the process is killed: the two exchange their names, where the file system can do that.
///
/// # Errors
/// A place that cannot be written; the error of `fill`, after which what was there is as it was.
pub fn replace_folder(whole: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let [part, old] = ["part", "old"].map(|what| beside_of(whole, what));
    let failed = |e: io::Error| unwritable(whole, &e);
    mend(whole, &old).map_err(failed)?;
    clear(&part).map_err(failed)?;
    fs::create_dir_all(&part).map_err(failed)?;
    let filled = fill(&part).and_then(|()| sync(&part));
    if filled.is_err() {
        // The first failure is the one to report: what is left is cleared the next time.
        clear(&part).ok();
        return filled;
    }
    put(&part, whole, &old).and_then(|()| clear(&part)).and_then(|()| clear(&old)).map_err(failed)?;
    whole.parent().map_or(Ok(()), sync)
}

/// Gives a folder another name within its folder, on the disk as well.
///
/// # Errors
/// A name that is taken; a place that cannot be written.
pub fn rename_folder(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| unwritable(to, &e))?;
    to.parent().map_or(Ok(()), sync)
}

/// Removes a folder with everything in it; one that is not there is fine. What it holds goes under another name first, so
/// that no half of it is ever found under its own.
///
/// # Errors
/// One that cannot be removed.
pub fn remove_folder(path: &Path) -> Result<()> {
    if !exists(path) {
        return Ok(());
    }
    let gone = beside_of(path, "old");
    let removed = clear(&gone).and_then(|()| fs::rename(path, &gone)).and_then(|()| clear(&gone));
    removed.map_err(|e| failed("remove", path, &e))
}

/// Brings a folder's list of names to the disk.
fn sync(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(|e| unwritable(folder, &e))
}

/// `model.part` beside `model`.
fn beside_of(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{what}"));
    path.with_file_name(name)
}

/// Puts back what a process that was killed had moved aside and not replaced.
fn mend(whole: &Path, old: &Path) -> io::Result<()> {
    match exists(old) && !exists(whole) {
        true => fs::rename(old, whole),
        false => clear(old),
    }
}

/// `part` takes the name `whole`; what had it is `part` or `old` afterwards.
fn put(part: &Path, whole: &Path, old: &Path) -> io::Result<()> {
    if !exists(whole) {
        return fs::rename(part, whole);
    }
    exchange(part, whole).or_else(|_| {
        // A file system without the exchange: for a moment the folder stands under another name, which `mend` knows.
        fs::rename(whole, old)?;
        fs::rename(part, whole)
    })
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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
