//! `rhopo report`: a run on one page, made anew from its folder.

use crate::error::{Error, Result};
use crate::files;
use crate::run::access::Access;
use crate::run::page;
use crate::script::lang::loader::Loader;
use crate::ui::out;
use crate::ui::terminal::report as tell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `rhopo report`.
///
/// A run writes its report itself, now and then and when it ends. This writes it again: of a run that goes on or was killed, or
/// to another place. The page needs no network and runs no script.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Folder of the run
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub run: PathBuf,
    /// File to write [default: report.html in the run's folder]
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub out: Option<PathBuf>,
}

/// Writes the page and prints where it is.
pub(super) fn report(args: &ReportArgs) -> ExitCode {
    let path = args.out.clone().unwrap_or_else(|| args.run.join(page::FILE));
    let run = Access::looking(std::slice::from_ref(&args.run)).at(&args.run);
    match named_as_page(&path).and_then(|()| page::write_of(&run, &files::anywhere(&path))) {
        Ok(damage) => {
            if let Some(damage) = damage {
                out::note(&damage);
            }
            // Where nobody reads it, there is nothing left to do.
            out::line(&path.display().to_string());
            ExitCode::SUCCESS
        }
        Err(e) => {
            tell(&e.into(), &Loader::default());
            ExitCode::FAILURE
        }
    }
}

/// What a run has left has other names: none of it is written over.
fn named_as_page(path: &Path) -> Result<()> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("html" | "htm") => Ok(()),
        _ => Err(Error::value(format!("{}: a report is written as .html or .htm", path.display()))
            .hint("end the file's name in one of them, as in -o report.html")),
    }
}
