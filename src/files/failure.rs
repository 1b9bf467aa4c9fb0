//! What is said when something cannot be done with a path: one wording, with a hint by the kind of failure.

use crate::error::{Error, Result};
use std::io;
use std::path::Path;

/// That something could not be done with a path, and what may help.
pub(super) fn failed(doing: &str, path: &Path, e: &io::Error) -> Error {
    if e.kind() == io::ErrorKind::FileTooLarge {
        let what =
            format!("cannot {doing} {}: the file would exceed the limit on file sizes (ulimit -f)", path.display());
        return Error::file(what).hint("raise the limit: ulimit -f unlimited");
    }
    let error = Error::file(format!("cannot {doing} {}: {e}", path.display()));
    match e.kind() {
        io::ErrorKind::NotFound => error.hint("is it spelled right? A relative path is taken from the current folder"),
        io::ErrorKind::NotADirectory => error.hint("a part of the path that should be a folder is a file"),
        io::ErrorKind::AlreadyExists => error.hint("something of that name is in the way: choose another name"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            error.hint("the permissions of the file, or of a folder above it, forbid it")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error.hint("make room, or choose another disk"),
        _ => error,
    }
}

/// That a file that is there could not be read.
pub fn unreadable(path: &Path, e: &io::Error) -> Error {
    failed("read", path, e)
}

/// That a file could not be written.
pub fn unwritable(path: &Path, e: &io::Error) -> Error {
    failed("write", path, e)
}

/// That there is something else in a file's place.
pub(super) fn no_file(path: &Path, folder: bool, link: bool) -> Error {
    let it = if link { "it is a link to" } else { "it is" };
    Error::file(format!("{} is not a file", path.display())).hint(match folder {
        true => format!("{it} a folder: give a file in it"),
        false => format!("{it} a device or a pipe: give an ordinary file"),
    })
}

/// Words `e` as that a file could not be written.
pub(super) fn written<T>(path: &Path, done: io::Result<T>) -> Result<T> {
    done.map_err(|e| unwritable(path, &e))
}
