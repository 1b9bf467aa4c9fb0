//! Which curves stand together: those of one group of the table of names, then the script's own, each by itself or with
//! those that begin alike before a `/`. Owns no drawing (`plot.rs`).

use crate::run::line::Line;
use crate::run::names;
use std::collections::BTreeMap;

/// The numbers of one name over the steps; some may not be finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Curves over one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    pub title: String,
    pub curves: Vec<Curve>,
}

/// The panels of everything that has at least one finite value, in the table's order; then the others in the order in which
/// they were first logged.
pub fn of(lines: &[Line]) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut curves = curves(lines);
    curves.retain(|curve| curve.points.iter().any(|(_, y)| y.is_finite()));
    let known = |curve: &Curve| names::TABLE.iter().position(|known| known.name == curve.name);
    curves.sort_by_key(|curve| known(curve).unwrap_or(names::TABLE.len()));
    for curve in curves {
        let title = match names::find(&curve.name) {
            Some(known) => match known.panel {
                Some(title) => title.to_string(),
                None => continue,
            },
            None => match curve.name.split_once('/') {
                Some((group, _)) => format!("{group}/…"),
                None => curve.name.clone(),
            },
        };
        // A name of one's own may be called like a group of the table; both are the same panel then.
        let place = *places.entry(title.clone()).or_insert_with(|| {
            panels.push(Panel { title, curves: Vec::new() });
            panels.len() - 1
        });
        panels[place].curves.push(curve);
    }
    panels
}

/// All numbers by their names, in the order in which these were first logged.
pub fn curves(lines: &[Line]) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        for (name, value) in line.numbers() {
            let place = *places.entry(name).or_insert_with(|| {
                curves.push(Curve { name: name.to_string(), points: Vec::new() });
                curves.len() - 1
            });
            curves[place].points.push((line.step as f64, value));
        }
    }
    curves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::metrics::Metrics;

    #[test]
    fn every_name_has_a_place_and_those_that_begin_alike_share_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut metrics = Metrics::create(&crate::files::anywhere(dir.path()).join("metrics.jsonl")).expect("a file");
        for step in 1..=3 {
            metrics.advance(step).expect("step");
            for name in ["mine", "part/a", "reward", "approx_kl", "part/b", "kl_ref", "yours"] {
                metrics.log(name, step as f64);
            }
            metrics.log("nothing", f64::NAN);
        }
        metrics.finish().expect("written");
        let found = of(metrics.lines());
        let found: Vec<(&str, Vec<&str>)> = found
            .iter()
            .map(|panel| (panel.title.as_str(), panel.curves.iter().map(|curve| curve.name.as_str()).collect()))
            .collect();
        let expected = [
            ("reward", vec!["reward"]),
            ("divergence (nats per token)", vec!["kl_ref", "approx_kl"]),
            ("seconds so far", vec!["seconds"]),
            ("mine", vec!["mine"]),
            ("part/…", vec!["part/a", "part/b"]),
            ("yours", vec!["yours"]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_name_of_the_table_is_drawn() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut metrics = Metrics::create(&crate::files::anywhere(dir.path()).join("metrics.jsonl")).expect("a file");
        metrics.advance(1).expect("step");
        let drawn = || names::TABLE.iter().filter(|known| known.name != "step" && known.name != "seconds");
        drawn().for_each(|known| metrics.log(known.name, 1.0));
        metrics.finish().expect("written");
        let panels = of(metrics.lines());
        for known in drawn() {
            let panel = panels.iter().find(|panel| panel.curves.iter().any(|curve| curve.name == known.name));
            assert_eq!(panel.map(|panel| panel.title.as_str()), known.panel, "{}", known.name);
        }
    }
}
