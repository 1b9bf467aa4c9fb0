//! `rhopo compare`: several objectives on one frozen batch. The comparison itself is a script
//! (`script/tools/compare.rhai`), its picture is `run/comparison.rs`.

use crate::error::Error;
use crate::run::Launch;
use crate::run::access::Access;
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::script::tools::compare::{self, Objectives};
use crate::ui::completions;
use crate::ui::limits::{LimitArgs, own_folder, rhai_file, seed};
use crate::ui::out;
use crate::ui::progress::Progress;
use crate::ui::run::assignment;
use crate::ui::terminal::{INTERRUPTED, report};
use crate::ui::thread::on_engine_thread;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// Steps between the policy that sampled and the one that is compared: enough that ratios leave the clip range.
const STALE: u32 = 4;

/// Options of `rhopo compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompareArgs {
    /// Objectives to compare: files, scripts in ./scripts, or built-in ones
    #[arg(value_name = "NAME|FILE", required = true, add = completions::scripts())]
    pub scripts: Vec<String>,
    /// Hyper-parameters to set, in every script that has them
    #[arg(long, value_name = "K=V", num_args = 1.., value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Task that gives prompts and rewards: a built-in one or a Rhai file
    #[arg(long, value_name = "NAME|FILE", default_value = "arithmetic", conflicts_with = "batch",
        add = completions::tasks())]
    pub task: String,
    /// Batch to compare on, as b.save writes it [default: pairs sampled from the model]
    #[arg(long, value_name = "FILE")]
    pub batch: Option<PathBuf>,
    /// Optimizer steps between the policy that sampled and the one compared, so that ratios differ from 1; 0 is on-policy
    /// [default: 4, or 0 with --batch]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub stale: Option<u32>,
    /// Model to differentiate: a folder, a built-in model, or a model on the hub
    #[arg(long, default_value = "tiny", add = completions::models())]
    pub model: String,
    /// Picture to write: numbers, cosines and the gradient of every token
    #[arg(long, value_name = "FILE", default_value = "compare.svg")]
    pub svg: PathBuf,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0, value_parser = seed())]
    pub seed: u64,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Runs the comparison.
pub fn compare(args: CompareArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(None);
        match run(&args, &loader) {
            Ok(()) => 0,
            Err(e) if e.interrupted => INTERRUPTED,
            Err(e) => {
                report(&e, &loader);
                1
            }
        }
    })
}

fn run(args: &CompareArgs, loader: &Rc<Loader>) -> Result<(), Diagnostic> {
    let access = access(args);
    let sets = arguments(args, loader, &access)?;
    let mut launch = Launch { access: access.clone(), seed: Some(args.seed), sets, ..Launch::default() };
    launch = args.limits.launch(access.clone(), launch);
    let closed = Progress::attach(&mut launch, false).closed();
    launch.interrupt.install(|_| {})?;
    let over = args.limits.watch(&launch.stop());
    let svg = Access::everything().write(&args.svg)?;
    let found =
        match compare::compare(&HostBuilder::new().launch(launch).loader(loader).limits(args.limits.enforce()).build())
        {
            Err(e) if e.interrupted && over.load(Ordering::Relaxed) => return Err(args.limits.time_is_over().into()),
            // Whoever read the output has seen enough.
            Err(e) if e.interrupted && closed.load(Ordering::Relaxed) => return Ok(()),
            found => found?,
        };
    found.write(&svg)?;
    out::line(&format!("\npicture: {}", args.svg.display()));
    match found.failed.as_slice() {
        [] => Ok(()),
        failed => Err(Error::value(format!("not compared, for the error above: {}", failed.join(", ")))
            .hint("a loss that reads hyper-parameters needs them declared: let cfg = args(#{ clip: 0.2 });")
            .into()),
    }
}

/// Puts the kernel's wall around the comparison, where it is asked for.
///
/// # Errors
/// A kernel that has it and refuses.
pub(super) fn wall(args: &CompareArgs) -> crate::error::Result<()> {
    let files = args.scripts.iter().map(String::as_str).chain(rhai_file(&args.task)).filter_map(own_folder);
    let read = args.batch.iter().cloned().chain([PathBuf::from(&args.model)]).chain(files);
    let write = args.svg.parent().map(PathBuf::from).filter(|folder| !folder.as_os_str().is_empty());
    args.limits.put_wall_up(read.collect(), write.into_iter().collect())
}

/// What the comparison may reach: what the command line names, and the scripts' own folders.
fn access(args: &CompareArgs) -> Access {
    let allowed = args.limits.allow.iter().cloned();
    let named: Vec<PathBuf> = args.batch.iter().cloned().chain([PathBuf::from(&args.model)]).collect();
    let files = args.scripts.iter().map(String::as_str).chain(rhai_file(&args.task));
    let folders = files.filter_map(own_folder);
    Access::reading(&named.into_iter().chain(allowed).chain(folders).collect::<Vec<_>>())
}

/// What the comparison is told.
fn arguments(args: &CompareArgs, loader: &Rc<Loader>, access: &Access) -> Result<Vec<(String, String)>, Diagnostic> {
    let host = HostBuilder::new().launch(Launch { access: access.clone(), ..Launch::default() }).loader(loader).build();
    let mut objectives = Objectives::read(&host, &args.scripts)?;
    for (name, text) in &args.set {
        if let Some(note) = objectives.set(name, text, args.batch.is_none())? {
            out::note(&note);
        }
    }
    let stale = args.stale.unwrap_or(if args.batch.is_some() { 0 } else { STALE });
    let mut sets = objectives.arguments()?;
    let own = [("model", args.model.clone()), ("task", args.task.clone()), ("stale", stale.to_string())];
    sets.extend(own.map(|(name, text)| (name.to_string(), text)));
    sets.extend(args.batch.as_ref().map(|path| ("batch".to_string(), path.display().to_string())));
    Ok(sets)
}
