//! The surrogates of policy optimisation along the line from the old weights to the updated ones: a picture of what
//! `examples/surrogates.rhai` logs.

use crate::Result;
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// What the command line calls it, and the script.
pub const NAME: &str = "surrogates";
pub const TITLE: &str = "What the surrogates see of a step";

/// A curve's name in the script, what the legend says, its ink.
const CURVES: [(&str, &str, RGBColor); 4] = [
    ("cpi", "E[ratio·A]", RGBColor(31, 89, 160)),
    ("clipped", "clipped", RGBColor(214, 110, 30)),
    ("penalised", "E[ratio·A] − beta·KL(old ‖ new)", RGBColor(60, 140, 70)),
    ("kl", "KL(old ‖ new)", RGBColor(120, 120, 120)),
];

/// The part of the page.
pub fn section(lines: &[Line]) -> String {
    let at = |place: f64| lines.iter().min_by(|a, b| apart(a, place).total_cmp(&apart(b, place)));
    let best = |name: &str| lines.iter().max_by(|a, b| value(a, name).total_cmp(&value(b, name)));
    let number = |line: Option<&Line>, name: &str| line.map_or(f64::NAN, |line| value(line, name));
    format!(
        "\n## {TITLE}\n\n\
         As figure 2 of the PPO paper (Schulman et al. 2017, [arXiv:1707.06347](https://arxiv.org/abs/1707.06347)): `tiny` takes one\n\
         update, a pass of `ppo` over a batch of 1,024 answers, and the surrogates are computed on that batch along the straight\n\
         line through the old weights, at 0, and the updated ones, at 1: `average([old, policy], [1 - at, at])`, in\n\
         [examples/surrogates.rhai](../examples/surrogates.rhai).\n\n\
         ![surrogates along the line from the old weights to the updated ones](results/surrogates.svg)\n\n\
         - The surrogate of conservative policy iteration, E[ratio·A], is what [cpi](algorithms/cpi.md) and\n  \
         [trpo](algorithms/trpo.md) raise: {:+.3} at 1. Of the places shown it is largest at {:.2}, {:.2} nats per token from the old\n  \
         policy: the samples hardly tell how far they have been left.\n\
         - The clipped one is a lower bound of it, the same to first order at 0. It is largest at {:.2}, {:.3} nats away: beyond, what\n  \
         the clip holds back weighs more than what is gained. At 1 the ratio of {:.0} % of the tokens is outside of the clip.\n\
         - With a penalty of weight 1 on the divergence, exact over the vocabulary, it is largest at {:.2}. The divergence at 1 is\n  \
         {:.4} nats per token, and grows about as the square of the distance: [trpo](algorithms/trpo.md) bounds it,\n  \
         [ppo_penalty](algorithms/ppo_penalty.md) weighs it.\n",
        number(at(1.0), "cpi"),
        number(best("cpi"), "at"),
        number(best("cpi"), "kl"),
        number(best("clipped"), "at"),
        number(best("clipped"), "kl"),
        100.0 * number(at(1.0), "outside"),
        number(best("penalised"), "at"),
        number(at(1.0), "kl"),
    )
}

type Line = BTreeMap<String, f64>;

fn value(line: &Line, name: &str) -> f64 {
    line.get(name).copied().unwrap_or(f64::NAN)
}

fn apart(line: &Line, place: f64) -> f64 {
    (value(line, "at") - place).abs()
}

/// All curves in one picture.
pub fn write(lines: &[Line], path: &Path) -> Result<()> {
    let all = || CURVES.iter().flat_map(|(name, ..)| lines.iter().map(|line| value(line, name)));
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    let margin = (high - low) * 0.06;
    let ends = |of: fn(f64, f64) -> f64, start| lines.iter().map(|line| value(line, "at")).fold(start, of);
    let area = SVGBackend::new(path, (640, 380)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(ends(f64::min, f64::MAX)..ends(f64::max, f64::MIN), (low - margin)..(high + margin))?;
    chart
        .configure_mesh()
        .x_desc("from the old weights, 0, to the updated ones, 1")
        .x_labels(7)
        .y_labels(7)
        .x_label_formatter(&|x| format!("{x:.2}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .draw()?;
    for place in [0.0, 1.0] {
        chart.draw_series(LineSeries::new([(place, low - margin), (place, high + margin)], RGBColor(190, 190, 190)))?;
    }
    for (name, title, ink) in CURVES {
        let points = lines.iter().map(|line| (value(line, "at"), value(line, name)));
        chart
            .draw_series(LineSeries::new(points, ink.stroke_width(2)))?
            .label(title)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], ink.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    Ok(())
}
