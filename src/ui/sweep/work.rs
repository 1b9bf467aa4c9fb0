//! The runs of a sweep as processes: which comes next, how many there are at a time, how each ended, and how they are ended.

use super::results::{Results, value};
use super::stand::{Stand, stand};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Child, Location};
use crate::run::EVAL;
use crate::run::quote::{masked, one_line};
use crate::run::summary::Summary;
use crate::run::sweep::{Learning, Plan, Point, Search};
use crate::script::lang::loader::Loader;
use crate::ui::out;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The script as the sweep began with it.
pub(super) const SCRIPT: &str = "script.rhai";
/// What runs say, a file for each.
pub(super) const OUTPUT: &str = "output";
/// Options of a run by which its scripts reach more.
pub(super) const GRANTS: [&str; 3] = ["--allow", "--allow-exec", "--stdlib"];
/// Between two looks at the runs.
const NAP: Duration = Duration::from_millis(50);
/// Between two tables and pictures on the way.
const PAUSE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(250);
/// Letters of what a run said last.
const SAID: usize = 160;

/// How it is to be done.
pub(super) struct Way {
    pub jobs: usize,
    /// Of each run; those of the machine where none.
    pub threads: Option<usize>,
    /// This program.
    pub program: PathBuf,
    /// The only run that is wanted.
    pub only: Option<usize>,
    pub png: bool,
    /// Signals that asked for the end.
    pub presses: Arc<AtomicUsize>,
    pub progress: ProgressBar,
}

/// The line that changes, where standard error is a terminal.
pub(super) fn progress() -> ProgressBar {
    let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
        progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        progress.set_draw_target(ProgressDrawTarget::stderr());
        progress.enable_steady_tick(TICK);
    }
    progress
}

/// A sweep under way.
pub(super) struct Work<'a> {
    plan: &'a Plan,
    folder: &'a Location,
    way: Way,
    loader: Rc<Loader>,
    learning: Option<Learning>,
    next: usize,
    running: Vec<Running>,
    /// Runs of which no more will come now.
    ended: BTreeSet<usize>,
    failed: usize,
    written: Option<Instant>,
    /// Whether some run has logged what is wanted.
    logged: bool,
}

struct Running {
    run: usize,
    /// None where another process has it.
    process: Option<Child>,
    since: Instant,
}

enum Next {
    Run(usize),
    /// A result has to come first.
    Wait,
    Over,
}

impl<'a> Work<'a> {
    /// # Errors
    /// A run that there is not; a folder that cannot be written.
    pub fn new(plan: &'a Plan, folder: &'a Location, way: Way, loader: Rc<Loader>) -> Result<Self> {
        let learning = (plan.search == Search::Tpe).then(|| Learning::open(folder, plan)).transpose()?;
        if let Some(only) = way.only {
            if learning.is_some() {
                return Err(Error::value("--only: a search that learns has no run of its own to give away"));
            }
            if only >= plan.runs() {
                return Err(Error::value(format!("--only {only}: the sweep has the runs 0 to {}", plan.runs() - 1)));
            }
        }
        files::create_folder(&folder.join(OUTPUT))?;
        let (running, ended) = (Vec::new(), BTreeSet::new());
        let next = way.only.unwrap_or(0);
        Ok(Self { plan, folder, way, loader, learning, next, running, ended, failed: 0, written: None, logged: false })
    }

    /// Does all runs that are left, or those under way once somebody has asked for the end; returns how many have failed.
    ///
    /// # Errors
    /// A process that cannot be started; files that cannot be read or written; a search that learns nothing.
    pub fn run(&mut self) -> Result<usize> {
        let mut seen = 0;
        loop {
            let presses = self.way.presses.load(Ordering::Relaxed);
            if presses > seen {
                seen = presses;
                for process in self.running.iter().filter_map(|running| running.process.as_ref()) {
                    if presses == 1 { process.terminate() } else { process.kill() }
                }
            }
            self.reap()?;
            let mut over = presses > 0;
            while !over && self.running.len() < self.way.jobs {
                match self.next()? {
                    Next::Run(run) => self.start(run)?,
                    Next::Wait => break,
                    Next::Over => over = true,
                }
            }
            // Another process's run is none of ours to wait for once the end is asked for.
            if over && self.running.iter().all(|running| presses > 0 && running.process.is_none()) {
                break;
            }
            self.tell();
            std::thread::sleep(NAP);
        }
        self.way.progress.finish_and_clear();
        let told = self.learning.as_ref().filter(|_| seen == 0).map(Learning::told);
        for trial in told.into_iter().flat_map(|told| told..self.plan.trials) {
            self.learn(trial)?;
        }
        Ok(self.failed)
    }

