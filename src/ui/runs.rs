//! `rhopo runs`: the runs below a folder as a table, chosen and sorted by what is known of them.

use crate::error::{Error, Result};
use crate::run::access::Access;
use crate::run::quote::{masked, one_line};
use crate::run::summary::{self, Summary};
use crate::run::{Table, digits};
use crate::script::lang::loader::Loader;
use crate::script::tools::query::{Query, written};
use crate::ui::terminal::report;
use crate::ui::{out, table};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Numbers that the table ends with, where a run has them.
const RESULTS: [&str; 2] = ["reward", "eval"];

/// Options of `rhopo runs`.
///
/// The table shows hyper-parameters in which runs of the same script differ, and the last reward and eval. Expressions and
/// --sort may use every hyper-parameter, the last value of everything that was logged, and run, script, state, step and seed.
/// A / in a name is written _ in expressions.
#[derive(Debug, Clone, clap::Args)]
pub struct RunsArgs {
    /// Folder to search for runs
    #[arg(value_name = "DIR", default_value = "runs", value_hint = clap::ValueHint::DirPath)]
    pub folder: PathBuf,
    /// Show only runs for which this is true, such as 'clip > 0.1 && state == "finished"'
    #[arg(long = "where", value_name = "EXPR")]
    pub condition: Option<String>,
    /// Sort by this name, or by -NAME from the highest down [default: the folders' names]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// Print each run as a line of JSON, with all that is known of it
    #[arg(long)]
    pub json: bool,
}

/// Prints the table.
pub(super) fn runs(args: &RunsArgs) -> ExitCode {
    match print(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e.into(), &Loader::default());
            ExitCode::FAILURE
        }
    }
}

fn print(args: &RunsArgs) -> Result<()> {
    let all = read(&args.folder)?;
    if all.is_empty() {
        return Err(unreadable());
    }
    let found = sorted(args, filtered(all, args.condition.as_deref())?)?;
    if found.is_empty() {
        out::note("no runs match");
    }
    let lines = if args.json { found.iter().map(|run| run.json()).collect() } else { table::lines(&shown(&found)) };
    for line in lines {
        // Nobody reads any further: there is nothing left to do.
        if !out::line(&line) {
            break;
        }
    }
    Ok(())
}

/// A run with all that may be asked of it.
pub(super) struct Run {
    pub summary: Summary,
    values: Map<String, Value>,
}

impl Run {
    /// Runs below one another are told apart by their paths below the folder that was searched.
    fn new(summary: Summary, searched: &Path) -> Self {
        let mut values = summary.values();
        let below = summary.folder.strip_prefix(searched).unwrap_or(&summary.folder).display().to_string();
        if !below.is_empty() {
            values.insert("run".into(), below.into());
        }
        Self { summary, values }
    }

    /// What is not finite has no number in JSON.
    fn cell(&self, name: &str) -> String {
        let value = self.values.get(name);
        let last = || self.summary.last.iter().find(|(known, _)| known == name).map(|(_, x)| digits::short(*x));
        value.filter(|value| value.is_null()).and_then(|_| last()).unwrap_or_else(|| cell(value))
    }

    fn json(&self) -> String {
        let mut values = self.values.clone();
        values.insert("dir".into(), self.summary.folder.display().to_string().into());
        Value::Object(values).to_string()
    }
}

/// That there are runs, and each has been complained of.
pub(super) fn unreadable() -> Error {
    Error::file("none of the runs could be read").hint("what is wrong with each is said above")
}

/// All runs below the folder; of one that cannot be read it is told, and the others are shown.
///
/// # Errors
/// No such folder, or none with runs.
pub(super) fn read(searched: &Path) -> Result<Vec<Run>> {
    let below = summary::below(&Access::looking(&[searched.to_path_buf()]).at(searched))?;
    for e in &below.closed {
        report(&e.clone().into(), &Loader::default());
    }
    if let Some(first) = below.links.first() {
        let links = if below.links.len() == 1 { "1 link" } else { &format!("{} links", below.links.len()) };
        out::note(&one_line(&format!(
            "{links} to runs not followed, such as {}: name the folder that it leads to",
            first.display()
        )));
    }
    if below.runs.is_empty() && below.closed.is_empty() {
        return Err(Error::file(format!("there are no runs in {}", searched.display()))
            .hint("`rhopo run` puts them into ./runs unless --out says otherwise"));
    }
    let mut found = Vec::new();
    for folder in below.runs {
        match Summary::read(&folder) {
            Ok(summary) => {
                if let Some(damage) = summary.damage() {
                    out::note(&damage);
                }
                found.push(Run::new(summary, searched));
            }
            Err(e) => report(&e.into(), &Loader::default()),
        }
    }
    Ok(found)
}

