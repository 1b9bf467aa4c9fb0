//! `rhopo new`: a script of one's own, begun from another, or a task.

use crate::error::{Error, Result};
use crate::files;
use crate::script::lang::loader::Loader;
use crate::ui::out;
use crate::ui::terminal::report;
use std::path::Path;
use std::process::ExitCode;

const TASK: &str = include_str!("new_task.rhai");

/// Options of `rhopo new`.
#[derive(Debug, Clone, clap::Args)]
pub struct NewArgs {
    /// Of the script; NAME.rhai is written into the current folder
    pub name: String,
    /// The script to begin from
    #[arg(long, value_name = "NAME|FILE", default_value = "grpo")]
    pub from: String,
    /// A task instead of a script: prompts and a reward, for --set task=NAME.rhai
    #[arg(long, conflicts_with = "from")]
    pub task: bool,
}

/// Writes the script and says how to go on.
pub fn new(args: &NewArgs) -> ExitCode {
    let loader = Loader::new(None);
    match write(&loader, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e.into(), &loader);
            ExitCode::FAILURE
        }
    }
}

fn write(loader: &Loader, args: &NewArgs) -> Result<()> {
    let name = args.name.strip_suffix(".rhai").unwrap_or(&args.name);
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "_-".contains(c)) {
        let e = Error::value(format!("{:?} is no name for a script", args.name));
        return Err(e.hint("letters, digits, _ and -; the file is written into the current folder"));
    }
    let source = if args.task { None } else { Some(loader.find(&args.from)?) };
    let path = Path::new(name).with_extension("rhai");
    if files::exists(&path) {
        let e = Error::file(format!("{} exists already", path.display()));
        return Err(e.hint("choose another name, or remove the file first"));
    }
    let Some(source) = source else {
        files::write(&path, TASK.replace("NAME", name))?;
        out::line(&format!("{0} is a task: edit it, then rhopo run grpo --set task={0}", path.display()));
        return Ok(());
    };
    let text = source.text.replace(&format!("rhopo run {} ", source.stem()), &format!("rhopo run {name} "));
    files::write(&path, text)?;
    out::line(&format!("{0} is {1} under a new name: edit it, then rhopo run {name}", path.display(), source.label));
    Ok(())
}
