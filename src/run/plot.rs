//! `curves.svg`: what a run's numbers did over its steps, one panel per quantity that was logged.

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::run::metrics::Metrics;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// A panel: its title and the metrics drawn in it.
const PANELS: [(&str, &[&str]); 6] = [
    ("reward", &["reward"]),
    ("divergence from the reference (nats per token)", &["kl", "divergence"]),
    ("length (tokens)", &["length"]),
    ("entropy (nats per token)", &["entropy"]),
    ("loss", &["loss"]),
    ("evaluation on held-out prompts", &["eval"]),
];

const WIDTH: u32 = 460;
const HEIGHT: u32 = 280;
const INK: RGBColor = RGBColor(31, 89, 160);

type Points = Vec<(f64, f64)>;

/// Writes the curves of everything that has at least one finite value; nothing is written if nothing has.
pub fn write(metrics: &Metrics, path: &Path) -> Result<bool> {
    let panels: Vec<(&str, Points)> = PANELS.iter().filter_map(|(title, names)| panel(metrics, title, names)).collect();
    if panels.is_empty() {
        return Ok(false);
    }
    let columns = if panels.len() == 1 { 1 } else { 2 };
    let rows = panels.len().div_ceil(columns);
    let mut svg = String::new();
    let size = (WIDTH * columns as u32, HEIGHT * rows as u32);
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    for (area, (title, points)) in area.split_evenly((rows, columns)).iter().zip(&panels) {
        draw(area, title, points)?;
    }
    area.present().map_err(failed)?;
    drop(area);
    files::write(path, svg)?;
    Ok(true)
}

fn panel<'a>(metrics: &Metrics, title: &'a str, names: &[&str]) -> Option<(&'a str, Points)> {
    let finite = |name: &&str| metrics.series(name).into_iter().filter(|(_, y)| y.is_finite()).collect::<Points>();
    let points = names.iter().map(finite).find(|points| !points.is_empty())?;
    Some((title, points))
}

fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, points: &Points) -> Result<()> {
    let ((x0, x1), (y0, y1)) = (range(points.iter().map(|p| p.0)), range(points.iter().map(|p| p.1)));
    let margin = (y1 - y0) * 0.06;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(58)
        .build_cartesian_2d(x0..x1, (y0 - margin)..(y1 + margin))
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_labels(6.min((x1 - x0) as usize + 1))
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| tick(*y, y1 - y0))
        .label_style(("sans-serif", 12))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .draw()
        .map_err(failed)?;
    chart.draw_series(LineSeries::new(points.iter().copied(), INK.stroke_width(2))).map_err(failed)?;
    // Few points make no curve that could be read: show where they are.
    if points.len() <= 20 {
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, INK.filled()))).map_err(failed)?;
    }
    Ok(())
}

/// The smallest and largest value, widened where they are the same so that an axis has a length.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    if high > low { (low, high) } else { (low - 0.5, high + 0.5) }
}

/// A number short enough for an axis of that length; rounding errors of the axis itself are zero.
fn tick(y: f64, span: f64) -> String {
    match y.abs() {
        a if a < span * 1e-9 => "0".to_string(),
        a if (0.01..10_000.0).contains(&a) => {
            let text = format!("{y:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
        _ => format!("{y:.1e}"),
    }
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::File, format!("cannot draw the curves: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(fill: impl FnOnce(&mut Metrics)) -> Option<String> {
        let dir = tempfile::tempdir().expect("a folder");
        let mut metrics = Metrics::create(&dir.path().join("metrics.jsonl")).expect("a file");
        fill(&mut metrics);
        metrics.finish().expect("written");
        let path = dir.path().join("curves.svg");
        write(&metrics, &path).expect("drawn").then(|| std::fs::read_to_string(path).expect("an SVG"))
    }

    #[test]
    fn panels_are_those_with_data() {
        let svg = drawn(|m| {
            for step in 1..=3 {
                m.advance(step).expect("step");
                m.log("reward", 0.1 * step as f64);
                m.log("entropy", f64::NAN);
            }
        });
        let svg = svg.expect("there is data");
        assert!(svg.contains("reward") && svg.contains("step"), "{svg}");
        assert!(!svg.contains("entropy"), "a panel without finite values");
    }

    #[test]
    fn nothing_logged_draws_nothing() {
        assert_eq!(drawn(|m| m.log("own", 1.0)), None);
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            [tick(-5e-17, 1.0), tick(0.25, 1.0), tick(-12.5, 1.0), tick(2e-5, 1e-4)],
            ["0", "0.25", "-12.5", "2.0e-5"]
        );
    }
}
