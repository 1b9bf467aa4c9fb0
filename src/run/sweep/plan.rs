//! What a sweep runs: `sweep.json`. Owns the trials of grids and random searches, their names and their numbers; the proposals
//! of a search that learns are `learning.rs`'s.

use super::space::{Axis, Values};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::tensor::rng::Key;
use serde::{Deserialize, Serialize};

pub const PLAN: &str = "sweep.json";
/// More make no plan that a person could have meant.
pub const MOST: usize = 100_000;
/// Keeps the draws of a sweep apart from those of the runs with the same seed.
pub(super) const STREAM: u64 = 0x5_1EE9;
/// What no sweep varies.
const SEED: &str = "seed";
/// Letters of a folder's name, but for its number.
const LONGEST: usize = 120;

/// How trials are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// All combinations.
    Grid,
    /// Drawn at random.
    Random,
    /// By the results so far: tree-structured Parzen estimators.
    Tpe,
}

impl Search {
    pub const NAMES: [&str; 3] = ["grid", "random", "tpe"];

    /// One of the names.
    pub fn named(name: &str) -> Option<Self> {
        let place = Self::NAMES.iter().position(|known| *known == name)?;
        [Self::Grid, Self::Random, Self::Tpe].get(place).copied()
    }
}

/// What is to be large, or small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    pub metric: String,
    pub maximize: bool,
}

/// The values of one trial, in the order of the axes.
pub type Point = Vec<String>;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// As the command line names it.
    pub script: String,
    pub axes: Vec<Axis>,
    pub search: Search,
    /// The first seed of each trial, and of what the search draws.
    pub seed: u64,
    /// How many seeds each trial has.
    pub seeds: usize,
    /// How many trials there are.
    pub trials: usize,
    pub goal: Goal,
    /// Options of `rhopo run` that every run has.
    pub options: Vec<String>,
    /// Threads of each run, where the command line says.
    pub threads: Option<u16>,
    /// Trials of a search that learns are proposed before so many have ended.
    pub ahead: usize,
    /// The trials that are known from the beginning.
    pub points: Vec<Point>,
}

impl Plan {
    /// Adds the trials, where results do not decide them. `trials` is what the command line says.
    ///
    /// # Errors
    /// Seeds among what varies; a range in a grid; a number of trials where it means nothing, none where it is needed, too many.
    pub fn filled(mut self, trials: Option<usize>) -> Result<Self> {
        without_seed(&self.axes)?;
        match (self.search, trials) {
            (Search::Grid, Some(_)) => {
                return Err(Error::value("--trials: a grid has as many trials as there are combinations")
                    .hint("choose --search random or --search tpe"));
            }
            (Search::Grid, None) => self.points = grid(&self.axes)?,
            (Search::Random | Search::Tpe, None) => {
                return Err(Error::value("how many trials?").hint("say it with --trials, as in --trials 20"));
            }
            (Search::Random, Some(trials)) => self.points = (0..bounded(trials)?).map(|i| self.drawn(i)).collect(),
            (Search::Tpe, Some(trials)) => self.trials = bounded(trials)?,
        }
        if self.search != Search::Tpe {
            self.trials = self.points.len();
        }
        bounded(self.trials.saturating_mul(self.seeds))?;
        Ok(self)
    }

    /// A trial of a random search; it depends on its number and the seed alone.
    pub(super) fn drawn(&self, trial: usize) -> Point {
        let key = Key::new(self.seed).fold(STREAM).fold(trial as u64);
        self.axes.iter().enumerate().map(|(i, axis)| axis.at(key.uniform(i as u64))).collect()
    }

    /// Runs in all: every trial with every seed.
    pub fn runs(&self) -> usize {
        self.trials * self.seeds
    }

    /// The seed of a run, by its number.
    pub fn seed_of(&self, run: usize) -> u64 {
        self.seed + (run % self.seeds) as u64
    }

    /// The folder of a run: its number, what varies, its seed.
    pub fn folder(&self, run: usize, point: &Point) -> String {
        let digits = self.runs().saturating_sub(1).to_string().len();
        let varying = self.axes.iter().zip(point).filter(|(axis, _)| axis.varies());
        let told: String = varying.map(|(axis, value)| format!("_{}={value}", axis.name)).collect();
        let plain = |c: char| if c.is_alphanumeric() || "_=.+-".contains(c) { c } else { '-' };
        let told: String = told.chars().map(plain).take(LONGEST).collect();
        format!("{run:0digits$}{told}_seed={}", self.seed_of(run))
    }

