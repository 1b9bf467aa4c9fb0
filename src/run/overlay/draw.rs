//! Curves of several runs over one another, with bands: a panel for each metric, one legend below all.
//! Owns the drawing; what a curve holds is `band.rs`'s.

use super::band::{Band, Spread};
use super::series::Point;
use crate::error::Result;
use crate::run::plot::{Area, Axis, FEW, INKS, MARGIN, MOST_CURVES, failed, range, thinned};
use crate::run::scale::Scale;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

/// Curves of a picture: each ink once as a line and once in dashes.
pub const MOST: usize = 2 * MOST_CURVES;
/// Of a panel, by how many there are: alone, in two columns, in three.
const SIZES: [(u32, u32); 3] = [(760, 400), (520, 320), (440, 280)];
/// Width of a letter of the legend, about, and letters of a line of it.
const LETTER: usize = 7;
const LONGEST: usize = 100;
/// The line before them.
const SAMPLE: i32 = 26;
const ROW: u32 = 20;
const BORDER: u32 = 12;
const SMALL: i32 = 12;
/// How much of a band's ink is seen.
const SHADE: f64 = 0.16;
/// Ink of what stands alone beside a mean.
const FAINT: f64 = 0.55;
/// Along the axis, at most.
const LABELS: usize = 6;
const GREY: RGBColor = RGBColor(90, 90, 90);

/// A metric.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    pub title: String,
    /// One for each line of the legend; empty where the runs have not logged the metric.
    pub curves: Vec<Band>,
}

/// All that is drawn.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// What stands below the axes.
    pub across: &'static str,
    /// Whether these places are whole numbers.
    pub whole: bool,
    pub panels: Vec<Panel>,
    /// What curves are called, in all panels.
    pub legend: Vec<String>,
    /// Lines of text below.
    pub notes: Vec<String>,
}

/// The picture as a text.
///
/// # Errors
/// A drawing that fails.
pub fn svg(picture: &Picture) -> Result<String> {
    let (columns, (width, height)) = match picture.panels.len() {
        0 | 1 => (1, SIZES[0]),
        2..=4 => (2, SIZES[1]),
        _ => (3, SIZES[2]),
    };
    let rows = picture.panels.len().div_ceil(columns).max(1);
    let (width, above) = (width * columns as u32, height * rows as u32);
    let legend: Vec<String> = picture.legend.iter().map(|label| cut(label)).collect();
    let longest = legend.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let entry = SAMPLE as u32 + 14 + (LETTER * longest) as u32;
    let abreast = ((width - 2 * BORDER) / entry).max(1) as usize;
    let lines = (legend.len().div_ceil(abreast) + picture.notes.len()) as u32;
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (width, above + lines * ROW + BORDER)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let (all, below) = area.split_vertically(above);
    for (area, panel) in all.split_evenly((rows, columns)).iter().zip(&picture.panels) {
        draw(area, panel, picture)?;
    }
    for (i, label) in legend.iter().enumerate() {
        let x = BORDER as i32 + (i % abreast) as i32 * entry as i32;
        let y = (i / abreast) as i32 * ROW as i32 + ROW as i32 / 2;
        line(&below, i, vec![(x, y), (x + SAMPLE, y)])?;
        below.draw(&Text::new(label.clone(), (x + SAMPLE + 6, y - 7), ("sans-serif", SMALL))).map_err(failed)?;
    }
    for (i, note) in picture.notes.iter().enumerate() {
        let y = (legend.len().div_ceil(abreast) + i) as i32 * ROW as i32 + 4;
        let style = ("sans-serif", SMALL).into_font().color(&GREY);
        below.draw(&Text::new(note.clone(), (BORDER as i32, y), style)).map_err(failed)?;
    }
    area.present().map_err(failed)?;
    drop((all, below, area));
    Ok(svg)
}

fn cut(label: &str) -> String {
    let shown: String = label.chars().take(LONGEST).collect();
    if label.chars().nth(LONGEST).is_some() { shown + "…" } else { shown }
}

