//! `curves.svg`: what a run's numbers did over its steps. Owns the drawing; which curves stand together is `panels.rs`'s,
//! and what part of the axis they get `scale.rs`'s.

use crate::error::{Error, Kind, Result};
use crate::files::{self, Location};
use crate::run::edit::Mark;
use crate::run::line::Line;
use crate::run::panels::{self, Curve, Panel};
use crate::run::quote::visible;
use crate::run::scale::Scale;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;

const WIDTH: u32 = 460;
const HEIGHT: u32 = 260;
/// Lines of text below the panels.
const FOOT: u32 = 24;
/// More make no picture.
const MOST_PANELS: usize = 60;
pub(super) const MOST_CURVES: usize = 8;
/// Points of a curve: more could not be told apart.
const MOST_POINTS: usize = 800;
/// Few points make no curve that could be read: they are shown where they are.
pub(super) const FEW: usize = 20;
/// Letters of a name.
const NAME: usize = 40;
/// Between the labels of two marks, so that both can be read.
const LABEL: i32 = 36;
/// Between the lines of two marks: closer ones could not be told apart.
const APART: i32 = 2;
/// The ink of marks alone, by which their lines are found again to be dashed.
const MARKED: RGBColor = RGBColor(120, 120, 120);
const SOLID: &str = "stroke=\"#787878\"";
const DASHED: &str = "stroke=\"#787878\" stroke-dasharray=\"4\"";
/// Room above and below the curves, as a share of the axis.
pub(super) const MARGIN: f64 = 0.06;
/// Room for a name above the curves, and for all of them.
const LEGEND: f64 = 0.12;
const MOST_LEGEND: f64 = 0.5;
pub(super) const INKS: [RGBColor; MOST_CURVES] = [
    RGBColor(31, 89, 160),
    RGBColor(214, 110, 30),
    RGBColor(60, 140, 70),
    RGBColor(150, 60, 150),
    RGBColor(120, 95, 70),
    RGBColor(200, 60, 90),
    RGBColor(40, 150, 160),
    RGBColor(110, 110, 110),
];

/// The same inks on a dark page.
const DARK: [&str; MOST_CURVES] =
    ["#6aa5ee", "#f0954f", "#74c587", "#cf8bd0", "#c2a586", "#f27f9d", "#5fc6d2", "#b0b6bd"];

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The vertical axis: from 0 to 1, with room at both ends, and lines at these places.
pub(super) struct Axis {
    pub places: Vec<f64>,
    pub above: f64,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, limit: (i32, i32)) -> i32 {
        let share = (place + MARGIN) / (MARGIN + 1.0 + self.above);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.places.clone() }
    }

    fn range(&self) -> Range<f64> {
        -MARGIN..1.0 + self.above
    }
}

