//! `rhopo run`: builds the session, runs the script on a thread with room for deep recursion, and says how it went.

use crate::run::Launch;
use crate::run::interrupt::Press;
use crate::script::builder::HostBuilder;
use crate::script::host::Host;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::script::tools::repl_host::ReplHost;
use crate::ui::limits::{EngineArgs, LimitArgs};
use crate::ui::out;
use crate::ui::progress::Progress;
use crate::ui::repl::line_helper::Place;
use crate::ui::repl::terminal::Terminal;
use crate::ui::terminal::{asks, report};
use crate::ui::thread::on_engine_thread;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;

pub(super) const INTERRUPTED: u8 = 130;

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
    args.engine.launch().map(|launch| begin(args, launch, &loader)).unwrap_or_else(|e| {
        report(&e.into(), &loader);
        1
    })
}

fn begin(args: &RunArgs, launch: Launch, loader: &Rc<Loader>) -> u8 {
    let scripts = std::slice::from_ref(&args.script);
    let access = args.limits.access(scripts, args.out.as_deref(), &args.set, args.engine.stdlib.as_deref());
    let launch = args.limits.launch(access, launch);
    let mut launch = Launch { seed: args.seed, sets: args.set.clone(), out: args.out.clone(), ..launch };
    let progress = Progress::attach(&mut launch, std::io::stderr().is_terminal());
    let (interrupt, closed) = (launch.interrupt.clone(), progress.closed());
    let over = args.limits.start_clock(&launch.stop());
    let bar = progress.bar();
    let watched = interrupt.install(move |press| tell(press, &bar)).map_err(Diagnostic::from);
    match watched.and_then(|()| script(args, launch, loader)) {
        // Whoever read the output has seen enough.
        Err(e) if e.interrupted && closed.load(Ordering::Relaxed) => 0,
        Err(e) if e.interrupted && over.load(Ordering::Relaxed) => {
            report(&args.limits.time_is_over().into(), loader);
            1
        }
        Err(e) if e.interrupted => INTERRUPTED,
        Err(e) => {
            report(&e, loader);
            1
        }
        Ok(()) if interrupt.asked() => INTERRUPTED,
        Ok(()) => 0,
    }
}

/// Runs the script, as `--watch`, `--pause` and `--interactive` say.
fn script(args: &RunArgs, launch: Launch, loader: &Rc<Loader>) -> Result<(), Diagnostic> {
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
        false => host.run_named(&args.script),
        true => stay(host, args, &terminal),
    }
}

/// Runs the script, then talks; what went wrong is told before.
fn stay(host: Host, args: &RunArgs, terminal: &Terminal) -> Result<(), Diagnostic> {
    let mut prompt = ReplHost::new(host);
    let mut repl = prompt.repl();
    terminal.attempt(&mut repl, |repl| repl.load(&args.script));
    repl.session().step_loop().set_interactive();
    terminal.converse(&mut repl, Place::Session);
    Ok(())
}

fn tell(press: Press, bar: &ProgressBar) {
    match press {
        Press::AfterStep => {
            let pause = if asks() { ", p pauses after the step instead" } else { "" };
            bar.suspend(|| out::note(&format!("ending after this step; Ctrl-C again stops at once{pause}")));
        }
        Press::AtOnce => bar.suspend(|| out::note("stopping; Ctrl-C again leaves without saving")),
        Press::Leave => std::process::exit(INTERRUPTED.into()),
    }
}

pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
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
