//! An open run: its folder, what is logged and what is saved.
//! Owns no steps (`step_loop.rs`), no drawing and no file formats.

use crate::engine::{Engine, ModelHandle};
use crate::error::Result;
use crate::model::SaveDtype;
use crate::run::folder::Folder;
use crate::run::metrics::Metrics;
use crate::run::plot;
use serde_json::Value;
use std::cell::{Cell, RefCell};

/// A run with its folder.
pub struct Run {
    folder: Folder,
    metrics: RefCell<Metrics>,
    models: RefCell<Vec<(String, ModelHandle)>>,
    saved: Cell<bool>,
}

impl Run {
    /// Makes the folder, with `config.json` and the script's text.
    ///
    /// # Errors
    /// A folder that holds something, or one that cannot be written.
    pub fn create(folder: Folder, config: &Value, script: &str) -> Result<Self> {
        folder.write("config.json", &format!("{config:#}\n"))?;
        folder.write("script.rhai", script)?;
        let metrics = RefCell::new(Metrics::create(&folder.file("metrics.jsonl"))?);
        Ok(Self { folder, metrics, models: RefCell::default(), saved: Cell::new(false) })
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Adds a number to the line of the current step.
    pub fn log(&self, name: &str, value: f64) {
        self.metrics.borrow_mut().log(name, value);
    }

    /// What the current step has logged under this name so far.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.metrics.borrow().current().get(name)
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
    pub fn save(&self, engine: &dyn Engine, model: &ModelHandle, dtype: SaveDtype) -> Result<()> {
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
        self.metrics.borrow_mut().advance(step)
    }

    /// Completes the line of the current step, if anything was logged in it.
    fn close(&self, sampled: u64) {
        let mut metrics = self.metrics.borrow_mut();
        if sampled > 0 && !metrics.current().is_empty() {
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
        self.metrics.borrow_mut().finish()?;
        plot::write(&self.metrics.borrow(), &self.folder.file("curves.svg"))?;
        let begun = self.metrics.borrow().current().step > 0;
        let begun = begun || self.models.borrow().iter().any(|(_, model)| model.version() > 0);
        if cut_short && begun && !self.saved.get() {
            self.save_tracked(engine)?;
        }
        Ok(())
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
