//! Writing files: whole ones, which take the place of what was there in one step, and logs that grow line by line.

use super::failure::unwritable;
use super::path::require_file;
use crate::error::Result;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Replaces a file as a whole: what stood there stays until the new content is complete and on the disk. A link is
/// replaced, not followed. The new file has the permissions of the old one.
///
/// # Errors
/// A place that cannot be written, or where there is something else than a file; an error of `fill`.
pub fn replace(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    require_file(path)?;
    let written = || -> io::Result<()> {
        let (part, file) = Part::create(path)?;
        let mut out = BufWriter::new(file);
        fill(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        part.put(path)
    };
    written().map_err(|e| unwritable(path, &e))
}

/// Writes a file as a whole, as `replace` does.
///
/// # Errors
/// Those of `replace`.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    replace(path, |out| out.write_all(bytes.as_ref()))
}

/// A file in the making, beside the one whose place it will take. It goes with this value unless it was put there.
struct Part {
    path: PathBuf,
    placed: bool,
}

impl Part {
    /// Makes a new file under a name that nobody has: one that is there is neither opened nor followed.
    fn create(path: &Path) -> io::Result<(Self, fs::File)> {
        const TRIES: u32 = 1000;
        for n in 0..TRIES {
            let part = path.with_file_name(format!(".part-{}-{n}", std::process::id()));
            match fs::File::create_new(&part) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && n + 1 < TRIES => {}
                made => return made.map(|file| (Self { path: part, placed: false }, file)),
            }
        }
        unreachable!("the last try is returned")
    }

    fn put(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.placed {
            // If it cannot be removed either, the first failure is the one to report.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A file that grows line by line, or record by record.
#[derive(Debug)]
pub struct Log {
    file: fs::File,
    path: PathBuf,
}

impl Log {
    /// Begins an empty one; what stood there is gone.
    ///
    /// # Errors
    /// A place that cannot be written, or where there is something else than a file.
    pub fn create(path: &Path) -> Result<Self> {
        require_file(path)?;
        let made = fs::OpenOptions::new().append(true).create(true).open(path);
        let file = made.and_then(|file| file.set_len(0).map(|()| file)).map_err(|e| unwritable(path, &e))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Goes on with one that is there, after its first `bytes`; what follows them goes.
    ///
    /// # Errors
    /// No file, or one that cannot be written.
    pub fn resume(path: &Path, bytes: u64) -> Result<Self> {
        require_file(path)?;
        let opened = fs::OpenOptions::new().append(true).open(path);
        let kept = |file: fs::File| file.set_len(file.metadata()?.len().min(bytes)).map(|()| file);
        let file = opened.and_then(kept).map_err(|e| unwritable(path, &e))?;
        Ok(Self { file, path: path.to_path_buf() })
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

    /// Adds bytes, as `line` adds a line.
    ///
    /// # Errors
    /// A write that fails.
    pub fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| unwritable(&self.path, &e))
    }
}
