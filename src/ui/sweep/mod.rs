//! `rhopo sweep`: many runs of a script, which differ in hyper-parameters and seeds. Owns how a sweep begins, goes on and
//! ends; its parts are the command line (`args.rs`), the processes (`work.rs`), how their runs stand (`stand.rs`), table and
//! picture (`results.rs`), and the script for a cluster (`slurm.rs`).

mod args;
mod results;
mod slurm;
mod stand;
mod work;

pub use args::SweepArgs;

use crate::error::{Error, Kind};
use crate::files::{self, Location};
use crate::run::Launch;
use crate::run::access::Access;
use crate::run::folder::{Folder, LOCK};
use crate::run::interrupt::{Interrupt, Mode, Press};
use crate::run::sweep::{Learning, PLAN, Plan, Search};
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::{Loader, Source};
use crate::script::tools::dry;
use crate::ui::out;
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use indicatif::ProgressBar;
use results::Results;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use work::{GRANTS, OUTPUT, SCRIPT, Way, Work};

type Fallible<T> = Result<T, Diagnostic>;

/// Runs a sweep; the exit code is 1 where a run has failed.
pub fn sweep(args: SweepArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(args.engine.stdlib.clone());
        execute(&args, &loader).unwrap_or_else(|e| {
            report(&e, &loader);
            1
        })
    })
}

fn execute(args: &SweepArgs, loader: &Rc<Loader>) -> Fallible<u8> {
    let (folder, plan) = match &args.resume {
        Some(folder) => {
            let folder = Access::confined(Some(folder), &[]).at(folder);
            let mut plan = Plan::read(&folder)?;
            plan.options = granted_again(&plan.options, &args.options());
            (folder, plan)
        }
        None => begin(args, loader)?,
    };
    if args.table {
        let points = match plan.search {
            Search::Tpe => Learning::look(&folder, &plan)?,
            _ => plan.points.clone(),
        };
        show(&Results::read(&plan, &folder, points)?, &folder, args.png)?;
        return Ok(0);
    }
    let program = std::env::current_exe();
    let program =
        program.map_err(|e| Error::new(Kind::File, format!("this program does not know where it is: {e}")))?;
    if args.slurm {
        let script = slurm::write(&plan, &folder, &program, args.jobs)?;
        files::create_folder(&folder.join(OUTPUT))?;
        out::note(&format!("{} tasks; run them by: sbatch {}", plan.runs(), quoted(&script)));
        out::note(&format!("once they have ended: rhopo sweep --resume {} --table", quoted(&folder)));
        out::line(&folder.display().to_string());
        return Ok(0);
    }
    // The tasks of an array share the folder; each has its own run.
    let _lock = args.only.is_none().then(|| files::lock(&folder.join(LOCK))).transpose()?;
    let (interrupt, presses) = (Interrupt::default(), Arc::<AtomicUsize>::default());
    interrupt.set(Mode::Steps);
    let (leave, pressed, progress) = (interrupt.clone(), presses.clone(), work::progress());
    let bar = progress.clone();
    interrupt.install_for_runs(move |press| tell(press, &pressed, &leave, &bar))?;
    let threads = match args.only {
        Some(_) => plan.threads.map(usize::from),
        None => Some(plan.threads.map_or_else(|| share(args.jobs()), usize::from)),
    };
    let way = Way { jobs: args.jobs(), threads, program, only: args.only, png: args.png, presses, progress };
    let mut work = Work::new(&plan, &folder, way, loader.clone())?;
    let failed = work.run()?;
    if args.only.is_none() {
        show(&Results::read(&plan, &folder, work.points())?, &folder, args.png)?;
    }
    let again = format!("rhopo sweep --resume {}", quoted(&folder));
    if interrupt.asked() {
        out::note(&format!("interrupted; go on with: {again}"));
        return Ok(interrupt.exit_code());
    }
    if failed > 0 {
        let runs = if failed == 1 { "1 run has failed" } else { &format!("{failed} runs have failed") };
        out::note(&format!("{runs}; try again with: {again}"));
    }
    Ok(u8::from(failed > 0))
}

