//! Models: a configuration, its parameters, perhaps an adapter, a tokenizer and a chat template; copied and merged.
//!
//! Owns no files (`open` reads them, `save` writes them) and no computation on rows: `decoder` runs one, `engine`
//! decides how.

mod base;
mod blend;
pub mod builtin;
pub mod chat;
pub mod config;
pub mod decoder;
pub mod gguf;
pub mod guard;
pub mod hub;
pub mod info;
pub mod init;
pub mod lora;
mod open;
mod parameter;
pub mod rows;
mod save;
pub mod source;
pub mod special;
pub mod tokenizer;
pub mod trunk;
pub mod weights;

pub use chat::ChatTemplate;
pub use config::Config;
pub use info::ModelInfo;
pub use lora::{Adapter, LoraOptions};
pub use open::{Adaptation, OpenOptions};
pub use parameter::{Arena, Parameter};
pub use save::is_saved;
pub use tokenizer::Tokenizer;
pub use trunk::{Head, Trunk};
pub use weights::SaveDtype;

use crate::error::{Error, Result};
use crate::gpu::{DType, Place};
use crate::kernel::packs::Packs;
use crate::kernel::value::Value;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Content by file name, in order of the name.
type Files = BTreeMap<String, Vec<u8>>;

/// A decoder with its head. Parameters are contiguous, and f32 on the host; after the trained ones were changed
/// [`Model::bump_version`] is to be called.
#[derive(Debug)]
pub struct Model {
    /// What is known of it without its weights; a model is read as this.
    pub info: ModelInfo,
    pub config: Config,
    /// A low-rank adapter on frozen weights.
    pub adapter: Option<Adapter>,
    version: AtomicU64,
    /// The model's own sorted by name, then the adapter's, so that a model keeps its places when it gets one.
    parameters: Vec<Parameter>,
    /// Where the trained ones lie on a device.
    arena: Option<Arena>,
    places: BTreeMap<String, usize>,
    files: Arc<Files>,
    /// Packed copies of the weights of this version.
    packs: Mutex<Arc<Packs>>,
}

impl std::ops::Deref for Model {
    type Target = ModelInfo;
    fn deref(&self) -> &ModelInfo {
        &self.info
    }
}

/// What a model is made of.
struct Parts {
    name: String,
    base: Option<String>,
    config: Config,
    adapter: Option<Adapter>,
    tokenizer: Option<Arc<Tokenizer>>,
    chat: Option<Arc<ChatTemplate>>,
    files: Arc<Files>,
    parameters: Vec<Parameter>,
    place: Place,
    /// The type that operations compute in on a device.
    compute: DType,
}

impl Parts {
    /// The model, its weights carried to its place; those that lie there already stay.
    ///
    /// # Errors
    /// A device without room for them.
    fn build(self) -> Result<Model> {
        let (parameters, arena) = parameter::carry(self.parameters, &self.place, self.compute)?;
        Ok(Self { parameters, ..self }.with(arena))
    }

    fn with(self, arena: Option<Arena>) -> Model {
        let Parts { name, base, config, adapter, tokenizer, chat, files, parameters, place, compute } = self;
        let count = |parameters: &[Parameter], trained: bool| {
            parameters.iter().filter(|p| p.trains || !trained).map(|p| p.value.len()).sum()
        };
        let size = count(&parameters, false);
        let info = ModelInfo {
            id: ModelInfo::fresh_id(),
            name,
            base,
            architecture: config.architecture.clone(),
            head: config.head,
            tokenizer,
            chat,
            eos: config.eos.clone(),
            context: config.max_positions,
            vocab_size: config.vocab_size,
            size,
            trained: count(&parameters, true),
            rank: adapter.as_ref().map(|adapter| adapter.rank),
            format: None,
            notes: config.notes.clone(),
            place,
            compute,
        };
        Model {
            info,
            config,
            adapter,
            version: AtomicU64::new(0),
            places: parameters.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect(),
            parameters,
            arena,
            files,
            packs: Mutex::new(Packs::new(size)),
        }
    }
}

impl Model {
    /// The same model around other parameters.
    fn parts(&self, parameters: Vec<Parameter>, adapter: Option<Adapter>) -> Parts {
        Parts {
            name: self.name.clone(),
            base: self.base.clone(),
            config: self.config.clone(),
            adapter,
            tokenizer: self.tokenizer.clone(),
            chat: self.chat.clone(),
            files: self.files.clone(),
            parameters,
            place: self.place.clone(),
            compute: self.compute,
        }
    }

    /// A copy that never changes and has no gradient. Weights that never change are shared with it, not copied.
    pub fn frozen(&self) -> Result<Arc<Self>> {
        self.still(self.config.clone(), self.parameters.len(), self.adapter.clone())
    }

    /// The model under the adapter: the same weights, not copied, without gradient. A head that is trained beside the
    /// adapter is copied as it is now.
    ///
    /// # Errors
    /// A model without an adapter.
    pub fn reference(&self) -> Result<Arc<Self>> {
        if self.adapter.is_none() {
            return Err(Error::model(format!("the model {} has no adapter to switch off", self.name))
                .hint("take a copy before training: model.frozen()"));
        }
        self.still(self.config.clone(), self.config.parameters().len(), None)
    }

