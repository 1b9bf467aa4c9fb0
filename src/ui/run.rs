//! `rhopo run`: builds the session, runs the script on a thread with room for deep recursion, and says how it went.

use crate::engine::Settings;
use crate::error::{Error, Kind, Result};
use crate::run::interrupt::{Interrupt, Press};
use crate::run::{Launch, Session, device};
use crate::script::console::Workbench;
use crate::script::diagnostics::Diagnostic;
use crate::script::host::{self, Host};
use crate::script::loader::Loader;
use crate::script::render::render;
use crate::ui::cli::RunArgs;
use crate::ui::out;
use crate::ui::progress::Progress;
use crate::ui::repl::{Place, Talker};
use crate::ui::thread::on_engine_thread;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;

const INTERRUPTED: u8 = 130;

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
            loader.follow();
            session.attend();
        }
        if args.pause {
            session.request_pause();
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
    desk.session().set_interactive();
    talker.converse(&mut desk, Place::Session);
    Ok(())
}

fn session(args: &RunArgs, settings: Settings, interrupt: &Interrupt, progress: &Rc<Progress>) -> Result<Rc<Session>> {
    if let Some(folder) = args.engine.stdlib.as_ref().filter(|folder| !folder.is_dir()) {
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

/// Sets the size of the pool that all computing shares.
pub(super) fn threads(wanted: Option<u16>) -> Result<usize> {
    if let Some(wanted) = wanted {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(wanted.into()).build_global();
        pool.map_err(|e| Error::new(Kind::Internal, format!("--threads: {e}")))?;
    }
    Ok(rayon::current_num_threads())
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

/// Whether somebody is there to press a key.
pub(super) fn asks() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

pub(super) fn report(e: &Diagnostic, loader: &Loader) {
    out::note(render(e, loader, colours(&std::io::stderr())).trim_end());
}

/// Whether colours are wanted there.
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none() && !dumb
}
