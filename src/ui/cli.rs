//! The command line: what can be asked for, and exit codes (0 well, 1 an error, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM).
//! Owns neither the examples in its help (`examples.rs`) nor what a shell completes (`completions.rs`).

use crate::error::{Error, Result};
use crate::run::interrupt;
use crate::run::quote::visible;
use crate::script::lang::loader::Loader;
use crate::tensor::simd;
use crate::ui::bench::{self, BenchArgs};
use crate::ui::bounds::Bounded;
use crate::ui::check::{self, CheckArgs};
use crate::ui::compare::{self, CompareArgs};
use crate::ui::completions::{self, CompletionsArgs};
use crate::ui::diff::{self, DiffArgs};
use crate::ui::doc::{self, DocArgs};
use crate::ui::fold::fold;
use crate::ui::gpu::{self, GpuCommand};
use crate::ui::limits::own_folder;
use crate::ui::man::{self, ManArgs};
use crate::ui::new::{self, NewArgs};
use crate::ui::plot::{self, PlotArgs};
use crate::ui::repl::terminal::state_folder;
use crate::ui::repl::{self, ReplArgs};
use crate::ui::replay::{self, ReplayArgs};
use crate::ui::report::{self, ReportArgs};
use crate::ui::resume;
use crate::ui::run::{self, RunArgs};
use crate::ui::runs::{self, RunsArgs};
use crate::ui::sweep::{self, SweepArgs};
use crate::ui::terminal::{colours, report as tell};
use crate::ui::test::{self, TestArgs};
use crate::ui::{examples, inspect, list, out};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use std::path::PathBuf;
use std::process::ExitCode;

/// Columns of help and of errors in the command line.
const WIDTH: usize = 80;

/// A runtime for research on policy-optimisation objectives for language models, scripted in Rhai.
#[derive(Debug, Parser)]
#[command(name = "rhopo", version, about, after_help = ENVIRONMENT, max_term_width = WIDTH)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Args)]
struct NoArgs {}

#[derive(Debug, Clone, clap::Args)]
struct InspectArgs {
    /// A folder, a GGUF file, a built-in model, or a model on the hub (owner/name)
    #[arg(value_name = "DIR|FILE|NAME|ID", add = completions::models())]
    model: String,
}

const ENVIRONMENT: &str = "Environment:
  RHOPO_HISTORY=FILE    Where the prompt keeps its history
  RHOPO_CUDA=DIR[:DIR]  Where NVIDIA's libraries are (rhopo help gpu info)
  RHOPO_SIMD=portable|avx2|avx512
                        Use narrower vectors: the same results, more slowly";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a script, by name or path
    Run(RunArgs),
    /// Run a script many times, with other hyper-parameters and seeds
    Sweep(SweepArgs),
    /// Recompute steps of a run and check that every number matches
    Replay(ReplayArgs),
    /// List runs in a table, filtered and sorted
    Runs(Bounded<RunsArgs>),
    /// Write a run on one page, from what its folder holds
    Report(Bounded<ReportArgs>),
    /// Show how two runs differ: arguments, settings, script and results
    Diff(Bounded<DiffArgs>),
    /// Draw the curves of several runs over one another
    Plot(Bounded<PlotArgs>),
    /// Start an interactive prompt
    Repl(ReplArgs),
    /// List the available scripts, tasks and models
    List(Bounded<NoArgs>),
    /// Create a script of your own from an existing one, or a task
    New(Bounded<NewArgs>),
    /// Check scripts for mistakes without training
    Check(CheckArgs),
    /// Compare objectives on one frozen batch: values and gradients
    Compare(CompareArgs),
    /// Run the test functions in Rhai files
    Test(TestArgs),
    /// Show what scripts can call: a list, or the page of one function
    Doc(Bounded<DocArgs>),
    /// Write Rhai definition files for completion in editors
    Definitions {
        /// Folder to write them into
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// Show what a model consists of and how much memory it needs
    Inspect(Bounded<InspectArgs>),
    /// Time sampling, log-probs and updates of a random model
    Bench(BenchArgs),
    /// Show, check and time GPUs, and compile kernels ahead of time
    #[command(subcommand)]
    Gpu(GpuCommand),
    /// Print a script that sets up command-line completion in a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands
    Man(ManArgs),
}

/// The declaration that parsing, help, completion and the manual are made of.
pub(super) fn command() -> clap::Command {
    examples::added(Cli::command())
}

/// Ends the process where the system has no more memory: in one line, made of no memory, with exit status 1.
pub fn out_of_memory() -> ! {
    out::last(
        "Error: out of memory: the system gives no more\nHelp: fewer or smaller models, batches and tensors at a time\n",
    );
    std::process::exit(1)
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    completions::answer(command);
    let code = interrupt::spare_writers().map_or_else(failed, |()| answered());
    match out::failure() {
        Some(e) if code == ExitCode::SUCCESS => failed(e.clone()),
        _ => code,
    }
}

fn failed(e: Error) -> ExitCode {
    tell(&e.into(), &Loader::default());
    ExitCode::FAILURE
}