    /// A copy that never changes, whose scores are larger by `by`.
    ///
    /// # Errors
    /// A model without a score head, or with an adapter, whose files have no place for it.
    pub fn shifted(&self, by: f64) -> Result<Arc<Self>> {
        if self.adapter.is_some() {
            return Err(Error::model(format!("the model {} is an adapter, whose files hold no shift", self.name))
                .hint("make it a whole model first: model.merge()"));
        }
        self.still(self.config.clone().with_score_shift(by)?, self.parameters.len(), None)
    }

    /// The first `count` parameters as a model that never changes.
    fn still(&self, config: Config, count: usize, adapter: Option<Adapter>) -> Result<Arc<Self>> {
        let parameters = self.parameters[..count].iter().map(Parameter::still).collect::<Result<_>>()?;
        let still = Parts { config, ..self.parts(parameters, adapter) }.with(None);
        *still.packs.lock().unwrap_or_else(PoisonError::into_inner) = self.packs().shared(|i| !self.changes(i));
        Ok(Arc::new(still))
    }

    /// A model of its own with the adapter's change added to the weights, ready to be trained as a whole.
    ///
    /// # Errors
    /// A model without an adapter.
    pub fn merge(&self) -> Result<Arc<Self>> {
        let Some(adapter) = &self.adapter else {
            return Err(Error::model(format!("the model {} has no adapter to merge", self.name)).hint(
                "start one with load_model(name, #{ lora: #{ rank: 16 } }) or read one with #{ adapter: path }",
            ));
        };
        let linears = self.adapted(adapter);
        let merged = |p: &Parameter| {
            let tensor = match linears.get(&p.name) {
                None => p.on_host()?,
                Some(linear) => self.merged(p, adapter, linear)?,
            };
            Parameter::trained(p.name.clone(), &tensor)
        };
        let parameters = self.whole().iter().map(merged).collect::<Result<_>>()?;
        Ok(Arc::new(self.parts(parameters, None).build()?))
    }

    /// The parameters without the adapter's.
    fn whole(&self) -> &[Parameter] {
        &self.parameters[..self.config.parameters().len()]
    }

    /// The adapted maps by the name of their weight.
    fn adapted(&self, adapter: &Adapter) -> BTreeMap<String, config::Linear> {
        adapter.linears(&self.config).into_iter().map(|linear| (linear.weight().0, linear)).collect()
    }

    /// A weight with the adapter's change, on the host.
    fn merged(&self, p: &Parameter, adapter: &Adapter, linear: &config::Linear) -> Result<Tensor> {
        let [a, b] = lora::names(&linear.name);
        let [a, b] = [self.own(&a)?.on_host()?, self.own(&b)?.on_host()?];
        lora::merged(&p.on_host()?, &a, &b, adapter.scale(), linear.layout)
    }

    /// How often the parameters were changed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// To be called after the parameters were changed.
    pub fn bump_version(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        *packs = packs.renewed(|i| !self.changes(i));
    }

    /// Where kernels keep packed copies of this version's weights.
    pub fn packs(&self) -> Arc<Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the parameter at this place of [`Model::parameters`] is trained.
    pub fn trains(&self, place: usize) -> bool {
        self.parameters.get(place).is_some_and(|p| p.trains)
    }

    /// Whether the parameter at this place can change: it is trained, or of a copy that can be mixed.
    pub fn changes(&self, place: usize) -> bool {
        self.parameters.get(place).is_some_and(|p| p.own)
    }

    /// Where its weights are.
    pub fn place(&self) -> &Place {
        &self.info.place
    }

    /// Where its trained weights lie on a device.
    pub fn arena(&self) -> Option<&Arena> {
        self.arena.as_ref()
    }

    /// What operations read of a parameter, by its Hugging Face name.
    pub fn parameter(&self, name: &str) -> Result<&Value> {
        Ok(&self.own(name)?.value)
    }

    fn own(&self, name: &str) -> Result<&Parameter> {
        Ok(&self.parameters[self.index(name)?])
    }

    /// The index of a parameter in [`Model::parameters`].
    pub fn index(&self, name: &str) -> Result<usize> {
        self.places.get(name).copied().ok_or_else(|| {
            let known: Vec<&String> = self.places.keys().collect();
            Error::unknown("parameter", name, &known)
        })
    }

    /// Name and value of every parameter: the model's own sorted by name, then the adapter's.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.parameters.iter().map(|p| (p.name.as_str(), &p.value))
    }

    /// The f32 numbers of the parameter at an index, which are those that are saved.
    ///
    /// # Errors
    /// A device that has failed.
    pub fn numbers(&self, index: usize) -> Result<Vec<f32>> {
        self.parameters[index].numbers()
    }

    /// Overwrites the numbers of the parameter at an index.
    ///
    /// # Errors
    /// A device that has failed.
    pub fn write(&self, index: usize, numbers: &[f32]) -> Result<()> {
        self.parameters[index].write(numbers)
    }
}

#[cfg(test)]
mod tests;
