//! A picture of how far methods go and what they gain: true reward and proxy against divergence.

use crate::Result;
use crate::rlhf::Point;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::path::Path;

const INKS: [RGBColor; 5] = [
    RGBColor(31, 89, 160),
    RGBColor(214, 110, 30),
    RGBColor(60, 140, 70),
    RGBColor(150, 60, 150),
    RGBColor(120, 95, 70),
];

/// Each method with its paths, one per seed.
type Paths = [(&'static str, Vec<Vec<Point>>)];

/// Two panels side by side: a thin line for each seed, a thick one with a point for each run's mean.
pub fn write(paths: &Paths, path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, (900, 380)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(450);
    panel(&left, paths, "true reward", |p| p.truth)?;
    // Scores rise, so there is room below them.
    let mut scores = panel(&right, paths, "proxy: the reward model's score", |p| p.proxy)?;
    scores
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    Ok(())
}

type Panel<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    paths: &Paths,
    title: &str,
    of: fn(&Point) -> f64,
) -> Result<Panel<'a>> {
    let points = || paths.iter().flat_map(|(_, seeds)| seeds.iter().flatten());
    let far = points().map(|p| p.divergence).fold(0.0, f64::max);
    let (low, high) = points().map(of).fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    let margin = ((high - low) * 0.06).max(0.01);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..far * 1.03 + 0.01, (low - margin)..(high + margin))?;
    chart
        .configure_mesh()
        .x_desc("KL(policy ‖ start), nats per answer")
        .x_labels(7)
        .y_labels(7)
        .x_label_formatter(&|x| format!("{x:.1}"))
        .y_label_formatter(&|y| format!("{:.2}", (y * 100.0).round() / 100.0 + 0.0))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .draw()?;
    for ((name, seeds), ink) in paths.iter().zip(INKS) {
        for seed in seeds {
            let line = seed.iter().map(|p| (p.divergence, of(p)));
            chart.draw_series(LineSeries::new(line, ink.mix(0.3).stroke_width(1)))?;
        }
        let mean = |at: usize, of: &dyn Fn(&Point) -> f64| {
            seeds.iter().map(|seed| of(&seed[at])).sum::<f64>() / seeds.len() as f64
        };
        let length = seeds.iter().map(Vec::len).min().unwrap_or(0);
        let line: Vec<(f64, f64)> = (0..length).map(|at| (mean(at, &|p| p.divergence), mean(at, &of))).collect();
        chart.draw_series(line.iter().map(|&point| Circle::new(point, 4, ink.filled())))?;
        chart
            .draw_series(LineSeries::new(line, ink.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], ink.stroke_width(2)));
    }
    Ok(chart)
}
