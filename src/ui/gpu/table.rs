//! `rhopo gpu table`: what the parts of `tests/device/run` have left, one below the other.

use crate::error::{Error, Result};
use crate::files;
use crate::ui::out;
use std::path::Path;

/// Lines of each part, the last ones.
const TOLD: usize = 18;

/// Prints for each part how it ended, its seconds, and what it said last.
///
/// # Errors
/// A folder without `parts.tsv`.
pub(super) fn table(folder: &Path) -> Result<()> {
    let folder = files::anywhere(folder);
    let parts = folder.join("parts.tsv");
    let text = files::text(&parts)?;
    for line in text.lines() {
        let [code, seconds, name] = line.split('\t').collect::<Vec<_>>()[..] else {
            let what = format!("{}: expected a code, seconds and a name, found `{line}`", parts.display());
            return Err(Error::file(what).hint("tests/device/run writes it"));
        };
        let ended = match code {
            "0" => "ok".to_string(),
            "124" => "timed out".to_string(),
            "127" => "missing".to_string(),
            code => format!("FAILED ({code})"),
        };
        out::line(&format!("{name:<12} {ended:<12} {seconds:>4} s"));
        let said = files::text(&folder.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(TOLD)..] {
            out::line(&format!("  {line}"));
        }
    }
    Ok(())
}
