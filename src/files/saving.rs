//! What is being written and has not taken its place: hidden folders, and hidden files of `write.rs`. Each is locked by the
//! process that fills it, so that what a killed one has left is known for certain.
//!
//! Owns the names and the locks. What takes which place, and how, is `place.rs`'s and `fill.rs`'s.

use super::lock::{Lock, Whose, hold, take};
use cap_fs_ext::{DirExt, MetadataExt};
use cap_std::fs::{Dir, File, OpenOptions};
use std::ffi::{OsStr, OsString};
use std::io;

pub(super) const SAVING: &str = ".saving-";
pub(super) const PART: &str = ".part-";
/// In a hidden folder: the lock of the process that fills it.
pub(super) const HELD: &str = ".held";
/// What is being filled, or is to be removed.
pub(super) const NEW: &str = "new";
/// What is put aside for a moment, under its own name.
pub(super) const ASIDE: &str = "aside";
/// Names that are tried, beside those that others have left or hold.
const TRIES: u32 = 1000;

fn names(kind: &'static str) -> impl Iterator<Item = OsString> {
    (0..TRIES).map(move |n| OsString::from(format!("{kind}{}-{n}", std::process::id())))
}

/// `.saving-12-0`
pub(super) fn is_named(name: &OsStr, kind: &str) -> bool {
    let numbers = name.to_str().and_then(|name| name.strip_prefix(kind)?.split_once('-'));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    numbers.is_some_and(|(process, n)| digits(process) && digits(n))
}

/// A hidden folder that is filled. What is in it goes with this value, unless it is kept.
pub(super) struct Saving {
    /// Where it lies.
    pub folder: Dir,
    pub name: OsString,
    inside: Dir,
    keeps: bool,
    _held: Lock,
}

impl Saving {
    /// # Errors
    /// A folder that cannot be written.
    pub fn begin(folder: &Dir) -> io::Result<Self> {
        for name in names(SAVING) {
            match folder.create_dir(&name) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // One without a lock yet may be taken for one that was left.
            let held = folder
                .open_dir_nofollow(&name)
                .and_then(|inside| Ok((hold(inside.try_clone()?, OsStr::new(HELD))?, inside)));
            match held {
                Ok((Ok(_held), inside)) => {
                    return Ok(Self { folder: folder.try_clone()?, name, inside, keeps: false, _held });
                }
                Ok((Err(_), _)) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    folder.remove_dir_all(&name).ok();
                    return Err(e);
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The folder itself.
    pub fn inside(&self) -> &Dir {
        &self.inside
    }

    /// It lies in another folder from here on.
    ///
    /// # Errors
    /// One that cannot be written, or that is on another disk.
    pub fn moves(&mut self, to: &Dir) -> io::Result<()> {
        self.folder.rename(&self.name, to, &self.name)?;
        self.folder = to.try_clone()?;
        Ok(())
    }

    /// Whether what is in it stays.
    pub fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// # Errors
    /// What cannot be removed.
    pub fn remove(mut self) -> io::Result<()> {
        self.keeps = true;
        self.folder.remove_dir_all(&self.name)
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if !self.keeps {
            // What cannot be removed now goes the next time.
            self.folder.remove_dir_all(&self.name).ok();
        }
    }
}

/// Makes a new hidden file, under a name that nobody has: one that is there is neither opened nor followed.
///
/// # Errors
/// A folder that cannot be written.
pub(super) fn part(folder: &Dir) -> io::Result<(OsString, File)> {
    for name in names(PART) {
        let file = match folder.open_with(&name, OpenOptions::new().write(true).create_new(true)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        };
        // Before it was locked it may have been taken for one that was left, and removed.
        if take(&file) != Whose::Another && file.metadata()?.nlink() > 0 {
            return Ok((name, file));
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
