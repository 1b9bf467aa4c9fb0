//! Models: a configuration, its parameters, and a tokenizer; loaded, saved, copied.
//!
//! Owns no computation on rows: `decoder` runs one, `engine` decides how.

pub mod builtin;
pub mod config;
pub mod decoder;
pub mod init;
pub mod rows;
pub mod tokenizer;
pub mod weights;

pub use config::{Config, Norm};
pub use tokenizer::Tokenizer;
pub use weights::SaveDtype;

use crate::error::{Error, Result};
use crate::kernel::tape::Packs;
use crate::tensor::rng::Key;
use candle_core::{Device, Tensor, Var};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Files that are not ours to understand but belong to the model: copied from where it was loaded to where it is saved.
const CARRIED: [&str; 8] = [
    GENERATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Content by file name, in order of the name.
type Files = BTreeMap<String, Vec<u8>>;

/// A causal language model. Parameters are f32 and contiguous; of a trainable model they are candle variables, which
/// the optimizer changes in place (then calling [`Model::bump_version`]).
#[derive(Debug)]
pub struct Model {
    /// What the user called it: a built-in name or a folder.
    pub name: String,
    pub config: Config,
    pub tokenizer: Option<Arc<Tokenizer>>,
    id: u64,
    version: AtomicU64,
    trainable: bool,
    device: Device,
    parameters: BTreeMap<String, Tensor>,
    files: Arc<Files>,
    /// Packed copies of the weights of this version.
    packs: Mutex<Arc<Packs>>,
}

impl Model {
    /// Opens a folder in the Hugging Face layout: `config.json`, safetensors, and `tokenizer.json` where there is one.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let (config, files) = describe(dir)?;
        let values = weights::read(dir, &config.parameters(), config.tied)?;
        Self::assemble(dir.display().to_string(), config, files, values, device)
    }

    /// The architecture and tokenizer of a folder with random weights.
    pub fn load_random(dir: &Path, key: Key, device: &Device) -> Result<Self> {
        let (config, files) = describe(dir)?;
        let values = random_values(&config, key);
        Self::assemble(dir.display().to_string(), config, files, values, device)
    }

    /// A model inside the binary (`builtin::CATALOG`).
    pub fn builtin(name: &str, device: &Device) -> Result<Self> {
        let (model, config, files) = builtin_parts(name)?;
        let values = weights::read_bytes(model.weights, &format!("{name}/{}", weights::SINGLE), &config.parameters())?;
        Self::assemble(name.into(), config, files, values, device)
    }

    /// A model inside the binary with random weights.
    pub fn builtin_random(name: &str, key: Key, device: &Device) -> Result<Self> {
        let (_, config, files) = builtin_parts(name)?;
        let values = random_values(&config, key);
        Self::assemble(name.into(), config, files, values, device)
    }

    /// A built-in model or a folder; a model's folder goes before a built-in one of its name. With a key the weights
    /// are random.
    pub fn open(name_or_dir: &str, random: Option<Key>, device: &Device) -> Result<Self> {
        let dir = Path::new(name_or_dir);
        // A run's folder holds a config.json too: weights tell it from a model's.
        let built_in = builtin::find(name_or_dir).is_some() && !weights::exist(dir);
        match (built_in, random) {
            (true, None) => Self::builtin(name_or_dir, device),
            (true, Some(key)) => Self::builtin_random(name_or_dir, key, device),
            (false, _) if !dir.exists() => {
                let unknown = Error::unknown("model", name_or_dir, &builtin::names());
                let hint = unknown.hint.clone().unwrap_or_default();
                Err(unknown.hint(format!(
                    "{hint} (built in); otherwise give a folder with config.json, model.safetensors and tokenizer.json"
                )))
            }
            (false, None) => Self::load(dir, device),
            (false, Some(key)) => Self::load_random(dir, key, device),
        }
    }

    /// A model with random weights; the same key gives the same weights.
    pub fn random(config: Config, tokenizer: Option<Arc<Tokenizer>>, key: Key, device: &Device) -> Result<Self> {
        let values = random_values(&config, key);
        let mut model = Self::assemble("random".into(), config, Files::new(), values, device)?;
        model.tokenizer = tokenizer;
        Ok(model)
    }

    /// Puts a model together from its files and the numbers of its parameters, in the order of `config.parameters()`.
    fn assemble(name: String, config: Config, files: Files, values: Vec<Vec<f32>>, device: &Device) -> Result<Self> {
        let (config, tokenizer) = with_files(config, &files)?;
        let mut parameters = BTreeMap::new();
        for ((name, shape), values) in config.parameters().into_iter().zip(values) {
            parameters.insert(name, Var::from_vec(values, shape, device)?.into_inner());
        }
        Ok(Self {
            name,
            config,
            tokenizer,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            version: AtomicU64::new(0),
            trainable: true,
            device: device.clone(),
            packs: fresh_packs(&parameters),
            parameters,
            files: Arc::new(files),
        })
    }

    /// A copy that never changes and has no gradient.
    pub fn frozen(&self) -> Result<Arc<Self>> {
        let mut parameters = BTreeMap::new();
        for (name, tensor) in self.parameters() {
            parameters.insert(name.to_string(), tensor.detach().copy()?);
        }
        Ok(Arc::new(Self {
            name: self.name.clone(),
            config: self.config.clone(),
            tokenizer: self.tokenizer.clone(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            version: AtomicU64::new(0),
            trainable: false,
            device: self.device.clone(),
            packs: fresh_packs(&parameters),
            parameters,
            files: self.files.clone(),
        }))
    }

    /// Writes a folder that transformers opens: configuration, weights, tokenizer and what else came with the model.
    pub fn save(&self, dir: &Path, dtype: SaveDtype) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|e| Error::file(format!("{} could not be made: {e}", dir.display())))?;
        let mut named = Vec::with_capacity(self.parameters.len());
        for (name, tensor) in self.parameters() {
            let values = tensor.detach().flatten_all()?.to_vec1::<f32>()?;
            named.push((name, tensor.dims().to_vec(), values));
        }
        weights::write(&dir.join(weights::SINGLE), &named, dtype)?;
        write_json(&dir.join(CONFIG), &self.config.to_json_as(dtype.long_name()))?;
        for (name, bytes) in self.files.iter() {
            weights::replace(&dir.join(name), |out| out.write_all(bytes))?;
        }
        if !self.files.contains_key(GENERATION) {
            write_json(
                &dir.join(GENERATION),
                &json!({"eos_token_id": self.config.eos, "pad_token_id": self.config.pad}),
            )?;
        }
        Ok(())
    }

    /// Unique in this process; copies have their own.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How often the parameters were changed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// To be called after the parameters were changed.
    pub fn bump_version(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        *self.packs.lock().unwrap_or_else(PoisonError::into_inner) = Packs::new(count(&self.parameters));
    }

    /// Where kernels keep packed copies of this version's weights.
    pub fn packs(&self) -> Arc<Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn trainable(&self) -> bool {
        self.trainable
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// One parameter by its Hugging Face name.
    pub fn parameter(&self, name: &str) -> Result<&Tensor> {
        self.parameters.get(name).ok_or_else(|| {
            let known: Vec<&String> = self.parameters.keys().collect();
            Error::unknown("parameter", name, &known)
        })
    }

    /// Name and tensor of every parameter, sorted by name.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.parameters.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tokenizer, or an error that says what needs it.
    pub fn require_tokenizer(&self, what: &str) -> Result<&Arc<Tokenizer>> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::model(format!("{what} needs a tokenizer, but the model {} has none", self.name))
                .hint("put tokenizer.json into the model's folder, or give token ids with encode_ids")
        })
    }
}

