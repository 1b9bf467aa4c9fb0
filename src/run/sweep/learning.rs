//! A search that learns: each trial is proposed by tree-structured Parzen estimators (the crate `tpe`) from the results of those
//! before it. What was proposed and what came of it is `trials.jsonl`, from which a sweep that was broken off goes on.
//!
//! The proposal of a trial depends on the seed, its number, and the results of trials that lie `ahead` before it: not on which
//! run ended first, nor on a sweep having been interrupted.

use super::plan::{Plan, Point, STREAM};
use super::space::{Axis, Values};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Location, Log};
use crate::tensor::rng::Key;
use rand::TryRng;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

const TRIALS: &str = "trials.jsonl";
/// Trials that are drawn at random first.
const FIRST: usize = 5;

/// The trials so far.
#[derive(Debug)]
pub struct Learning {
    plan: Plan,
    log: Log,
    asked: Vec<Asked>,
    /// Of trials in their order; none where no run of it has come to a number.
    told: Vec<Option<f64>>,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Asked(Asked),
    Told { trial: usize, mean: Option<f64> },
}

/// A proposal.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Asked {
    trial: usize,
    values: Point,
    /// Where the values lie, as the estimators know them.
    places: Vec<f64>,
}

/// What the lines of the file say.
#[derive(Debug, Default)]
struct Lines {
    asked: Vec<Asked>,
    told: Vec<Option<f64>>,
}

impl Lines {
    /// Of the lines that are whole: how many bytes they are, and what they say.
    fn read(path: &Location, plan: &Plan) -> Result<(u64, Self)> {
        let text = files::text(path)?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let mut lines = Self::default();
        let sound = text[..whole].lines().all(|line| lines.take(line, plan.axes.len()).is_some());
        match sound {
            true => Ok((whole as u64, lines)),
            false => Err(Error::file(format!("{} is not as the sweep left it", path.display()))
                .hint("put it back, or begin a new sweep")),
        }
    }

    fn take(&mut self, line: &str, axes: usize) -> Option<()> {
        match serde_json::from_str(line).ok()? {
            Entry::Asked(asked) => {
                let fits = asked.trial == self.asked.len() && asked.values.len() == axes && asked.places.len() == axes;
                fits.then(|| self.asked.push(asked))
            }
            Entry::Told { trial, mean } => {
                (trial == self.told.len() && trial < self.asked.len()).then(|| self.told.push(mean))
            }
        }
    }
}

impl Learning {
    /// Goes on with the trials in a sweep's folder. A line that was not whole is cut off.
    ///
    /// # Errors
    /// A file that cannot be read or written, or is none of these.
    pub fn open(folder: &Location, plan: &Plan) -> Result<Self> {
        let (path, plan) = (folder.join(TRIALS), plan.clone());
        if !files::is_file(&path) {
            return Ok(Self { plan, log: Log::create(&path)?, asked: Vec::new(), told: Vec::new() });
        }
        let (whole, Lines { asked, told }) = Lines::read(&path, &plan)?;
        Ok(Self { plan, log: Log::resume(&path, whole)?, asked, told })
    }

    /// The trials that a sweep has proposed so far, which may be going on.
    ///
    /// # Errors
    /// A file that cannot be read, or is none of these.
    pub fn look(folder: &Location, plan: &Plan) -> Result<Vec<Point>> {
        let path = folder.join(TRIALS);
        let lines = if files::is_file(&path) { Lines::read(&path, plan)?.1 } else { Lines::default() };
        Ok(lines.asked.into_iter().map(|asked| asked.values).collect())
    }

    /// The values of a trial, if it was proposed.
    pub fn point(&self, trial: usize) -> Option<&Point> {
        self.asked.get(trial).map(|asked| &asked.values)
    }

    /// The trials that were proposed.
    pub fn points(&self) -> Vec<Point> {
        self.asked.iter().map(|asked| asked.values.clone()).collect()
    }

    /// Trials whose results are known: the first ones.
    pub fn told(&self) -> usize {
        self.told.len()
    }

    /// Whether enough results are known to propose the next trial.
    pub fn is_ready(&self) -> bool {
        self.told.len() >= self.needed()
    }

    fn needed(&self) -> usize {
        (self.asked.len() + 1).saturating_sub(self.plan.ahead)
    }

    /// Takes the result of the trial after those that are told.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn tell(&mut self, mean: Option<f64>) -> Result<()> {
        let mean = mean.filter(|mean| mean.is_finite());
        self.write(&Entry::Told { trial: self.told.len(), mean })?;
        self.told.push(mean);
        Ok(())
    }

    /// Proposes the next trial.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn ask(&mut self) -> Result<()> {
        let trial = self.asked.len();
        let results = &self.told[..self.needed().min(self.told.len())];
        let mut asked = Asked { trial, values: Vec::new(), places: Vec::new() };
        for (i, axis) in self.plan.axes.iter().enumerate() {
            let key = Key::new(self.plan.seed).fold(STREAM).fold(trial as u64);
            let place = if trial < FIRST || !axis.varies() {
                key.uniform(i as u64) * width(axis)
            } else {
                let known =
                    self.asked.iter().zip(results).filter_map(|(asked, mean)| Some((asked.places[i], (*mean)?)));
                let sign = if self.plan.goal.maximize { -1.0 } else { 1.0 };
                let known = known.map(|(place, mean)| (place, sign * mean));
                proposed(axis, known, &mut Draws { key: key.fold(i as u64), next: 0 })?
            };
            asked.values.push(value(axis, place));
            asked.places.push(place);
        }
        self.write(&Entry::Asked(asked.clone()))?;
        self.asked.push(asked);
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> Result<()> {
        let text = serde_json::to_string(entry).map_err(|e| Error::file(format!("{TRIALS}: {e}")))?;
        self.log.line(&text)
    }
}