    /// What tells a trial from others: `clip=0.1, lr=0.0002`.
    pub fn label(&self, point: &Point) -> String {
        let varying = self.axes.iter().zip(point).filter(|(axis, _)| axis.varies());
        let told: Vec<String> = varying.map(|(axis, value)| format!("{}={value}", axis.name)).collect();
        if told.is_empty() { self.script.clone() } else { told.join(", ") }
    }

    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &Location) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(format!("{PLAN}: {e}")))?;
        files::write(&folder.join(PLAN), text + "\n")
    }

    /// # Errors
    /// No sweep in the folder, or a file that is none of these.
    pub fn read(folder: &Location) -> Result<Self> {
        let path = folder.join(PLAN);
        if !files::is_file(&path) {
            return Err(Error::file(format!("there is no sweep in {}: {PLAN} is missing", folder.display()))
                .hint("give the folder of a sweep, as in --resume runs/sweep-grpo-20260731-142530"));
        }
        let read = serde_json::from_str::<Self>(&files::text(&path)?);
        let plan = read.map_err(|e| Error::file(format!("{} cannot be read: {e}", path.display())))?;
        without_seed(&plan.axes)?;
        let sound =
            plan.seeds > 0 && plan.ahead > 0 && plan.trials > 0 && plan.trials.saturating_mul(plan.seeds) <= MOST;
        let sound = sound && plan.axes.iter().all(Axis::is_sound) && plan.seed.checked_add(plan.seeds as u64).is_some();
        let sound = sound && plan.points.iter().all(|point| point.len() == plan.axes.len());
        match sound && (plan.search == Search::Tpe || plan.points.len() == plan.trials) {
            true => Ok(plan),
            false => Err(Error::file(format!("{} is no plan of a sweep", path.display()))),
        }
    }

    /// In what another plan is a different one: how it is carried out, on how many threads, is no difference.
    pub fn differs(&self, other: &Self) -> Option<&'static str> {
        let differences = [
            ("the script", self.script != other.script),
            ("--set", self.axes != other.axes),
            ("--search", self.search != other.search),
            ("--seed", self.seed != other.seed),
            ("--seeds", self.seeds != other.seeds),
            ("--trials", self.trials != other.trials),
            ("--maximize or --minimize", self.goal != other.goal),
            ("the options of its runs", self.options != other.options),
        ];
        differences.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
    }
}

/// # Errors
/// Seeds among what varies: each run has its own by its number, which would take the place of these.
fn without_seed(axes: &[Axis]) -> Result<()> {
    match axes.iter().any(|axis| axis.name == SEED) {
        false => Ok(()),
        true => Err(Error::value("--set seed: the seeds of a sweep are no hyper-parameter")
            .hint("say how many with --seeds N, and which is the first with --seed FIRST")),
    }
}

fn bounded(count: usize) -> Result<usize> {
    match count {
        0 => Err(Error::value("--trials: expected 1 or more")),
        1..=MOST => Ok(count),
        _ => Err(Error::value(format!("{count} runs: a sweep has {MOST} at most"))
            .hint("give fewer values, or draw some of the combinations with --search random --trials N")),
    }
}

