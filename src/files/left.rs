//! What killed processes have left in a folder: it is removed where it is known for certain, by its name and by its lock, that it is ours and
//! nobody's any more. All else stays.

use super::grant::same;
use super::lock::{Whose, lockable, take};
use super::saving::{ASIDE, HELD, NEW, PART, SAVING, is_named};
use super::unfinished;
use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, DirEntry, File, FileType};
use std::ffi::OsStr;
use std::io;

/// Removes what killed processes have left in a folder. What cannot be removed now is the next one's to remove; what an
/// interrupted save still needs stays.
pub(super) fn sweep(folder: &Dir) {
    let Ok(entries) = folder.entries() else { return };
    let needed = unfinished::rest(folder);
    for entry in entries.flatten() {
        let name = entry.file_name();
        if needed.as_deref() != Some(&name) {
            remove_left(folder, &entry, &name).ok();
        }
    }
}

/// Whether it is what a killed process has left: no link, and nobody has it.
pub(super) fn is_left(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let kind = |is: fn(&FileType) -> bool| entry.file_type().is_ok_and(|kind| is(&kind));
    if is_named(&name, PART) {
        return kind(|kind| kind.is_file())
            && entry.open_with(&lockable()).is_ok_and(|file| take(&file) == Whose::Ours);
    }
    let folder = is_named(&name, SAVING) && kind(|kind| kind.is_dir());
    folder && entry.open_dir().is_ok_and(|inside| nobodys(&inside).is_some())
}

fn remove_left(folder: &Dir, entry: &DirEntry, name: &OsStr) -> io::Result<()> {
    if is_named(name, PART) && entry.file_type()?.is_file() {
        let file = folder.open_with(name, &lockable())?;
        if take(&file) == Whose::Ours && same(&folder.symlink_metadata(name)?, &file.metadata()?) {
            folder.remove_file(name)?;
        }
    } else if is_named(name, SAVING) && entry.file_type()?.is_dir() {
        let inside = folder.open_dir_nofollow(name)?;
        let Some(_held) = nobodys(&inside) else { return Ok(()) };
        put_back(&inside, folder)?;
        folder.remove_dir_all(name)?;
    }
    Ok(())
}

/// The lock of a hidden folder that nobody fills, if it has one.
fn nobodys(inside: &Dir) -> Option<Option<File>> {
    match inside.open_with(HELD, &lockable()) {
        Ok(file) => (take(&file) == Whose::Ours).then_some(Some(file)),
        // It was being removed, or has just been begun: then it is empty, and is begun again.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let ours = |name: &OsStr| name == NEW || name == ASIDE || is_named(name, SAVING);
            inside.entries().ok()?.flatten().all(|entry| ours(&entry.file_name())).then_some(None)
        }
        Err(_) => None,
    }
}

/// What was put aside, and nothing has taken its place, goes back there.
fn put_back(inside: &Dir, folder: &Dir) -> io::Result<()> {
    let Ok(aside) = inside.open_dir_nofollow(ASIDE) else { return Ok(()) };
    for entry in aside.entries()? {
        let name = entry?.file_name();
        if folder.symlink_metadata(&name).is_err() {
            aside.rename(&name, folder, &name)?;
        }
    }
    Ok(())
}
