//! A lock on a folder: the process that holds it is the only one that writes there. It goes with the process, however that
//! ends.

use super::door::Need;
use super::failure::written;
use super::grant::same;
use super::location::Location;
use super::read;
use crate::error::{Error, Result};
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::fs::{Dir, File, OpenOptions};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::TryLockError;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// A lock that is held; it goes with the value.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    folder: Dir,
    name: OsString,
}

/// Whose a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Another,
    /// The file system has no locks.
    Nobodys,
}

/// Takes the system's lock on what is open, if nobody has it. It goes when that is closed.
pub(super) fn take(open: &impl AsFd) -> Whose {
    match flock(open, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Whose::Ours,
        Err(Errno::WOULDBLOCK) => Whose::Another,
        Err(_) => Whose::Nobodys,
    }
}

/// How a file is opened that may be locked.
pub(super) fn lockable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).follow(FollowSymlinks::No).nonblock(true);
    options
}

/// Takes the lock that is the file at `at`.
///
/// # Errors
/// Another process has it; a place that cannot be written.
pub fn lock(at: &Location) -> Result<Lock> {
    let (folder, name) = at.run(Need::Write, "write", |way| way.parent())?;
    written(at, hold(folder, &name))?.map_err(|holder| {
        let folder = at.parent().unwrap_or(at).display();
        Error::file(format!("another process is writing into {folder}: {}", holder.trim()))
            .hint("wait until it has ended, or end it")
    })
}

/// Takes the lock that is a file in a folder; else what its holder says of itself.
pub(super) fn hold(folder: Dir, name: &OsStr) -> io::Result<std::result::Result<Lock, String>> {
    let mut options = lockable();
    options.create(true).truncate(false);
    loop {
        let mut file = folder.open_with(name, &options)?;
        let whose = take(&file);
        if whose == Whose::Another {
            let mut holder = String::new();
            // Whoever holds it may not have said so yet.
            file.read_to_string(&mut holder).ok();
            return Ok(Err(holder));
        }
        // Who had it may have removed it in the meantime: then the next to come would lock another file.
        let there = folder.symlink_metadata(name);
        let about = file.metadata()?;
        if whose == Whose::Ours && !there.is_ok_and(|there| same(&there, &about)) {
            continue;
        }
        file.set_len(0)?;
        file.write_all(format!("process {}\n", std::process::id()).as_bytes())?;
        return Ok(Ok(Lock { _file: file, folder, name: name.to_os_string() }));
    }
}

/// Whether another process, or this one, holds the lock that is the file at `at`. Where it cannot be known, none does.
pub fn is_locked(at: &Location) -> bool {
    let opened = read::open(at).map(read::File::into_std);
    opened.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A lock file that stays is taken over by the next process.
        self.folder.remove_file(Path::new(&self.name)).ok();
    }
}