    /// The trials that are known by now.
    pub fn points(&self) -> Vec<Point> {
        match &self.learning {
            None => self.plan.points.clone(),
            Some(learning) => learning.points(),
        }
    }

    fn point(&self, run: usize) -> Result<&Point> {
        let trial = run / self.plan.seeds;
        let point = match &self.learning {
            None => self.plan.points.get(trial),
            Some(learning) => learning.point(trial),
        };
        point.ok_or_else(|| Error::new(Kind::Internal, format!("trial {trial} is not known")))
    }

    fn name(&self, run: usize) -> Result<String> {
        Ok(self.plan.folder(run, self.point(run)?))
    }

    /// The next run that has not finished.
    fn next(&mut self) -> Result<Next> {
        let end = self.way.only.map_or(self.plan.runs(), |only| only + 1);
        while self.next < end {
            let (run, trial) = (self.next, self.next / self.plan.seeds);
            if self.learning.as_ref().is_some_and(|learning| learning.point(trial).is_none()) && !self.proposed()? {
                return Ok(Next::Wait);
            }
            self.next += 1;
            let folder = self.folder.join(self.name(run)?);
            match stand(&folder)? {
                Stand::Finished => {
                    self.ended.insert(run);
                    if !self.logged {
                        self.look(&Summary::read(&folder)?)?;
                    }
                }
                _ => return Ok(Next::Run(run)),
            }
        }
        Ok(Next::Over)
    }

    /// Proposes a trial once the results that it needs are there.
    fn proposed(&mut self) -> Result<bool> {
        while let Some(learning) = self.learning.as_ref().filter(|learning| !learning.is_ready()) {
            let trial = learning.told();
            let runs = trial * self.plan.seeds..(trial + 1) * self.plan.seeds;
            if !runs.clone().all(|run| self.ended.contains(&run)) {
                return Ok(false);
            }
            self.learn(trial)?;
        }
        if let Some(learning) = &mut self.learning {
            learning.ask()?;
        }
        Ok(true)
    }

    /// Whether a run that has finished has logged what is wanted. Not every script logs an `eval`, and the others are run all
    /// the same; what the command line names is meant.
    ///
    /// # Errors
    /// It has not, and no other has.
    fn look(&mut self, run: &Summary) -> Result<()> {
        let metric = &self.plan.goal.metric;
        self.logged |= value(run, metric).is_some();
        if self.logged || metric == EVAL {
            return Ok(());
        }
        let known: Vec<&str> = run.last.iter().map(|(name, _)| name.as_str()).collect();
        Err(Error::unknown("metric", metric, &known))
    }

    /// Takes the mean of a trial's runs.
    fn learn(&mut self, trial: usize) -> Result<()> {
        let (mut values, metric) = (Vec::new(), &self.plan.goal.metric);
        for run in trial * self.plan.seeds..(trial + 1) * self.plan.seeds {
            let folder = self.folder.join(self.name(run)?);
            if stand(&folder)? == Stand::Finished {
                let summary = Summary::read(&folder)?;
                let known: Vec<&str> = summary.last.iter().map(|(name, _)| name.as_str()).collect();
                values.push(value(&summary, metric).ok_or_else(|| Error::unknown("metric", metric, &known))?);
            }
        }
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        self.learning.as_mut().map_or(Ok(()), |learning| learning.tell(mean))
    }

    fn start(&mut self, run: usize) -> Result<()> {
        let name = self.name(run)?;
        let folder = self.folder.join(&name);
        let since = Instant::now();
        let stands = stand(&folder)?;
        if stands == Stand::Locked {
            self.say(&format!("{}: another process is at it, and is waited for", self.label(run)?));
            self.running.push(Running { run, process: None, since });
            return Ok(());
        }
        let mut words = vec![self.way.program.display().to_string(), "run".to_string()];
        if stands == Stand::Nothing {
            self.unchanged()?;
            // Killed before it could write what it is.
            if files::exists(&folder) {
                files::remove_folder(&folder)?;
            }
            words.push(self.plan.script.clone());
            let set = self.plan.axes.iter().zip(self.point(run)?).map(|(axis, value)| format!("{}={value}", axis.name));
            let set: Vec<String> = set.collect();
            words.extend((!set.is_empty()).then(|| "--set".to_string()).into_iter().chain(set));
            let threads = self.way.threads.map(|n| ["--threads".to_string(), n.to_string()]);
            words.extend(["--seed".to_string(), self.plan.seed_of(run).to_string()]);
            words.extend(["--out".to_string(), folder.display().to_string()]);
            words.extend(threads.into_iter().flatten().chain(self.plan.options.iter().cloned()));
        } else {
            words.extend(["--resume".to_string(), folder.display().to_string()]);
            // Its folder grants it nothing.
            let grants = self.plan.options.chunks_exact(2).filter(|pair| GRANTS.contains(&pair[0].as_str()));
            words.extend(grants.flatten().cloned());
        }
        let process = Some(Child::start(&words, &self.output(&name))?);
        self.running.push(Running { run, process, since });
        Ok(())
    }

