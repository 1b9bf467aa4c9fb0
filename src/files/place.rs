//! A folder that takes the place of another as a whole, so that a process may be killed at any moment.
//!
//! Owns names in folders that are held open, and the exchange. What is hidden meanwhile is `saving.rs`'s; folders that hold other
//! things as well are `fill.rs`'s.

use super::door::Need;
use super::failure::{failed, written};
use super::folder::create_folder;
use super::grant::same;
use super::left::{is_left, sweep};
use super::location::{Location, exists};
use super::saving::{ASIDE, NEW, Saving};
use crate::error::{Error, Result};
use cap_fs_ext::DirExt;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::ffi::{OsStr, OsString};
use std::io;

/// Fills a new folder through `fill`, and puts it in its place only when it is whole and on the disk. What stood there is
/// there until then, whenever the process is killed: the two exchange their names, where the file system can do that.
/// Of what stood there, only what is `ours` by its name goes.
///
/// # Errors
/// A place that cannot be written; the error of `fill`, after which what was there is as it was.
pub fn replace_folder(
    whole: &Location,
    ours: impl Fn(&str) -> bool,
    fill: impl FnOnce(&Location) -> Result<()>,
) -> Result<()> {
    if let Some(above) = whole.folder() {
        create_folder(&above)?;
    }
    let place = Place::of(whole)?;
    sweep(&place.above);
    let saving = written(whole, Saving::begin(&place.above))?;
    filled(whole, &whole.with_file_name(&saving.name), &saving, fill)?;
    written(whole, place.keep_others(&saving, ours).and_then(|()| place.put(&saving)))?;
    written(whole, sync(&place.above, OsStr::new(".")))
}

/// Fills what is `new` in a hidden folder, and brings it to the disk. Errors name the folder that it is meant for.
pub(super) fn filled(
    meant: &Location,
    hidden: &Location,
    saving: &Saving,
    fill: impl FnOnce(&Location) -> Result<()>,
) -> Result<()> {
    let new = hidden.join(NEW);
    written(meant, saving.inside().create_dir(NEW))?;
    fill(&new)
        .map_err(|e| Error { what: e.what.replace(&new.display().to_string(), &meant.display().to_string()), ..e })?;
    written(meant, sync(saving.inside(), OsStr::new(NEW)))
}

/// Removes a folder with everything in it; one that is not there is fine. It goes under another name first, so that no half
/// of it is ever found under its own.
///
/// # Errors
/// One that cannot be removed.
pub fn remove_folder(at: &Location) -> Result<()> {
    if !exists(at) {
        return Ok(());
    }
    let place = Place::of(at)?;
    let removed = Saving::begin(&place.above).and_then(|gone| {
        place.above.rename(&place.name, gone.inside(), NEW)?;
        gone.remove()
    });
    removed.map_err(|e| failed("remove", at, &e))
}

/// A name in a folder that is held open: what is done to it meets nothing elsewhere.
pub(super) struct Place {
    pub above: Dir,
    pub name: OsString,
}

impl Place {
    pub fn of(at: &Location) -> Result<Self> {
        let (above, name) = at.run(Need::Write, "write", |way| way.parent())?;
        Ok(Self { above, name })
    }

    /// Whether the name is that of this folder, and no link to it; and nobody holds it open who would not find the new one: neither
    /// the door, nor whoever works in it.
    pub fn is(&self, folder: &Dir, at: &Location) -> bool {
        let (Ok(named), Ok(held)) = (self.above.symlink_metadata(&self.name), folder.dir_metadata()) else {
            return false;
        };
        let here = Dir::open_ambient_dir(".", ambient_authority()).and_then(|here| here.dir_metadata());
        named.is_dir() && same(&named, &held) && !at.door().holds(&held) && !here.is_ok_and(|here| same(&here, &held))
    }

    /// What stands under the name and is not `ours` is put into the new folder as well: as the same file under a second name.
    fn keep_others(&self, saving: &Saving, ours: impl Fn(&str) -> bool) -> io::Result<()> {
        let Ok(old) = self.above.open_dir_nofollow(&self.name) else { return Ok(()) };
        let new = saving.inside().open_dir_nofollow(NEW)?;
        saving.inside().set_permissions(NEW, old.dir_metadata()?.permissions())?;
        for entry in old.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(&ours) && !is_left(&entry) && new.symlink_metadata(&name).is_err() {
                copy(&old, &new, &name)?;
            }
        }
        Ok(())
    }

    /// What is new takes the name; what had it goes.
    fn put(&self, saving: &Saving) -> io::Result<()> {
        if self.above.symlink_metadata(&self.name).is_err() {
            return saving.inside().rename(NEW, &self.above, &self.name);
        }
        self.exchange(saving).or_else(|_| self.put_aside(saving))
    }

    /// Where the file system has no exchange: for a moment the folder stands elsewhere, from where `sweep` puts it back.
    fn put_aside(&self, saving: &Saving) -> io::Result<()> {
        let inside = saving.inside();
        inside.create_dir(ASIDE)?;
        self.above.rename(&self.name, &inside.open_dir_nofollow(ASIDE)?, &self.name)?;
        inside.rename(NEW, &self.above, &self.name)
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    pub fn exchange(&self, saving: &Saving) -> io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        Ok(renameat_with(saving.inside(), NEW, &self.above, &self.name, RenameFlags::EXCHANGE)?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    pub fn exchange(&self, _: &Saving) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The same file, link or folder under the same name elsewhere on the disk.
fn copy(from: &Dir, to: &Dir, name: &OsStr) -> io::Result<()> {
    let about = from.symlink_metadata(name)?;
    if !about.is_dir() {
        return from.hard_link(name, to, name);
    }
    to.create_dir(name)?;
    let (inside, there) = (from.open_dir_nofollow(name)?, to.open_dir_nofollow(name)?);
    inside.entries()?.try_for_each(|entry| copy(&inside, &there, &entry?.file_name()))?;
    to.set_permissions(name, about.permissions())
}

/// Brings the list of names of a folder to the disk.
pub(super) fn sync(above: &Dir, folder: &OsStr) -> io::Result<()> {
    above.open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{anywhere, write};
    use std::fs;

    /// Where there is no exchange, the folder stands elsewhere for a moment; a process that ends then leaves it there.
    #[test]
    fn what_was_put_aside_is_put_back_or_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let (at, own) =
            (anywhere(dir.path()).join("model"), |text: &str| fs::read_to_string(dir.path().join(text)).ok());
        fs::create_dir(&at).expect("made");
        write(&at.join("a"), "old").expect("written");
        let place = Place::of(&at).expect("there");
        let mut saving = Saving::begin(&place.above).expect("begun");
        saving
            .inside()
            .create_dir(NEW)
            .and_then(|()| saving.inside().write(format!("{NEW}/a"), "new"))
            .expect("filled");
        place.put_aside(&saving).expect("renamed");
        assert_eq!(own("model/a").as_deref(), Some("new"));
        drop(saving);
        saving = Saving::begin(&place.above).expect("begun");
        saving.inside().create_dir(ASIDE).expect("made");
        place.above.rename("model", saving.inside(), format!("{ASIDE}/model")).expect("aside");
        saving.keep(true);
        drop(saving);
        assert!(!at.exists());
        sweep(&place.above);
        assert_eq!(own("model/a").as_deref(), Some("new"));
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }
}
