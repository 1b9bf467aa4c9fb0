//! `rhopo new`: a script of one's own, begun from another, or a task.

use crate::error::{Error, Result};
use crate::files;
use crate::run::access::Access;
use crate::script::lang::loader::Loader;
use crate::ui::limits::own_folder;
use crate::ui::terminal::report;
use crate::ui::{completions, out};
use std::process::ExitCode;

const TASK: &str = include_str!("new_task.rhai");

/// Options of `rhopo new`.
#[derive(Debug, Clone, clap::Args)]
pub struct NewArgs {
    /// Name of the script; NAME.rhai is created in the current folder
    pub name: String,
    /// Script to start from
    #[arg(long, value_name = "NAME|FILE", default_value = "grpo", add = completions::scripts())]
    pub from: String,
    /// Create a task instead, with prompts and a reward, to be used as --set task=NAME.rhai
    #[arg(long, conflicts_with = "from")]
    pub task: bool,
}

/// Writes the script and says how to go on.
pub fn new(args: &NewArgs) -> ExitCode {
    let loader = Loader::new(None);
    // What is copied may come from elsewhere, and what is there may be a link.
    let access = Access::confined(None, &own_folder(&args.from).into_iter().collect::<Vec<_>>());
    loader.confine(&access);
    match write(&loader, &access, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e.into(), &loader);
            ExitCode::FAILURE
        }
    }
}

fn write(loader: &Loader, access: &Access, args: &NewArgs) -> Result<()> {
    let name = args.name.strip_suffix(".rhai").unwrap_or(&args.name);
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "_-".contains(c)) {
        let e = Error::value(format!("{:?} is not a valid name for a script", args.name));
        return Err(e.hint("use letters, digits, _ and -; the file is created in the current folder"));
    }
    let source = if args.task { None } else { Some(loader.find(&args.from)?) };
    let path = access.at(format!("{name}.rhai"));
    if files::exists(&path) || files::is_link(&path) {
        let e = Error::file(format!("{} already exists", path.display()));
        return Err(e.hint("choose another name, or remove the file first"));
    }
    let Some(source) = source else {
        files::write(&path, TASK.replace("NAME", name))?;
        out::line(&format!("created the task {0}: edit it, then run rhopo run grpo --set task={0}", path.display()));
        return Ok(());
    };
    let text = source.text.replace(&format!("rhopo run {} ", source.stem()), &format!("rhopo run {name} "));
    files::write(&path, text)?;
    out::line(&format!("created {0} from {1}: edit it, then run rhopo run {name}", path.display(), source.label));
    Ok(())
}
