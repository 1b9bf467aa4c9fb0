//! The command line: what can be asked for, and exit codes (0 well, 1 an error, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM).

use crate::script::lang::loader::Loader;
use crate::tensor::simd;
use crate::ui::bench::{self, BenchArgs};
use crate::ui::check::{self, CheckArgs};
use crate::ui::compare::{self, CompareArgs};
use crate::ui::doc::{self, DocArgs};
use crate::ui::gpu::{self, GpuCommand};
use crate::ui::new::{self, NewArgs};
use crate::ui::repl::{self, ReplArgs};
use crate::ui::replay::{self, ReplayArgs};
use crate::ui::resume;
use crate::ui::run::{self, RunArgs};
use crate::ui::terminal::report;
use crate::ui::test::{self, TestArgs};
use crate::ui::{inspect, list};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A runtime for research on policy-optimisation objectives for language models, scripted in Rhai.
#[derive(Debug, Parser)]
#[command(name = "rhopo", version, about, after_help = ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ENVIRONMENT: &str = "Environment:
  RHOPO_SIMD=portable|avx2|avx512  narrower vectors than this processor's widest: the same bits, later;
                                   portable is for tests, it multiplies and adds in software
  RHOPO_HISTORY=FILE               what was typed at prompts
  RHOPO_CUDA=FOLDER[:FOLDER]       where NVIDIA's libraries are (see `rhopo gpu info --help`)";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a script, by name or file
    Run(RunArgs),
    /// Compute steps of a run again, from a checkpoint, and say whether every number is the same
    Replay(ReplayArgs),
    /// Try things out at a prompt
    Repl(ReplArgs),
    /// List the scripts, tasks and models there are
    List,
    /// Begin a script of your own from another
    New(NewArgs),
    /// Say what is wrong with scripts, without training
    Check(CheckArgs),
    /// Compare objectives on one frozen batch: values, gradients, and how these lie to each other
    Compare(CompareArgs),
    /// Run the test functions of Rhai files
    Test(TestArgs),
    /// Show what scripts can call: a list, or one function with its example
    Doc(DocArgs),
    /// Write Rhai definition files, from which editors complete
    Definitions {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Show what a model is, holds and needs
    Inspect {
        /// A folder, a GGUF file, a built-in model, or a model on the hub: owner/name
        #[arg(value_name = "DIR|FILE|NAME|ID")]
        model: String,
    },
    /// Measure sampling, log-probs and update on a random model
    Bench(BenchArgs),
    /// Show what there is for models on a GPU, and compile kernels ahead
    #[command(subcommand)]
    Gpu(GpuCommand),
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Err(e) = simd::chosen() {
        report(&e.into(), &Loader::default());
        return ExitCode::FAILURE;
    }
    match command {
        Command::Run(RunArgs { resume: Some(folder), .. }) => resume::resume(folder),
        Command::Run(args) => run::run(args),
        Command::Replay(args) => replay::replay(args),
        Command::Repl(args) => repl::repl(args),
        Command::List => list::list(),
        Command::New(args) => new::new(&args),
        Command::Check(args) => check::check(args),
        Command::Compare(args) => compare::compare(args),
        Command::Test(args) => test::test(args),
        Command::Doc(args) => doc::doc(args),
        Command::Definitions { folder } => doc::definitions(folder),
        Command::Inspect { model } => inspect::inspect(&model),
        Command::Bench(args) => bench::bench(&args),
        Command::Gpu(command) => gpu::gpu(&command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_assignments_may_follow_one_set() {
        let cli = Cli::try_parse_from([
            "rhopo", "run", "grpo", "--set", "group=16", "lr=2e-5", "--set", "beta=0", "--seed", "3",
        ]);
        let Ok(Cli { command: Command::Run(args) }) = cli else { panic!("{cli:?}") };
        let set: Vec<_> = args.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(set, ["group=16", "lr=2e-5", "beta=0"]);
        assert_eq!((args.script.as_deref(), args.seed), (Some("grpo"), Some(3)));
    }
}
