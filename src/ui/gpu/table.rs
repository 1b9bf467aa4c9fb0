//! `rhopo gpu table`: what the parts of `tests/device/run` have left, as one table.

use crate::error::{Error, Result};
use crate::files;
use crate::run::Table;
use crate::ui::out;
use crate::ui::table::lines;
use std::path::Path;

/// Lines of each part.
const TOLD: usize = 5;

/// Prints a line for each part: its exit code, its seconds, and what it said last.
///
/// # Errors
/// A folder without `parts.tsv`.
pub(super) fn table(folder: &Path) -> Result<()> {
    let parts = folder.join("parts.tsv");
    let text = files::text(&parts)?;
    let mut rows = Vec::new();
    for line in text.lines() {
        let [code, seconds, name] = line.split('\t').collect::<Vec<_>>()[..] else {
            let what = format!("{}: expected a code, seconds and a name, found `{line}`", parts.display());
            return Err(Error::file(what).hint("tests/device/run writes it"));
        };
        let said = files::text(&folder.join(format!("{name}.log"))).unwrap_or_default();
        let code = match code {
            "0" => "well",
            "124" => "out of time",
            "127" => "not there",
            code => code,
        };
        // The last lines tell; all of a part that is short.
        let all: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let told = &all[all.len().saturating_sub(TOLD)..];
        for (n, told) in told.iter().chain(all.is_empty().then_some(&"")).enumerate() {
            let first = |text: &str| if n == 0 { text.to_string() } else { String::new() };
            rows.push(vec![first(name), first(code), first(seconds), told.to_string()]);
        }
    }
    let head = ["part", "ended", "seconds", "said last"].map(str::to_string).to_vec();
    for line in lines(&Table { title: String::new(), head, rows }) {
        out::line(&line);
    }
    Ok(())
}
