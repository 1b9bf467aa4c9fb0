//! Opening files, and reading whole ones.

use super::door::Need;
use super::failure::{no_file, unreadable};
use super::location::{Location, is_link};
use crate::error::{Error, Result};
use cap_fs_ext::OpenOptionsSyncExt;
use cap_std::fs::OpenOptions;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use twox_hash::xxhash3_128::Hasher;

/// A file opened for reading, not buffered.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    path: PathBuf,
    size: u64,
}

/// Opens a file for reading.
///
/// # Errors
/// No file there, or one that may not be read; something else than a file (a device may never end).
pub fn open(at: &Location) -> Result<File> {
    let opened = at.run(Need::Read, "read", |way| {
        // Before it is opened, as opening a device may do something.
        let about = way.look()?;
        if !about.is_file() {
            return Ok(Err(about.is_dir()));
        }
        // What is open may be something else than what was there a moment ago; a pipe would be waited for.
        let file = way.open(OpenOptions::new().read(true).nonblock(true))?;
        let about = file.metadata()?;
        Ok(if about.is_file() { Ok((file.into_std(), about.len())) } else { Err(about.is_dir()) })
    })?;
    let (file, size) = opened.map_err(|folder| no_file(at, folder, is_link(at)))?;
    Ok(File { file, path: at.to_path_buf(), size })
}

/// All bytes of a file.
///
/// # Errors
/// Those of `open`; a read that fails.
pub fn bytes(at: &Location) -> Result<Vec<u8>> {
    open(at)?.bytes()
}

/// The text of a file.
///
/// # Errors
/// Those of `bytes`; a file that is not UTF-8.
pub fn text(at: &Location) -> Result<String> {
    open(at)?.text()
}

/// How many bytes a file has, and their XXH3 of 128 bits: whether it is as it was written, not who wrote it.
///
/// # Errors
/// Those of `open`; a read that fails.
pub fn digest(at: &Location) -> Result<(u64, String)> {
    digest_of(at, u64::MAX)
}

/// The same of its first bytes, `most` of them.
///
/// # Errors
/// Those of [`digest`].
pub fn digest_of(at: &Location, most: u64) -> Result<(u64, String)> {
    let (mut file, mut hasher) = (open(at)?.file.take(most), Hasher::new());
    let (mut block, mut size) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut block).map_err(|e| unreadable(at, &e))? {
            0 => return Ok((size, format!("{:032x}", hasher.finish_128()))),
            n => {
                hasher.write(&block[..n]);
                size += n as u64;
            }
        }
    }
}

impl File {
    /// Bytes, when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is left of it.
    ///
    /// # Errors
    /// A read that fails.
    pub fn bytes(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(|e| unreadable(&self.path, &e))?;
        Ok(bytes)
    }

    /// What is left of it, as text.
    ///
    /// # Errors
    /// A read that fails; a file that is not UTF-8.
    pub fn text(self) -> Result<String> {
        let path = self.path.clone();
        String::from_utf8(self.bytes()?).map_err(|_| {
            Error::file(format!("{} is not a text file (UTF-8)", path.display())).hint("convert the file to UTF-8")
        })
    }

    /// For libraries that take a file of the standard library.
    pub fn into_std(self) -> fs::File {
        self.file
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
