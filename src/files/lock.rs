//! A lock on a folder: the process that holds it is the only one that writes there. It goes with the process, however that
//! ends.

use super::door::Need;
use super::failure::{unwritable, written};
use super::location::Location;
use super::read;
use crate::error::{Error, Result};
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, OpenOptions};
use std::ffi::OsString;
use std::fs::{self, TryLockError};
use std::io::{self, Read, Write};

/// A lock that is held; it goes with the value.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
    folder: Dir,
    name: OsString,
}

/// Takes the lock that is the file at `at`.
///
/// # Errors
/// Another process has it; a place that cannot be written.
pub fn lock(at: &Location) -> Result<Lock> {
    let (folder, name) = at.run(Need::Write, "write", |way| way.parent())?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).follow(FollowSymlinks::No);
    let mut file = written(at, folder.open_with(&name, &options))?.into_std();
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Whoever holds it may not have said so yet.
            file.read_to_string(&mut holder).ok();
            let folder = at.parent().unwrap_or(at).display();
            let e = Error::file(format!("another process is writing into {folder}: {}", holder.trim()));
            return Err(e.hint("wait until it has ended, or end it"));
        }
        // A file system without locks.
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(unwritable(at, &e)),
    }
    let text = format!("process {}\n", std::process::id());
    written(at, file.set_len(0).and_then(|()| file.write_all(text.as_bytes())))?;
    Ok(Lock { _file: file, folder, name })
}

/// Whether another process, or this one, holds the lock that is the file at `at`. Where it cannot be known, none does.
pub fn is_locked(at: &Location) -> bool {
    let opened = read::open(at).map(read::File::into_std);
    opened.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A lock file that stays is taken over by the next process.
        self.folder.remove_file(&self.name).ok();
    }
}
