//! Metrics of several runs over one another: which runs are one curve (`group.rs`), what it holds (`series.rs`, `band.rs`), the
//! picture (`draw.rs`) and its pixels (`raster.rs`). Owns how these go together.

mod band;
mod draw;
mod group;
mod raster;
mod series;

pub use draw::{MOST, Picture, svg};
pub use group::{Group, SEED, groups};
pub use raster::png;
pub use series::{Across, Series};

use crate::error::{Error, Result};
use crate::run::plot::shortened;
use crate::run::quote::visible;
use crate::run::summary::Summary;
use band::Band;
use draw::Panel;
use series::smoothed;

/// What is to be drawn of runs.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// A panel for each.
    pub metrics: &'a [String],
    pub across: Across,
    /// Neighbours that a value becomes the mean of.
    pub smooth: usize,
}

/// The groups' curves, as many as can be told apart, in their order.
///
/// # Errors
/// Metrics that cannot be read; a metric that no run has logged.
pub fn picture(runs: &[Summary], groups: &[Group], request: &Request<'_>) -> Result<Picture> {
    let shown = &groups[..groups.len().min(MOST)];
    let all = runs.iter().map(|run| Series::read(&run.folder)).collect::<Result<Vec<_>>>()?;
    let across = request.across;
    let mut picture = Picture { across: across.title(), whole: across != Across::Seconds, ..Picture::default() };
    for asked in request.metrics {
        let metric = &meant(asked, &all);
        let curves = |group: &Group| {
            let points = group.runs.iter().map(|run| all[*run].points(metric, across));
            let curves = points.filter(|points| !points.is_empty()).map(|points| smoothed(&points, request.smooth));
            let curves: Vec<_> = curves.collect();
            if across == Across::Step { Band::over_steps(&curves) } else { Band::over_any(&curves) }
        };
        let curves: Vec<Band> = shown.iter().map(curves).collect();
        if curves.iter().flat_map(Band::points).all(|(_, y)| !y.is_finite()) {
            return Err(unknown(metric, &all, across));
        }
        let smooth = if request.smooth > 1 { format!(", smoothed over {}", request.smooth) } else { String::new() };
        picture.panels.push(Panel { title: format!("{}{smooth}", shortened(metric)), curves });
    }
    picture.legend = shown.iter().map(entry).collect();
    picture.notes = notes(&picture, groups);
    Ok(picture)
}

/// What a curve is called, and of how many runs it is.
fn entry(group: &Group) -> String {
    match group.runs.len() {
        1 => plain(&group.label),
        n => format!("{} (n={n})", plain(&group.label)),
    }
}

/// What has to be known to read the picture.
fn notes(picture: &Picture, groups: &[Group]) -> Vec<String> {
    let mut notes = Vec::new();
    if groups.iter().any(|group| group.runs.len() > 1) {
        notes.push("Line: mean of n runs. Band: from their lowest to their highest value.".to_string());
    }
    let curves = || picture.panels.iter().flat_map(|panel| &panel.curves);
    if curves().any(|curve| !curve.alone.is_empty()) {
        notes.push("Thin lines: single runs where not all of a band have a value, and so no mean.".to_string());
    }
    if groups.len() > MOST {
        notes.push(format!("{} more curves are not drawn.", groups.len() - MOST));
    }
    notes
}

/// The metric that was logged under this name, or is written so in expressions: `seconds_sample` for `seconds/sample`.
fn meant(asked: &str, all: &[Series]) -> String {
    let known = names(all);
    let spelled = || known.iter().find(|name| name.replace('/', "_") == asked);
    known.iter().find(|name| *name == asked).or_else(spelled).map_or_else(|| asked.to_string(), String::clone)
}

fn names(all: &[Series]) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    for name in all.iter().flat_map(Series::names) {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    known
}

fn unknown(metric: &str, all: &[Series], across: Across) -> Error {
    let known = names(all);
    if known.is_empty() {
        return Error::value("no run has logged a number yet").hint("their metrics.jsonl hold no steps");
    }
    match known.iter().any(|name| name == metric) {
        true => Error::value(format!("`{metric}` has no finite value over {}", across.title()))
            .hint("choose another axis with --x: step, seconds or sampled"),
        false => Error::unknown("metric", metric, &known),
    }
}

/// Without what a picture or a terminal could obey.
fn plain(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests;
