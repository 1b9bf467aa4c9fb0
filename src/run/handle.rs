//! An open run: its folder, what is logged and what is saved.
//! Owns no steps (`step_loop.rs`), no drawing and no file formats.

use crate::engine::{Engine, ModelHandle};
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::model::SaveDtype;
use crate::run::checkpoint::state::{Best, RunState};
use crate::run::folder::Folder;
use crate::run::metrics::{Metrics, MetricsState};
use crate::run::plot;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};

pub(super) const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const LOCK: &str = "lock";
/// The best model, and beside its weights what it is the best of.
const BEST: [&str; 2] = ["model-best", "best.json"];

/// A run with its folder.
pub struct Run {
    folder: Folder,
    /// Nobody else writes into the folder meanwhile.
    _lock: Option<Lock>,
    /// None until a continued run has come to where it goes on: nothing of what it repeats is written.
    metrics: RefCell<Option<Metrics>>,
    best: RefCell<Option<Best>>,
    models: RefCell<Vec<(String, ModelHandle)>>,
    saved: Cell<bool>,
}

impl Run {
    /// Makes the folder, with `config.json` and the script's text.
    ///
    /// # Errors
    /// A folder that holds something, or one that cannot be written.
    pub fn create(folder: Folder, config: &Value, script: &str) -> Result<Self> {
        let lock = Some(files::lock(&folder.file(LOCK))?);
        folder.write(CONFIG, &format!("{config:#}\n"))?;
        folder.write("script.rhai", script)?;
        let metrics = RefCell::new(Some(Metrics::create(&folder.file(METRICS))?));
        Ok(Self { _lock: lock, metrics, ..Self::open(folder) })
    }

    /// A run that another process has begun. `again`: it has no checkpoint, and begins at its first step once more.
    ///
    /// # Errors
    /// Another process that is writing there; a file that cannot be written.
    pub fn reopen(folder: Folder, again: bool) -> Result<Self> {
        let lock = Some(files::lock(&folder.file(LOCK))?);
        let metrics = RefCell::new(again.then(|| Metrics::create(&folder.file(METRICS))).transpose()?);
        Ok(Self { _lock: lock, metrics, ..Self::open(folder) })
    }

    fn open(folder: Folder) -> Self {
        let (metrics, best, models) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { folder, _lock: None, metrics, best, models, saved: Cell::new(false) }
    }

    /// Everything that came before the checkpoint has been repeated: the run goes on.
    ///
    /// # Errors
    /// Metrics that are not as they were.
    pub fn resume(&self, state: &RunState) -> Result<()> {
        let metrics = Metrics::resume(&self.folder.file(METRICS), &state.metrics, state.seconds)?;
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
        let [folder, about] = BEST;
        self.folder.replace(folder, |dir| {
            engine.save(model, dir, SaveDtype::F32)?;
            files::write(&dir.join(about), format!("{:#}\n", json!({ "name": name, "value": value, "step": step })))
        })?;
        *self.best.borrow_mut() = Some(Best { name: name.into(), value, step });
        Ok(())
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

    /// Writes the model into `model/`, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self, engine: &dyn Engine, model: &ModelHandle, dtype: SaveDtype) -> Result<()> {
        if self.metrics.borrow().is_none() {
            return Ok(());
        }
        self.folder.replace("model", |dir| engine.save(model, dir, dtype))?;
        self.saved.set(true);
        Ok(())
    }

    /// Opens the line of `step`: what was logged for the step before is complete now. `sampled` are the tokens that
    /// models have sampled so far.
    ///
    /// # Errors
    /// Metrics that cannot be written.
    pub fn advance(&self, step: u64, sampled: u64) -> Result<()> {
        self.close(sampled);
        self.metrics.borrow_mut().as_mut().map_or(Ok(()), |metrics| metrics.advance(step))
    }

    /// The step of the open line.
    fn step(&self) -> u64 {
        self.metrics.borrow().as_ref().map_or(0, |metrics| metrics.current().step)
    }

    /// Completes the line of the current step, if anything was logged in it.
    fn close(&self, sampled: u64) {
        if let Some(metrics) = &mut *self.metrics.borrow_mut()
            && sampled > 0
            && !metrics.current().is_empty()
        {
            metrics.log("sampled", sampled as f64);
        }
    }

    /// Writes what is not yet on disk. A run that was cut short after its first step began, and saved no model, saves those
    /// it tracks: nothing that was learned is lost.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn finish(&self, engine: &dyn Engine, sampled: u64, cut_short: bool) -> Result<()> {
        self.close(sampled);
        if let Some(metrics) = &mut *self.metrics.borrow_mut() {
            metrics.finish()?;
        }
        let begun = self.step() > 0 || self.models.borrow().iter().any(|(_, model)| model.version() > 0);
        if cut_short && begun && !self.saved.get() {
            self.save_tracked(engine)?;
        }
        Ok(())
    }

    /// Draws the curves.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn draw(&self) -> Result<()> {
        let metrics = self.metrics.borrow();
        let Some(metrics) = &*metrics else { return Ok(()) };
        plot::write(metrics, &self.folder.file("curves.svg")).map(drop)
    }

    /// The only trainable model goes where `save` would have put it; several go side by side, by their names.
    fn save_tracked(&self, engine: &dyn Engine) -> Result<()> {
        let models = self.models.borrow();
        let trained: Vec<_> = models.iter().filter(|(_, model)| model.trainable()).collect();
        if let [(_, model)] = trained[..] {
            return self.save(engine, model, SaveDtype::F32);
        }
        for (name, model) in trained {
            self.folder.replace(&format!("model-{name}"), |dir| engine.save(model, dir, SaveDtype::F32))?;
        }
        Ok(())
    }
}
