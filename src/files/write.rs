//! Writing files: whole ones, which take the place of what was there in one step, and logs that grow line by line.

use super::door::Need;
use super::failure::{unwritable, written};
use super::location::{Location, require_file};
use super::saving;
use crate::error::{Error, Result};
use cap_fs_ext::{FollowSymlinks, MetadataExt, OpenOptionsFollowExt};
use cap_std::fs::{Dir, File, OpenOptions};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Replaces a file as a whole: what stood there stays until the new content is complete and on the disk. A link is
/// replaced, not followed. The new file has the permissions of the old one.
///
/// # Errors
/// A place that cannot be written, or where there is something else than a file; an error of `fill`.
pub fn replace(at: &Location, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    require_file(at)?;
    let (folder, name) = at.run(Need::Write, "write", |way| way.parent())?;
    written(at, put(&folder, &name, fill))
}

/// The same of a name in a folder.
pub(super) fn put(folder: &Dir, name: &OsStr, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let (part, file) = Part::create(folder)?;
    let mut out = BufWriter::new(file);
    fill(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Ok(old) = folder.symlink_metadata(name)
        && old.is_file()
    {
        file.set_permissions(old.permissions())?;
    }
    file.sync_all()?;
    part.put(name)
}

/// Writes a file as a whole, as `replace` does.
///
/// # Errors
/// Those of `replace`.
pub fn write(at: &Location, bytes: impl AsRef<[u8]>) -> Result<()> {
    replace(at, |out| out.write_all(bytes.as_ref()))
}

/// A file in the making, in the folder where it will take a place. It goes with this value unless it was put there.
struct Part<'a> {
    folder: &'a Dir,
    name: OsString,
    placed: bool,
}

impl<'a> Part<'a> {
    fn create(folder: &'a Dir) -> io::Result<(Self, File)> {
        saving::part(folder).map(|(name, file)| (Self { folder, name, placed: false }, file))
    }

    fn put(mut self, name: &OsStr) -> io::Result<()> {
        self.folder.rename(&self.name, self.folder, name)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // If it cannot be removed either, the first failure is the one to report.
            self.folder.remove_file(&self.name).ok();
        }
    }
}

/// A file that grows line by line, or record by record.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Begins an empty one; what stood there is gone.
    ///
    /// # Errors
    /// A place that cannot be written, or where there is something else than a file, a link included.
    pub fn create(at: &Location) -> Result<Self> {
        Self::open(at, OpenOptions::new().append(true).create(true), 0)
    }

    /// Goes on with one that is there, after its first `bytes`; what follows them goes.
    ///
    /// # Errors
    /// No file, or one that cannot be written.
    pub fn resume(at: &Location, bytes: u64) -> Result<Self> {
        Self::open(at, OpenOptions::new().append(true), bytes)
    }

    fn open(at: &Location, options: &mut OpenOptions, bytes: u64) -> Result<Self> {
        require_file(at)?;
        let (folder, name) = at.run(Need::Write, "write", |way| way.parent())?;
        let opened = folder.open_with(&name, options.follow(FollowSymlinks::No));
        let kept = |file: File| file.set_len(file.metadata()?.len().min(bytes)).map(|()| file);
        Ok(Self { file: written(at, opened.and_then(kept))?, path: at.to_path_buf() })
    }

    /// Bytes of what it holds.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub fn bytes(&self) -> Result<u64> {
        self.file.metadata().map(|about| about.len()).map_err(|e| unwritable(&self.path, &e))
    }

    /// Adds a line in one write and without a buffer: it is on its way to the disk when this returns.
    ///
    /// # Errors
    /// A write that fails.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.add(format!("{text}\n").as_bytes())
    }

    /// Adds bytes, as `line` adds a line. Of what cannot be written as a whole nothing stays.
    ///
    /// # Errors
    /// A write that fails; a file that was removed meanwhile.
    pub fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let about = self.file.metadata().map_err(|e| unwritable(&self.path, &e))?;
        if about.nlink() == 0 {
            return Err(Error::file(format!(
                "cannot write {}: it was removed while it was being written",
                self.path.display()
            ))
            .hint("leave the files of a run alone until it has ended"));
        }
        self.file.write_all(bytes).map_err(|e| {
            // Where this fails as well, whoever reads the file passes over a line without an end.
            self.file.set_len(about.len()).ok();
            unwritable(&self.path, &e)
        })
    }
}
