//! Folders: what they hold, making them, replacing whole ones so that a process may be killed at any moment.

use super::door::Need;
use super::failure::{failed, unwritable, written};
use super::location::{Location, exists};
use super::lock::{Lock, lock};
use crate::error::{Error, Result};
use cap_fs_ext::{DirExt, OpenOptionsSyncExt};
use cap_std::fs::{Dir, OpenOptions};
use std::ffi::{OsStr, OsString};
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
    at.run(Need::Folder, "make the folder", |way| way.make_folder())
}

/// Fills a new folder through `fill`, and puts it in its place only when it is whole and on the disk. What stood there is
/// there until then, whenever the process is killed: the two exchange their names, where the file system can do that.
///
/// # Errors
/// A place that cannot be written; the error of `fill`, after which what was there is as it was.
pub fn replace_folder(whole: &Location, fill: impl FnOnce(&Location) -> Result<()>) -> Result<()> {
    if let Some(above) = whole.folder() {
        create_folder(&above)?;
    }
    let place = Place::of(whole)?;
    let [part, old] = ["part", "old"].map(|what| beside_of(&place.name, what));
    written(whole, place.mend(&old).and_then(|()| place.clear(&part)))?;
    written(whole, place.above.create_dir(&part))?;
    let filled = fill(&whole.with_file_name(&part)).and_then(|()| written(whole, place.sync(&part)));
    if filled.is_err() {
        // The first failure is the one to report: what is left is cleared the next time.
        place.clear(&part).ok();
        return filled;
    }
    let put = place.put(&part, &old).and_then(|()| place.clear(&part)).and_then(|()| place.clear(&old));
    written(whole, put.and_then(|()| place.sync(OsStr::new("."))))
}

/// Fills a folder, which may hold other things, with files that take their places together once all are whole and on the
/// disk: a process that is killed meanwhile leaves what was there. What such a process has left goes the next time.
///
/// # Errors
/// A place that cannot be written; the error of `fill`, after which what was there is as it was.
pub fn fill_folder(at: &Location, fill: impl FnOnce(&Location) -> Result<()>) -> Result<()> {
    create_folder(at)?;
    let folder = at.run(Need::Write, "write", |way| way.folder())?;
    written(at, sweep(&folder))?;
    let part = Saving::begin(at, &folder)?;
    fill(&at.join(&part.name))?;
    let inside = written(at, folder.open_dir_nofollow(&part.name))?;
    written(at, settle(&inside, &folder))
}

const SAVING: &str = ".saving-";
/// Held by the process that fills it.
const HELD: &str = ".held";

/// A folder in the making within the one whose files it will become. It goes with this value.
struct Saving<'a> {
    folder: &'a Dir,
    name: OsString,
    _held: Lock,
}

impl<'a> Saving<'a> {
    fn begin(at: &Location, folder: &'a Dir) -> Result<Self> {
        const TRIES: u32 = 1000;
        let names = (0..TRIES).map(|n| OsString::from(format!("{SAVING}{}-{n}", std::process::id())));
        for name in names {
            match folder.create_dir(&name) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    written(at, made)?;
                    return Ok(Self { folder, _held: lock(&at.join(&name).join(HELD))?, name });
                }
            }
        }
        Err(unwritable(at, &io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        // What cannot be removed now goes the next time.
        self.folder.remove_dir_all(&self.name).ok();
    }
}

/// Files take their places in `to`; folders among them are filled likewise.
fn settle(from: &Dir, to: &Dir) -> io::Result<()> {
    for entry in from.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        if name == HELD {
            continue;
        }
        if entry.file_type()?.is_dir() {
            to.create_dir(&name).or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })?;
            settle(&from.open_dir_nofollow(&name)?, &to.open_dir_nofollow(&name)?)?;
            continue;
        }
        if let Ok(old) = to.symlink_metadata(&name)
            && old.is_file()
        {
            from.set_permissions(&name, old.permissions())?;
        }
        from.rename(&name, to, &name)?;
    }
    Ok(())
}

/// Removes what processes have left that were killed while they saved here.
fn sweep(folder: &Dir) -> io::Result<()> {
    for entry in folder.entries()? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(SAVING) || !entry.file_type()?.is_dir() {
            continue;
        }
        let held = entry.open_dir().and_then(|part| part.open_with(HELD, OpenOptions::new().read(true).nonblock(true)));
        // One that has no lock yet may just have been begun.
        if held.is_ok_and(|file| file.into_std().try_lock().is_ok()) {
            folder.remove_dir_all(entry.file_name())?;
        }
    }
    Ok(())
}

/// Gives a folder another name within its folder, on the disk as well.
///
/// # Errors
/// A name that is taken; a place that cannot be written.
pub fn rename_folder(from: &Location, to: &Location) -> Result<()> {
    let (from, there) = (Place::of(from)?, Place::of(to)?);
    let renamed = from.above.rename(&from.name, &there.above, &there.name);
    written(to, renamed.and_then(|()| there.sync(OsStr::new("."))))
}

/// Removes a folder with everything in it; one that is not there is fine. What it holds goes under another name first, so
/// that no half of it is ever found under its own.
///
/// # Errors
/// One that cannot be removed.
pub fn remove_folder(at: &Location) -> Result<()> {
    if !exists(at) {
        return Ok(());
    }
    let place = Place::of(at)?;
    let gone = beside_of(&place.name, "old");
    let removed = place.clear(&gone).and_then(|()| place.above.rename(&place.name, &place.above, &gone));
    removed.and_then(|()| place.clear(&gone)).map_err(|e| failed("remove", at, &e))
}

/// `model.part` beside `model`.
fn beside_of(name: &OsStr, what: &str) -> OsString {
    let mut name = name.to_os_string();
    name.push(format!(".{what}"));
    name
}

/// A name in a folder that is held open: what is done to it meets nothing elsewhere.
struct Place {
    above: Dir,
    name: OsString,
}

impl Place {
    fn of(at: &Location) -> Result<Self> {
        let (above, name) = at.run(Need::Write, "write", |way| way.parent())?;
        Ok(Self { above, name })
    }

    fn has(&self, name: &OsStr) -> bool {
        self.above.symlink_metadata(name).is_ok()
    }

    /// Removes what has this name; a link goes, and not what it leads to.
    fn clear(&self, name: &OsStr) -> io::Result<()> {
        match self.above.symlink_metadata(name) {
            Ok(about) if about.is_dir() => self.above.remove_dir_all(name),
            Ok(_) => self.above.remove_file(name),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Puts back what a process that was killed had moved aside and not replaced.
    fn mend(&self, old: &OsStr) -> io::Result<()> {
        match self.has(old) && !self.has(&self.name) {
            true => self.above.rename(old, &self.above, &self.name),
            false => self.clear(old),
        }
    }

    /// `part` takes the name; what had it is `part` or `old` afterwards.
    fn put(&self, part: &OsStr, old: &OsStr) -> io::Result<()> {
        let above = &self.above;
        if !self.has(&self.name) {
            return above.rename(part, above, &self.name);
        }
        self.exchange(part).or_else(|_| {
            // A file system without the exchange: for a moment the folder stands under another name, which `mend` knows.
            above.rename(&self.name, above, old)?;
            above.rename(part, above, &self.name)
        })
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn exchange(&self, part: &OsStr) -> io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        Ok(renameat_with(&self.above, part, &self.above, &self.name, RenameFlags::EXCHANGE)?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn exchange(&self, _: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Brings the list of names of a folder in it to the disk.
    fn sync(&self, folder: &OsStr) -> io::Result<()> {
        self.above.open(folder)?.sync_all()
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
