//! `rhopo repl`: a prompt of its own.

mod commands;
mod draw;
mod indent;
mod plot;
pub(super) mod terminal;
pub(super) mod line_helper;

use crate::error::Result;
use crate::run::Launch;
use crate::script::builder::HostBuilder;
use crate::script::lang::loader::Loader;
use crate::script::tools::repl_host::ReplHost;
use crate::ui::completions;
use crate::ui::limits::{EngineArgs, LimitArgs, seed};
use crate::ui::progress::Progress;
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use crate::ui::watchdog::{self, Bounds};
use line_helper::Place;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::rc::Rc;
use terminal::Terminal;

/// Options of `rhopo repl`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplArgs {
    /// Script to run first; its variables and functions are kept
    #[arg(value_name = "NAME|FILE", add = completions::scripts())]
    pub script: Option<String>,
    /// Seed of all random numbers [default: the script's own, or 0]
    #[arg(long, value_parser = seed())]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Talks until the person leaves.
pub fn repl(args: ReplArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(args.engine.stdlib.clone());
        launch(&args).map(|launch| talk(&args, launch, &loader)).unwrap_or_else(|e| {
            report(&e.into(), &loader);
            1
        })
    })
}

fn launch(args: &ReplArgs) -> Result<Launch> {
    let scripts: Vec<String> = args.script.iter().cloned().collect();
    let access = args.limits.access(&scripts, None, &[], args.engine.stdlib.as_deref());
    let mut launch = Launch { seed: args.seed, ..args.limits.launch(access, args.engine.launch()?) };
    // Each input has the whole time, which the script's own clock measures.
    watchdog::watch(Bounds { time: None, memory: args.limits.max_memory }, &launch.stop());
    Progress::attach(&mut launch, std::io::stderr().is_terminal());
    launch.interrupt.install(|_| {})?;
    Ok(launch)
}

fn talk(args: &ReplArgs, launch: Launch, loader: &Rc<Loader>) -> u8 {
    let host = HostBuilder::new().launch(launch).loader(loader).limits(args.limits.enforce()).build();
    host.session().step_loop().set_interactive();
    let (mut prompt, terminal) = (ReplHost::new(host), Terminal::new());
    terminal.greet();
    if let Some(script) = &args.script {
        terminal.attempt(&mut prompt.repl(), |repl| repl.load(script));
    }
    terminal.converse(&mut prompt.repl(), Place::Session);
    terminal.attempt(&mut prompt.repl(), |repl| Ok(repl.end_run()?));
    u8::from(terminal.failed() && !std::io::stdin().is_terminal())
}