impl std::fmt::Display for Model {
    /// `Model(tiny, Qwen2ForCausalLM, 999040 parameters)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let frozen = if self.trainable { "" } else { ", frozen" };
        let (architecture, count) = (&self.config.architecture, self.config.parameter_count());
        write!(f, "Model({}, {architecture}, {count} parameters{frozen})", self.name)
    }
}

fn count(parameters: &BTreeMap<String, Tensor>) -> usize {
    parameters.values().map(Tensor::elem_count).sum()
}

fn fresh_packs(parameters: &BTreeMap<String, Tensor>) -> Mutex<Arc<Packs>> {
    Mutex::new(Packs::new(count(parameters)))
}

/// A built-in model with its configuration and its other files.
fn builtin_parts(name: &str) -> Result<(&'static builtin::Builtin, Config, Files)> {
    let model = builtin::find(name).ok_or_else(|| Error::unknown("built-in model", name, &builtin::names()))?;
    let config = parse_config(model.config, &format!("{name}/{CONFIG}"))?;
    let files = model.files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
    Ok((model, config, files))
}

/// The configuration and the other files of a folder.
fn describe(dir: &Path) -> Result<(Config, Files)> {
    let needs = "a model folder holds config.json, model.safetensors and tokenizer.json";
    if !dir.is_dir() {
        return Err(Error::model(format!("{} is not a folder", dir.display())).hint(needs));
    }
    let path = dir.join(CONFIG);
    if !path.is_file() {
        return Err(Error::model(format!("{} holds no {CONFIG}", dir.display())).hint(needs));
    }
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| Error::file(format!("{} could not be read: {e}", path.display())))
    };
    let config = parse_config(&read(&path)?, &path.display().to_string())?;
    let mut files = Files::new();
    for name in CARRIED {
        let path = dir.join(name);
        if path.is_file() {
            files.insert(name.to_string(), read(&path)?);
        }
    }
    Ok((config, files))
}

fn parse_config(bytes: &[u8], label: &str) -> Result<Config> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| Error::model(format!("{label} is not valid JSON: {e}")))?;
    Config::from_json(&value)
}

/// What the files beside the weights say: end tokens from `generation_config.json`, and the tokenizer.
fn with_files(mut config: Config, files: &Files) -> Result<(Config, Option<Arc<Tokenizer>>)> {
    if let Some(bytes) = files.get(GENERATION) {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|e| Error::model(format!("{GENERATION} is not valid JSON: {e}")))?;
        config = config.with_generation(&value)?;
    }
    let Some(bytes) = files.get(TOKENIZER) else {
        return Ok((config, None));
    };
    let tokenizer = Tokenizer::from_bytes(bytes, files.get(TOKENIZER_CONFIG).map(Vec::as_slice))?;
    if tokenizer.size() > config.vocab_size {
        return Err(Error::model(format!(
            "{TOKENIZER} has {} tokens, but the model's vocabulary has {}",
            tokenizer.size(),
            config.vocab_size
        ))
        .hint("the tokenizer belongs to another model: every token needs a row in the embedding"));
    }
    if config.eos.is_empty() {
        config = config.with_eos(tokenizer.eos().into_iter().collect())?;
    }
    Ok((config, Some(Arc::new(tokenizer))))
}

fn random_values(config: &Config, key: Key) -> Vec<Vec<f32>> {
    let numbered = config.parameters().into_iter().enumerate();
    numbered.map(|(i, (name, shape))| init::values(config, &name, &shape, key.fold(i as u64))).collect()
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    weights::replace(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests;
