//! An open run: its folder, what is logged and what is saved.
//! Owns no steps (`step_loop.rs`), no drawing and no file formats.

use crate::engine::{Engine, ModelHandle};
use crate::error::{Error, Result};
use crate::files::{self, Location, Lock};
use crate::model::{SaveDtype, is_saved};
use crate::run::card;
use crate::run::checkpoint::state::{Best, RunState};
use crate::run::edit::{self, Edit};
use crate::run::folder::{CONFIG, Folder, LOCK, METRICS, SCRIPT};
use crate::run::line::Line;
use crate::run::metrics::{Metrics, MetricsState};
use crate::run::names;
use crate::run::page;
use crate::run::plot;
use crate::run::record::{Record, plain};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

const SAMPLES: &str = "samples.jsonl";
const LOG: &str = "log.txt";
const CURVES: &str = "curves.svg";
pub(super) const MODEL: &str = "model";
/// The curves are drawn again at most so often, and take at most this share of the time.
const REDRAWN: Duration = Duration::from_secs(5);
const DRAWING: u32 = 200;
/// Of so many evaluations within a loop each is told, of more at most so often.
const ALL_TOLD: u32 = 50;
const READABLE: Duration = Duration::from_secs(1);
/// The best model, and beside its weights what it is the best of.
const BEST: [&str; 2] = ["model-best", "best.json"];

/// A run with its folder.
pub struct Run {
    folder: Folder,
    /// Nobody else writes into the folder meanwhile.
    _lock: Option<Lock>,
    /// None until a continued run has come to where it goes on: nothing of what it repeats is written.
    metrics: RefCell<Option<Metrics>>,
    samples: Record,
    /// What was told, as text.
    log: Record,
    /// Why there is no more of it.
    unlogged: RefCell<Option<Error>>,
    /// When the curves were drawn last, and how long that took.
    drawn: Cell<(Instant, Duration)>,
    best: RefCell<Option<Best>>,
    pub(super) models: RefCell<Vec<(String, ModelHandle)>>,
    /// How many evaluations were told of, and when the last was.
    evaluated: Cell<(u32, Option<Instant>)>,
    /// Former names that were told of.
    hinted: RefCell<BTreeSet<String>>,
    saved: Cell<bool>,
}

impl Run {
    /// Makes the folder, with `config.json` and the script's text.
    ///
    /// # Errors
    /// A folder that holds something, or one that cannot be written.
    pub fn create(folder: Folder, config: &Value, script: &str) -> Result<Self> {
        let lock = Some(files::lock(&folder.file(LOCK))?);
        // Another run may have begun here, and ended, before the lock was taken.
        folder.require_empty()?;
        folder.write(CONFIG, &format!("{config:#}\n"))?;
        folder.write(SCRIPT, script)?;
        let metrics = RefCell::new(Some(Metrics::create(&folder.file(METRICS))?));
        Ok(Self { _lock: lock, metrics, ..Self::open(folder) })
    }

    /// A run that another process has begun. `again`: it has no checkpoint, and begins at its first step once more.
    ///
    /// # Errors
    /// Another process that is writing there; a file that cannot be written.
    pub fn reopen(folder: Folder, again: bool) -> Result<Self> {
        let lock = Some(files::lock(&folder.file(LOCK))?);
        files::tidy(folder.path());
        let metrics = RefCell::new(again.then(|| Metrics::create(&folder.file(METRICS))).transpose()?);
        let run = Self { _lock: lock, metrics, ..Self::open(folder) };
        if again {
            run.samples.resume(None)?;
            run.log.resume(None)?;
        }
        Ok(run)
    }

    fn open(folder: Folder) -> Self {
        Self {
            samples: Record::new(folder.file(SAMPLES)),
            log: Record::new(folder.file(LOG)),
            unlogged: RefCell::default(),
            drawn: Cell::new((Instant::now(), Duration::ZERO)),
            folder,
            _lock: None,
            metrics: RefCell::default(),
            best: RefCell::default(),
            models: RefCell::default(),
            evaluated: Cell::default(),
            hinted: RefCell::default(),
            saved: Cell::new(false),
        }
    }

    /// Everything that came before the checkpoint has been repeated: the run goes on.
    ///
    /// # Errors
    /// Metrics that are not as they were.
    pub fn resume(&self, state: &RunState) -> Result<()> {
        let metrics = Metrics::resume(&self.folder.file(METRICS), &state.metrics, state.seconds)?;
        self.samples.resume(state.samples)?;
        self.log.resume(state.log)?;
        *self.metrics.borrow_mut() = Some(metrics);
        *self.best.borrow_mut() = state.best.clone();
        Ok(())
    }

