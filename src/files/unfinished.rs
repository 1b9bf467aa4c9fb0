//! Sets of files that take their places one after the other: while they do, a file beside them says which. Where the
//! process ends meanwhile it stays, and says of which save each file is.
//!
//! Owns that file and what is said of a set that is not whole.

use super::location::{Location, exists, is_file, is_plain};
use super::read::text;
use super::saving::NEW;
use super::write::put;
use crate::error::{Error, Kind, Result};
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, OpenOptions};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};

/// The name of the file.
pub(super) const NAME: &str = "unfinished-save";
/// Files that are named where more are not in their places.
const NAMED: usize = 6;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Marker {
    /// For people who find it.
    about: String,
    /// The files of the save.
    files: Vec<String>,
    /// The hidden folder that those lie in which have not taken their places.
    rest: String,
    /// The save before this one was not whole either.
    again: bool,
}

const ABOUT: &str = "The files of this save were taking their places when this was written. When it has ended, this file is gone. \
                     If it is still here, files beside it may be of two saves.";

/// Says that these files, now below `rest`, take their places.
///
/// # Errors
/// A folder that cannot be written.
pub(super) fn begin(folder: &Dir, files: Vec<String>, rest: &OsStr) -> io::Result<()> {
    let again = folder.symlink_metadata(NAME).is_ok();
    let marker = Marker { about: ABOUT.into(), files, rest: rest.to_string_lossy().into_owned(), again };
    let text = serde_json::to_string_pretty(&marker)?;
    put(folder, NAME.as_ref(), |out| writeln!(out, "{text}"))
}

/// All are in their places.
///
/// # Errors
/// A file that cannot be removed.
pub(super) fn end(folder: &Dir) -> io::Result<()> {
    match folder.remove_file(NAME) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The hidden folder that an interrupted save still needs.
pub(super) fn rest(folder: &Dir) -> Option<OsString> {
    let mut options = OpenOptions::new();
    let file = folder.open_with(NAME, options.read(true).follow(FollowSymlinks::No)).ok()?;
    let mut text = String::new();
    file.take(1 << 20).read_to_string(&mut text).ok()?;
    serde_json::from_str::<Marker>(&text).ok().map(|marker| marker.rest.into())
}

/// # Errors
/// A folder in which a save was interrupted: its files are not of one save.
pub fn require_whole(at: &Location) -> Result<()> {
    let file = at.join(NAME);
    if !is_file(&file) {
        return Ok(());
    }
    let marker: Marker = text(&file).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let known =
        marker.files.iter().all(|name| name.split('/').all(|part| is_plain(part) && !part.contains(char::is_control)));
    let hidden = is_plain(&marker.rest) && !marker.rest.contains(char::is_control);
    let rest = at.join(&marker.rest).join(NEW);
    if !known || !hidden || marker.files.is_empty() || !exists(&rest) {
        let e = Error::new(
            Kind::Model,
            format!("{}: a save was interrupted here, and its files may be of two saves", at.display()),
        );
        return Err(e.hint(format!(
            "save again into {0}; if you know that its files belong together, remove {0}/{NAME}",
            at.display()
        )));
    }
    let left: Vec<&String> = marker.files.iter().filter(|name| exists(&rest.join(name))).collect();
    // All have taken their places, or none has and those before were whole.
    if left.is_empty() || (left.len() == marker.files.len() && !marker.again) {
        return Ok(());
    }
    let (older, missing): (Vec<&String>, Vec<&String>) = left.into_iter().partition(|name| exists(&at.join(name)));
    let said = [(older, "of an earlier save"), (missing, "missing")].into_iter().filter(|(names, _)| !names.is_empty());
    let said: Vec<String> = said.map(|(names, what)| format!("{what}: {}", listed(&names))).collect();
    Err(Error::new(Kind::Model, format!("a save into {} was interrupted; {}", at.display(), said.join("; "))).hint(
        format!(
            "save again into {0}; or move what is in {1} into {0} and remove {0}/{NAME}",
            at.display(),
            rest.display()
        ),
    ))
}

fn listed(names: &[&String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(|name| name.as_str()).collect();
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
