//! `rhopo check`: what is wrong with scripts, for people and for editors.

use crate::run::Launch;
use crate::run::access::Access;
use crate::script::builder::HostBuilder;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::loader::Loader;
use crate::script::tools::check::{self, Finding};
use crate::ui::completions;
use crate::ui::limits::own_folder;
use crate::ui::out;
use crate::ui::terminal::report;
use crate::ui::thread::on_engine_thread;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

/// Options of `rhopo check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// Scripts to check: files, ones in ./scripts, or built-in ones
    #[arg(value_name = "NAME|FILE", required = true, add = completions::scripts())]
    pub scripts: Vec<String>,
    /// Print each finding as a line of JSON: file, line, column, message, hint
    #[arg(long)]
    pub json: bool,
}

/// Prints what is found; the exit code is 1 where something is.
pub fn check(args: CheckArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(None);
        let folders: Vec<PathBuf> = args.scripts.iter().filter_map(|script| own_folder(script)).collect();
        let access = Access::confined(None, &folders);
        let mut count = 0;
        for script in &args.scripts {
            match findings(&loader, script, &access) {
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
        u8::from(count > 0)
    })
}

fn findings(loader: &Rc<Loader>, script: &str, access: &Access) -> Result<Vec<Finding>, Diagnostic> {
    let source = loader.find(script)?;
    let launch = Launch { access: access.clone(), ..Launch::default() };
    let host = HostBuilder::new().launch(launch).loader(loader).strict().build();
    Ok(check::check(&host, &source))
}

fn show(finding: Finding, as_json: bool, loader: &Loader) {
    if !as_json {
        return report(&finding.into(), loader);
    }
    let Finding { label, line, column, message, hint } = finding;
    out::line(&json!({ "file": label, "line": line, "column": column, "message": message, "hint": hint }).to_string());
}