/// Writes the curves of everything that has at least one finite value; nothing is written if nothing has.
///
/// # Errors
/// A file that cannot be written.
pub fn write(lines: &[Line], marks: &[Mark], path: &Location) -> Result<bool> {
    let panels = panels::of(lines);
    if says_nothing(&panels) {
        return Ok(false);
    }
    let drawn = &panels[..panels.len().min(MOST_PANELS)];
    let columns = match drawn.len() {
        1 => 1,
        2..=4 => 2,
        _ => 3,
    };
    let rows = drawn.len().div_ceil(columns);
    let left_out = panels.len() - drawn.len();
    let mut svg = String::new();
    let size = (WIDTH * columns as u32, HEIGHT * rows as u32);
    let foot = if left_out > 0 { FOOT } else { 0 };
    let area = SVGBackend::with_string(&mut svg, (size.0, size.1 + foot)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let (all, below) = area.split_vertically(size.1);
    for (area, panel) in all.split_evenly((rows, columns)).iter().zip(drawn) {
        draw(area, panel, marks)?;
    }
    if left_out > 0 {
        let text = format!("{left_out} more panels are not drawn");
        below.draw(&Text::new(text, (10, 4), ("sans-serif", 14))).map_err(failed)?;
    }
    area.present().map_err(failed)?;
    drop((all, below, area));
    files::write(path, dashed(&svg))?;
    Ok(true)
}

/// Every panel as a picture of its own, and how many are not drawn.
///
/// # Errors
/// Numbers that cannot be drawn.
pub fn pictures(lines: &[Line], marks: &[Mark]) -> Result<(Vec<String>, usize)> {
    let panels = panels::of(lines);
    if says_nothing(&panels) {
        return Ok((Vec::new(), 0));
    }
    let picture = |panel: &Panel| {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        draw(&area, panel, marks)?;
        area.present().map_err(failed)?;
        drop(area);
        Ok(dashed(&svg))
    };
    let pictures = panels.iter().take(MOST_PANELS).map(picture).collect::<Result<_>>()?;
    Ok((pictures, panels.len().saturating_sub(MOST_PANELS)))
}

/// Gives the lines of marks their dashes, which the library draws one by one. No text holds such an attribute: there its
/// quotes are escaped.
fn dashed(svg: &str) -> String {
    svg.replace(SOLID, DASHED)
}

/// Rules that draw the pictures within `inside` on a dark page where the reader has one.
pub fn dark_style(inside: &str) -> String {
    let ink = |color: &RGBColor| format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2);
    let rule = |attribute: &str, from: &str, to: &str| {
        format!("  {inside} [{attribute}=\"{from}\"] {{ {attribute}: {to}; }}\n")
    };
    let plain = [("fill", "#FFFFFF", "#1b1e23"), ("fill", "#000000", "#dfe3e8"), ("stroke", "#000000", "#98a1ac")];
    let plain = plain.into_iter().chain([
        ("stroke", "#E4E4E4", "#30353c"),
        ("stroke", "#787878", "#98a1ac"),
        ("fill", "#787878", "#98a1ac"),
    ]);
    let mut rules: String = plain.map(|(attribute, from, to)| rule(attribute, from, to)).collect();
    for (from, to) in INKS.iter().zip(DARK) {
        rules.extend(["stroke", "fill"].map(|attribute| rule(attribute, &ink(from), to)));
    }
    format!("@media (prefers-color-scheme: dark) {{\n{rules}}}\n")
}

fn says_nothing(panels: &[Panel]) -> bool {
    panels.iter().flat_map(|panel| &panel.curves).all(|curve| curve.name == "seconds")
}

fn draw(area: &Area<'_>, panel: &Panel, marks: &[Mark]) -> Result<()> {
    let curves = &panel.curves[..panel.curves.len().min(MOST_CURVES)];
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|(_, y)| y.is_finite());
    // An edit of the step under way has no number yet.
    let (x0, x1) = range(points().map(|p| p.0).chain(marks.iter().map(|mark| mark.step as f64)));
    let scale = Scale::of(points().map(|p| p.1));
    let beyond = points().filter(|(_, y)| scale.is_beyond(*y)).count();
    let ticks = scale.ticks();
    let label = |place: &f64| {
        let near = |a: &&(f64, String), b: &&(f64, String)| (a.0 - place).abs().total_cmp(&(b.0 - place).abs());
        ticks.iter().min_by(near).map_or_else(String::new, |(_, text)| text.clone())
    };
    let places = ticks.iter().map(|(place, _)| *place).collect();
    let named = curves.len() > 1;
    let above = MARGIN + if named { (LEGEND * curves.len() as f64).min(MOST_LEGEND) } else { 0.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(title(panel, beyond), ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(x0..x1, Axis { places, above })
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_labels(6.min((x1 - x0) as usize + 1))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&label)
        .label_style(("sans-serif", 12))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .draw()
        .map_err(failed)?;
    let (mut drawn, mut labelled) = (i32::MIN, i32::MIN);
    for mark in marks {
        let ends = [(mark.step as f64, -MARGIN), (mark.step as f64, 1.0 + above)];
        let at = chart.backend_coord(&ends[0]).0;
        if at < drawn.saturating_add(APART) {
            continue;
        }
        drawn = at;
        chart.draw_series(LineSeries::new(ends, MARKED.stroke_width(1))).map_err(failed)?;
        if at >= labelled.saturating_add(LABEL) {
            labelled = at;
            let text = Text::new(mark.label.clone(), (3, -10), ("sans-serif", 10).into_font().color(&MARKED));
            chart.draw_series([EmptyElement::at(ends[0]) + text]).map_err(failed)?;
        }
    }
    for (curve, ink) in curves.iter().zip(INKS) {
        for part in parts(curve) {
            let placed = || part.iter().map(|(x, y)| (*x, scale.place(*y)));
            chart.draw_series(LineSeries::new(placed(), ink.stroke_width(2))).map_err(failed)?;
            if part.len() == 1 || curve.points.len() <= FEW {
                chart.draw_series(placed().map(|p| Circle::new(p, 3, ink.filled()))).map_err(failed)?;
            }
            let beyond = part.iter().filter(|(_, y)| scale.is_beyond(*y)).map(|(x, y)| (*x, scale.place(*y)));
            chart.draw_series(beyond.map(|p| Circle::new(p, 4, ink.stroke_width(1)))).map_err(failed)?;
        }
        let none = chart.draw_series(std::iter::empty::<Circle<(f64, f64), i32>>()).map_err(failed)?;
        none.label(shortened(&curve.name))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], ink.stroke_width(2)));
    }
    if named {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.7))
            .label_font(("sans-serif", 12))
            .draw()
            .map_err(failed)?;
    }
    Ok(())
}

