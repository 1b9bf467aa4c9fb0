//! The folder of a run: where it is, and the files that say how it was made.
//! Owns no metrics and no weights: it only says where they go.

use crate::error::{Error, Result};
use crate::files::{self, Door, Held, Location};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a run's folder holds, wherever it is read again.
pub const CONFIG: &str = "config.json";
pub const SCRIPT: &str = "script.rhai";
pub const METRICS: &str = "metrics.jsonl";
/// How it ended.
pub const STATUS: &str = "status.json";
/// Held by the process that writes into the folder.
pub const LOCK: &str = "lock";

/// A folder that belongs to one run.
#[derive(Debug, Clone)]
pub struct Folder {
    path: Location,
    /// As it was when the run began to write there.
    is: Option<Arc<Held>>,
}

impl Folder {
    /// `out` if given (it must be new or empty), else `runs/NAME-TIME`, numbered if that second is taken.
    pub fn create(door: &Door, out: Option<&Path>, name: &str) -> Result<Self> {
        let path = match out {
            Some(path) => door.at(path),
            None => door.at("runs").join(format!("{name}-{}", timestamp(SystemTime::now()))),
        };
        path.admit_writing()?;
        if out.is_none() {
            return Ok(Self::of(new(&path)?));
        }
        let folder = Self::of(path);
        folder.require_empty()?;
        files::create_folder(&folder.path)?;
        Ok(Self::of(folder.path))
    }

    /// # Errors
    /// It holds something beside the lock of its process.
    pub fn require_empty(&self) -> Result<()> {
        let lock = self.file(LOCK);
        match files::entries(&self.path) {
            Ok(entries) if entries.iter().any(|entry| entry.file_name() != lock.file_name()) => {
                Err(Error::file(format!("the run folder {} is not empty", self.path.display()))
                    .hint("a run never overwrites another: choose a new folder with --out, or remove this one"))
            }
            // What is not there is made; what cannot be read is told when it is written.
            _ => Ok(()),
        }
    }

    /// The folder of a run that another process has begun.
    pub fn of(path: Location) -> Self {
        Self { is: Held::at(&path).map(Arc::new), path }
    }

    /// # Errors
    /// The path leads to another folder, or to none, since the run began to write there.
    pub fn check(&self) -> Result<()> {
        match self.is.as_ref().is_none_or(|held| held.is_at(&self.path)) {
            true => Ok(()),
            false => Err(Error::file(format!(
                "the run's folder {} is gone: it was removed, renamed or replaced while the run went on",
                self.path.display()
            ))
            .hint("leave the folder of a run where it is until the run has ended")),
        }
    }

    pub fn path(&self) -> &Location {
        &self.path
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> Location {
        self.path.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        self.check()?;
        files::write(&self.file(name), text)
    }

    /// Fills `name/` through `fill`, and puts it in its place only when it is whole. What was there goes as far as its names
    /// are `ours`.
    pub fn replace(
        &self,
        name: &str,
        ours: impl Fn(&str) -> bool,
        fill: impl FnOnce(&Location) -> Result<()>,
    ) -> Result<()> {
        self.check()?;
        files::replace_folder(&self.file(name), ours, fill)
    }
}

/// Makes a folder that nobody else has: under this name, or numbered where that is taken.
///
/// # Errors
/// A place where none can be made.
pub(super) fn new(path: &Location) -> Result<Location> {
    let mut place = path.clone();
    for n in 2_u32.. {
        if files::new_folder(&place)? {
            break;
        }
        place = path.with_file_name(format!("{}-{n}", file_name(path)));
    }
    Ok(place)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `20260731-142530`, UTC.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days since 1970-01-01 as a Gregorian date: the year is counted from March, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Versions of what decides the numbers of a run, from the lock file that the program was built with.
pub fn versions() -> Value {
    json!({ "rhopo": env!("CARGO_PKG_VERSION"), "candle": locked("candle-core"), "rhai": locked("rhai") })
}

fn locked(package: &str) -> Option<&'static str> {
    let lock = include_str!("../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("\nname = \"{package}\"\n")))?;
    entry.lines().find_map(|line| line.strip_prefix("version = ")).map(|version| version.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn timestamps_are_calendar_dates() {
        let at = |s| timestamp(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "19700101-000000");
        assert_eq!(at(951_782_400), "20000229-000000");
        assert_eq!(at(1_785_508_530), "20260731-143530");
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("run");
        Folder::create(&Door::everything(), Some(&out), "x").expect("new");
        Folder::create(&Door::everything(), Some(&out), "x")
            .expect("still empty")
            .write("config.json", "{}")
            .expect("written");
        let e = Folder::create(&Door::everything(), Some(&out), "x").expect_err("taken");
        assert!(e.to_string().contains("is not empty"), "{e}");
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::create(&Door::everything(), Some(&dir.path().join("run")), "x").expect("new");
        let fill = |text: &'static str| {
            move |p: &Location| {
                fs::write(p.join("a"), text).expect("written");
                Ok(())
            }
        };
        folder.replace("model", |_| true, fill("one")).expect("first");
        folder.replace("model", |_| true, fill("two")).expect("second");
        folder.replace("model", |_| true, |_| Err(Error::value("no"))).expect_err("third fails");
        assert_eq!(fs::read_to_string(folder.file("model").join("a")).expect("kept"), "two");
    }

    #[test]
    fn a_folder_that_is_gone_is_told_and_not_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path().join("run");
        let folder = Folder::create(&Door::everything(), Some(&at), "x").expect("new");
        fs::rename(&at, dir.path().join("moved")).expect("renamed");
        let gone = |e: Error| e.what.contains(" is gone: it was removed, renamed or replaced while the run went on");
        assert!(gone(folder.write("a", "x").expect_err("renamed")) && !at.exists());
        fs::create_dir(&at).expect("another");
        assert!(gone(folder.replace("model", |_| true, |_| Ok(())).expect_err("replaced")));
        assert_eq!(fs::read_dir(&at).expect("a folder").count(), 0);
        fs::remove_dir(&at).and_then(|()| fs::rename(dir.path().join("moved"), &at)).expect("put back");
        folder.write("a", "x").expect("it is there again");
    }

    #[test]
    fn default_names_that_are_taken_are_numbered() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = files::anywhere(dir.path()).join("runs/x");
        let made: Vec<String> = (0..3).map(|_| file_name(&new(&path).expect("new"))).collect();
        assert_eq!(made, ["x", "x-2", "x-3"]);
    }

    #[test]
    fn versions_are_known() {
        let v = versions();
        assert_eq!(v["candle"], "0.11.1");
        assert!(v["rhai"].as_str().is_some_and(|v| v.starts_with("1.")));
    }
}
