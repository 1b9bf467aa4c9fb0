//! Folders: what they hold, making and removing them.

use super::door::Need;
use super::grant::same;
use super::left::sweep;
use super::location::{Location, is_folder};
use crate::error::{Error, Result};
use cap_std::fs::Dir;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// What a folder holds, sorted.
///
/// # Errors
/// No folder there, or one that may not be read.
pub fn entries(at: &Location) -> Result<Vec<Location>> {
    let mut names: Vec<OsString> = at.run(Need::Read, "read the folder", |way| {
        way.folder()?.entries()?.map(|entry| Ok(entry?.file_name())).collect()
    })?;
    names.sort();
    Ok(names.into_iter().map(|name| at.join(name)).collect())
}

/// Makes a folder and those above it; one that is there is fine.
///
/// # Errors
/// A place where none can be made.
pub fn create_folder(at: &Location) -> Result<()> {
    let made = at.run(Need::Folder, "make the folder", |way| way.make_folder());
    // A link to a folder is one.
    made.or_else(|e| if is_folder(at) && at.admit_writing().is_ok() { Ok(()) } else { Err(e) })
}

/// Makes a folder that was not there; those above it as well. False where there is something of that name.
///
/// # Errors
/// A place where none can be made.
pub fn new_folder(at: &Location) -> Result<bool> {
    at.folder().map_or(Ok(()), |above| create_folder(&above))?;
    at.run(Need::Write, "make the folder", |way| {
        let (above, name) = way.parent()?;
        match above.create_dir(name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        }
    })
}

/// A folder that is held open: whatever it is called, it is this one.
#[derive(Debug)]
pub struct Held(Dir);

impl Held {
    /// The folder that is there now, if it can be opened.
    pub fn at(at: &Location) -> Option<Self> {
        at.through(Need::Read, |way| way.folder()).ok().map(Self)
    }

    /// Whether a path leads to it.
    pub fn is_at(&self, at: &Location) -> bool {
        let there = at.through(Need::Read, |way| way.look());
        there.is_ok_and(|there| self.0.dir_metadata().is_ok_and(|held| same(&held, &there)))
    }
}

/// Removes what killed processes have left in a folder: half-written files, and folders that were being filled. What a
/// process holds stays, and so does all that has other names.
pub fn tidy(at: &Location) {
    if let Ok(folder) = at.through(Need::Write, |way| way.folder()) {
        sweep(&folder);
    }
}

/// Removes a file.
///
/// # Errors
/// One that is not there or cannot be removed.
pub fn remove_file(at: &Location) -> Result<()> {
    at.run(Need::Write, "remove", |way| {
        let (folder, name) = way.parent()?;
        folder.remove_file(name)
    })
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