/// The title, the name of the only curve, and what is not seen below.
fn title(panel: &Panel, beyond: usize) -> String {
    let more = panel.curves.len().saturating_sub(MOST_CURVES);
    let more = if more > 0 { format!(" · {more} more") } else { String::new() };
    let values = if beyond == 1 { "value" } else { "values" };
    let beyond = if beyond > 0 { format!(" · {beyond} {values} beyond") } else { String::new() };
    let name = match &panel.curves[..] {
        [only] if !panel.title.contains(&only.name) => format!(": {}", shortened(&only.name)),
        _ => String::new(),
    };
    format!("{}{name}{more}{beyond}", shortened(&panel.title))
}

pub(super) fn shortened(name: &str) -> String {
    let shown: String = name.chars().take(NAME).collect();
    let shown = visible(&shown).replace(['\n', '\t'], " ");
    if name.chars().nth(NAME).is_some() { shown + "…" } else { shown }
}

/// The stretches of a curve between values that are not finite.
fn parts(curve: &Curve) -> Vec<Vec<(f64, f64)>> {
    let points = thinned(&curve.points);
    let stretches = points.split(|(_, y)| !y.is_finite()).filter(|part| !part.is_empty());
    stretches.map(<[_]>::to_vec).collect()
}

/// The smallest and the largest of every few points, where there are too many. A gap among them that is shorter is closed.
pub(super) fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let ends = |few: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let finite: Vec<(f64, f64)> = few.iter().filter(|(_, y)| y.is_finite()).copied().collect();
        let few = if finite.is_empty() { &few[..1] } else { &finite[..] };
        let by = |pick: fn(&f64, &f64) -> bool| {
            (1..few.len()).fold(0, |i, j| if pick(&few[j].1, &few[i].1) { j } else { i })
        };
        let (low, high) = (by(|a, b| a < b), by(|a, b| a > b));
        let (first, second) = (low.min(high), low.max(high));
        if first == second { vec![few[first]] } else { vec![few[first], few[second]] }
    };
    points.chunks(points.len().div_ceil(MOST_POINTS / 2)).flat_map(ends).collect()
}

/// The first and the last step, apart where they are the same so that the axis has a length.
pub(super) fn range(steps: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = steps.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    if high > low { (low, high) } else { (low - 0.5, high + 0.5) }
}

