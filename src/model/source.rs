//! Which model a name means, and the files that it is read from.
//!
//! Owns no meaning of the files: `open` and `inspect` read them.

use super::chat::NAMED;
use super::{ADAPTER_CONFIG, CONFIG, builtin, hub, weights};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use builtin::Builtin;

/// Where a model's files are.
pub enum Source {
    Builtin(&'static Builtin),
    Folder(Location),
}

impl Source {
    /// A built-in model, a folder, or a hub id; a model's folder goes before a built-in one of its name. A model of the
    /// hub is in its cache then; `tell` hears the name of each file before it is downloaded.
    ///
    /// # Errors
    /// A name that means none of these; a model that the hub does not give.
    pub fn resolve(named: &Location, tell: &mut dyn FnMut(&str)) -> Result<Self> {
        // What is no text is no name that anything has.
        let name = &*named.to_string_lossy();
        match builtin::find(name) {
            // A run's folder holds a config.json too: weights tell it from a model's.
            Some(model) if !weights::exist(named) => Ok(Self::Builtin(model)),
            _ if files::exists(named) => Self::folder(named),
            _ if hub::is_id(name) => hub::fetch(name, named.door(), tell).map(Self::Folder),
            _ => {
                let unknown = Error::unknown("model", name, &builtin::names());
                let hint = unknown.hint.clone().unwrap_or_default();
                Err(unknown.hint(format!(
                    "{hint} (built in); otherwise give a folder with config.json, model.safetensors and \
                     tokenizer.json, or a hub id: owner/name"
                )))
            }
        }
    }

    /// # Errors
    /// No folder at `dir`, or one that may not be read, or in which a save was interrupted.
    pub fn folder(dir: &Location) -> Result<Self> {
        dir.admit()?;
        if files::is_folder(dir) {
            files::require_whole(dir)?;
            return Ok(Self::Folder(dir.clone()));
        }
        let gguf = dir.extension().is_some_and(|ending| ending == "gguf");
        let hint = if gguf { "a GGUF file is opened by load_frozen(path)" } else { weights::NEEDS };
        Err(Error::model(format!("{} is not a folder", dir.display())).hint(hint))
    }

    /// # Errors
    /// No built-in model of that name.
    pub fn builtin(name: &str) -> Result<Self> {
        let found = builtin::find(name).map(Self::Builtin);
        found.ok_or_else(|| Error::unknown("built-in model", name, &builtin::names()))
    }

    /// The folder of an adapter alone, whose file names the model.
    pub fn adapter(&self) -> Option<&Location> {
        match self {
            Self::Folder(dir) if files::is_file(&dir.join(ADAPTER_CONFIG)) && !files::is_file(&dir.join(CONFIG)) => {
                Some(dir)
            }
            _ => None,
        }
    }

    /// What it is called where it is shown.
    pub fn name(&self) -> String {
        match self {
            Self::Builtin(model) => format!("{} (built in)", model.name),
            Self::Folder(dir) => dir.display().to_string(),
        }
    }

    /// That there is no configuration.
    pub fn lacks_config(&self) -> Error {
        Error::model(format!("{} holds no {CONFIG}", self.name())).hint(weights::NEEDS)
    }

    /// What errors call a file of the model.
    pub fn label(&self, file: &str) -> String {
        match self {
            Self::Builtin(model) => format!("{}/{file}", model.name),
            Self::Folder(dir) => dir.join(file).display().to_string(),
        }
    }

    /// The files of chat templates that have names.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn named_templates(&self) -> Result<Vec<String>> {
        let Self::Folder(dir) = self else { return Ok(Vec::new()) };
        let folder = dir.join(NAMED);
        if !files::is_folder(&folder) {
            return Ok(Vec::new());
        }
        let name = |path: Location| {
            let name = path.file_name()?.to_str()?.to_string();
            name.ends_with(".jinja").then(|| format!("{NAMED}/{name}"))
        };
        Ok(files::entries(&folder)?.into_iter().filter_map(name).collect())
    }

    /// A file beside the weights, if the model has it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn bytes(&self, file: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Builtin(model) if file == CONFIG => Ok(Some(model.config.to_vec())),
            Self::Builtin(model) => {
                Ok(model.files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| bytes.to_vec()))
            }
            Self::Folder(dir) => {
                let path = dir.join(file);
                if files::is_file(&path) { files::bytes(&path).map(Some) } else { Ok(None) }
            }
        }
    }
}
