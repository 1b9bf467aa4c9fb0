//! Files that take their places together, in a folder that may hold other things.
//!
//! A folder that holds nothing else is exchanged as a whole. Elsewhere each file takes its own place, and `unfinished.rs` tells where a
//! process was killed between two of them.

use super::door::Need;
use super::failure::written;
use super::folder::create_folder;
use super::grant::same;
use super::left::{is_left, sweep};
use super::location::Location;
use super::lock::{Whose, take};
use super::place::{Place, filled, sync};
use super::saving::{NEW, Saving};
use super::unfinished;
use crate::error::{Error, Result};
use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, File, MetadataExt};
use std::ffi::OsStr;
use std::io;
use std::time::{Duration, Instant};

/// Fills a folder, which may hold other things, with files that take their places together once all are whole and on the
/// disk: a process that is killed meanwhile leaves what was there. A folder that holds nothing else is exchanged as a whole; elsewhere
/// each file takes its own place, and [`super::require_whole`] tells where a process was killed between two of them.
/// What such processes have left goes the next time.
///
/// # Errors
/// A place that cannot be written; the error of `fill`, after which what was there is as it was.
pub fn fill_folder(at: &Location, fill: impl FnOnce(&Location) -> Result<()>) -> Result<()> {
    create_folder(at)?;
    let (folder, busy) = alone(at)?;
    sweep(&folder);
    let mut saving = written(at, Saving::begin(&folder))?;
    drop(busy);
    filled(at, &at.join(&saving.name), &saving, fill)?;
    let _busy = alone(at)?;
    if written(at, exchange(at, &folder, &mut saving))? {
        return Ok(());
    }
    if let Some(name) = written(at, in_the_way(&folder, &saving))? {
        let what = format!("cannot save into {}: {name} is a folder on one side and a file on the other", at.display());
        return Err(Error::file(what).hint("nothing was changed; move it away, or save into another folder"));
    }
    written(at, settle(&folder, &mut saving))?;
    sweep(&folder);
    Ok(())
}

/// The folder at a path, which no other process exchanges or fills while the second value is there.
fn alone(at: &Location) -> Result<(Dir, Option<File>)> {
    /// Others only give names to files meanwhile.
    const PATIENCE: Duration = Duration::from_secs(20);
    let begun = Instant::now();
    loop {
        let folder = at.run(Need::Write, "write", |way| way.folder())?;
        // A lock belongs to what was opened: it must not end with the copy that is worked on.
        let busy = written(at, folder.open("."))?;
        let there = |busy: &File| {
            let now = at.through(Need::Read, |way| way.look()).ok();
            busy.metadata().is_ok_and(|held| now.is_some_and(|now| same(&held, &now)))
        };
        match take(&busy) {
            Whose::Nobodys => return Ok((folder, None)),
            Whose::Ours if there(&busy) => return Ok((folder, Some(busy))),
            _ if begun.elapsed() > PATIENCE => {
                return Err(Error::file(format!("another process is saving into {}", at.display()))
                    .hint("wait until it has ended, or save into another folder"));
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Exchanges a folder with the new one, if nothing in it would be lost and nothing else has a hold on it; says whether it has.
fn exchange(at: &Location, folder: &Dir, saving: &mut Saving) -> io::Result<bool> {
    let new = saving.inside().open_dir_nofollow(NEW)?;
    let Some(place) = Place::of(at).ok().filter(|place| place.is(folder, at)) else { return Ok(false) };
    let (old, made) = (folder.dir_metadata()?, new.dir_metadata()?);
    // Who owns a folder is not to be changed by a save.
    if (old.uid(), old.gid()) != (made.uid(), made.gid()) || !covers(&new, folder, &saving.name)? {
        return Ok(false);
    }
    sweep(&place.above);
    if saving.moves(&place.above).is_err() {
        return Ok(false);
    }
    saving.inside().set_permissions(NEW, old.permissions())?;
    if place.exchange(saving).is_err() {
        saving.moves(folder)?;
        return Ok(false);
    }
    sync(&place.above, OsStr::new("."))?;
    Ok(true)
}

/// Whether each file of `old` has its like in `new`; beside what rhopo itself has left. Those in `new` get the permissions of the others.
fn covers(new: &Dir, old: &Dir, own: &OsStr) -> io::Result<bool> {
    for entry in old.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        if name == own || name == unfinished::NAME || is_left(&entry) {
            continue;
        }
        let (Ok(there), was) = (new.symlink_metadata(&name), entry.metadata()?) else { return Ok(false) };
        let alike = match was.is_dir() {
            true => there.is_dir() && covers(&new.open_dir_nofollow(&name)?, &old.open_dir_nofollow(&name)?, own)?,
            false => there.is_file() && was.is_file(),
        };
        if !alike {
            return Ok(false);
        }
        new.set_permissions(&name, was.permissions())?;
    }
    Ok(true)
}

/// What keeps a file of a hidden folder from its place, found before the first takes one.
fn in_the_way(folder: &Dir, saving: &Saving) -> io::Result<Option<String>> {
    fn between(new: &Dir, old: &Dir, above: &str) -> io::Result<Option<String>> {
        for entry in new.entries()? {
            let entry = entry?;
            let (name, folder) = (entry.file_name(), entry.file_type()?.is_dir());
            let Ok(there) = old.symlink_metadata(&name) else { continue };
            let path = format!("{above}{}", name.to_string_lossy());
            if folder != there.is_dir() {
                return Ok(Some(path));
            }
            if folder
                && let Some(found) = between(&entry.open_dir()?, &old.open_dir_nofollow(&name)?, &format!("{path}/"))?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
    between(&saving.inside().open_dir_nofollow(NEW)?, folder, "")
}

/// The files of a hidden folder take their places. More than one say so while they do.
pub(super) fn settle(folder: &Dir, saving: &mut Saving) -> io::Result<()> {
    let new = saving.inside().open_dir_nofollow(NEW)?;
    let mut files = Vec::new();
    list(&new, "", &mut files)?;
    if files.len() > 1 {
        unfinished::begin(folder, files, &saving.name)?;
        sync(folder, OsStr::new("."))?;
        // Until all are there, those that are not must not go.
        saving.keep(true);
    }
    move_all(&new, folder)?;
    sync(folder, OsStr::new("."))?;
    saving.keep(false);
    unfinished::end(folder)
}

/// The files in a folder and those below it, by their paths.
fn list(folder: &Dir, above: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in folder.entries()? {
        let entry = entry?;
        let name = format!("{above}{}", entry.file_name().to_string_lossy());
        match entry.file_type()?.is_dir() {
            true => list(&entry.open_dir()?, &format!("{name}/"), files)?,
            false => files.push(name),
        }
    }
    files.sort();
    Ok(())
}

fn move_all(from: &Dir, to: &Dir) -> io::Result<()> {
    for entry in from.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            to.create_dir(&name).or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })?;
            move_all(&from.open_dir_nofollow(&name)?, &to.open_dir_nofollow(&name)?)?;
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