/// The options of a sweep that goes on. Its folder may be anybody's: what lets scripts reach more has to be said again.
fn granted_again(recorded: &[String], said: &[String]) -> Vec<String> {
    let grants = |pair: &&[String]| GRANTS.contains(&pair[0].as_str());
    let again = || said.chunks_exact(2).filter(grants);
    for withheld in recorded.chunks_exact(2).filter(grants).filter(|pair| !again().any(|said| said == *pair)) {
        out::note(&format!("the sweep was begun with {}: say it again if it is still meant", withheld.join(" ")));
    }
    let kept = recorded.chunks_exact(2).filter(|pair| !grants(pair));
    kept.chain(again()).flatten().cloned().collect()
}

/// A path as a shell reads it.
fn quoted(path: &std::path::Path) -> String {
    shell_words::quote(&path.display().to_string()).into_owned()
}

/// Cores for each of so many runs.
fn share(jobs: usize) -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / jobs).max(1)
}

fn tell(press: Press, presses: &AtomicUsize, interrupt: &Interrupt, bar: &ProgressBar) {
    let note = |text: &str| bar.suspend(|| out::note(text));
    match press {
        Press::AfterStep => note("ending the runs under way after their steps; press Ctrl-C again to kill them"),
        Press::AtOnce => note("killing the runs under way"),
        Press::Leave => std::process::exit(interrupt.exit_code().into()),
    }
    presses.fetch_add(1, Ordering::Relaxed);
}

/// The table on standard output, the folder as its last line; both, and the picture, in the folder.
fn show(results: &Results<'_>, folder: &Location, png: bool) -> Fallible<()> {
    let drawn = results.write(folder, png)?;
    // Where nobody reads any further, there is nothing left to do.
    let told = results.table().iter().all(|line| out::line(line));
    if told && drawn {
        out::line(&format!("picture: {}", folder.join("sweep.svg").display()));
    }
    out::note(&format!("written to {}", folder.display()));
    Ok(())
}

/// A new sweep in its folder, or the one that is there, where it is the same.
fn begin(args: &SweepArgs, loader: &Rc<Loader>) -> Fallible<(Location, Plan)> {
    let plan = args.plan()?;
    if args.slurm {
        slurm::check(&plan, args.out.as_deref())?;
    }
    let source = loader.find(&plan.script)?;
    check(args, &plan, &source, loader)?;
    let access = Access::confined(args.out.as_deref(), &[]);
    let out = args.out.as_ref().map(|out| access.at(out));
    if let Some(out) = out.filter(|out| files::is_file(&out.join(PLAN))) {
        let begun = Plan::read(&out)?;
        return match begun.differs(&plan) {
            None => Ok((out.clone(), begun)),
            Some(what) => Err(Error::value(format!("{} has another sweep: {what} differs", out.display()))
                .hint("choose a new folder with --out, or go on with that sweep by --resume alone")
                .into()),
        };
    }
    let folder = Folder::create(access.door(), args.out.as_deref(), &format!("sweep-{}", source.stem()))?;
    folder.write(SCRIPT, &source.text)?;
    plan.write(folder.path())?;
    Ok((folder.path().clone(), plan))
}

/// Whether the script takes every value; no run has begun yet.
fn check(args: &SweepArgs, plan: &Plan, source: &Source, loader: &Rc<Loader>) -> Fallible<()> {
    let first: Vec<(String, String)> =
        plan.axes.iter().map(|axis| (axis.name.clone(), axis.samples().swap_remove(0))).collect();
    let others = plan.axes.iter().enumerate().flat_map(|(i, axis)| {
        let with = |value: String| {
            let mut sets = first.clone();
            sets[i].1 = value;
            sets
        };
        axis.samples().into_iter().skip(1).map(with).collect::<Vec<_>>()
    });
    for sets in std::iter::once(first.clone()).chain(others) {
        let access = args.limits.access(std::slice::from_ref(&plan.script), None, &sets, args.engine.stdlib.as_deref());
        let host = HostBuilder::new().launch(Launch { access, sets, ..Launch::default() }).loader(loader).build();
        if !dry::check(&host, source)? {
            out::note("the script's hyper-parameters are known only when it runs: the first run checks them");
            break;
        }
    }
    Ok(())
}
