//! The numbers of a run as tables: the first and the last of every name, and the evaluations.

use super::cut::{Left, cut};
use crate::run::digits::short;
use crate::run::line::Line;
use crate::run::names::{self, EVAL};
use serde::Serialize;

/// Names that are listed, and letters of one.
const MOST_NAMES: usize = 200;
const NAME: usize = 100;
/// Rows and columns of the evaluations.
const MOST_ROWS: usize = 40;
const MOST_COLUMNS: usize = 6;

/// What a run did to one number.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    first: String,
    last: String,
    least: String,
    most: String,
    what: String,
}

/// Evaluations by step.
#[derive(Debug, Default, Serialize)]
pub(super) struct Evaluations {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A number of the page; what is not finite says so.
fn shown(x: f64) -> String {
    if x.is_finite() { short(x) } else { "not finite".into() }
}

/// Every name in the order of the table of names, then the script's own.
pub(super) fn of(lines: &[Line], left: &mut Left) -> Vec<Row> {
    let mut seen: Vec<(&str, [f64; 4])> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for line in lines {
        for (name, x) in line.numbers().filter(|(name, _)| *name != "seconds" && *name != "sampled") {
            let place = *places.entry(name).or_insert_with(|| {
                seen.push((name, [x, x, f64::INFINITY, f64::NEG_INFINITY]));
                seen.len() - 1
            });
            let [_, last, least, most] = &mut seen[place].1;
            *last = x;
            // A comparison with NaN keeps the other.
            (*least, *most) = (least.min(x), most.max(x));
        }
    }
    let order = |name: &str| names::TABLE.iter().position(|known| known.name == name).unwrap_or(names::TABLE.len());
    seen.sort_by_key(|(name, _)| order(name));
    left.more(seen.len().saturating_sub(MOST_NAMES), "name that was logged", "names that were logged");
    let row = |(name, [first, last, least, most]): (&str, [f64; 4])| Row {
        name: cut(name, NAME),
        first: shown(first),
        last: shown(last),
        least: shown(least),
        most: shown(most),
        what: names::find(name).map_or_else(String::new, |known| known.what.replace('`', "")),
    };
    seen.into_iter().take(MOST_NAMES).map(row).collect()
}

/// What was logged as `eval`, or as a name that begins so.
pub(super) fn evaluations(lines: &[Line], left: &mut Left) -> Evaluations {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in lines.iter().flat_map(Line::numbers) {
        if name.starts_with(EVAL) && !names.contains(&name) && names.len() < MOST_COLUMNS {
            names.push(name);
        }
    }
    let rows: Vec<&Line> = lines.iter().filter(|line| names.iter().any(|name| line.get(name).is_some())).collect();
    left.more(rows.len().saturating_sub(MOST_ROWS), "evaluation", "evaluations");
    let row = |line: &&Line| {
        let cells = names.iter().map(|name| line.get(name).map_or_else(String::new, shown));
        std::iter::once(line.step.to_string()).chain(cells).collect()
    };
    let head = std::iter::once("step".to_string()).chain(names.iter().map(|name| cut(name, NAME))).collect();
    Evaluations { head, rows: spread(rows.len(), MOST_ROWS).into_iter().map(|i| row(&rows[i])).collect() }
}

/// Places of `most` out of `count`, evenly, the first and the last among them.
fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| i * (count - 1) / (most - 1)).collect()
}

/// `4.2 s`, `3 min 5 s`, `1 h 2 min`, `3 d 4 h`.
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_are_among_those_that_are_shown() {
        assert_eq!(spread(3, 40), [0, 1, 2]);
        let few = spread(1000, 40);
        assert_eq!((few.len(), few[0], few[39]), (40, 0, 999));
        assert!(few.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn times_are_short() {
        let times = [4.23, 185.0, 3725.0, 90_000.0].map(clock);
        assert_eq!(times, ["4.2 s", "3 min 5 s", "1 h 2 min", "1 d 1 h"]);
    }
}
