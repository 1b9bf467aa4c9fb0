//! The folder of a run: where it is, and the files that say how it was made.
//! Owns no metrics and no weights: it only says where they go.

use crate::error::{Error, Result};
use crate::files::{self, Door, Location};
use serde_json::{Value, json};
use std::path::Path;
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
}

impl Folder {
    /// `out` if given (it must be new or empty), else `runs/NAME-TIME`, numbered if that second is taken.
    pub fn create(door: &Door, out: Option<&Path>, name: &str) -> Result<Self> {
        let path = match out {
            Some(path) => door.at(path),
            None => door.at("runs").join(format!("{name}-{}", timestamp(SystemTime::now()))),
        };
        path.admit_writing()?;
        let path = if out.is_some() { path } else { free(&path) };
        if files::entries(&path).is_ok_and(|entries| !entries.is_empty()) {
            return Err(Error::file(format!("the run folder {} is not empty", path.display()))
                .hint("a run never overwrites another: choose a new folder with --out, or remove this one"));
        }
        files::create_folder(&path)?;
        Ok(Self { path })
    }

    /// The folder of a run that another process has begun.
    pub fn of(path: Location) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Location {
        &self.path
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> Location {
        self.path.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        files::write(&self.file(name), text)
    }

    /// Fills `name/` through `fill`, and puts it in its place only when it is whole.
    pub fn replace(&self, name: &str, fill: impl FnOnce(&Location) -> Result<()>) -> Result<Location> {
        let whole = self.file(name);
        files::replace_folder(&whole, fill)?;
        Ok(whole)
    }
}

fn free(path: &Location) -> Location {
    let numbered = (2_u32..).map(|n| path.with_file_name(format!("{}-{n}", file_name(path))));
    std::iter::once(path.clone()).chain(numbered).find(|p| !files::exists(p)).unwrap_or_else(|| path.clone())
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
        folder.replace("model", fill("one")).expect("first");
        folder.replace("model", fill("two")).expect("second");
        folder.replace("model", |_| Err(Error::value("no"))).expect_err("third fails");
        assert_eq!(fs::read_to_string(folder.file("model").join("a")).expect("kept"), "two");
    }

    #[test]
    fn versions_are_known() {
        let v = versions();
        assert_eq!(v["candle"], "0.11.1");
        assert!(v["rhai"].as_str().is_some_and(|v| v.starts_with("1.")));
    }
}
