//! `rhopo list`: scripts, tasks and models, one line each.

use crate::data::task;
use crate::model::builtin;
use crate::run::access::Access;
use crate::script::lang::loader;
use crate::ui::out;
use std::process::ExitCode;

/// Prints what can be named on the command line and in scripts.
pub fn list() -> ExitCode {
    let scripts = loader::list(&Access::reading(&[])).iter().map(|s| (s.stem(), s.summary().to_string())).collect();
    let models = builtin::CATALOG.iter().map(|m| (m.name.to_string(), m.about.to_string())).collect();
    let tasks = task::CATALOG.iter().map(|(name, about)| (name.to_string(), about.to_string())).collect();
    let lines = [section("scripts", scripts), section("tasks", tasks), section("models", models)].concat();
    for line in lines {
        // Nobody reads any further: there is nothing left to do.
        if !out::line(&line) {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// A heading and one line for each name.
pub(super) fn section(title: &str, entries: Vec<(String, String)>) -> Vec<String> {
    let width = entries.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = entries.iter().map(|(name, about)| format!("  {name:width$}  {about}").trim_end().to_string());
    std::iter::once(title.to_string()).chain(lines).collect()
}
