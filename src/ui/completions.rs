//! `rhopo completions`: what a shell reads to complete rhopo's command lines, and the answers when it asks.

use crate::data::task;
use crate::error::{Error, Kind};
use crate::files;
use crate::model::builtin;
use crate::run::access::Access;
use crate::run::thread::on_large_stack;
use crate::script::builder::HostBuilder;
use crate::script::lang::loader::{self, Loader};
use crate::script::lang::reference;
use crate::ui::out;
use crate::ui::terminal::report;
use clap::{Command, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::{CompleteEnv, Shells};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Set by what `rhopo completions` prints, when the shell asks.
const ASKED: &str = "RHOPO_COMPLETE";
const PROGRAM: &str = "rhopo";

/// Options of `rhopo completions`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArgs {
    /// The shell to complete in
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
    Elvish,
}

/// Answers a shell that asks how a command line goes on, and ends the program then.
pub(super) fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(command).var(ASKED).bin(PROGRAM).complete();
}

/// Prints the script that makes a shell ask.
pub(super) fn completions(args: &CompletionsArgs) -> ExitCode {
    let name = format!("{:?}", args.shell).to_lowercase();
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(&name).expect("each shell of the list is built in");
    match shell.write_registration(ASKED, PROGRAM, PROGRAM, &program(), &mut script) {
        Ok(()) => {
            out::line(String::from_utf8_lossy(&script).trim_end());
            ExitCode::SUCCESS
        }
        Err(e) => {
            let e = Error::new(Kind::Internal, format!("the script for {name} cannot be written: {e}"));
            report(&e.into(), &Loader::default());
            ExitCode::FAILURE
        }
    }
}

/// How this program was called: by its name, so that a newer one takes its place, or else by its whole path.
fn program() -> String {
    let called = std::env::args_os().next().map_or_else(|| PathBuf::from(PROGRAM), PathBuf::from);
    let whole = if called.components().count() > 1 { std::path::absolute(&called).ok() } else { None };
    whole.unwrap_or(called).display().to_string()
}

/// Scripts by name, and Rhai files.
pub(super) fn scripts() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let known = loader::list(&Access::reading(&[]));
        let named = known.iter().map(|script| (script.stem(), script.summary().to_string()));
        with_paths(named, typed, |path| has_extension(path, "rhai"))
    })
}

/// Tasks by name, and Rhai files.
pub(super) fn tasks() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let named = task::CATALOG.iter().map(|(name, about)| (name.to_string(), about.to_string()));
        with_paths(named, typed, |path| has_extension(path, "rhai"))
    })
}

/// Models by name, folders, and GGUF files.
pub(super) fn models() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let named = builtin::CATALOG.iter().map(|model| (model.name.to_string(), model.about.to_string()));
        with_paths(named, typed, |path| files::is_folder(&files::anywhere(path)) || has_extension(path, "gguf"))
    })
}

/// What `rhopo doc` has pages of.
pub(super) fn functions() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let entries = on_large_stack(|| {
            let entries = reference::entries(HostBuilder::new().build().docs());
            entries.into_iter().map(|entry| (entry.path, entry.section.summary)).collect::<Vec<_>>()
        });
        // A shell that asks has no use for an error.
        let entries = entries.ok().and_then(std::thread::Result::ok).unwrap_or_default();
        beginning(entries.into_iter(), typed)
    })
}

fn with_paths(
    named: impl Iterator<Item = (String, String)>,
    typed: &OsStr,
    wanted: fn(&Path) -> bool,
) -> Vec<CompletionCandidate> {
    let mut found = beginning(named, typed);
    found.extend(PathCompleter::any().filter(wanted).complete(typed));
    found
}

fn beginning(named: impl Iterator<Item = (String, String)>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let candidate = |(name, about): (String, String)| CompletionCandidate::new(name).help(Some(about.into()));
    named.filter(|(name, _)| name.starts_with(typed.as_ref())).map(candidate).collect()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}
