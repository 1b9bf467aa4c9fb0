//! `rhopo run --resume`: what the run in a folder began with, and where it goes on.

use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::run::access::Access;
use crate::run::checkpoint::{Continued, store};
use crate::run::folder::{CONFIG, SCRIPT};
use crate::run::status::{Ending, Status};
use crate::script::lang::loader::Loader;
use crate::ui::out;
use crate::ui::run::{Prepared, Resumed, RunArgs, words};
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use clap::{Args, FromArgMatches};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

/// Of the command line's words: where it began, and what is left of it.
const RESUME: &str = "--resume";

/// Goes on with a run and returns the program's exit code.
pub fn resume(folder: PathBuf) -> ExitCode {
    let at = move || Access::looking(std::slice::from_ref(&folder)).at(&folder);
    // What it was begun with is read first: no thread runs yet, and nothing of it is granted.
    on_engine_thread(move || match read(&at()) {
        Ok(Some(prepared)) => prepared.execute(),
        Ok(None) => 0,
        Err(e) => {
            report(&e.into(), &Loader::default());
            1
        }
    })
}

/// What is to be run to go on with the run in `folder`; nothing where it has ended.
///
/// # Errors
/// No run in the folder; a file of it that cannot be read; options that do not fit those it began with.
fn read(folder: &Location) -> Result<Option<Prepared>> {
    let mut config = config(folder)?;
    if let Some(Status { status: Ending::Finished, step }) = Status::read(folder)? {
        out::note(&format!("the run in {} ended after step {step}: there is nothing left to do", folder.display()));
        return Ok(None);
    }
    let (began, more) = (recorded(&config, folder)?, without_resume(words()));
    let all: Vec<String> = began.into_iter().chain(more.iter().cloned()).collect();
    let args = RunArgs { out: None, ..parse(&all)? };
    let typed = RunArgs { script: None, ..parse(&prefixed(&more))? };
    let changed = typed.set.iter().map(|(name, _)| name.clone()).collect();
    let from = store::newest(folder, None, out::note)?;
    let step = from.as_ref().map_or(0, |stored| stored.state.step);
    if from.is_none() {
        out::note(&format!(
            "the run in {} has no complete checkpoint: starting again from the beginning",
            folder.display()
        ));
    }
    if !more.is_empty() {
        config["command"] = json!(all);
        let entry = json!({ "step": step, "arguments": more });
        match config.get_mut("resumed").and_then(Value::as_array_mut) {
            Some(resumed) => resumed.push(entry),
            None => config["resumed"] = json!([entry]),
        }
    }
    let config = (!more.is_empty()).then(|| format!("{config:#}\n"));
    let continued = Continued { folder: folder.clone(), from: from.map(Rc::new), changed, config };
    let resumed = Resumed::new(continued, files::text(&folder.join(SCRIPT))?)?;
    Ok(Some(Prepared { args, granting: typed, words: all, resumed: Some(resumed), until: None }))
}

/// The configuration that a run has written.
///
/// # Errors
/// No run in the folder.
pub(super) fn config(folder: &Location) -> Result<Value> {
    let path = folder.join(CONFIG);
    if !files::is_file(&path) {
        return Err(Error::file(format!("there is no run in {}: {CONFIG} is missing", folder.display()))
            .hint("give the folder of a run, as in --resume runs/grpo-20260731-142530"));
    }
    let read = serde_json::from_str(&files::text(&path)?);
    read.map_err(|e| Error::file(format!("{} cannot be read: {e}", path.display())))
}

/// The command line that a run was begun with.
///
/// # Errors
/// A run that has recorded none.
pub(super) fn recorded(config: &Value, folder: &Location) -> Result<Vec<String>> {
    serde_json::from_value(config["command"].clone()).map_err(|_| {
        Error::file(format!("the run in {} has no record of its command line", folder.display()))
            .hint("only runs that `rhopo run` started can be continued")
    })
}

/// Reads the words of a command line; of an option that comes twice the last counts.
///
/// # Errors
/// Words that are none of `rhopo run`.
pub(super) fn parse(words: &[String]) -> Result<RunArgs> {
    let command = RunArgs::augment_args(clap::Command::default().name("rhopo run")).args_override_self(true);
    let words = std::iter::once("rhopo run").chain(words.iter().map(String::as_str));
    let read = command.try_get_matches_from(words).and_then(|matches| RunArgs::from_arg_matches(&matches));
    read.map_err(|e| Error::value(format!("these options do not go with those that the run was started with: {e}")))
}

/// Options alone, with a script's name before them, so that they can be read.
fn prefixed(more: &[String]) -> Vec<String> {
    std::iter::once("script".to_string()).chain(more.iter().cloned()).collect()
}

fn without_resume(words: Vec<String>) -> Vec<String> {
    let mut left = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == RESUME {
            words.next();
        } else if !word.starts_with("--resume=") {
            left.push(word);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn later_options_go_before_those_a_run_began_with() {
        let args = parse(&words("grpo --set lr=1 steps=2 --threads 2 --set lr=3 --threads 1")).expect("options");
        assert_eq!((args.script.as_deref(), args.engine.threads), (Some("grpo"), Some(1)));
        assert_eq!(args.set.last(), Some(&("lr".to_string(), "3".to_string())));
        parse(&words("grpo --nonsense")).expect_err("no option");
    }

    #[test]
    fn the_folder_is_no_option_of_the_run() {
        assert_eq!(without_resume(words("--resume runs/x --threads 1")), ["--threads", "1"]);
        assert_eq!(without_resume(words("--threads 1 --resume=runs/x")), ["--threads", "1"]);
    }
}
