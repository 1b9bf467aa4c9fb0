//! The numbers of a run as points: a metric over steps, seconds or sampled tokens, smoothed or not.
//! Owns no grouping of runs and no drawing.

use crate::error::Result;
use crate::files::{self, Location};
use crate::run::edit;
use crate::run::folder::METRICS;
use crate::run::logged;
use serde_json::{Map, Value};

/// What a curve runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Across {
    Step,
    Seconds,
    /// Tokens sampled so far.
    Sampled,
}

impl Across {
    fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Seconds => "seconds",
            Self::Sampled => "sampled",
        }
    }

    /// What stands below the axis.
    pub fn title(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Seconds => "seconds",
            Self::Sampled => "tokens sampled",
        }
    }
}

/// A place and a value, which may not be finite.
pub type Point = (f64, f64);

/// What one run has logged, line by line.
#[derive(Debug, Clone)]
pub struct Series {
    lines: Vec<Map<String, Value>>,
}

impl Series {
    /// Reads the metrics in the folder of a run; how many of its lines could not be read is `Summary`'s to say.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(folder: &Location) -> Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&files::bytes(&folder.join(METRICS))?)))
    }

    fn parse(text: &str) -> Self {
        Self { lines: logged::lines(text).flatten().filter(|line| !edit::is_event(line)).collect() }
    }

    /// The names of numbers, in the order in which they came up.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, value) in self.lines.iter().flatten() {
            if is_number(value) && name != Across::Step.name() && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// A metric, from left to right; of two values at one place the later one counts. Lines without the metric are no
    /// points; tokens are those of the last line that says them.
    pub fn points(&self, name: &str, across: Across) -> Vec<Point> {
        let (mut points, mut last) = (Vec::<Point>::new(), None);
        for line in &self.lines {
            last = line.get(across.name()).and_then(Value::as_f64).or(last.filter(|_| across == Across::Sampled));
            let value = line.get(name).filter(|value| is_number(value));
            let (Some(x), Some(value)) = (last, value) else { continue };
            let point = (x, value.as_f64().unwrap_or(f64::NAN));
            match points.last_mut() {
                Some(before) if before.0 == x => *before = point,
                _ => points.push(point),
            }
        }
        points
    }
}

/// What is not finite stands in the file as `null`.
fn is_number(value: &Value) -> bool {
    value.is_number() || value.is_null()
}

/// Each value as the mean of those up to `window / 2` places before and after it. What is not finite stays, and counts for no
/// other.
pub fn smoothed(points: &[Point], window: usize) -> Vec<Point> {
    let half = window / 2;
    let mean = |i: usize| {
        let near = &points[i.saturating_sub(half)..points.len().min(i + half + 1)];
        let finite: Vec<f64> = near.iter().map(|point| point.1).filter(|y| y.is_finite()).collect();
        finite.iter().sum::<f64>() / finite.len() as f64
    };
    let point = |(i, &(x, y)): (usize, &Point)| (x, if y.is_finite() { mean(i) } else { y });
    points.iter().enumerate().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\"step\":0,\"seconds\":0.5,\"eval\":0.25}\n\
        {\"step\":1,\"seconds\":1.5,\"loss\":2.0,\"sampled\":10}\n\
        {\"step\":1,\"event\":\"edit\",\"line\":\"3\"}\n\
        {\"step\":2,\"seconds\":2.5,\"loss\":null,\"sampled\":30}\n\
        {\"step\":3,\"seconds\":3.5,\"loss\":4.0,\"eval\":0.75}\n\
        {\"step\":4,\"seco";

    #[test]
    fn points_are_those_of_lines_with_the_number() {
        let series = Series::parse(TEXT);
        assert_eq!(series.names(), ["seconds", "eval", "loss", "sampled"]);
        assert_eq!(series.points("eval", Across::Step), [(0.0, 0.25), (3.0, 0.75)]);
        assert_eq!(series.points("eval", Across::Sampled), [(30.0, 0.75)], "nothing is known of the first");
        let loss = series.points("loss", Across::Seconds);
        assert_eq!((loss.len(), loss[0], loss[1].1.is_nan(), loss[2]), (3, (1.5, 2.0), true, (3.5, 4.0)));
        assert!(series.points("event", Across::Step).is_empty());
    }

    #[test]
    fn smoothing_takes_the_mean_of_neighbours_and_keeps_gaps() {
        let points = [(0.0, 1.0), (1.0, 2.0), (2.0, 6.0), (3.0, f64::NAN), (4.0, 8.0)];
        let smooth = smoothed(&points, 3);
        assert_eq!([smooth[0].1, smooth[1].1, smooth[2].1, smooth[4].1], [1.5, 3.0, 4.0, 8.0]);
        assert!(smooth[3].1.is_nan());
        assert_eq!(smoothed(&points[..3], 1), &points[..3]);
    }
}