/// A piece of the curve at this place of the legend.
fn line(area: &Area<'_>, place: usize, points: Vec<(i32, i32)>) -> Result<()> {
    let ink = INKS[place % MOST_CURVES].stroke_width(2);
    match place < MOST_CURVES {
        true => area.draw(&PathElement::new(points, ink)).map_err(failed),
        false => area.draw(&DashedPathElement::new(points, DASH, GAP, ink)).map_err(failed),
    }
}

const DASH: i32 = 6;
const GAP: i32 = 4;

fn draw(area: &Area<'_>, panel: &Panel, picture: &Picture) -> Result<()> {
    let points = || panel.curves.iter().flat_map(Band::points).filter(|(_, y)| y.is_finite());
    let (x0, x1) = range(points().map(|point| point.0));
    let scale = Scale::of(points().map(|point| point.1));
    let beyond = points().filter(|(_, y)| scale.is_beyond(*y)).count();
    let ticks = scale.ticks();
    let label = |place: &f64| {
        let near = |a: &&(f64, String), b: &&(f64, String)| (a.0 - place).abs().total_cmp(&(b.0 - place).abs());
        ticks.iter().min_by(near).map_or_else(String::new, |(_, text)| text.clone())
    };
    let values = if beyond == 1 { "value" } else { "values" };
    let more = if beyond > 0 { format!(" · {beyond} {values} beyond") } else { String::new() };
    let labels = if picture.whole { LABELS.min((x1 - x0) as usize + 1) } else { LABELS };
    // Enough to tell the labels apart.
    let digits = if picture.whole { 0 } else { (1.0 - (x1 - x0).log10().floor()).clamp(0.0, 9.0) as usize };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}{more}", panel.title), ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(x0..x1, Axis { places: ticks.iter().map(|(place, _)| *place).collect(), above: MARGIN })
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(picture.across)
        .x_labels(labels)
        .x_label_formatter(&|x| format!("{x:.digits$}"))
        .y_label_formatter(&label)
        .label_style(("sans-serif", SMALL))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .draw()
        .map_err(failed)?;
    // Bands first, so that none covers a line.
    for (i, band) in panel.curves.iter().enumerate() {
        let ink = INKS[i % MOST_CURVES].mix(SHADE);
        for part in finite(&band.spread) {
            let low = thinned(&part.iter().map(|at| (at.x, at.low)).collect::<Vec<_>>());
            let high = thinned(&part.iter().map(|at| (at.x, at.high)).collect::<Vec<_>>());
            let around = low.into_iter().chain(high.into_iter().rev()).map(|(x, y)| (x, scale.place(y)));
            chart.draw_series(std::iter::once(Polygon::new(around.collect::<Vec<_>>(), ink))).map_err(failed)?;
        }
    }
    for (i, band) in panel.curves.iter().enumerate() {
        let ink = INKS[i % MOST_CURVES];
        let placed =
            |points: &[Point]| thinned(points).into_iter().map(|(x, y)| (x, scale.place(y))).collect::<Vec<_>>();
        for part in band.alone.iter().flat_map(|part| part.split(|(_, y)| !y.is_finite())).filter(|p| !p.is_empty()) {
            let thin = ink.mix(FAINT);
            chart.draw_series(LineSeries::new(placed(part), thin.stroke_width(1))).map_err(failed)?;
            if part.len() == 1 {
                chart
                    .draw_series(placed(part).into_iter().map(|p| Circle::new(p, 2, thin.filled())))
                    .map_err(failed)?;
            }
        }
        for part in finite(&band.spread) {
            let mean = placed(&part.iter().map(|at| (at.x, at.mean)).collect::<Vec<_>>());
            if band.spread.len() <= FEW || part.len() == 1 {
                chart.draw_series(mean.iter().map(|p| Circle::new(*p, 3, ink.filled()))).map_err(failed)?;
            }
            let ink = ink.stroke_width(2);
            match i < MOST_CURVES {
                true => chart.draw_series(LineSeries::new(mean, ink)).map_err(failed)?,
                false => chart.draw_series(DashedLineSeries::new(mean, DASH, GAP, ink)).map_err(failed)?,
            };
        }
    }
    Ok(())
}

/// The stretches between places whose values are not finite.
fn finite(spread: &[Spread]) -> impl Iterator<Item = &[Spread]> {
    spread.split(|at| !at.mean.is_finite()).filter(|part| !part.is_empty())
}