/// Places of an axis go from 0 to this: values of a list are a unit each.
fn width(axis: &Axis) -> f64 {
    match &axis.values {
        Values::List(list) => list.len() as f64,
        Values::Range(_) => 1.0,
    }
}

fn value(axis: &Axis, place: f64) -> String {
    match &axis.values {
        Values::List(list) => list[(place as usize).min(list.len() - 1)].clone(),
        Values::Range(_) => axis.at(place),
    }
}

/// A place at which better trials are dense and worse ones are not; small results are better.
fn proposed(axis: &Axis, known: impl Iterator<Item = (f64, f64)>, draws: &mut Draws) -> Result<f64> {
    let failed = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("no trial can be proposed: {e}"));
    let (estimator, range) = match &axis.values {
        Values::List(list) => (tpe::histogram_estimator(), tpe::categorical_range(list.len())),
        Values::Range(_) => (tpe::parzen_estimator(), tpe::range(0.0, 1.0)),
    };
    let mut optimizer = tpe::TpeOptimizer::new(estimator, range.map_err(|e| failed(&e))?);
    for (place, result) in known {
        optimizer.tell(place, result).map_err(|e| failed(&e))?;
    }
    optimizer.ask(draws).map_err(|e| failed(&e))
}

/// The numbers of a key, one after the other.
struct Draws {
    key: Key,
    next: u64,
}

impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        self.try_next_u64().map(|bits| (bits >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        self.next += 1;
        Ok(self.key.bits(self.next - 1))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Infallible> {
        for eight in bytes.chunks_mut(8) {
            let drawn = self.try_next_u64()?.to_le_bytes();
            eight.copy_from_slice(&drawn[..eight.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Goal, Search};
    use super::*;

    fn plan(ahead: usize, trials: usize) -> Plan {
        let axes = [("x", "0.0..1.0"), ("kind", "a,b,c"), ("fixed", "7")];
        let plan = Plan {
            script: "own".into(),
            axes: axes.map(|(name, text)| Axis::parse(name, text).expect("values")).to_vec(),
            search: Search::Tpe,
            seed: 4,
            seeds: 1,
            trials: 0,
            goal: Goal { metric: "eval".into(), maximize: true },
            options: Vec::new(),
            threads: None,
            ahead,
            points: Vec::new(),
        };
        plan.filled(Some(trials)).expect("a plan")
    }

    /// Best at 0.3 and b.
    fn result(point: &Point) -> f64 {
        let x: f64 = point[0].parse().expect("a number");
        1.0 - (x - 0.3).powi(2) - if point[1] == "b" { 0.0 } else { 0.5 }
    }

    /// All trials of a plan, opened anew after `broken` of them.
    fn trials(plan: &Plan, broken: Option<usize>) -> (Vec<Point>, String) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut learning = Learning::open(&files::anywhere(dir.path()), plan).expect("opened");
        for trial in 0..plan.trials {
            if Some(trial) == broken {
                learning.log.add(b"{\"trial\":").expect("half a line");
                learning = Learning::open(&files::anywhere(dir.path()), plan).expect("opened again");
            }
            while !learning.is_ready() {
                let mean = result(learning.point(learning.told()).expect("asked"));
                learning.tell(Some(mean)).expect("told");
            }
            learning.ask().expect("asked");
        }
        let points = (0..plan.trials).map(|i| learning.point(i).expect("asked").clone()).collect();
        (points, std::fs::read_to_string(dir.path().join(TRIALS)).expect("written"))
    }

    #[test]
    fn later_trials_lie_where_earlier_ones_were_good() {
        let (points, _) = trials(&plan(1, 60), None);
        let good = |points: &[Point]| points.iter().map(result).sum::<f64>() / points.len() as f64;
        assert!(
            good(&points[40..]) > good(&points[..FIRST]) + 0.1,
            "{} {}",
            good(&points[40..]),
            good(&points[..FIRST])
        );
        let best = points[40..].iter().filter(|point| point[1] == "b").count();
        assert!(best > 10, "{best} of 20");
        assert!(points.iter().all(|point| point[2] == "7"));
    }

    #[test]
    fn trials_repeat_and_go_on_after_half_a_line() {
        for ahead in [1, 3] {
            let plan = plan(ahead, 20);
            let (points, text) = trials(&plan, None);
            assert_eq!((points.clone(), text.clone()), trials(&plan, None));
            assert_eq!((points, text), trials(&plan, Some(9)), "the same bytes");
        }
        assert_ne!(trials(&plan(1, 20), None).0, trials(&plan(3, 20), None).0, "fewer results are known");
    }

    #[test]
    fn trials_without_a_number_teach_nothing_and_a_changed_file_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let plan = plan(1, 20);
        let mut learning = Learning::open(&files::anywhere(dir.path()), &plan).expect("opened");
        for mean in [None, Some(f64::NAN), Some(1.0), None, None, None, Some(0.5)] {
            learning.ask().expect("asked");
            learning.tell(mean).expect("told");
        }
        learning.ask().expect("asked");
        assert_eq!((learning.told(), learning.point(7).is_some(), learning.point(8)), (7, true, None));
        let path = dir.path().join(TRIALS);
        let text = std::fs::read_to_string(&path).expect("there");
        std::fs::write(&path, text.replacen("\"trial\":3", "\"trial\":8", 1)).expect("written");
        let e = Learning::open(&files::anywhere(dir.path()), &plan).expect_err("changed");
        assert!(e.what.contains("is not as the sweep left it"), "{e}");
    }
}
