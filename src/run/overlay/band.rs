//! Several runs as one curve: the mean and the range of their values, where all of them have one.
//! Owns no reading and no drawing.

use super::series::Point;

/// Places between the ends at which curves over a clock or a count are compared.
const PLACES: usize = 200;

/// The values of all runs at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub x: f64,
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// The curves of runs that belong together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Band {
    /// From left to right; not finite where a value of a run is not.
    pub spread: Vec<Spread>,
    /// Stretches of single runs, where others have no value.
    pub alone: Vec<Vec<Point>>,
}

impl Band {
    /// Of curves over steps, which the runs share.
    pub fn over_steps(curves: &[Vec<Point>]) -> Self {
        let at = |curve: &[Point], x: f64| {
            let place = curve.binary_search_by(|point| point.0.total_cmp(&x)).ok();
            place.map(|i| curve[i].1)
        };
        let places = curves.first().map(|first| first.iter().map(|point| point.0).collect()).unwrap_or_default();
        Self::at(curves, places, at)
    }

    /// Of curves over what no two runs share, seconds for instance: between its points a curve is the line that is drawn.
    pub fn over_any(curves: &[Vec<Point>]) -> Self {
        let ends = curves.iter().map(|curve| Some((curve.first()?.0, curve.last()?.0)));
        let ends = ends.reduce(|a, b| a.zip(b).map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)))).flatten();
        let places = match ends {
            Some((low, high)) if high > low => {
                (0..=PLACES).map(|i| low + (high - low) * i as f64 / PLACES as f64).collect()
            }
            _ => Vec::new(),
        };
        Self::at(curves, places, between)
    }

    fn at(curves: &[Vec<Point>], places: Vec<f64>, value: impl Fn(&[Point], f64) -> Option<f64>) -> Self {
        // Nothing to compare: the curve is what was logged, whatever the order of its places.
        if let [only] = curves {
            return Self { spread: only.iter().map(|(x, y)| spread(*x, &[*y])).collect(), alone: Vec::new() };
        }
        let spread = places.into_iter().filter_map(|x| {
            let values = curves.iter().map(|curve| value(curve, x)).collect::<Option<Vec<f64>>>()?;
            Some(spread(x, &values))
        });
        let spread: Vec<Spread> = spread.collect();
        let alone = curves.iter().flat_map(|curve| outside(curve, &spread)).collect();
        Self { spread, alone }
    }

    /// Every value that is drawn.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        let ends = self.spread.iter().flat_map(|at| [(at.x, at.low), (at.x, at.mean), (at.x, at.high)]);
        ends.chain(self.alone.iter().flatten().copied())
    }
}

fn spread(x: f64, values: &[f64]) -> Spread {
    if values.iter().any(|y| !y.is_finite()) {
        return Spread { x, mean: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(*y), high.max(*y)));
    // Shares of each: the sum of finite numbers may not be finite.
    let mean = values.iter().map(|y| y / values.len() as f64).sum::<f64>();
    Spread { x, mean: mean.clamp(low, high), low, high }
}

/// The value on the line between two points.
fn between(curve: &[Point], x: f64) -> Option<f64> {
    let after = curve.partition_point(|point| point.0 < x);
    let &(right, high) = curve.get(after)?;
    if right == x {
        return Some(high);
    }
    let (left, low) = *curve.get(after.checked_sub(1)?)?;
    let share = (x - left) / (right - left);
    Some(low * (1.0 - share) + high * share)
}

/// What a curve has before and behind the stretch that all have, with the end of that stretch to begin from.
fn outside(curve: &[Point], shared: &[Spread]) -> Vec<Vec<Point>> {
    let (Some(first), Some(last)) = (shared.first(), shared.last()) else { return vec![curve.to_vec()] };
    let before = curve.partition_point(|point| point.0 < first.x);
    let behind = curve.partition_point(|point| point.0 <= last.x);
    let mut parts = Vec::new();
    if before > 0 {
        parts.push(curve[..curve.len().min(before + 1)].to_vec());
    }
    if behind < curve.len() {
        parts.push(curve[behind.saturating_sub(1)..].to_vec());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(band: &Band, i: usize) -> [f64; 4] {
        let Spread { x, mean, low, high } = band.spread[i];
        [x, mean, low, high]
    }

    #[test]
    fn mean_and_range_are_those_of_the_runs() {
        let band = Band::over_steps(&[
            vec![(1.0, 1.0), (2.0, 4.0)],
            vec![(1.0, 2.0), (2.0, 4.0)],
            vec![(1.0, 6.0), (2.0, 7.0)],
        ]);
        assert_eq!((band.spread.len(), band.alone.len()), (2, 0));
        assert!((band.spread[0].mean - 3.0).abs() < 1e-12 && (band.spread[1].mean - 5.0).abs() < 1e-12);
        assert_eq!((at(&band, 0)[2], at(&band, 0)[3]), (1.0, 6.0));
    }

    #[test]
    fn where_a_run_has_no_value_there_is_no_mean_and_the_others_stand_alone() {
        let short = vec![(1.0, 1.0), (2.0, 3.0)];
        let long = vec![(1.0, 3.0), (2.0, 5.0), (3.0, 7.0), (4.0, 9.0)];
        for curves in [[short.clone(), long.clone()], [long, short]] {
            let band = Band::over_steps(&curves);
            assert_eq!([at(&band, 0), at(&band, 1)], [[1.0, 2.0, 1.0, 3.0], [2.0, 4.0, 3.0, 5.0]]);
            assert_eq!((band.spread.len(), &band.alone), (2, &vec![vec![(2.0, 5.0), (3.0, 7.0), (4.0, 9.0)]]));
        }
        let apart = Band::over_steps(&[vec![(1.0, 1.0)], vec![(2.0, 2.0)]]);
        assert_eq!((apart.spread.len(), apart.alone.len()), (0, 2));
    }

    #[test]
    fn what_is_not_finite_is_a_gap_of_the_mean() {
        let band = Band::over_steps(&[vec![(1.0, 1.0), (2.0, f64::NAN)], vec![(1.0, 1.0), (2.0, 2.0)]]);
        assert!(band.spread[0].mean == 1.0 && band.spread[1].mean.is_nan() && band.spread[1].high.is_nan());
        let large = Band::over_steps(&[vec![(1.0, f64::MAX)], vec![(1.0, f64::MAX)]]);
        assert_eq!(large.spread[0].mean, f64::MAX);
    }

    #[test]
    fn curves_over_a_clock_are_compared_where_both_have_begun_and_neither_has_ended() {
        let band = Band::over_any(&[vec![(0.0, 0.0), (4.0, 8.0)], vec![(2.0, 1.0), (6.0, 1.0)]]);
        assert_eq!(at(&band, 0), [2.0, 2.5, 1.0, 4.0]);
        assert_eq!(at(&band, PLACES), [4.0, 4.5, 1.0, 8.0]);
        assert_eq!(band.alone, [vec![(0.0, 0.0), (4.0, 8.0)], vec![(2.0, 1.0), (6.0, 1.0)]]);
        let only = Band::over_any(&[vec![(0.5, 1.0), (0.75, 2.0)]]);
        assert_eq!([at(&only, 0), at(&only, 1)], [[0.5, 1.0, 1.0, 1.0], [0.75, 2.0, 2.0, 2.0]]);
        let back = vec![vec![(3.0, 1.0), (1.0, 2.0)]];
        for band in [Band::over_steps(&back), Band::over_any(&back)] {
            assert_eq!((band.spread.len(), band.alone.len()), (2, 0), "a curve by itself has no band to leave");
        }
    }
}
