//! What `rhopo sweep` is asked on the command line, and the plan that this makes.

use crate::error::{Error, Result};
use crate::run::EVAL;
use crate::run::checkpoint::Schedule;
use crate::run::samples::Kept;
use crate::run::sweep::{Axis, Goal, Plan, Search};
use crate::ui::completions;
use crate::ui::limits::{EngineArgs, LimitArgs, seed};
use crate::ui::run::assignment;
use clap::ValueHint;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;

/// The device that runs take unless told.
const AUTO: &str = "auto";
/// Seconds that a program for rewards may take unless told.
const PATIENCE: u32 = 60;
const GIBIBYTE: f64 = (1_u64 << 30) as f64;

/// Options of `rhopo sweep`.
///
/// Each run is a process of its own, in a folder of its own below the sweep's. A sweep that was interrupted or killed goes on
/// with --resume, or with the same command and --out: runs that have finished are left alone, others are continued, and
/// those that failed are tried again.
#[derive(Debug, Clone, clap::Args)]
pub struct SweepArgs {
    /// Script to run: a file, one in ./scripts, or a built-in one
    #[arg(value_name = "NAME|FILE", required_unless_present = "resume", add = completions::scripts())]
    pub script: Option<String>,
    /// Hyper-parameters: one value, values 0.1,0.3, or a range 1e-5..1e-3 to draw from
    #[arg(long, value_name = "K=V", num_args = 1.., value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Number of seeds that each trial is run with [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: Option<u32>,
    /// First of these seeds, and seed of the search [default: 0]
    #[arg(long, value_name = "N", value_parser = seed())]
    pub seed: Option<u64>,
    /// Number of runs at the same time, each on its share of the cores unless --threads is given [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// How trials are chosen: all combinations, at random, or from the results so far [default: grid]
    #[arg(long, value_parser = search())]
    pub search: Option<Search>,
    /// Number of trials of a random search, or of one that learns
    #[arg(long, value_name = "N")]
    pub trials: Option<usize>,
    /// Metric whose last value should be large [default: eval]
    #[arg(long, value_name = "METRIC", conflicts_with = "minimize")]
    pub maximize: Option<String>,
    /// Metric whose last value should be small
    #[arg(long, value_name = "METRIC")]
    pub minimize: Option<String>,
    /// Folder for the sweep [default: runs/sweep-NAME-TIME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Continue the sweep in this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["script", "set", "seeds", "seed",
        "search", "trials", "maximize", "minimize", "out", "threads", "device", "dtype", "token_budget", "stdlib", "allow",
        "allow_exec", "exec_seconds", "max_ops", "max_seconds", "max_memory", "checkpoint", "samples"])]
    pub resume: Option<PathBuf>,
    /// Only print the table and draw the picture of what there is
    #[arg(long, requires = "resume", conflicts_with_all = ["only", "slurm", "jobs"])]
    pub table: bool,
    /// Only do the run of this number, as a task of a job array
    #[arg(long, value_name = "N", requires = "resume", conflicts_with_all = ["slurm", "jobs"])]
    pub only: Option<usize>,
    /// Write a script for a Slurm job array with a task for each run, and run nothing
    #[arg(long)]
    pub slurm: bool,
    /// Draw the picture as sweep.png as well
    #[arg(long)]
    pub png: bool,
    /// How often each run writes a checkpoint: 50 (steps), 30s, 10m, 2h, or off
    #[arg(long, value_name = "STEPS|TIME|off", value_parser = checked::<Schedule>)]
    pub checkpoint: Option<String>,
    /// Rows that each run keeps in samples.jsonl
    #[arg(long, value_name = "all|shown|none", value_parser = checked::<Kept>)]
    pub samples: Option<String>,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

fn search() -> impl TypedValueParser<Value = Search> {
    PossibleValuesParser::new(Search::NAMES).map(|name| Search::named(&name).unwrap_or(Search::Grid))
}

/// The text itself, once it is known to be right.
fn checked<T: std::str::FromStr<Err = String>>(text: &str) -> std::result::Result<String, String> {
    text.parse::<T>().map(|_| text.to_string())
}

impl SweepArgs {
    pub fn jobs(&self) -> usize {
        self.jobs.unwrap_or(1).into()
    }

