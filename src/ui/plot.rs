//! `rhopo plot`: metrics of several runs over one another, as SVG or PNG.

use crate::error::{Error, Result};
use crate::files;
use crate::run::overlay::{self, Across, Request};
use crate::run::summary::Summary;
use crate::script::lang::loader::Loader;
use crate::ui::out;
use crate::ui::runs;
use crate::ui::terminal::report;
use clap::{ValueEnum, ValueHint};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is drawn where nothing is said.
const METRIC: &str = "reward";

/// Options of `rhopo plot`.
#[derive(Debug, Clone, clap::Args)]
pub struct PlotArgs {
    /// Folders of runs, or folders that have runs below them
    #[arg(value_name = "RUN", required = true, value_hint = ValueHint::DirPath)]
    pub runs: Vec<PathBuf>,
    /// Metric to draw; give it again for a panel more
    #[arg(long, value_name = "NAME", default_value = METRIC)]
    pub y: Vec<String>,
    /// What the curves run over
    #[arg(long, value_enum, default_value_t = Axis::Step)]
    pub x: Axis,
    /// Join runs that differ in this hyper-parameter alone, usually seed: their mean, and a band from the lowest to the highest
    #[arg(long, value_name = "NAME")]
    pub band: Option<String>,
    /// Draw only runs for which this is true, such as 'clip > 0.1 && state == "finished"'
    #[arg(long = "where", value_name = "EXPR")]
    pub condition: Option<String>,
    /// Replace each value by the mean of N neighbouring ones
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub smooth: u32,
    /// File to write: .svg, or .png
    #[arg(short, long, value_name = "FILE", default_value = "plot.svg", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
}

/// What `--x` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    Step,
    /// Since the run began
    Seconds,
    /// Tokens sampled so far
    Sampled,
}

/// Writes the picture and says where it is.
pub(super) fn plot(args: &PlotArgs) -> ExitCode {
    match draw(args) {
        Ok(()) => {
            // Nobody reads any further: there is nothing left to do.
            out::line(&format!("picture: {}", args.out.display()));
            ExitCode::SUCCESS
        }
        Err(e) => {
            report(&e.into(), &Loader::default());
            ExitCode::FAILURE
        }
    }
}

fn draw(args: &PlotArgs) -> Result<()> {
    let format = Format::of(&args.out)?;
    let runs = chosen(args)?;
    let groups = overlay::groups(&runs, args.band.as_deref())?;
    let across = match args.x {
        Axis::Step => Across::Step,
        Axis::Seconds => Across::Seconds,
        Axis::Sampled => Across::Sampled,
    };
    let request = Request { metrics: &args.y, across, smooth: args.smooth as usize };
    let picture = overlay::picture(&runs, &groups, &request)?;
    write(&overlay::svg(&picture)?, &args.out, format)
}

/// The runs in all folders, each once.
fn chosen(args: &PlotArgs) -> Result<Vec<Summary>> {
    let mut found = Vec::new();
    for folder in &args.runs {
        found.extend(runs::read(folder)?);
    }
    if found.is_empty() {
        return Err(runs::unreadable());
    }
    let (mut chosen, mut places) = (Vec::new(), BTreeSet::new());
    for run in runs::filtered(found, args.condition.as_deref())? {
        if places.insert(files::real(&run.summary.folder)) {
            chosen.push(run.summary);
        }
    }
    match chosen.is_empty() {
        true => Err(Error::value("no run is left to draw").hint("--where is true for none of them")),
        false => Ok(chosen),
    }
}

/// How a picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Svg,
    Png,
}

impl Format {
    /// By the ending of the file's name.
    ///
    /// # Errors
    /// Another ending.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(Error::value(format!("{}: a picture is written as .svg or .png", path.display()))
                .hint("end the file's name in one of them, as in -o plot.png")),
        }
    }
}

/// Writes a picture.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(svg: &str, path: &Path, format: Format) -> Result<()> {
    let at = files::anywhere(path);
    match format {
        Format::Svg => files::write(&at, svg),
        Format::Png => files::write(&at, overlay::png(svg)?),
    }
}
