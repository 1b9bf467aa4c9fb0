//! A lock on a folder: the process that holds it is the only one that writes there. It goes with the process, however that
//! ends.

use super::failure::unwritable;
use crate::error::{Error, Result};
use std::fs::{self, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A lock that is held; it goes with the value.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
    path: PathBuf,
}

/// Takes the lock that is the file at `path`.
///
/// # Errors
/// Another process has it; a place that cannot be written.
pub fn lock(path: &Path) -> Result<Lock> {
    let failed = |e: io::Error| unwritable(path, &e);
    let mut file =
        fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let folder = path.parent().unwrap_or(path).display();
            let holder = fs::read_to_string(path).unwrap_or_default();
            let e = Error::file(format!("another process is writing into {folder}: {}", holder.trim()));
            return Err(e.hint("wait until it has ended, or end it"));
        }
        // A file system without locks.
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    let text = format!("process {}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)?;
    Ok(Lock { _file: file, path: path.to_path_buf() })
}

/// Whether another process, or this one, holds the lock that is the file at `path`. Where it cannot be known, none does.
pub fn is_locked(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A lock file that stays is taken over by the next process.
        fs::remove_file(&self.path).ok();
    }
}