    /// What is to be run.
    ///
    /// # Errors
    /// Values that say nothing; a hyper-parameter that is given twice; what `Plan::filled` refuses.
    pub fn plan(&self) -> Result<Plan> {
        let axes = self.set.iter().map(|(name, text)| Axis::parse(name, text)).collect::<Result<Vec<_>>>()?;
        for (i, axis) in axes.iter().enumerate() {
            if axes[..i].iter().any(|before| before.name == axis.name) {
                return Err(Error::value(format!("--set {} is given twice", axis.name))
                    .hint("write all of its values in one place, with commas between them"));
            }
        }
        let goal = match (&self.maximize, &self.minimize) {
            (_, Some(metric)) => Goal { metric: metric.clone(), maximize: false },
            (metric, None) => Goal { metric: metric.clone().unwrap_or_else(|| EVAL.to_string()), maximize: true },
        };
        let seeds = self.seeds.unwrap_or(1) as usize;
        let seed = self.seed.unwrap_or(0);
        if seed.checked_add(seeds as u64).is_none() {
            return Err(Error::value(format!("--seed {seed}: there are no {seeds} seeds from there on")));
        }
        let plan = Plan {
            script: self.script.clone().unwrap_or_default(),
            axes,
            search: self.search.unwrap_or(Search::Grid),
            seed,
            seeds,
            trials: 0,
            goal,
            options: self.options(),
            threads: self.engine.threads,
            ahead: self.jobs().div_ceil(seeds),
            points: Vec::new(),
        };
        plan.filled(self.trials)
    }

    /// What every run is told, but for its threads.
    pub(super) fn options(&self) -> Vec<String> {
        let (engine, limits) = (&self.engine, &self.limits);
        let path = |path: &PathBuf| path.display().to_string();
        let said: [(&str, Option<String>); 10] = [
            ("--device", (engine.device != AUTO).then(|| engine.device.clone())),
            ("--dtype", engine.dtype.clone()),
            ("--token-budget", engine.token_budget.map(|n| n.to_string())),
            ("--stdlib", engine.stdlib.as_ref().map(path)),
            ("--exec-seconds", (limits.exec_seconds != PATIENCE).then(|| limits.exec_seconds.to_string())),
            ("--max-ops", limits.max_ops.map(|n| n.to_string())),
            ("--max-seconds", limits.max_seconds.map(|n| n.to_string())),
            ("--max-memory", limits.max_memory.map(|bytes| (bytes as f64 / GIBIBYTE).to_string())),
            ("--checkpoint", self.checkpoint.clone()),
            ("--samples", self.samples.clone()),
        ];
        let programs = limits.allow_exec.iter();
        let programs = programs.map(|program| format!("{}={}", program.name, shell_words::join(&program.words)));
        let allowed = limits.allow.iter().map(|allowed| ("--allow", path(allowed)));
        let all = said.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let all = all.chain(allowed).chain(programs.map(|program| ("--allow-exec", program)));
        all.flat_map(|(name, value)| [name.to_string(), value]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::cli;
    use crate::ui::resume;
    use clap::FromArgMatches;

    fn read(words: &str) -> SweepArgs {
        let words = shell_words::split(&format!("rhopo sweep {words}")).expect("words");
        let matches = cli::command().try_get_matches_from(words).expect("understood");
        SweepArgs::from_arg_matches(matches.subcommand().expect("sweep").1).expect("read")
    }

    #[test]
    fn options_of_runs_are_passed_on_and_mean_the_same_there() {
        let args = read(
            "grpo --device cpu --token-budget 99 --allow a --allow 'b c' --allow-exec \"p=python3 'a b.py'\" \
             --exec-seconds 5 --max-ops 7 --max-seconds 8 --max-memory 0.7 --checkpoint 30s --samples all --threads 2",
        );
        let plan = args.plan().expect("a plan");
        let words = ["grpo".to_string()].into_iter().chain(plan.options).collect::<Vec<_>>();
        let run = resume::parse(&words).expect("options of run");
        assert_eq!((run.engine.device.as_str(), run.engine.token_budget, plan.threads), ("cpu", Some(99), Some(2)));
        let (own, passed) = (&args.limits, &run.limits);
        assert_eq!(format!("{own:?}"), format!("{passed:?}"));
        assert_eq!((run.checkpoint.is_some(), run.samples.is_some()), (true, true));
        assert!(read("grpo").plan().expect("a plan").options.is_empty());
    }

    #[test]
    fn what_is_wanted_is_eval_unless_told() {
        let goal = |words: &str| read(words).plan().expect("a plan").goal;
        assert_eq!(goal("grpo"), Goal { metric: "eval".into(), maximize: true });
        assert_eq!(goal("grpo --minimize loss"), Goal { metric: "loss".into(), maximize: false });
        assert_eq!(goal("grpo --maximize reward"), Goal { metric: "reward".into(), maximize: true });
    }

    #[test]
    fn a_hyper_parameter_that_is_given_twice_is_refused() {
        let e = read("grpo --set lr=1 clip=2 --set lr=3").plan().expect_err("twice");
        assert!(e.what.contains("--set lr is given twice"), "{e}");
    }
}