/// All combinations; the last axis changes first.
fn grid(axes: &[Axis]) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = vec![Point::new()];
    for axis in axes {
        let Values::List(list) = &axis.values else {
            return Err(Error::value(format!(
                "--set {}: a range has no end of values, and a grid runs all",
                axis.name
            ))
            .hint("list some, as in 0.1,0.2,0.3, or choose --search random or tpe"));
        };
        bounded(points.len().saturating_mul(list.len()))?;
        let with = |point: &Point, value: &String| point.iter().chain([value]).cloned().collect::<Point>();
        let longer = |point: &Point| list.iter().map(|value| with(point, value)).collect::<Vec<_>>();
        points = points.iter().flat_map(longer).collect();
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(search: Search, sets: &[(&str, &str)]) -> Plan {
        let axes = sets.iter().map(|(name, text)| Axis::parse(name, text).expect("values")).collect();
        Plan {
            script: "grpo".into(),
            axes,
            search,
            seed: 4,
            seeds: 3,
            trials: 0,
            goal: Goal { metric: "eval".into(), maximize: true },
            options: vec!["--device".into(), "cpu".into()],
            threads: None,
            ahead: 1,
            points: Vec::new(),
        }
    }

    #[test]
    fn a_grid_is_all_combinations_with_all_seeds() {
        let plan = plan(Search::Grid, &[("clip", "0.1,0.3"), ("steps", "5"), ("lr", "1e-4,2e-4")]);
        let plan = plan.filled(None).expect("a plan");
        let points: Vec<String> = plan.points.iter().map(|point| point.join(" ")).collect();
        assert_eq!(points, ["0.1 5 1e-4", "0.1 5 2e-4", "0.3 5 1e-4", "0.3 5 2e-4"]);
        assert_eq!((plan.runs(), plan.seed_of(7)), (12, 5));
        assert_eq!(plan.folder(7, &plan.points[2]), "07_clip=0.3_lr=1e-4_seed=5", "what does not vary is not told");
        assert_eq!(plan.label(&plan.points[2]), "clip=0.3, lr=1e-4");
    }

    #[test]
    fn names_of_folders_are_plain() {
        let plan = plan(Search::Grid, &[("data", "../a b.jsonl,/etc/passwd")]).filled(None).expect("a plan");
        assert_eq!(plan.folder(0, &plan.points[0]), "0_data=..-a-b.jsonl_seed=4");
        assert!(!plan.folder(3, &plan.points[1]).contains('/'));
        let long = plan.folder(0, &vec!["x".repeat(1000)]);
        assert!(long.len() < 200 && long.ends_with("_seed=4"));
    }

    #[test]
    fn random_trials_repeat_with_the_seed_and_lie_in_their_ranges() {
        let sets = [("lr", "1e-5..1e-3"), ("group", "4..8"), ("task", "a,b")];
        let short = plan(Search::Random, &sets).filled(Some(5)).expect("a plan");
        let long = plan(Search::Random, &sets).filled(Some(200)).expect("a plan");
        assert_eq!(short.points, long.points[..5], "more trials change none of the first");
        let other = Plan { seed: 5, ..plan(Search::Random, &sets) }.filled(Some(5)).expect("a plan");
        assert_ne!(short.points, other.points);
        let lr: Vec<f64> = long.points.iter().map(|point| point[0].parse().expect("a number")).collect();
        assert!(lr.iter().all(|x| (1e-5..=1e-3).contains(x)));
        let below = lr.iter().filter(|x| **x < 1e-4).count();
        assert!((70..130).contains(&below), "half of them in either decade: {below}");
        for i in 4..=8 {
            assert!(long.points.iter().any(|point| point[1] == i.to_string()), "{i}");
        }
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let refused = |search, set, trials| plan(search, &[("x", set)]).filled(trials).expect_err("no plan").what;
        assert!(refused(Search::Grid, "0.1..0.2", None).contains("a grid runs all"));
        assert!(refused(Search::Grid, "1,2", Some(3)).contains("--trials"));
        assert!(refused(Search::Random, "1,2", None).contains("how many trials"));
        assert!(refused(Search::Tpe, "1,2", Some(0)).contains("1 or more"));
        assert!(refused(Search::Random, "1,2", Some(MOST)).contains("100000 at most"));
    }

    #[test]
    fn seeds_among_the_hyper_parameters_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        for (search, trials) in [(Search::Grid, None), (Search::Random, Some(2)), (Search::Tpe, Some(2))] {
            let e = plan(search, &[("clip", "0.1"), ("seed", "1,2")]).filled(trials).expect_err("seeds");
            assert!(e.what.contains("--set seed") && e.hint.expect("advice").contains("--seeds N"));
            let mut plan = plan(search, &[("clip", "1,2")]).filled(trials).expect("a plan");
            plan.axes[0].name = "seed".into();
            plan.write(&files::anywhere(dir.path())).expect("written");
            assert!(Plan::read(&files::anywhere(dir.path())).expect_err("seeds").what.contains("--set seed"));
        }
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(Plan::read(&files::anywhere(dir.path())).expect_err("none").what.contains("there is no sweep"));
        let plan = plan(Search::Random, &[("lr", "1e-5..1e-3"), ("x", "a,b")]).filled(Some(3)).expect("a plan");
        plan.write(&files::anywhere(dir.path())).expect("written");
        let read = Plan::read(&files::anywhere(dir.path())).expect("read");
        assert_eq!((&read, read.differs(&plan)), (&plan, None));
        let more = Plan { threads: Some(2), ahead: 3, ..plan.clone() };
        assert_eq!(more.differs(&plan), None);
        assert_eq!(Plan { seeds: 4, ..plan.clone() }.differs(&plan), Some("--seeds"));
        let broken = Plan { points: Vec::new(), ..plan };
        broken.write(&files::anywhere(dir.path())).expect("written");
        assert!(Plan::read(&files::anywhere(dir.path())).expect_err("no plan").what.contains("is no plan of a sweep"));
    }
}
