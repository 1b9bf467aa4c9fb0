//! `rhopo run`: builds the session, runs the script on a thread with room for deep recursion, and says how it went.

use crate::error::Result as Fallible;
use crate::run::checkpoint::{Continued, Schedule};
use crate::run::interrupt::{Interrupt, Press};
use crate::run::samples::Kept;
use crate::run::{Launch, Until};
use crate::script::builder::HostBuilder;
use crate::script::host::Host;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::{Loader, Source};
use crate::script::tools::repl_host::ReplHost;
use crate::ui::completions;
use crate::ui::limits::{EngineArgs, LimitArgs, own_folder, rhai_file, seed};
use crate::ui::out;
use crate::ui::progress::Progress;
use crate::ui::repl::line_helper::Place;
use crate::ui::repl::terminal::{Terminal, state_folder};
use crate::ui::terminal::{asks, report};
use crate::ui::thread::on_engine_thread;
use clap::ValueHint;
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// Options of `rhopo run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Script to run: a file, one in ./scripts, or a built-in one (see `rhopo list`)
    #[arg(value_name = "NAME|FILE", required_unless_present = "resume", add = completions::scripts())]
    pub script: Option<String>,
    /// Hyper-parameters to set, one or more
    #[arg(long, value_name = "K=V", num_args = 1.., value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Seed of all random numbers [default: the script's own, or 0]
    #[arg(long, value_parser = seed())]
    pub seed: Option<u64>,
    /// Folder for the run's files [default: runs/NAME-TIME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Continue the run in this folder from its latest checkpoint; other options given here override those that it was
    /// started with
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["script", "out", "seed"])]
    pub resume: Option<PathBuf>,
    /// How often to write a checkpoint that --resume can continue from: 50 (steps), 30s, 10m, 2h, or off [default: 10m,
    /// once the run has lasted that long]
    #[arg(long, value_name = "STEPS|TIME|off")]
    pub checkpoint: Option<Schedule>,
    /// Rows to keep in samples.jsonl: those that run.show shows, all that it is given, or none [default: shown]
    #[arg(long, value_name = "all|shown|none")]
    pub samples: Option<Kept>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Reload the script when its file changes: edited functions and hyper-parameters take effect at the next step
    #[arg(long, conflicts_with = "interactive")]
    pub watch: bool,
    /// Pause before every step, at a prompt with the loop's variables
    #[arg(long)]
    pub pause: bool,
    /// Open a prompt with the script's variables when it has ended
    #[arg(short, long)]
    pub interactive: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Runs a script and returns the program's exit code.
pub fn run(args: RunArgs) -> ExitCode {
    let granting = args.clone();
    on_engine_thread(move || Prepared { args, granting, words: words(), resumed: None, until: None }.execute())
}

/// Puts the kernel's wall around a run, where it is asked for.
///
/// # Errors
/// A kernel that has it and refuses.
pub(super) fn wall(args: &RunArgs) -> Fallible<()> {
    let values = args.set.iter().map(|(_, value)| rhai_file(value).unwrap_or(value)).map(PathBuf::from);
    let read = values.chain(args.script.as_deref().and_then(own_folder)).chain(args.engine.stdlib.clone());
    let write = args.out.iter().chain(&args.resume).cloned().chain(state_folder());
    args.limits.put_wall_up(read.collect(), write.collect())
}

/// The words of this process's command line after `rhopo run`.
pub(super) fn words() -> Vec<String> {
    std::env::args_os().skip(2).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// A run that goes on.
pub(super) struct Resumed {
    continued: Continued,
    text: String,
    /// The files that the script had read when the checkpoint was written.
    kept: BTreeMap<String, String>,
}

impl Resumed {
    /// `text` is the script's, as the run began with it.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn new(continued: Continued, text: String) -> Fallible<Self> {
        let kept = match &continued.from {
            Some(stored) => stored.sources()?,
            None => BTreeMap::new(),
        };
        Ok(Self { continued, text, kept })
    }

    /// The script as the run has it; a file that has changed meanwhile is told.
    fn source(&self, loader: &Rc<Loader>, name: &str) -> Source {
        let now = loader.find(name).ok();
        let label = now.as_ref().map_or_else(|| name.to_string(), |source| source.label.clone());
        let text = self.kept.get(&label).unwrap_or(&self.text).clone();
        if now.is_some_and(|now| now.text != text) {
            out::note(&format!("{label} has changed since then: the run continues with its own copy"));
        }
        loader.as_of_then(self.kept.clone());
        loader.keep(label, text)
    }
}

/// What is to be run.
pub(super) struct Prepared {
    pub args: RunArgs,
    /// What the person said now: of a run that goes on, its folder says the rest, and a folder grants nothing.
    pub granting: RunArgs,
    /// The command line, `run` not among it, as it is recorded.
    pub words: Vec<String>,
    pub resumed: Option<Resumed>,
    /// How far nothing but steps is wanted.
    pub until: Option<Until>,
}

