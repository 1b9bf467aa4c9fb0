//! `rhopo diff`: in what two runs differ: arguments, settings, the script's text, results.

use crate::run::access::Access;
use crate::run::quote::{masked, one_line};
use crate::run::summary::Summary;
use crate::run::{Table, digits, names};
use crate::script::lang::loader::Loader;
use crate::ui::runs::cell;
use crate::ui::terminal::report;
use crate::ui::{out, table};
use serde_json::Value;
use similar::TextDiff;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `rhopo diff`.
#[derive(Debug, Clone, clap::Args)]
pub struct DiffArgs {
    /// Folder of the first run, a
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub first: PathBuf,
    /// Folder of the second run, b
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub second: PathBuf,
}

/// Prints what differs.
pub(super) fn diff(args: &DiffArgs) -> ExitCode {
    let read = |folder: &PathBuf| Summary::read(&Access::looking(std::slice::from_ref(folder)).at(folder));
    let both = read(&args.first).and_then(|a| Ok((a, read(&args.second)?)));
    match both {
        Ok((a, b)) => {
            for damage in [&a, &b].into_iter().filter_map(Summary::damage) {
                out::note(&damage);
            }
            // Where nobody reads any further, there is nothing left to do.
            lines(&a, &b).iter().all(|line| out::line(line));
            ExitCode::SUCCESS
        }
        Err(e) => {
            report(&e.into(), &Loader::default());
            ExitCode::FAILURE
        }
    }
}

type Named = Vec<(String, Value)>;

fn lines(a: &Summary, b: &Summary) -> Vec<String> {
    let head = |letter: &str, run: &Summary| {
        let (state, step) = (run.state.name(), run.step);
        one_line(&format!("{letter}  {}: {}, {state} at step {step}", run.folder.display(), run.script()))
    };
    let owned = |run: &Summary| -> Named {
        run.arguments().into_iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
    };
    let mut lines = vec![head("a", a), head("b", b)];
    lines.extend(section("arguments", &owned(a), &owned(b)));
    lines.extend(section("settings", &a.settings(), &b.settings()));
    lines.extend(script(&a.text, &b.text));
    lines.extend(results(a, b));
    lines
}

/// The entries that differ, or a line that none does.
fn section(title: &str, a: &Named, b: &Named) -> Vec<String> {
    let of = |all: &Named, name: &str| all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let more = b.iter().filter(|(name, _)| of(a, name).is_none());
    let names: Vec<&String> = a.iter().chain(more).map(|(name, _)| name).collect();
    let differ = names.into_iter().filter(|name| of(a, name) != of(b, name));
    let show = |value: Option<Value>| value.as_ref().map_or_else(|| "(none)".to_string(), |value| cell(Some(value)));
    let rows: Vec<Vec<String>> = differ.map(|name| vec![name.clone(), show(of(a, name)), show(of(b, name))]).collect();
    if rows.is_empty() {
        return vec![String::new(), format!("{title}: the same")];
    }
    let head = ["", "a", "b"].map(str::to_string).to_vec();
    let drawn = table::lines(&Table { title: title.to_string(), head, rows });
    std::iter::once(String::new()).chain(drawn).collect()
}

fn script(a: &str, b: &str) -> Vec<String> {
    if a == b {
        return vec![String::new(), "script: the same".to_string()];
    }
    let (a, b) = (masked(a, "\n\t"), masked(b, "\n\t"));
    let text = TextDiff::from_lines(&a, &b).unified_diff().context_radius(2).to_string();
    let lines = text.lines().map(|line| format!("  {line}"));
    [String::new(), "script".to_string()].into_iter().chain(lines).collect()
}

/// The last numbers of both, and how far apart they are; what a clock says is no result.
fn results(a: &Summary, b: &Summary) -> Vec<String> {
    let of = |run: &Summary, name: &str| run.last.iter().find(|(known, _)| known == name).map(|(_, x)| *x);
    let more = b.last.iter().filter(|(name, _)| of(a, name).is_none());
    let logged = a.last.iter().chain(more).map(|(name, _)| name).filter(|name| names::is_exact(name));
    let number = |x: Option<f64>| x.map_or_else(String::new, digits::short);
    let row = |name: &String| {
        let (x, y) = (of(a, name), of(b, name));
        vec![name.clone(), number(x), number(y), number(x.zip(y).map(|(x, y)| y - x))]
    };
    let rows: Vec<Vec<String>> = logged.map(row).collect();
    if rows.is_empty() {
        return vec![String::new(), "results: none were logged".to_string()];
    }
    let head = ["", "a", "b", "b - a"].map(str::to_string).to_vec();
    let drawn = table::lines(&Table { title: "last numbers".to_string(), head, rows });
    std::iter::once(String::new()).chain(drawn).collect()
}
