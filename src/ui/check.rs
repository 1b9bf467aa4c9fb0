//! `rhopo check`: what is wrong with scripts, for people and for editors.

use crate::run::Launch;
use crate::run::access::Access;
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::script::tools::check::{self, Finding};
use crate::ui::completions;
use crate::ui::limits::{LimitArgs, own_folder};
use crate::ui::out;
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use serde_json::json;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// Options of `rhopo check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// Scripts to check: files, ones in ./scripts, or built-in ones
    #[arg(value_name = "NAME|FILE", required = true, add = completions::scripts())]
    pub scripts: Vec<String>,
    /// Print each finding as a line of JSON: file, line, column, message, hint
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How far a script may go that is only looked at.
const SECONDS: u64 = 10;
const OPERATIONS: u64 = 100_000_000;

/// Prints what is found; the exit code is 1 where something is.
pub fn check(args: CheckArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(None);
        let folders = args.scripts.iter().filter_map(|script| own_folder(script));
        let access = Access::reading(&args.limits.allow.iter().cloned().chain(folders).collect::<Vec<_>>());
        loader.confine(&access);
        let limits = args.limits.clone().or_at_most(OPERATIONS, SECONDS);
        let mut count = 0;
        for script in &args.scripts {
            match findings(&loader, script, &access, &limits) {
                Ok(found) => {
                    count += found.len();
                    found.into_iter().for_each(|finding| show(finding, args.json, &loader));
                }
                Err(e) => {
                    report(&e, &loader);
                    return 1;
                }
            }
        }
        if count == 0 && !args.json {
            out::note("no problems found");
        }
        if !args.json {
            // An editor that checks what it opens runs something of it.
            out::note(
                "of what was checked these were run, without writing: constants, imports, and `loss` on random rows",
            );
        }
        u8::from(count > 0)
    })
}

fn findings(
    loader: &Rc<Loader>,
    script: &str,
    access: &Access,
    limits: &LimitArgs,
) -> Result<Vec<Finding>, Diagnostic> {
    let source = loader.find(script)?;
    let launch = Launch { access: access.clone(), ..Launch::default() };
    let over = limits.watch(&launch.stop());
    let host = HostBuilder::new().launch(launch).loader(loader).limits(limits.enforce()).strict().build();
    let found = check::check(&host, &source);
    // What was cut off has not been checked.
    if over.load(Ordering::Relaxed) { Err(limits.time_is_over().into()) } else { Ok(found) }
}

fn show(finding: Finding, as_json: bool, loader: &Loader) {
    if !as_json {
        return report(&finding.into(), loader);
    }
    let Finding { label, line, column, message, hint } = finding;
    out::line(&json!({ "file": label, "line": line, "column": column, "message": message, "hint": hint }).to_string());
}
