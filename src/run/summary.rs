//! A run as its folder tells it: how it was begun, how far it came, its last numbers, how it ended.
//! Owns the reading alone; tables of runs are made in `ui/`, and what scripts see of a run in `script/bind/`.

use crate::budget::memory;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::run::edit;
use crate::run::folder::{CONFIG, LOCK, METRICS, SCRIPT};
use crate::run::history::History;
use crate::run::logged;
use crate::run::panels::{self, Curve};
use crate::run::status::{Ending, Status};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Folders within folders that are searched for runs.
const DEEPEST: usize = 4;
/// What every line has that was not logged.
const STEP: &str = "step";
/// How many times as much memory the numbers take as their text.
const LARGER: u64 = 6;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Finished,
    Interrupted,
    Failed,
    /// Its process is still there.
    Running,
    /// Its process went without a word.
    Killed,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Killed => "killed",
        }
    }
}

/// What the folder of a run says.
#[derive(Debug, Clone)]
pub struct Summary {
    pub folder: Location,
    pub state: State,
    /// The last step with numbers.
    pub step: u64,
    /// The last number of each name that was logged, in the order in which the names came up.
    pub last: Vec<(String, f64)>,
    /// The script as it was run.
    pub text: String,
    /// Lines of the metrics that could not be read.
    damaged: usize,
    config: Map<String, Value>,
}

impl Summary {
    /// Whether a run has begun in the folder.
    pub fn is_in(folder: &Location) -> bool {
        files::is_file(&folder.join(CONFIG)) && files::is_file(&folder.join(METRICS))
    }

    /// # Errors
    /// No run in the folder; files of it that cannot be read.
    pub fn read(folder: &Location) -> Result<Self> {
        let path = folder.join(CONFIG);
        require(folder)?;
        let config = serde_json::from_str(&files::text(&path)?);
        let config = config.map_err(|e| Error::file(format!("{} cannot be read: {e}", path.display())))?;
        let Numbers { step, last, damaged } = numbers(&folder.join(METRICS))?;
        let script = folder.join(SCRIPT);
        let text = if files::is_file(&script) { files::text(&script)? } else { String::new() };
        Ok(Self { folder: folder.clone(), state: state(folder)?, step, last, text, damaged, config })
    }

    /// What the folder itself is called.
    pub fn name(&self) -> String {
        let name = self.folder.file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.folder.display().to_string())
    }

    pub fn script(&self) -> &str {
        self.config.get("script").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn seed(&self) -> Option<u64> {
        self.config.get("seed").and_then(Value::as_u64)
    }

    /// What of its metrics could not be read, in a line.
    pub fn damage(&self) -> Option<String> {
        logged::damage(&self.folder.join(METRICS), self.damaged)
    }

    /// The hyper-parameters; the seed is told apart.
    pub fn arguments(&self) -> Vec<(&str, &Value)> {
        let all = self.config.get("args").and_then(Value::as_object).into_iter().flatten();
        all.map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| *name != "seed").collect()
    }

    /// What else decides the numbers: device, threads, versions.
    pub fn settings(&self) -> Vec<(String, Value)> {
        let plain = ["seed", "device", "dtype", "threads", "token_budget"];
        let plain = plain.iter().filter_map(|name| Some(((*name).to_string(), self.config.get(*name)?.clone())));
        let versions = self.config.get("versions").and_then(Value::as_object).into_iter().flatten();
        plain.chain(versions.map(|(name, value)| (format!("{name} version"), value.clone()))).collect()
    }

    /// Everything that may be asked of a run by name: `run`, `script`, `state`, `step`, `seed`, its hyper-parameters, and its
    /// last numbers, where no hyper-parameter has the name.
    pub fn values(&self) -> Map<String, Value> {
        let mut values = Map::new();
        let own = [
            ("run", Value::from(self.name())),
            ("script", self.script().into()),
            ("state", self.state.name().into()),
            ("step", self.step.into()),
            ("seed", self.seed().into()),
        ];
        let arguments = self.arguments().into_iter().map(|(name, value)| (name.to_string(), value.clone()));
        let last = self.last.iter().map(|(name, x)| (name.clone(), Value::from(*x)));
        for (name, value) in own.into_iter().map(|(name, value)| (name.to_string(), value)).chain(arguments).chain(last)
        {
            values.entry(name).or_insert(value);
        }
        values
    }
}

