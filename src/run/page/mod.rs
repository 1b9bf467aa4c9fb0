//! `report.html`: a run on one page, as its folder tells it. Owns what stands on it and how much of it; pictures are
//! `plot.rs`'s, and that no text becomes markup is seen to in `html.rs` alone.
//!
//! The page is bounded, however long the run: 60 panels of 8 curves of 800 points, 200 names, 40 evaluations, 20 samples, 30
//! edits and 200 lines of the log, texts of a few thousand letters, a script of 128 KiB. That is some 5 MiB at most, and 200
//! KiB as a rule. What was left out is said on the page.

mod changes;
mod cut;
mod html;
mod numbers;
mod rows;

use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::run::checkpoint::store;
use crate::run::computer::{LATER, MACHINE};
use crate::run::edit::{self, Edit};
use crate::run::folder::{CONFIG, METRICS, SCRIPT};
use crate::run::history::History;
use crate::run::line::Line;
use crate::run::logged;
use crate::run::plot;
use crate::run::quote::shell;
use crate::run::summary::{self, State};
use changes::{Change, Listing};
use cut::{Left, cut};
use numbers::{Evaluations, Row, clock};
use serde::Serialize;
use serde_json::{Map, Value};

/// Its name in the folder of a run.
pub const FILE: &str = "report.html";

/// Hyper-parameters and settings, and letters of one.
const MOST_ARGUMENTS: usize = 300;
const VALUE: usize = 2000;
/// Letters of the command line.
const COMMAND: usize = 20_000;

/// What the page is made of.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The folder of the run.
    pub folder: &'a Location,
    pub lines: &'a [Line],
    pub edits: &'a [Edit],
    /// Lines of the metrics that could not be read.
    pub damaged: usize,
}

/// A name and a value.
#[derive(Debug, Clone, Serialize)]
struct Fact {
    name: String,
    value: String,
}

/// What the page says, as its template names it.
#[derive(Debug, Serialize)]
struct Page {
    title: String,
    folder: String,
    about: String,
    state: &'static str,
    facts: Vec<Fact>,
    numbers: Vec<Row>,
    pictures: Vec<String>,
    marked: bool,
    evaluations: Evaluations,
    samples: rows::Samples,
    command: String,
    resumed: Vec<Fact>,
    arguments: Vec<Fact>,
    settings: Vec<Fact>,
    machine: Vec<Fact>,
    script: Listing,
    changes: Vec<Change>,
    log: String,
    left: Vec<String>,
    version: &'static str,
}

/// Writes the page of the run in `folder` to `path`; says what of its metrics could not be read.
///
/// # Errors
/// No run in the folder; a file of it that cannot be read; a place that cannot be written.
pub fn write_of(folder: &Location, path: &Location) -> Result<Option<String>> {
    summary::require(folder)?;
    let metrics = folder.join(METRICS);
    let History { lines, edits, damaged } = History::read(&metrics)?;
    write(Source { folder, lines: &lines, edits: &edits, damaged }, path)?;
    Ok(logged::damage(&metrics, damaged))
}

/// Writes the page to `path`.
///
/// # Errors
/// A file of the folder that cannot be read; a place that cannot be written.
pub fn write(source: Source<'_>, path: &Location) -> Result<()> {
    files::write(path, html::page(&page(source)?)?)
}

