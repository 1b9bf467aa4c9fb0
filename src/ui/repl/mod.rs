//! `rhopo repl`: a prompt of its own.

mod commands;
mod draw;
mod plot;
pub(super) mod talker;
pub(super) mod typist;

use crate::engine::Settings;
use crate::error::Error;
use crate::run::interrupt::Interrupt;
use crate::run::{Launch, Session, device};
use crate::script::host::Host;
use crate::script::loader::Loader;
use crate::script::workbench::Workbench;
use crate::ui::limits::{EngineArgs, LimitArgs, threads};
use crate::ui::progress::Progress;
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::rc::Rc;
use talker::Talker;
use typist::Place;

/// Options of `rhopo repl`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplArgs {
    /// A script to run first; its variables and functions stay
    #[arg(value_name = "NAME|FILE")]
    pub script: Option<String>,
    /// Seed of all random numbers [default: a script's, else 0]
    #[arg(long)]
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
        match session(&args).map(|session| (begin(&args, &session, &loader), session)) {
            Ok((mut bench, _)) => {
                let talker = Talker::new();
                talker.greet();
                if let Some(script) = &args.script {
                    talker.attempt(&mut bench.desk(), |desk| desk.load(script));
                }
                talker.converse(&mut bench.desk(), Place::Session);
                talker.attempt(&mut bench.desk(), |desk| Ok(desk.end_run()?));
                u8::from(talker.failed() && !std::io::stdin().is_terminal())
            }
            Err(e) => {
                report(&e.into(), &loader);
                1
            }
        }
    })
}

fn session(args: &ReplArgs) -> Result<Rc<Session>, Error> {
    let settings = Settings::default();
    let reporter = Rc::new(Progress::new(std::io::stderr().is_terminal(), settings.stop.clone()));
    let interrupt = Interrupt::new(settings.stop.clone());
    interrupt.install(|_| {})?;
    let (device, threads) = (device::parse(&args.engine.device)?, threads(args.engine.threads)?);
    let scripts: Vec<String> = args.script.iter().cloned().collect();
    let access = args.limits.access(&scripts, None, &[], args.engine.stdlib.as_deref());
    Ok(Session::launch(Launch {
        access,
        threads,
        interrupt,
        reporter,
        seed: args.seed,
        ..Launch::new(device, settings)
    }))
}

fn begin(args: &ReplArgs, session: &Rc<Session>, loader: &Rc<Loader>) -> Workbench {
    session.step_loop().set_interactive();
    Workbench::new(Host::new(session, loader, &args.limits.enforce()))
}