impl Prepared {
    pub(super) fn execute(self) -> u8 {
        let loader = Loader::new(self.args.engine.stdlib.clone());
        self.args.engine.launch().map(|launch| self.begin(launch, &loader)).unwrap_or_else(|e| {
            report(&e.into(), &loader);
            1
        })
    }

    fn begin(&self, launch: Launch, loader: &Rc<Loader>) -> u8 {
        let args = &self.args;
        let mut launch = self.launch(launch);
        let progress = Progress::attach(&mut launch, std::io::stderr().is_terminal());
        let (interrupt, closed) = (launch.interrupt.clone(), progress.closed());
        let over = args.limits.watch(&launch.stop());
        let bar = progress.bar();
        let leave = interrupt.clone();
        let watched = interrupt.install_for_runs(move |press| tell(press, &bar, &leave)).map_err(Diagnostic::from);
        match watched.and_then(|()| self.script(launch, loader)) {
            // Whoever read the output has seen enough.
            Err(e) if e.interrupted && closed.load(Ordering::Relaxed) && !interrupt.asked() => 0,
            Err(e) if e.interrupted && over.load(Ordering::Relaxed) => {
                report(&args.limits.time_is_over().into(), loader);
                1
            }
            Err(e) if e.interrupted && self.until.is_some() && !interrupt.signalled() => 0,
            Err(e) if e.interrupted => interrupt.exit_code(),
            Err(e) => {
                report(&e, loader);
                1
            }
            Ok(()) if interrupt.signalled() || (interrupt.asked() && self.until.is_none()) => interrupt.exit_code(),
            Ok(()) => 0,
        }
    }

    fn launch(&self, launch: Launch) -> Launch {
        let (args, granting) = (&self.args, &self.granting);
        let scripts: Vec<String> = granting.script.iter().cloned().collect();
        let folder = self.resumed.as_ref().map(|resumed| resumed.continued.folder.clone());
        let out = args.out.as_deref().or(folder.as_deref());
        let access = granting.limits.access(&scripts, out, &granting.set, granting.engine.stdlib.as_deref());
        let launch = granting.limits.launch(access, launch);
        args.limits.tell_withheld(&granting.limits);
        Launch {
            seed: args.seed,
            sets: args.set.clone(),
            said: granting.set.clone(),
            out: args.out.clone(),
            samples: args.samples.unwrap_or_default(),
            checkpoint: args.checkpoint.unwrap_or_default(),
            continued: self.resumed.as_ref().map(|resumed| resumed.continued.clone()),
            command: json!(self.words),
            until: self.until,
            ..launch
        }
    }

    /// Runs the script, as `--watch`, `--pause` and `--interactive` say.
    fn script(&self, launch: Launch, loader: &Rc<Loader>) -> Result<(), Diagnostic> {
        let args = &self.args;
        let host = HostBuilder::new().launch(launch).loader(loader).limits(args.limits.enforce()).build();
        let steps = host.session().step_loop();
        if args.watch {
            steps.follow_files();
        }
        if args.pause {
            steps.request_pause();
        }
        let terminal = Rc::new(Terminal::new());
        host.pauses().set_frontend(terminal.clone());
        match args.interactive {
            false => host.run(&self.source(loader)?),
            true => stay(host, args, &terminal),
        }
    }

    /// The script; of a run that goes on as it was then.
    fn source(&self, loader: &Rc<Loader>) -> Fallible<Source> {
        let name = self.args.script.as_deref().unwrap_or_default();
        match &self.resumed {
            None => loader.find(name),
            Some(resumed) => Ok(resumed.source(loader, name)),
        }
    }
}

/// Runs the script, then talks; what went wrong is told before.
fn stay(host: Host, args: &RunArgs, terminal: &Terminal) -> Result<(), Diagnostic> {
    let mut prompt = ReplHost::new(host);
    let mut repl = prompt.repl();
    terminal.attempt(&mut repl, |repl| repl.load(args.script.as_deref().unwrap_or_default()));
    repl.session().step_loop().set_interactive();
    terminal.converse(&mut repl, Place::Session);
    Ok(())
}

fn tell(press: Press, bar: &ProgressBar, interrupt: &Interrupt) {
    match press {
        Press::AfterStep => {
            let pause = if asks() { ", p to pause after the step" } else { "" };
            bar.suspend(|| out::note(&format!("ending after this step; press Ctrl-C again to stop at once{pause}")));
        }
        Press::AtOnce => bar.suspend(|| out::note("stopping; press Ctrl-C again to quit without saving")),
        Press::Leave => std::process::exit(interrupt.exit_code().into()),
    }
}

pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_string(), value.to_string())),
        _ => Err("expected NAME=VALUE; put the script's name before --set".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_needs_a_name_and_a_value() {
        for text in ["grpo", "=1"] {
            assignment(text).expect_err(text);
        }
    }
}
