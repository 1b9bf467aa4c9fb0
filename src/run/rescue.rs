//! Models that were trained, when the run ends before it has saved them: in its folder, or where that does not take them, in a new
//! one in the current folder.

use crate::engine::{Engine, ModelHandle};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::model::SaveDtype;
use crate::run::folder;
use crate::run::handle::{MODEL, Run};

impl Run {
    /// Saves what was trained.
    ///
    /// # Errors
    /// The run's folder does not take it: the error says where it is instead, if anywhere.
    pub(super) fn save_trained(&self, engine: &dyn Engine) -> Result<()> {
        self.save_tracked(engine).map_err(|e| match self.rescue(engine) {
            Ok(Some(place)) => {
                let what = format!("{}; what was trained is in {} instead", e.what, place.display());
                Error { what, ..e }
            }
            // Where nothing takes it, the first failure says why.
            Ok(None) | Err(_) => e,
        })
    }

    /// The models that are trained, by the names of their folders: the only one has that which `save` gives, several have
    /// their own.
    fn trained(&self) -> Vec<(String, ModelHandle)> {
        let models = self.models.borrow();
        let mut trained: Vec<_> = models.iter().filter(|(_, model)| model.trainable()).cloned().collect();
        match &mut trained[..] {
            [(name, _)] => *name = MODEL.to_string(),
            several => several.iter_mut().for_each(|(name, _)| *name = format!("{MODEL}-{name}")),
        }
        trained
    }

    /// Writes them into the run's folder.
    ///
    /// # Errors
    /// A folder that cannot be written.
    fn save_tracked(&self, engine: &dyn Engine) -> Result<()> {
        self.trained().iter().try_for_each(|(name, model)| {
            self.replace(name, self.card(model, None), |dir| engine.save(model, dir, SaveDtype::F32))
        })
    }

    /// Saves what was trained in a new folder; returns it.
    fn rescue(&self, engine: &dyn Engine) -> Result<Option<Location>> {
        let trained = self.trained();
        if trained.is_empty() {
            return Ok(None);
        }
        let run = self.folder().path();
        let name = run.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy());
        let place = folder::new(&run.door().at(format!("{name}-rescued")))?;
        let mut saved = trained.iter();
        match saved.try_for_each(|(name, model)| engine.save(model, &place.join(name), SaveDtype::F32)) {
            Ok(()) => Ok(Some(place)),
            // Half of it is of no use to anybody.
            Err(e) => files::remove_folder(&place).and(Err(e)),
        }
    }
}
