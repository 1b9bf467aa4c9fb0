//! Checkpoints on the disk: `checkpoints/000120/` in the run folder, with a manifest that is written last.
//!
//! Owns the folders, their manifests and which of them are kept. A folder has its name only once everything in it is on
//! the disk; one that is not whole is passed over, and told.

use super::state::RunState;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FOLDER: &str = "checkpoints";
const MANIFEST: &str = "MANIFEST.json";
const STATE: &str = "state.json";
/// The texts of the files that the script had read.
pub const SOURCES: &str = "sources.json";
/// Of this file format.
const FORMAT: u32 = 1;
/// Of a step in a folder's name, at least.
const DIGITS: usize = 6;
/// Whole ones that are kept.
const KEPT: usize = 2;

/// What a whole checkpoint consists of.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    /// XXH3, 128 bits.
    xxh3: String,
}

/// A checkpoint that is whole.
#[derive(Debug)]
pub struct Stored {
    pub path: Location,
    pub state: RunState,
}

impl Stored {
    /// The files that the script had read, with their texts.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn sources(&self) -> Result<BTreeMap<String, String>> {
        let path = self.path.join(SOURCES);
        let read = serde_json::from_str(&files::text(&path)?);
        read.map_err(|e| Error::file(format!("{} cannot be read: {e}", path.display())))
    }
}

/// Writes the checkpoint of a run: `fill` writes into the folder that it is given and returns the state. Older ones go once
/// the new one is on the disk.
///
/// # Errors
/// What cannot be written; then nothing is left of it, and the older ones are as they were.
pub fn write(run: &Location, step: u64, fill: impl FnOnce(&Location) -> Result<RunState>) -> Result<Location> {
    let all = run.join(FOLDER);
    let place = all.join(format!("{step:0DIGITS$}"));
    files::create_folder(&all)?;
    files::replace_folder(
        &place,
        |_| true,
        |part| {
            let state = fill(part)?;
            let text = serde_json::to_vec(&state).map_err(|e| Error::file(format!("{}: {e}", place.display())))?;
            files::write(&part.join(STATE), text)?;
            let mut manifest = Manifest { format: FORMAT, files: BTreeMap::new() };
            for path in files::entries(part)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                manifest.files.insert(name, entry(&path)?);
            }
            let text =
                serde_json::to_vec_pretty(&manifest).map_err(|e| Error::file(format!("{}: {e}", place.display())))?;
            files::write(&part.join(MANIFEST), text)
        },
    )?;
    thin(&all)?;
    Ok(place)
}

/// Removes all but the newest whole ones, and what an interrupted write has left.
fn thin(all: &Location) -> Result<()> {
    let mut whole = 0;
    for path in listed(all)?.into_iter().filter(is_own) {
        let keeps = number(&path).is_some() && files::is_file(&path.join(MANIFEST)) && whole < KEPT;
        whole += usize::from(keeps);
        if !keeps {
            files::remove_folder(&path)?;
        }
    }
    Ok(())
}

/// The newest whole checkpoint of a run, up to step `most`; `pass` is told why a newer one was passed over.
///
/// # Errors
/// A folder that cannot be read.
pub fn newest(run: &Location, most: Option<u64>, pass: impl Fn(&str)) -> Result<Option<Stored>> {
    let all = run.join(FOLDER);
    if !files::is_folder(&all) {
        return Ok(None);
    }
    let numbered = listed(&all)?.into_iter().filter_map(|path| Some((number(&path)?, path)));
    for (_, path) in numbered.filter(|(step, _)| most.is_none_or(|most| *step <= most)) {
        match read(&path) {
            Ok(stored) => return Ok(Some(stored)),
            Err(e) => pass(&format!("skipping the incomplete checkpoint {}: {}", path.display(), e.what)),
        }
    }
    Ok(None)
}

/// Steps of the checkpoints there are, newest first; whole or not.
///
/// # Errors
/// A folder that cannot be read.
pub fn steps(run: &Location) -> Result<Vec<u64>> {
    let all = run.join(FOLDER);
    if !files::is_folder(&all) {
        return Ok(Vec::new());
    }
    Ok(listed(&all)?.iter().filter_map(number).collect())
}

/// What lies in the folder of checkpoints, newest first.
fn listed(all: &Location) -> Result<Vec<Location>> {
    let mut found = files::entries(all)?;
    found.sort_by_key(|path| std::cmp::Reverse(number(path)));
    Ok(found)
}

/// Whether it has such a name as a checkpoint has, or one that is being written or removed.
fn is_own(path: &Location) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".part").or_else(|| name.strip_suffix(".old")).unwrap_or(name);
    name.len() >= DIGITS && name.bytes().all(|c| c.is_ascii_digit())
}

fn number(path: &Location) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

fn entry(path: &Location) -> Result<Entry> {
    let (bytes, xxh3) = files::digest(path)?;
    Ok(Entry { bytes, xxh3 })
}

fn read(path: &Location) -> Result<Stored> {
    let broken = |what: String| Error::file(what);
    let manifest = files::text(&path.join(MANIFEST))?;
    let manifest: Manifest = serde_json::from_str(&manifest).map_err(|e| broken(format!("{MANIFEST}: {e}")))?;
    if manifest.format != FORMAT {
        return Err(broken(format!("its format is {}, expected {FORMAT}", manifest.format)));
    }
    for (name, expected) in &manifest.files {
        if !files::is_plain(name) {
            return Err(broken(format!("{MANIFEST} names {name:?}, which is no file of the checkpoint")));
        }
        let found = entry(&path.join(name))?;
        if found.bytes != expected.bytes {
            return Err(broken(format!("{name} has {} bytes, expected {}", found.bytes, expected.bytes)));
        }
        if found != *expected {
            return Err(broken(format!("{name} holds other bytes than were written")));
        }
    }
    let state = files::text(&path.join(STATE))?;
    let state = serde_json::from_str(&state).map_err(|e| broken(format!("{STATE}: {e}")))?;
    Ok(Stored { path: path.clone(), state })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