    /// All runs of a sweep are of one text.
    fn unchanged(&self) -> Result<()> {
        let now = self.loader.find(&self.plan.script)?;
        let then = files::text(&self.folder.join(SCRIPT))?;
        match now.text == then {
            true => Ok(()),
            false => Err(Error::value(format!("{} has changed since the sweep began", now.label)).hint(format!(
                "begin a new sweep, or put the text back that is kept in {}",
                self.folder.join(SCRIPT).display()
            ))),
        }
    }

    fn output(&self, name: &str) -> Location {
        self.folder.join(OUTPUT).join(format!("{name}.txt"))
    }

    /// Takes note of the runs that have ended.
    fn reap(&mut self) -> Result<()> {
        let mut i = 0;
        while i < self.running.len() {
            let (run, process) = (self.running[i].run, self.running[i].process.as_mut());
            let ended = match process {
                Some(process) => process.ended()?.map(Some),
                None => (stand(&self.folder.join(self.name(run)?))? != Stand::Locked).then_some(None),
            };
            match ended {
                None => i += 1,
                Some(status) => {
                    let running = self.running.remove(i);
                    self.close(&running, status)?;
                }
            }
        }
        Ok(())
    }

    /// Says how a run has ended.
    fn close(&mut self, running: &Running, status: Option<ExitStatus>) -> Result<()> {
        let name = self.name(running.run)?;
        let folder = self.folder.join(&name);
        let stands = stand(&folder)?;
        if running.process.is_none() && stands != Stand::Finished && self.way.presses.load(Ordering::Relaxed) == 0 {
            // Whoever had it has left it.
            return self.start(running.run);
        }
        let took = running.since.elapsed().as_secs_f64();
        let mut finished = None;
        let how = match (stands, self.way.presses.load(Ordering::Relaxed)) {
            (Stand::Finished, _) => {
                let summary = Summary::read(&folder)?;
                let metric = &self.plan.goal.metric;
                let told = value(&summary, metric).map(|x| format!("{metric} {x:.4}"));
                finished = Some(summary);
                format!("{}, {took:.0} s", told.unwrap_or_else(|| format!("no `{metric}` was logged")))
            }
            (Stand::Begun, 1..) => "interrupted".to_string(),
            (_, 1..) => "stopped before it began".to_string(),
            (Stand::Nothing, _) if status.is_some_and(|status| status.success()) => {
                self.failed += 1;
                "failed: the script opened no run; `open_run(cfg)` opens one".to_string()
            }
            _ => {
                self.failed += 1;
                format!("failed: {}", self.complaint(&name, status))
            }
        };
        if stands == Stand::Finished || self.way.presses.load(Ordering::Relaxed) == 0 {
            self.ended.insert(running.run);
        }
        self.say(&format!("[{}/{}] {}: {how}", self.ended.len(), self.plan.runs(), self.label(running.run)?));
        finished.map_or(Ok(()), |summary| self.look(&summary))?;
        if self.way.only.is_none() && self.written.is_none_or(|written| written.elapsed() > PAUSE) {
            Results::read(self.plan, self.folder, self.points())?.write(self.folder, self.way.png)?;
            self.written = Some(Instant::now());
        }
        Ok(())
    }

    /// What a run that failed said, in a line.
    fn complaint(&self, name: &str, status: Option<ExitStatus>) -> String {
        let path = self.output(name);
        let text = files::text(&path).unwrap_or_default();
        let last = || text.lines().rev().find(|line| !line.trim().is_empty());
        let line = text.lines().rev().find(|line| line.to_lowercase().starts_with("error")).or_else(last);
        let line: String = masked(line.unwrap_or_default(), "").chars().take(SAID).collect();
        let status = status.map(|status| format!("{status}, ")).unwrap_or_default();
        format!("{line} ({status}{})", path.display())
    }

    /// `clip=0.1, seed=2`
    fn label(&self, run: usize) -> Result<String> {
        Ok(format!("{}, seed={}", self.plan.label(self.point(run)?), self.plan.seed_of(run)))
    }

    fn say(&self, text: &str) {
        self.way.progress.suspend(|| out::note(&one_line(text)));
    }

    /// The line that changes.
    fn tell(&self) {
        let message =
            format!("{} of {} runs have ended, {} under way", self.ended.len(), self.plan.runs(), self.running.len());
        if self.way.progress.message() != message {
            self.way.progress.set_message(message);
        }
    }
}