/// The numbers of a run over its steps, by the names under which they were logged. A line that is still being written does
/// not count.
///
/// # Errors
/// Metrics that cannot be read, or that are more than the memory holds.
pub fn curves(folder: &Location) -> Result<Vec<Curve>> {
    let file = files::open(&folder.join(METRICS))?;
    memory::room(LARGER * file.size())?;
    let bytes = file.bytes()?;
    Ok(panels::curves(&History::of(&String::from_utf8_lossy(&bytes)).lines))
}

/// # Errors
/// No run in the folder.
pub(super) fn require(folder: &Location) -> Result<()> {
    match Summary::is_in(folder) {
        true => Ok(()),
        false => Err(Error::file(format!("there is no run in {}", folder.display()))
            .hint(format!("the folder of a run holds {CONFIG} and {METRICS}"))),
    }
}

pub(super) fn state(folder: &Location) -> Result<State> {
    Ok(match Status::read(folder)?.map(|status| status.status) {
        Some(Ending::Finished) => State::Finished,
        Some(Ending::Interrupted) => State::Interrupted,
        Some(Ending::Failed) => State::Failed,
        None if files::is_locked(&folder.join(LOCK)) => State::Running,
        None => State::Killed,
    })
}

/// What the metrics have come to.
struct Numbers {
    step: u64,
    last: Vec<(String, f64)>,
    damaged: usize,
}

/// The last step and the last numbers. A line that is still being written does not count.
fn numbers(path: &Location) -> Result<Numbers> {
    let (mut step, mut last, mut damaged) = (0, Vec::<(String, f64)>::new(), 0);
    for line in logged::lines(&String::from_utf8_lossy(&files::bytes(path)?)) {
        let Some(line) = line else {
            damaged += 1;
            continue;
        };
        if edit::is_event(&line) {
            continue;
        }
        step = line.get(STEP).and_then(Value::as_u64).unwrap_or(step);
        for (name, value) in line.iter().filter(|(name, _)| *name != STEP) {
            let value = value.as_f64().unwrap_or(f64::NAN);
            match last.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value,
                None => last.push((name.clone(), value)),
            }
        }
    }
    Ok(Numbers { step, last, damaged })
}

/// What a search for runs has come upon.
#[derive(Debug, Default)]
pub struct Found {
    /// The folders of runs, by name.
    pub runs: Vec<Location>,
    /// Folders that could not be looked into.
    pub closed: Vec<Error>,
    /// Links to runs that are none of those found. No link is followed: it may lead in a circle.
    pub links: Vec<Location>,
}

/// The folders of runs: the given one, or those below it.
///
/// # Errors
/// No such folder.
pub fn below(path: &Location) -> Result<Found> {
    let mut found = Found::default();
    search(path, DEEPEST, &mut found)?;
    let real: BTreeSet<_> = found.runs.iter().filter_map(files::real).collect();
    found.links.retain(|link| files::real(link).is_none_or(|to| !real.contains(&to)));
    Ok(found)
}

fn search(path: &Location, depth: usize, found: &mut Found) -> Result<()> {
    if Summary::is_in(path) {
        found.runs.push(path.clone());
        return Ok(());
    }
    for entry in files::entries(path)? {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if depth == 0 || hidden || !files::is_folder(&entry) {
            continue;
        }
        if files::is_link(&entry) {
            found.links.extend(Summary::is_in(&entry).then_some(entry));
        } else if let Err(e) = search(&entry, depth - 1, found) {
            found.closed.push(e);
        }
    }
    Ok(())
}