fn page(source: Source<'_>) -> Result<Page> {
    let Source { folder, lines, edits, damaged } = source;
    let config = read_config(&folder.join(CONFIG))?;
    let script = cut::head_of(&folder.join(SCRIPT), changes::LONGEST).unwrap_or_default();
    let mut left = Left::default();
    left.more(
        damaged,
        "line of metrics.jsonl, which could not be read",
        "lines of metrics.jsonl, which could not be read",
    );
    let (pictures, more) = plot::pictures(lines, &edit::marks(edits))?;
    left.more(more, "panel of curves", "panels of curves");
    let (state, samples) = (summary::state(folder)?, rows::of(folder, &mut left));
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(Page {
        title: Some(text("script")).filter(|name| !name.is_empty()).unwrap_or_else(|| "run".into()),
        folder: name.unwrap_or_else(|| folder.display().to_string()),
        about: about(&script.text),
        state: state.name(),
        facts: facts(folder, state, &config, lines),
        numbers: numbers::of(lines, &mut left),
        marked: !edits.is_empty(),
        pictures,
        evaluations: numbers::evaluations(lines, &mut left),
        samples,
        command: command(&config),
        resumed: resumed(&config),
        arguments: arguments(&config, &mut left),
        settings: settings(&config),
        machine: machine(&config),
        changes: changes::of(folder, &script.text, edits, &mut left),
        script: Listing::of(script, &mut left),
        log: cut::tail_of(folder, &mut left),
        left: left.told(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

fn read_config(path: &Location) -> Result<Map<String, Value>> {
    let read = serde_json::from_str(&files::text(path)?);
    read.map_err(|e| Error::file(format!("{} cannot be read: {e}", path.display())))
}

/// The first line of the script's header.
fn about(script: &str) -> String {
    let line = script.lines().next().and_then(|line| line.strip_prefix("//!")).unwrap_or_default();
    cut(line.trim(), VALUE)
}

fn fact(name: &str, value: impl Into<String>) -> Fact {
    Fact { name: name.to_string(), value: value.into() }
}

/// How the run stands.
fn facts(folder: &Location, state: State, config: &Map<String, Value>, lines: &[Line]) -> Vec<Fact> {
    let last = lines.last();
    let number = |name: &str| lines.iter().rev().find_map(|line| line.get(name)).filter(|x| x.is_finite());
    let mut facts = vec![fact("step", last.map_or(0, |line| line.step).to_string())];
    facts.extend(number("seconds").map(|seconds| fact("lasted", clock(seconds))));
    facts.extend(number("sampled").map(|tokens| fact("tokens sampled", format!("{tokens:.0}"))));
    facts.extend(config.get("seed").map(|seed| fact("seed", seed.to_string())));
    let best = files::text(&folder.join("model-best").join("best.json")).ok();
    let best = best.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    if let Some(best) = best {
        let name = best["name"].as_str().unwrap_or_default();
        facts.push(fact("best so far", format!("{name} {} after step {}", best["value"], best["step"])));
    }
    if state != State::Finished
        && let Some(step) = store::steps(folder).ok().and_then(|steps| steps.first().copied())
    {
        facts.push(fact("checkpoint", format!("after step {step}")));
    }
    if files::is_folder(&folder.join("model")) {
        facts.push(fact("model", "saved in model/"));
    }
    facts
}

/// The command line as one would type it.
fn command(config: &Map<String, Value>) -> String {
    let words = words(config.get("command"));
    if words.is_empty() {
        return String::new();
    }
    let words = ["rhopo", "run"].map(str::to_string).into_iter().chain(words).map(|word| shell(&word));
    cut(&words.collect::<Vec<_>>().join(" "), COMMAND)
}

fn words(recorded: Option<&Value>) -> Vec<String> {
    let words = recorded.and_then(Value::as_array).into_iter().flatten();
    words.filter_map(|word| word.as_str().map(str::to_string)).collect()
}

/// What it was given when it went on.
fn resumed(config: &Map<String, Value>) -> Vec<Fact> {
    let all = config.get("resumed").and_then(Value::as_array).into_iter().flatten().take(MOST_ARGUMENTS);
    let given = |entry: &Value| {
        let given: Vec<String> = words(entry.get("arguments")).iter().map(|word| shell(word)).collect();
        fact(&format!("after step {}", entry["step"]), cut(&given.join(" "), VALUE))
    };
    all.map(given).collect()
}

fn value(value: &Value) -> String {
    cut(value.as_str().map_or_else(|| value.to_string(), str::to_string).as_str(), VALUE)
}

fn arguments(config: &Map<String, Value>, left: &mut Left) -> Vec<Fact> {
    let all = config.get("args").and_then(Value::as_object);
    left.more(all.map_or(0, Map::len).saturating_sub(MOST_ARGUMENTS), "hyper-parameter", "hyper-parameters");
    let all = all.into_iter().flatten().take(MOST_ARGUMENTS);
    all.map(|(name, of)| fact(&cut(name, VALUE), value(of))).collect()
}

/// What else decides the numbers.
fn settings(config: &Map<String, Value>) -> Vec<Fact> {
    let plain = ["seed", "device", "dtype", "threads", "token_budget"].into_iter();
    let mut facts: Vec<Fact> = plain.filter_map(|name| Some(fact(name, value(config.get(name)?)))).collect();
    let versions = config.get("versions").and_then(Value::as_object).into_iter().flatten();
    facts.extend(
        versions.take(MOST_ARGUMENTS).map(|(name, of)| fact(&format!("{} version", cut(name, VALUE)), value(of))),
    );
    facts
}

/// The machine that it began on, and those on which it went on.
fn machine(config: &Map<String, Value>) -> Vec<Fact> {
    let mut facts = described(config.get(MACHINE), "");
    for later in config.get(LATER).and_then(Value::as_array).into_iter().flatten().take(MOST_ARGUMENTS) {
        facts.extend(described(later.get(MACHINE), &format!(" after step {}", later["step"])));
    }
    facts
}

fn described(machine: Option<&Value>, when: &str) -> Vec<Fact> {
    let bytes = |of: &Value| of.as_u64().map(|bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
    let machine = machine.and_then(Value::as_object).into_iter().flatten().take(MOST_ARGUMENTS);
    let described = |(name, of): (&String, &Value)| match name.strip_suffix("_bytes").zip(bytes(of)) {
        Some((name, size)) => fact(&format!("{}{when}", name.replace('_', " ")), size),
        None => fact(&format!("{}{when}", cut(name, VALUE)), value(of)),
    };
    machine.map(described).collect()
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
