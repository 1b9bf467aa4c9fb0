//! `rhopo replay`: steps of a run are computed again from a checkpoint, and every number is compared with the one that was
//! written. Nothing in the run's folder changes.

use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::run::Until;
use crate::run::access::Access;
use crate::run::checkpoint::{Continued, store};
use crate::run::edit;
use crate::run::folder::{METRICS, SCRIPT};
use crate::run::history::History;
use crate::run::names;
use crate::script::lang::loader::Loader;
use crate::ui::limits::LimitArgs;
use crate::ui::out;
use crate::ui::resume;
use crate::ui::run::{Prepared, Resumed, RunArgs};
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

/// Options of `rhopo replay`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// Folder of the run
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub run: PathBuf,
    /// Start from the latest checkpoint at or before this step, or from the beginning with 0 [default: the latest
    /// checkpoint that has steps after it]
    #[arg(long, value_name = "STEP")]
    pub from: Option<u64>,
    /// Number of steps to recompute [default: all that follow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Computes and compares; the exit code is 1 where a number differs.
pub fn replay(args: ReplayArgs) -> ExitCode {
    on_engine_thread(move || {
        execute(&args).unwrap_or_else(|e| {
            report(&e.into(), &Loader::default());
            1
        })
    })
}

fn execute(args: &ReplayArgs) -> Result<u8> {
    let run = Access::looking(std::slice::from_ref(&args.run)).at(&args.run);
    let config = resume::config(&run)?;
    let words = resume::recorded(&config, &run)?;
    let written = lines(&run.join(METRICS))?;
    let last = written.last().map_or(0, step);
    if let Some(from) = args.from.filter(|from| *from >= last && last > 0) {
        return Err(Error::value(format!("--from {from}: the run in {} ended after step {last}", args.run.display()))
            .hint("choose an earlier one; 0 starts from the beginning"));
    }
    let most = args.from.unwrap_or_else(|| last.saturating_sub(1));
    let from = if most == 0 { None } else { store::newest(&run, Some(most), out::note)? };
    if from.is_none() && most > 0 {
        out::note(&format!("there is no checkpoint at or before step {most}: starting from the first step"));
    }
    let begun = from.as_ref().map_or(0, |stored| stored.state.step);
    let until = args.steps.map_or(last, |n| begun + n).min(last);
    if until <= begun {
        return Err(Error::value(format!("the run in {} has no step after step {begun}", args.run.display()))
            .hint("choose an earlier one with --from; 0 starts from the beginning"));
    }
    let temporary = files::temporary_folder()?;
    let copy = files::anywhere(temporary.path());
    if let Some(stored) = &from {
        let bytes = files::bytes(&run.join(METRICS))?;
        let kept = stored.state.metrics.bytes as usize;
        files::write(&copy.join(METRICS), bytes.get(..kept).unwrap_or(&bytes))?;
    }
    let continued = Continued { folder: copy.clone(), from: from.map(Rc::new), changed: Vec::new(), config: None };
    let resumed = Some(Resumed::new(continued, files::text(&run.join(SCRIPT))?)?);
    // Nobody is to be asked, and no edit counts.
    let parsed = RunArgs {
        out: None,
        checkpoint: Some(crate::run::checkpoint::Schedule::Never),
        pause: false,
        watch: false,
        interactive: false,
        ..resume::parse(&words)?
    };
    let limits = args.limits.clone();
    let granting =
        RunArgs { script: None, set: Vec::new(), limits: limits.clone(), ..resume::parse(&["script".into()])? };
    let parsed = RunArgs { limits: limits.over(&parsed.limits), ..parsed };
    let code =
        Prepared { args: parsed, granting, words, resumed, until: Some(Until { step: until, through: until == last }) }
            .execute();
    if code != 0 {
        return Ok(code);
    }
    let again = lines(&copy.join(METRICS))?;
    let of = |all: &[Map<String, Value>]| -> Vec<Map<String, Value>> {
        all.iter().filter(|line| (begun + 1..=until).contains(&step(line))).cloned().collect()
    };
    let code = compare(&of(&written), &of(&again), (begun + 1, until), until == last);
    let edits = History::read(&run.join(METRICS))?.edits;
    let edited = edit::marks(&edits).into_iter().find(|mark| (begun + 1..=until).contains(&mark.step));
    if let Some(mark) = edited.filter(|_| code != 0) {
        out::note(&format!("the run was edited at step {}, and these steps are computed without that", mark.step));
    }
    Ok(code)
}

/// Says whether the lines are the same. Of a step that was not the run's last, nothing follows its loop.
fn compare(written: &[Map<String, Value>], again: &[Map<String, Value>], steps: (u64, u64), whole: bool) -> u8 {
    let mut numbers = 0;
    for (then, now) in written.iter().zip(again) {
        for (name, value) in then.iter().filter(|(name, _)| names::is_exact(name)) {
            match now.get(name) {
                Some(found) if found == value => numbers += 1,
                // What follows the loop was logged into its last line.
                None if step(then) == steps.1 && !whole => {}
                found => {
                    let found = found.map_or("missing".to_string(), Value::to_string);
                    out::line(&format!("step {}: {name} was {value}, now it is {found}", step(then)));
                    return 1;
                }
            }
        }
    }
    if written.len() != again.len() {
        out::line(&format!(
            "steps {} to {} had {} lines of metrics, now they have {}",
            steps.0,
            steps.1,
            written.len(),
            again.len()
        ));
        return 1;
    }
    out::line(&format!("steps {} to {}: all {numbers} numbers match", steps.0, steps.1));
    0
}

/// Lines of numbers.
fn lines(path: &Location) -> Result<Vec<Map<String, Value>>> {
    let text = files::text(path)?;
    let read = |(i, line)| {
        serde_json::from_str(line).map_err(|e| Error::file(format!("{}, line {}: {e}", path.display(), i + 1)))
    };
    let lines = text.lines().enumerate().map(read).collect::<Result<Vec<Map<String, Value>>>>()?;
    Ok(lines.into_iter().filter(|line| !edit::is_event(line)).collect())
}

fn step(line: &Map<String, Value>) -> u64 {
    line.get("step").and_then(Value::as_u64).unwrap_or_default()
}
