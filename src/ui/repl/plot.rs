//! Curves in the terminal. Owns the frame around them; the dots are `textplots`'.

use crate::error::Error;
use textplots::{Chart, Plot, Shape};

/// Dots; a character has two across and four down.
const HEIGHT: u32 = 60;
const MOST_CURVES: usize = 8;

/// The lines of a plot of named curves over their places 0, 1, 2, …; values that are not finite leave gaps.
///
/// # Errors
/// No finite value at all.
pub fn lines(curves: &[(String, Vec<f64>)], width: usize) -> Result<Vec<String>, Error> {
    let finite = |values: &[f64]| -> Vec<(f32, f32)> {
        values.iter().enumerate().filter(|(_, y)| y.is_finite()).map(|(x, y)| (x as f32, *y as f32)).collect()
    };
    let points: Vec<(&str, Vec<(f32, f32)>)> =
        curves.iter().take(MOST_CURVES).map(|(name, values)| (name.as_str(), finite(values))).collect();
    let all = points.iter().flat_map(|(_, points)| points);
    let (count, last) = all.clone().fold((0, 0.0_f32), |(n, last), (x, _)| (n + 1, last.max(*x)));
    if count == 0 {
        return Err(Error::value("there is nothing to draw: none of the numbers is finite"));
    }
    let (low, high) = all.fold((f32::MAX, f32::MIN), |(low, high), (_, y)| (low.min(*y), high.max(*y)));
    let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
    // Room for the numbers beside the frame.
    let across = (width.saturating_sub(14) as u32 * 2).clamp(40, 160);
    let mut chart = Chart::new_with_y_range(across, HEIGHT, 0.0, last.max(1.0), low, high);
    let shapes: Vec<Shape<'_>> = points
        .iter()
        .map(|(_, points)| if points.len() == 1 { Shape::Points(points) } else { Shape::Lines(points) })
        .collect();
    let mut drawn: &mut Chart<'_> = &mut chart;
    for shape in &shapes {
        drawn = drawn.lineplot(shape);
    }
    drawn.axis();
    drawn.figures();
    let mut lines: Vec<String> = drawn.to_string().lines().map(|line| line.trim_end().to_string()).collect();
    if curves.len() > 1 {
        let named: Vec<String> =
            points.iter().map(|(name, p)| format!("{name} {:.4} → {:.4}", first(p), end(p))).collect();
        lines.push(named.join("   "));
    }
    if curves.len() > MOST_CURVES {
        lines.push(format!("{} more curves are not shown", curves.len() - MOST_CURVES));
    }
    Ok(lines)
}

fn first(points: &[(f32, f32)]) -> f32 {
    points.first().map_or(f32::NAN, |p| p.1)
}

fn end(points: &[(f32, f32)]) -> f32 {
    points.last().map_or(f32::NAN, |p| p.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_fits_the_width_and_names_its_ends() {
        let rising: Vec<f64> = (0..50).map(|i| f64::from(i) * 0.1).collect();
        let drawn = lines(&[("reward".into(), rising)], 80).expect("drawn");
        assert!(drawn.len() > 10 && drawn.iter().all(|line| line.chars().count() <= 80), "{drawn:#?}");
        assert!(drawn.iter().any(|line| line.contains("4.9")), "{drawn:#?}");
        lines(&[("a".into(), vec![f64::NAN])], 80).expect_err("nothing to draw");
        lines(&[("a".into(), vec![1.0])], 80).expect("a point");
        assert!(
            lines(&[("a".into(), vec![1.0, 1.0]), ("b".into(), vec![2.0])], 80)
                .expect("two")
                .iter()
                .any(|l| l.contains("b 2.0"))
        );
    }
}
