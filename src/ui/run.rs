//! `rhopo run`: builds the session, runs the script on a thread with room for deep recursion, and says how it went.

use crate::engine::Settings;
use crate::error::{Error, Result};
use crate::files;
use crate::run::interrupt::{Interrupt, Press};
use crate::run::{Launch, Session, device};
use crate::script::diagnostics::Diagnostic;
use crate::script::host::{self, Host};
use crate::script::loader::Loader;
use crate::script::workbench::Workbench;
use crate::ui::limits::{EngineArgs, LimitArgs, threads};
use crate::ui::out;
use crate::ui::progress::Progress;
use crate::ui::repl::talker::Talker;
use crate::ui::repl::typist::Place;
use crate::ui::terminal::{asks, report};
use crate::ui::thread::on_engine_thread;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;

const INTERRUPTED: u8 = 130;

/// Options of `rhopo run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// A file, a script of ./scripts, or one that rhopo brings along
    #[arg(value_name = "NAME|FILE")]
    pub script: String,
    /// Hyper-parameters to change, one or more
    #[arg(long, value_name = "K=V", num_args = 1.., value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Seed of all random numbers [default: the script's, else 0]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Folder of the run [default: runs/NAME-TIME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Follow the file: edited functions and hyper-parameters take effect at the next step
    #[arg(long, conflicts_with = "interactive")]
    pub watch: bool,
    /// Stop before every step and give a prompt with the loop's variables
    #[arg(long)]
    pub pause: bool,
    /// Give a prompt when the script has ended, with its variables
    #[arg(short, long)]
    pub interactive: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Runs a script and returns the program's exit code.
pub fn run(args: RunArgs) -> ExitCode {
    on_engine_thread(move || execute(&args))
}

fn execute(args: &RunArgs) -> u8 {
    let loader = Loader::new(args.engine.stdlib.clone());
    let settings = Settings::default();
    let progress = Rc::new(Progress::new(std::io::stderr().is_terminal(), settings.stop.clone()));
    let closed = progress.closed();
    let interrupt = Interrupt::new(settings.stop.clone());
    let over = args.limits.start_clock(&settings.stop);
    let talker = Rc::new(Talker::new());
    let done = session(args, settings, &interrupt, &progress).map_err(Diagnostic::from).and_then(|session| {
        let host = Host::new(&session, &loader, &args.limits.enforce());
        if args.watch {
            session.step_loop().follow_files();
        }
        if args.pause {
            session.step_loop().request_pause();
        }
        host.between().set_prompt(talker.clone());
        match args.interactive {
            false => host::run_named(&host, &args.script),
            true => stay(host, args, &talker),
        }
    });
    match done {
        // Whoever read the output has seen enough.
        Err(e) if e.interrupted && closed.load(Ordering::Relaxed) => 0,
        Err(e) if e.interrupted && over.load(Ordering::Relaxed) => {
            report(&args.limits.time_is_over().into(), &loader);
            1
        }
        Err(e) if e.interrupted => INTERRUPTED,
        Err(e) => {
            report(&e, &loader);
            1
        }
        Ok(()) if interrupt.asked() => INTERRUPTED,
        Ok(()) => 0,
    }
}

/// Runs the script, then talks; what went wrong is told before.
fn stay(host: Host, args: &RunArgs, talker: &Talker) -> std::result::Result<(), Diagnostic> {
    let mut bench = Workbench::new(host);
    let mut desk = bench.desk();
    talker.attempt(&mut desk, |desk| desk.load(&args.script));
    desk.session().step_loop().set_interactive();
    talker.converse(&mut desk, Place::Session);
    Ok(())
}

fn session(args: &RunArgs, settings: Settings, interrupt: &Interrupt, progress: &Rc<Progress>) -> Result<Rc<Session>> {
    if let Some(folder) = args.engine.stdlib.as_ref().filter(|folder| !files::is_folder(folder)) {
        return Err(Error::file(format!("--stdlib: there is no folder {}", folder.display())));
    }
    let device = device::parse(&args.engine.device)?;
    let threads = threads(args.engine.threads)?;
    let bar = progress.bar();
    interrupt.install(move |press| tell(press, &bar))?;
    let (reporter, interrupt) = (progress.clone(), interrupt.clone());
    let access = args.limits.access(
        std::slice::from_ref(&args.script),
        args.out.as_deref(),
        &args.set,
        args.engine.stdlib.as_deref(),
    );
    Ok(Session::launch(Launch {
        access,
        seed: args.seed,
        sets: args.set.clone(),
        out: args.out.clone(),
        threads,
        interrupt,
        reporter,
        ..Launch::new(device, settings)
    }))
}

fn tell(press: Press, bar: &ProgressBar) {
    match press {
        Press::AfterStep => {
            let pause = if asks() { ", p pauses after the step instead" } else { "" };
            bar.suspend(|| out::note(&format!("ending after this step; Ctrl-C again stops at once{pause}")));
        }
        Press::AtOnce => bar.suspend(|| out::note("stopping")),
        Press::Leave => std::process::exit(INTERRUPTED.into()),
    }
}

fn assignment(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_string(), value.to_string())),
        _ => Err("expected NAME=VALUE; the script's name goes before --set".to_string()),
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