    /// Where `metrics.jsonl` stands.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn metrics_state(&self) -> Result<MetricsState> {
        let metrics = self.metrics.borrow();
        metrics.as_ref().ok_or_else(|| Error::value("the run has not come to its checkpoint"))?.state()
    }

    /// Bytes of `samples.jsonl` and of `log.txt`.
    ///
    /// # Errors
    /// Files that cannot be looked at.
    pub(super) fn recorded(&self) -> Result<[Option<u64>; 2]> {
        Ok([self.samples.bytes()?, self.log.bytes()?])
    }

    /// Adds lines to `samples.jsonl`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn keep_samples(&self, lines: &[String]) -> Result<()> {
        if self.metrics.borrow().is_none() {
            return Ok(());
        }
        self.folder.check()?;
        lines.iter().try_for_each(|line| self.samples.line(line))
    }

    /// Adds what was told to `log.txt`. A file that cannot be written ends the log and not the run.
    pub fn tell(&self, text: &str) {
        if self.metrics.borrow().is_some() && self.unlogged.borrow().is_none() {
            *self.unlogged.borrow_mut() = self.log.line(&plain(text)).err();
        }
    }

    /// Why the log has not all that was told, where it has not.
    pub(super) fn unlogged(&self) -> Option<Error> {
        let why = self.unlogged.borrow().clone();
        why.map(|e| Error { what: format!("the log is not whole: {}", e.what), ..e })
    }

    /// Seconds that the run has lasted.
    pub fn seconds(&self) -> f64 {
        self.metrics.borrow().as_ref().map_or(0.0, Metrics::seconds)
    }

    /// What was kept last.
    pub fn best(&self) -> Option<Best> {
        self.best.borrow().clone()
    }

    /// Writes the model as the best so far.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn keep(&self, engine: &dyn Engine, name: &str, value: f64, model: &ModelHandle) -> Result<()> {
        let step = self.step();
        let best = Best { name: name.into(), value, step };
        let [folder, about] = BEST;
        let card = self.card(model, Some(&best));
        self.replace(folder, card, |dir| {
            engine.save(model, dir, SaveDtype::F32)?;
            files::write(&dir.join(about), format!("{:#}\n", json!({ "name": name, "value": value, "step": step })))
        })?;
        *self.best.borrow_mut() = Some(best);
        Ok(())
    }

    /// What the card of a model says that is saved now.
    pub(super) fn card(&self, model: &ModelHandle, best: Option<&Best>) -> Option<String> {
        card::text(self.folder.path(), model, self.metrics.borrow().as_ref()?, best)
    }

    /// Fills the folder of a model through `fill` and puts its card beside the weights; a README.md of somebody's own stays.
    /// So do other files that no save writes.
    pub(super) fn replace(
        &self,
        name: &str,
        card: Option<String>,
        fill: impl FnOnce(&Location) -> Result<()>,
    ) -> Result<()> {
        let whole = self.folder.file(name);
        let ours = |name: &str| is_saved(name) || [card::FILE, BEST[1]].contains(&name);
        self.folder.replace(name, ours, |dir| {
            fill(dir)?;
            let text = card::own(&whole)?.or(card.map(String::into_bytes));
            text.map_or(Ok(()), |text| files::write(&dir.join(card::FILE), text))
        })
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Adds a number to the line of the current step.
    pub fn log(&self, name: &str, value: f64) {
        if let Some(metrics) = &mut *self.metrics.borrow_mut() {
            metrics.log(name, value);
        }
    }

    /// Adds an edit to the metrics.
    ///
    /// # Errors
    /// Metrics that cannot be written.
    pub(super) fn record(&self, edit: Edit) -> Result<()> {
        self.metrics.borrow_mut().as_mut().map_or(Ok(()), |metrics| metrics.edited(edit))
    }

    /// What was edited since the run began.
    pub(super) fn edits(&self) -> Vec<Edit> {
        self.metrics.borrow().as_ref().map(|metrics| metrics.edits().cloned().collect()).unwrap_or_default()
    }

    /// What the current step has logged under this name so far.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.metrics.borrow().as_ref()?.current().get(name)
    }

    /// Remembers a model, so that an interruption can save it.
    pub fn track(&self, name: &str, model: ModelHandle) {
        let mut models = self.models.borrow_mut();
        models.retain(|(known, _)| known != name);
        models.push((name.to_string(), model));
    }

    /// Remembers a model that a step has changed, unless the script tracks it under a name of its own.
    pub fn remember(&self, model: &ModelHandle) {
        let mut models = self.models.borrow_mut();
        if !models.iter().any(|(_, known)| known.id == model.id) {
            let name = format!("{}-{}", model.name.replace(['/', '\\'], "-"), models.len() + 1);
            models.push((name, model.clone()));
        }
    }

    /// Writes the model into `model/`, with its card, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self, engine: &dyn Engine, model: &ModelHandle, dtype: SaveDtype) -> Result<()> {
        if self.metrics.borrow().is_none() {
            return Ok(());
        }
        let saved = self.replace(MODEL, self.card(model, None), |dir| engine.save(model, dir, dtype));
        self.saved.set(saved.is_ok());
        saved
    }

    /// What to say of a name that was logged where the table of names has another, once a run.
    pub fn hint(&self, name: &str) -> Option<String> {
        let now = names::in_place_of(name)?;
        let first = self.hinted.borrow_mut().insert(name.to_string());
        first.then(|| format!("run.log: `{name}` is drawn by itself; the name for it is {now}: rhopo doc metrics"))
    }

    /// Whether an evaluation within a loop is told: the first ones are, and later those that do not follow each other too fast
    /// to be read.
    pub(super) fn tells_again(&self) -> bool {
        let (told, last) = self.evaluated.get();
        let tells = told < ALL_TOLD || last.is_none_or(|last| last.elapsed() >= READABLE);
        if tells {
            self.evaluated.set((told + 1, Some(Instant::now())));
        }
        tells
    }

    /// The names of the open line that say most, with their numbers.
    pub fn told(&self, most: usize) -> Vec<(String, f64)> {
        let metrics = self.metrics.borrow();
        let Some(line) = metrics.as_ref().map(Metrics::current) else { return Vec::new() };
        let told = names::told(&line.numbers().map(|(name, _)| name).collect::<Vec<_>>(), most);
        told.into_iter().filter_map(|name| Some((name.to_string(), line.get(name)?))).collect()
    }

    /// Opens the line of `step`: what was logged for the step before is complete now. `own` are the run's own numbers.
    ///
    /// # Errors
    /// Metrics that cannot be written.
    pub fn advance(&self, step: u64, own: &[(&str, f64)]) -> Result<()> {
        self.folder.check()?;
        self.close(own);
        self.metrics.borrow_mut().as_mut().map_or(Ok(()), |metrics| metrics.advance(step))?;
        self.redraw();
        Ok(())
    }

    /// Draws the curves and writes the report while the run goes on, rarely enough that it costs next to nothing.
    fn redraw(&self) {
        let (last, took) = self.drawn.get();
        if last.elapsed() < REDRAWN.max(took * DRAWING) {
            return;
        }
        let begun = Instant::now();
        // What fails now is told of when the run ends, if it fails again.
        let _ = self.draw().and_then(|()| self.report());
        self.drawn.set((Instant::now(), begun.elapsed()));
    }

    /// The open step has failed and begins again.
    pub fn repeat_step(&self) {
        if let Some(metrics) = &mut *self.metrics.borrow_mut() {
            metrics.repeat();
        }
    }

    /// The step of the open line.
    fn step(&self) -> u64 {
        self.metrics.borrow().as_ref().map_or(0, |metrics| metrics.current().step)
    }

    /// Completes the line of the current step, if anything was logged in it. What the script has logged stands.
    fn close(&self, own: &[(&str, f64)]) {
        let mut metrics = self.metrics.borrow_mut();
        let Some(metrics) = metrics.as_mut().filter(|metrics| !metrics.current().is_empty()) else { return };
        for (name, value) in own {
            if metrics.current().get(name).is_none() {
                metrics.log(name, *value);
            }
        }
    }

    /// Writes what is not yet on disk. A run that was cut short after its first step began, or cannot be written to its end, and
    /// saved no model, saves those it tracks: nothing that was learned is lost.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn finish(&self, engine: &dyn Engine, own: &[(&str, f64)], cut_short: bool) -> Result<()> {
        self.close(own);
        let there = self.folder.check();
        let gone = there.is_err();
        let told = there.and_then(|()| self.metrics.borrow_mut().as_mut().map_or(Ok(()), Metrics::finish));
        let begun = self.step() > 0 || self.models.borrow().iter().any(|(_, model)| model.version() > 0);
        let lost = begun && (gone || !self.saved.get());
        let saved = if lost && (cut_short || told.is_err()) { self.save_trained(engine) } else { Ok(()) };
        // What is said of a model also says where it is now.
        saved.and(told)
    }

    /// Draws the curves.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn draw(&self) -> Result<()> {
        self.shown(|lines, edits| plot::write(lines, &edit::marks(edits), &self.folder.file(CURVES)).map(drop))
    }

    /// Writes the run on one page.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn report(&self) -> Result<()> {
        let folder = self.folder.path();
        self.shown(|lines, edits| {
            page::write(page::Source { folder, lines, edits, damaged: 0 }, &folder.join(page::FILE))
        })
    }

    /// Does what shows the numbers, in which no defect of ours may end a run.
    fn shown(&self, show: impl FnOnce(&[Line], &[Edit]) -> Result<()>) -> Result<()> {
        self.folder.check()?;
        let metrics = self.metrics.borrow();
        let Some(metrics) = &*metrics else { return Ok(()) };
        let edits: Vec<Edit> = metrics.edits().cloned().collect();
        let done = catch_unwind(AssertUnwindSafe(|| show(metrics.lines(), &edits)));
        done.unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref())))
    }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
