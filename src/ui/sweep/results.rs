//! What a sweep has come to so far: a table and a picture, for the terminal and in its folder.

use crate::error::Result;
use crate::files::{self, Location};
use crate::run::overlay::{self, Across, Group, Request, Series};
use crate::run::summary::{State, Summary};
use crate::run::sweep::{Plan, Point, Row, rows};
use crate::run::{Table, digits};
use crate::ui::plot::{self, Format};
use crate::ui::table;

const TABLE: &str = "table.txt";
const PICTURE: &str = "sweep.svg";
const PIXELS: &str = "sweep.png";
/// Drawn beside what is wanted.
const REWARD: &str = "reward";

/// The runs of a sweep, as their folders tell them.
pub(super) struct Results<'a> {
    plan: &'a Plan,
    points: Vec<Point>,
    /// By trial and seed; nothing where a run has not begun.
    runs: Vec<Option<Summary>>,
}

impl<'a> Results<'a> {
    /// Reads the runs of these trials.
    ///
    /// # Errors
    /// A file of a run that cannot be read.
    pub fn read(plan: &'a Plan, folder: &Location, points: Vec<Point>) -> Result<Self> {
        let runs = (0..points.len() * plan.seeds).map(|run| {
            let folder = folder.join(plan.folder(run, &points[run / plan.seeds]));
            Summary::is_in(&folder).then(|| Summary::read(&folder)).transpose()
        });
        let runs = runs.collect::<Result<_>>()?;
        Ok(Self { plan, points, runs })
    }

    fn of(&self, trial: usize) -> impl Iterator<Item = &Summary> {
        self.runs[trial * self.plan.seeds..][..self.plan.seeds].iter().flatten()
    }

    /// What is wanted, of the runs of a trial that have finished.
    fn values(&self, trial: usize) -> Vec<f64> {
        let finished = self.of(trial).filter(|run| run.state == State::Finished);
        finished.filter_map(|run| value(run, &self.plan.goal.metric)).collect()
    }

    /// Trials, best first.
    fn rows(&self) -> Vec<Row> {
        let values: Vec<Vec<f64>> = (0..self.points.len()).map(|trial| self.values(trial)).collect();
        rows(&values, &self.plan.goal)
    }

    /// The table's lines.
    pub fn table(&self) -> Vec<String> {
        let (goal, seeds) = (&self.plan.goal, self.plan.seeds);
        let order = if goal.maximize { "highest" } else { "lowest" };
        let title = match seeds {
            1 => format!("{}: last value, {order} first", goal.metric),
            _ => format!("{}: mean ± standard error of the last values over {seeds} seeds, {order} first", goal.metric),
        };
        let varying = || self.plan.axes.iter().enumerate().filter(|(_, axis)| axis.varies());
        let mut head: Vec<String> = varying().map(|(_, axis)| axis.name.clone()).collect();
        head.push(goal.metric.clone());
        head.extend((seeds > 1).then(|| "±".to_string()));
        head.push("finished".to_string());
        let failed = |trial: usize| self.of(trial).filter(|run| run.state == State::Failed).count();
        let any = (0..self.points.len()).any(|trial| failed(trial) > 0);
        head.extend(any.then(|| "failed".to_string()));
        let number = |x: Option<f64>| x.map_or_else(String::new, digits::short);
        let row = |row: &Row| {
            let mut cells: Vec<String> = varying().map(|(i, _)| self.points[row.trial][i].clone()).collect();
            cells.push(number(row.mean));
            cells.extend((seeds > 1).then(|| number(row.error)));
            let finished = self.of(row.trial).filter(|run| run.state == State::Finished).count();
            cells.push(format!("{finished} of {seeds}"));
            cells.extend(any.then(|| failed(row.trial).to_string()));
            cells
        };
        let rows = self.rows().iter().map(row).collect();
        table::lines(&Table { title, head, rows })
    }

    /// The curves of trials over one another, the best first, with bands over seeds; nothing where no run has logged what is
    /// wanted, or a reward.
    fn picture(&self) -> Result<Option<String>> {
        let (mut runs, mut groups) = (Vec::new(), Vec::new());
        for row in self.rows() {
            let own: Vec<Summary> = self.of(row.trial).cloned().collect();
            if !own.is_empty() {
                let label = self.plan.label(&self.points[row.trial]);
                groups.push(Group { label, runs: (runs.len()..runs.len() + own.len()).collect() });
                runs.extend(own);
            }
        }
        let drawn = groups[..groups.len().min(overlay::MOST)].iter().flat_map(|group| &group.runs);
        let all = drawn.map(|run| Series::read(&runs[*run].folder)).collect::<Result<Vec<_>>>()?;
        let finite = |name: &str| all.iter().any(|run| run.points(name, Across::Step).iter().any(|p| p.1.is_finite()));
        let mut metrics = vec![self.plan.goal.metric.clone(), REWARD.to_string()];
        metrics.dedup();
        metrics.retain(|name| finite(name));
        if metrics.is_empty() {
            return Ok(None);
        }
        let request = Request { metrics: &metrics, across: Across::Step, smooth: 1 };
        overlay::picture(&runs, &groups, &request).and_then(|picture| overlay::svg(&picture)).map(Some)
    }

    /// Writes both into the sweep's folder; says whether there is a picture.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &Location, png: bool) -> Result<bool> {
        files::write(&folder.join(TABLE), self.table().join("\n") + "\n")?;
        let Some(svg) = self.picture()? else { return Ok(false) };
        plot::write(&svg, &folder.join(PICTURE), Format::Svg)?;
        if png {
            plot::write(&svg, &folder.join(PIXELS), Format::Png)?;
        }
        Ok(true)
    }
}

/// The last value of a metric.
pub(super) fn value(run: &Summary, metric: &str) -> Option<f64> {
    run.last.iter().find(|(name, _)| name == metric).map(|(_, value)| *value)
}
