//! A path with the door that it is opened through, and what there is at one.
//!
//! Every function of `files` takes one, so that whoever was handed a path alone can name things and open none. As a
//! [`Path`] it has all that paths have. A link counts as what it leads to, except where its own function is asked. What
//! the door refuses counts as there: opening it says why.

use super::door::{Door, Need, Stopped};
use super::failure::{failed, no_file};
use super::grant::{Way, settled};
use crate::error::Result;
use cap_std::fs::Metadata;
use std::ffi::OsStr;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

#[derive(Clone)]
pub struct Location {
    door: Door,
    path: PathBuf,
}

impl Door {
    /// A path, to be opened through this door.
    pub fn at(&self, path: impl Into<PathBuf>) -> Location {
        Location { door: self.clone(), path: path.into() }
    }
}

impl Location {
    /// Below it; an absolute name is what it says.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        self.door.at(self.path.join(name))
    }

    /// Beside it.
    #[must_use]
    pub fn with_file_name(&self, name: impl AsRef<OsStr>) -> Self {
        self.door.at(self.path.with_file_name(name))
    }

    /// The folder that it is in; of a name alone, the current one.
    pub fn folder(&self) -> Option<Self> {
        let above = self.path.parent()?;
        Some(self.door.at(if above.as_os_str().is_empty() { Path::new(".") } else { above }))
    }

    pub fn door(&self) -> &Door {
        &self.door
    }

    /// # Errors
    /// What the door does not let be read.
    pub fn admit(&self) -> Result<()> {
        self.admitted(Need::Read)
    }

    /// # Errors
    /// What the door does not let be written.
    pub fn admit_writing(&self) -> Result<()> {
        self.admitted(Need::Write)
    }

    fn admitted(&self, need: Need) -> Result<()> {
        match self.door.through(need, &self.path, |way| way.look()) {
            Err(Stopped::Refused) => Err(self.door.refusal(need, &self.path)),
            // What is missing, or cannot be looked at, is told by whoever opens it.
            _ => Ok(()),
        }
    }

    pub(super) fn through<T>(
        &self,
        need: Need,
        work: impl Fn(Way<'_>) -> io::Result<T>,
    ) -> std::result::Result<T, Stopped> {
        self.door.through(need, &self.path, work)
    }

    /// Does something here; `doing` names it where it fails.
    pub(super) fn run<T>(&self, need: Need, doing: &str, work: impl Fn(Way<'_>) -> io::Result<T>) -> Result<T> {
        self.through(need, work).map_err(|stopped| match stopped {
            Stopped::Refused => self.door.refusal(need, &self.path),
            Stopped::Failed(e) => {
                let lost = e.kind() == io::ErrorKind::NotFound && is_link(self);
                let error = failed(doing, self, &e);
                if lost { error.hint("it is a link, and nothing is where it leads") } else { error }
            }
        })
    }
}

impl Deref for Location {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Location {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.fmt(f)
    }
}

/// A path that a person or the machine named, and no script.
pub fn anywhere(path: impl AsRef<Path>) -> Location {
    Door::everything().at(path.as_ref())
}

fn is(at: &Location, what: impl Fn(&Metadata) -> bool) -> bool {
    match at.through(Need::Read, |way| way.look()) {
        Ok(about) => what(&about),
        Err(stopped) => matches!(stopped, Stopped::Refused),
    }
}

/// Whether there is anything; a link that leads nowhere is nothing.
pub fn exists(at: &Location) -> bool {
    is(at, |_| true)
}

/// Whether there is a file: no folder, no device, no pipe.
pub fn is_file(at: &Location) -> bool {
    is(at, Metadata::is_file)
}

/// Whether there is a folder.
pub fn is_folder(at: &Location) -> bool {
    is(at, Metadata::is_dir)
}

/// Whether the path itself is a link, wherever it leads.
pub fn is_link(at: &Location) -> bool {
    at.through(Need::Read, |way| way.link()).is_ok()
}

/// # Errors
/// There is something, and it is no file: reading a device may never end, and writing one replaces it.
pub fn require_file(at: &Location) -> Result<()> {
    match at.through(Need::Read, |way| way.look()) {
        Ok(about) if !about.is_file() => Err(no_file(at, about.is_dir(), is_link(at))),
        _ => Ok(()),
    }
}

/// The absolute path without links and dots; none if nothing is there, or it is not to be known.
pub fn real(at: &Location) -> Option<PathBuf> {
    at.through(Need::Read, |way| way.look()).ok()?;
    Some(settled(&std::path::absolute(&at.path).ok()?))
}

/// Where `name` leads that the file at `at` names: from the folder of that file. An absolute name is what it says.
pub fn beside(at: &Location, name: impl AsRef<Path>) -> Location {
    at.door.at(at.path.parent().unwrap_or(Path::new("")).join(name))
}

/// Whether a name names something directly in a folder, so that `beside` cannot leave it.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != ".."
}