/// Everything that some run has a value of.
fn known(runs: &[Run]) -> Vec<String> {
    let mut known: Vec<String> = runs.iter().flat_map(|run| run.values.keys().cloned()).collect();
    known.sort();
    known.dedup();
    known
}

/// The runs for which an expression is true.
///
/// # Errors
/// No expression; one that names what no run has.
pub(super) fn filtered(mut runs: Vec<Run>, condition: Option<&str>) -> Result<Vec<Run>> {
    if let Some(text) = condition {
        let (query, known) = (Query::new(text)?, known(&runs));
        let holds: Vec<bool> = runs.iter().map(|run| query.holds(&run.values, &known)).collect::<Result<_>>()?;
        let mut holds = holds.into_iter();
        runs.retain(|_| holds.next().unwrap_or(false));
    }
    Ok(runs)
}

fn sorted(args: &RunsArgs, mut runs: Vec<Run>) -> Result<Vec<Run>> {
    if let Some(key) = &args.sort {
        let (name, down) = key.strip_prefix('-').map_or((key.as_str(), false), |name| (name, true));
        let known = known(&runs);
        // As it was logged, or as expressions write it.
        let meant = known.iter().find(|known| *known == name).or(known.iter().find(|known| written(known) == name));
        let name = meant.ok_or_else(|| Error::unknown("name", name, &known))?.as_str();
        runs.sort_by(|a, b| compare(a.values.get(name), b.values.get(name), down));
    }
    Ok(runs)
}

/// Numbers by size, anything else as text; what a run does not have comes last, whichever way it is sorted.
fn compare(a: Option<&Value>, b: Option<&Value>, down: bool) -> Ordering {
    let there = |value: Option<&Value>| value.is_some_and(|value| !value.is_null());
    let (Some(x), Some(y)) = (a.filter(|_| there(a)), b.filter(|_| there(b))) else {
        return there(b).cmp(&there(a));
    };
    let order = match (x.as_f64(), y.as_f64()) {
        (Some(x), Some(y)) => x.total_cmp(&y),
        _ => cell(Some(x)).cmp(&cell(Some(y))),
    };
    if down { order.reverse() } else { order }
}

fn shown(runs: &[Run]) -> Table {
    let mut head: Vec<String> = ["run", "script", "state", "step", "seed"].map(str::to_string).to_vec();
    head.extend(differing(runs));
    let logged = |name: &str| runs.iter().any(|run| run.summary.last.iter().any(|(known, _)| known == name));
    let results = RESULTS.iter().filter(|name| logged(name) && !head.iter().any(|known| known == *name));
    head.extend(results.map(|name| (*name).to_string()).collect::<Vec<_>>());
    let row = |run: &Run| head.iter().map(|name| run.cell(name)).collect();
    Table { title: String::new(), rows: runs.iter().map(row).collect(), head: head.clone() }
}

/// Hyper-parameters in which two runs of one script differ.
fn differing(runs: &[Run]) -> Vec<String> {
    let (mut names, mut firsts) = (Vec::<String>::new(), BTreeMap::<&str, &Run>::new());
    for run in runs {
        // Two that differ from one another do not both equal the first.
        let first = *firsts.entry(run.summary.script()).or_insert(run);
        for (name, _) in run.summary.arguments().into_iter().chain(first.summary.arguments()) {
            if run.values.get(name) != first.values.get(name) && !names.iter().any(|known| known == name) {
                names.push(name.to_string());
            }
        }
    }
    names
}

/// A value as a cell: numbers with as many digits as tell runs apart.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => masked(text, ""),
        Some(Value::Number(number)) if number.is_f64() => digits::short(number.as_f64().unwrap_or(f64::NAN)),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_short_and_exact_where_they_are_round() {
        let cells = [json!(0.2), json!(3e-5), json!(1.23456789e-7), json!(0.66666666), json!(200), json!(1.0)];
        let texts = cells.map(|x| cell(Some(&x)));
        assert_eq!(texts, ["0.2", "0.00003", "1.2346e-7", "0.66667", "200", "1"]);
        assert_eq!(cell(Some(&json!("a\u{1b}[31m"))), "a�[31m");
    }

    #[test]
    fn what_a_run_lacks_comes_last_either_way() {
        let (low, high, none) = (json!(1.5), json!(2), json!(null));
        assert_eq!(compare(Some(&low), Some(&high), false), Ordering::Less);
        assert_eq!(compare(Some(&low), Some(&high), true), Ordering::Greater);
        for down in [false, true] {
            assert_eq!(compare(Some(&low), Some(&none), down), Ordering::Less);
            assert_eq!(compare(None, Some(&low), down), Ordering::Greater);
        }
    }
}