fn answered() -> ExitCode {
    let cli = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let command = match cli {
        Ok(cli) => cli.command,
        Err(e) => return answer(&e),
    };
    if let Err(e) = simd::chosen().and_then(|_| here()) {
        return failed(e);
    }
    match command {
        Command::Sweep(args) => sweep::sweep(args),
        Command::Run(args) => within(run::wall(&args), || match args.resume.clone() {
            Some(folder) => resume::resume(folder),
            None => run::run(args),
        }),
        Command::Replay(args) => {
            let wall = args.limits.put_wall_up(vec![args.run.clone()], vec![std::env::temp_dir()]);
            within(wall, || replay::replay(args))
        }
        Command::Runs(bounded) => runs::runs(&bounded.begin()),
        Command::Report(bounded) => report::report(&bounded.begin()),
        Command::Diff(bounded) => diff::diff(&bounded.begin()),
        Command::Plot(bounded) => plot::plot(&bounded.begin()),
        Command::Repl(args) => {
            let read = args.script.as_deref().and_then(own_folder).into_iter().chain(args.engine.stdlib.clone());
            within(args.limits.put_wall_up(read.collect(), state_folder().into_iter().collect()), || repl::repl(args))
        }
        Command::List(bounded) => {
            let NoArgs {} = bounded.begin();
            list::list()
        }
        Command::New(bounded) => new::new(&bounded.begin()),
        Command::Check(args) => {
            let read = args.scripts.iter().filter_map(|script| own_folder(script)).collect();
            within(args.limits.put_wall_up(read, Vec::new()), || check::check(args))
        }
        Command::Compare(args) => within(compare::wall(&args), || compare::compare(args)),
        Command::Test(args) => {
            let read = args.paths.iter().chain(&args.stdlib).cloned().collect();
            within(args.limits.put_wall_up(read, Vec::new()), || test::test(args))
        }
        Command::Doc(bounded) => doc::doc(bounded.begin()),
        Command::Definitions { folder } => doc::definitions(folder),
        Command::Inspect(bounded) => inspect::inspect(&bounded.begin().model),
        Command::Bench(args) => bench::bench(&args),
        Command::Gpu(command) => gpu::gpu(&command),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args, self::command()),
    }
}

/// Does `work` once the kernel's wall is up, where it was asked for.
fn within(wall: Result<()>, work: impl FnOnce() -> ExitCode) -> ExitCode {
    wall.map_or_else(failed, |()| work())
}

/// # Errors
/// The current folder is gone: what is relative to it is nowhere.
fn here() -> Result<()> {
    std::env::current_dir().map(drop).map_err(|e| {
        Error::file(format!("the current folder cannot be found: {e}")).hint("change to a folder that is there")
    })
}

/// Prints help, or what is wrong with the command line; clap folds the one and not the other.
fn answer(e: &clap::Error) -> ExitCode {
    let colours = if e.use_stderr() { colours(&std::io::stderr()) } else { colours(&std::io::stdout()) };
    let text = e.render();
    let plain = visible(&text.to_string());
    // A word of the command line may hold what a terminal obeys: then nothing is coloured.
    let text = if colours && plain == text.to_string() { text.ansi().to_string() } else { plain };
    if e.use_stderr() {
        out::coloured_note(&fold(text.trim_end(), WIDTH));
    } else {
        // Nobody reads any further: there is nothing left to do.
        out::coloured_line(text.trim_end());
    }
    ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::fold::columns;

    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help").flat_map(all);
        std::iter::once(command.clone()).chain(inner).collect()
    }

    fn wide(text: &str) -> Vec<&str> {
        text.lines().filter(|line| columns(line) > WIDTH).collect()
    }

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

    #[test]
    fn help_fits_eighty_columns_and_ends_with_examples() {
        let mut whole = command();
        whole.build();
        for mut command in all(&whole) {
            for help in [command.render_help(), command.render_long_help()].map(|help| help.to_string()) {
                assert_eq!(wide(&help), [""; 0], "{}", command.get_name());
                let below = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(below.starts_with(examples::HEADING) && help.contains(&below), "folded: {help}");
                // A sentence, as other programs have it: no full stop behind one line, none in lower case.
                let about = help.lines().next().unwrap_or_default();
                assert!(about.starts_with(char::is_uppercase), "{about}");
            }
        }
    }

    #[test]
    fn errors_in_the_command_line_fit_eighty_columns() {
        let wrong: [&[&str]; 9] = [
            &["rnu"],
            &["run"],
            &["run", "grpo", "--set", "lr"],
            &["run", "grpo", "--threads", "none"],
            &["run", "grpo", "--max-memory", "much"],
            &["run", "grpo", "--allow-exec", "grader"],
            &["run", "grpo", "--checkpoint", "sometimes"],
            &["bench", "raged"],
            &["run", "--resume", "runs/first", "grpo"],
        ];
        for args in wrong {
            let e = command().try_get_matches_from([&["rhopo"], args].concat()).expect_err("wrong");
            let text = fold(&e.render().to_string(), WIDTH);
            assert_eq!(wide(&text), [""; 0]);
            assert!(text.contains("error: "), "{text}");
        }
    }
}
