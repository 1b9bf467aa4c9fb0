//! `rhopo doc`: the functions that scripts can call, one of them, or all as pages.

use crate::run::names;
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::script::lang::reference;
use crate::script::tools::definitions;
use crate::script::tools::pages;
use crate::ui::list::section;
use crate::ui::pages::write_pages;
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use crate::ui::{completions, out};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `rhopo doc`.
#[derive(Debug, Clone, clap::Args)]
pub struct DocArgs {
    /// Function or module to show, such as logprob, kl::k3 or std/gro; or `metrics`, the names that runs log
    #[arg(value_name = "NAME", add = completions::functions())]
    pub name: Option<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with = "name")]
    pub write: Option<PathBuf>,
}

/// Prints a page, or the list of all, or writes the pages.
pub fn doc(args: DocArgs) -> ExitCode {
    on_engine_thread(move || {
        let done = match (&args.name, &args.write) {
            (Some(name), _) => show(name),
            (None, Some(folder)) => write(folder),
            (None, None) => list(),
        };
        code(done)
    })
}

/// `rhopo definitions`: writes what editors read.
pub fn definitions(folder: PathBuf) -> ExitCode {
    on_engine_thread(move || code(write_pages(&folder, definitions::files(&entries())).map_err(Into::into)))
}

fn code(done: Result<(), Diagnostic>) -> u8 {
    done.inspect_err(|e| report(e, &Loader::default())).map_or(1, |()| 0)
}

fn entries() -> Vec<reference::Entry> {
    reference::entries(HostBuilder::new().build().docs())
}

fn show(name: &str) -> Result<(), Diagnostic> {
    if name == pages::METRICS {
        out::line(names::page().trim_end());
        return Ok(());
    }
    let entries = entries();
    for entry in reference::find(&entries, name)? {
        out::line(pages::page(entry)?.trim_end());
    }
    Ok(())
}

fn list() -> Result<(), Diagnostic> {
    let entries = entries();
    for topic in reference::topics(&entries) {
        let of = |entry: &&reference::Entry| entry.topic == topic;
        let lines =
            entries.iter().filter(of).map(|entry| (entry.path.clone(), entry.section.summary.clone())).collect();
        if !section(topic, lines).iter().all(|line| out::line(line)) {
            return Ok(());
        }
    }
    let metrics = (pages::METRICS.to_string(), "the names of the numbers that runs log".to_string());
    for line in section("Metrics", vec![metrics]) {
        out::line(&line);
    }
    Ok(())
}

fn write(folder: &Path) -> Result<(), Diagnostic> {
    Ok(write_pages(folder, pages::pages(&entries())?)?)
}
