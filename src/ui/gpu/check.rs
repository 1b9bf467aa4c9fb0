//! `rhopo gpu check`: a device against what is taken for granted of it.

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::gpu::check::{self, Finding, Verdict};
use crate::kernel::device::check::kernels;
use crate::run::{self, Table, device};
use crate::ui::{out, table};
use std::path::PathBuf;

/// Options of `rhopo gpu check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// What to check
    #[arg(value_enum)]
    pub what: Checked,
    /// Check one shape of each operation, for tools that slow the program down a hundredfold
    #[arg(long)]
    pub small: bool,
    /// Folder of a model, or of several, for `models`
    #[arg(value_name = "DIR", required_if_eq("what", "models"))]
    pub folder: Option<PathBuf>,
    /// Device to check: cuda, cuda:N
    #[arg(long, default_value = "cuda")]
    pub device: String,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Checked {
    /// The instructions that kernels use
    Intrinsics,
    /// Matrix products: exact where the numbers allow it, each row independent of the others
    Products,
    /// Every operation, forward and backward, against f64 and against recorded bits
    Kernels,
    /// Models in f32 and bf16, against the same models on the CPU
    Models,
    /// The peak rates of the device
    Ceilings,
}

/// Prints what was found, and how many of it was wrong last.
///
/// # Errors
/// A device that there is not or that fails; anything that is wrong.
pub(super) fn check(args: &CheckArgs) -> Result<()> {
    let place = device::parse(&args.device)?;
    let gpu = place.gpu().ok_or_else(|| {
        Error::new(Kind::Device, format!("device `{}` is not a GPU", args.device)).hint("write it as cuda:0")
    })?;
    let findings = match args.what {
        Checked::Intrinsics => check::intrinsics(gpu),
        Checked::Products => check::products(gpu),
        Checked::Kernels => kernels(gpu, args.small),
        Checked::Models => run::check::models(&files::anywhere(args.folder.as_deref().unwrap_or(".".as_ref())), &place),
        Checked::Ceilings => check::ceilings(gpu),
    }?;
    let row = |finding: &Finding| {
        let verdict = match finding.verdict {
            Verdict::Holds | Verdict::Told => "",
            Verdict::Wrong => "WRONG",
        };
        vec![finding.what.clone(), verdict.to_string(), finding.found.clone()]
    };
    let rows = findings.iter().map(row).collect();
    for line in
        table::lines(&Table { title: String::new(), head: ["what", "", "found"].map(str::to_string).to_vec(), rows })
    {
        out::line(&line);
    }
    // A table has short cells.
    for finding in findings.iter().filter(|finding| finding.verdict == Verdict::Wrong) {
        out::note(&format!("{}: {}", finding.what, finding.found));
    }
    let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let [holds, wrong, told] = [Verdict::Holds, Verdict::Wrong, Verdict::Told].map(count);
    out::line(&format!("{}: {holds} hold, {wrong} wrong, {told} measured", args.device));
    match wrong {
        0 => Ok(()),
        _ => Err(Error::new(Kind::Device, format!("{}: {wrong} of {} are wrong", gpu.name(), findings.len()))),
    }
}