pub(super) fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::File, format!("cannot draw the curves: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::metrics::Metrics;

    fn drawn(fill: impl FnOnce(&mut Metrics)) -> Option<String> {
        let dir = tempfile::tempdir().expect("a folder");
        let mut metrics = Metrics::create(&crate::files::anywhere(dir.path()).join("metrics.jsonl")).expect("a file");
        fill(&mut metrics);
        metrics.finish().expect("written");
        let path = files::anywhere(dir.path()).join("curves.svg");
        write(metrics.lines(), &[], &path).expect("drawn").then(|| std::fs::read_to_string(path).expect("an SVG"))
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
    fn nothing_finite_draws_nothing() {
        assert_eq!(drawn(|m| m.log("own", f64::NAN)), None);
        assert_eq!(drawn(|_| ()), None);
    }

    #[test]
    fn a_name_of_ones_own_is_drawn_and_is_no_markup() {
        let svg = drawn(|m| m.log("<script>alert(1)</script>\u{1b}[31m", 1.0)).expect("a point");
        assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;alert(1)"), "{svg}");
        assert!(!svg.contains('\u{1b}') && svg.contains("\\x1b[31m"), "{svg}");
    }

    #[test]
    fn every_panel_has_a_dashed_line_where_something_was_edited() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut metrics = Metrics::create(&files::anywhere(dir.path()).join("metrics.jsonl")).expect("a file");
        for step in 1..=9 {
            metrics.advance(step).expect("step");
            metrics.log("reward", step as f64);
            metrics.log("mine", step as f64);
        }
        metrics.finish().expect("written");
        let mark = |step: u64, label: &str| Mark { step, label: label.into() };
        let dashes = |svg: &str| svg.matches("stroke-dasharray").count();
        let labels = |svg: &str, label: &str| svg.matches(&format!("\n{label}\n")).count();
        let of = |marks: &[Mark]| pictures(metrics.lines(), marks).expect("drawn").0;
        for (plain, marked) in of(&[]).iter().zip(of(&[mark(5, "edit"), mark(9, "<pause>")])) {
            assert_eq!(dashes(plain), 0);
            assert!(dashes(&marked) == 2 && labels(&marked, "edit") == 1, "{marked}");
            assert_eq!(labels(&marked, "&lt;pause&gt;"), 1, "{marked}");
        }
        // As many as one likes: labels that would lie over each other are left out, the lines are not.
        let many: Vec<Mark> = (1..=9000).map(|step| mark(step, "edit")).collect();
        let svg = &of(&many)[0];
        assert!((5..15).contains(&labels(svg, "edit")) && dashes(svg) < 200, "{} {}", labels(svg, "edit"), dashes(svg));
    }

    #[test]
    fn a_long_curve_with_many_gaps_stays_small() {
        let points = (0..100_000_u32).map(|i| (f64::from(i), if i % 2 == 0 { f64::NAN } else { f64::from(i % 7) }));
        let curve = Curve { name: "mine".into(), points: points.collect() };
        let drawn: usize = parts(&curve).iter().map(Vec::len).sum();
        assert!((MOST_POINTS / 2..=MOST_POINTS).contains(&drawn), "{drawn}");
        let gap = |i: u32| if (30_000..60_000).contains(&i) { f64::NAN } else { 1.0 };
        let curve = Curve { name: "mine".into(), points: (0..100_000).map(|i| (f64::from(i), gap(i))).collect() };
        assert_eq!(parts(&curve).len(), 2, "a long gap is one");
    }

    #[test]
    fn numbers_of_any_size_and_a_gap_are_drawn() {
        let svg = drawn(|m| {
            for step in 1..=30 {
                m.advance(step).expect("step");
                m.log("loss", if step == 7 { f64::INFINITY } else { step as f64 });
                m.log("grad_norm", if step == 9 { 1e300 } else { step as f64 });
                m.log("wide", if step % 2 == 0 { f64::MAX } else { f64::MIN });
                m.log("tiny", 5e-324);
            }
        });
        let svg = svg.expect("there is data");
        assert!(svg.contains("1 value beyond") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn as_many_names_as_one_likes() {
        let svg = drawn(|m| (0..2000).for_each(|i| m.log(&format!("n{i}"), f64::from(i)))).expect("some");
        assert!(svg.contains("1941 more panels are not drawn"), "{}", svg.len());
        let svg = drawn(|m| (0..20).for_each(|i| m.log(&format!("all/n{i}"), f64::from(i)))).expect("some");
        assert!(svg.contains("all/… · 12 more"), "{svg}");
    }

    #[test]
    fn long_runs_keep_their_spikes() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), if i == 777 { 9.0 } else { 1.0 })).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS && thin.contains(&(777.0, 9.0)), "{}", thin.len());
    }
}
