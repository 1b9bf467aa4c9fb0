//! Opening models: built-in ones, folders in the Hugging Face layout, hub ids; with another head, an adapter, or random
//! weights.
//!
//! Owns which files belong to a model. `weights` reads numbers, `config` and `lora` say which must be there.

use super::chat::NAMED;
use super::lora::{self, Adapter, LoraOptions, PREFIX};
use super::source::Source;
use super::weights::{Naming, Wanted};
use super::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, CHAT_TEMPLATE, CONFIG, ChatTemplate, Config, Files, GENERATION, Head, Model,
    Parameter, Parts, TOKENIZER, TOKENIZER_CONFIG, Tokenizer, base, init, special, weights,
};
use crate::budget::memory;
use crate::error::{Error, Result};
use crate::files::{self, Door, Location, Visitor};
use crate::gpu::{DType, Place};
use crate::tensor::rng::Key;
use serde_json::Value;
use std::sync::Arc;

/// Bytes of a file of settings, at most.
const MOST_CONFIG: usize = 16 << 20;

/// Files that are not ours to understand but belong to the model: copied from where it was loaded to where it is saved.
pub(super) const CARRIED: [&str; 8] = [
    GENERATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    CHAT_TEMPLATE,
];

/// How to open a model.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Random weights instead of the stored ones.
    pub random: bool,
    /// The head to put on the trunk; the stored one unless given.
    pub head: Option<Head>,
    pub adaptation: Adaptation,
    /// What is not stored is drawn from here.
    pub key: Key,
    /// The type that a device computes in; the host computes in f32.
    pub compute: DType,
}

impl OpenOptions {
    /// As stored; what is not stored follows `key`.
    pub fn new(key: Key) -> Self {
        Self { random: false, head: None, adaptation: Adaptation::None, key, compute: DType::Bf16 }
    }
}

/// Which part is trained.
#[derive(Debug, Clone, Default)]
pub enum Adaptation {
    /// All of it.
    #[default]
    None,
    /// A new adapter.
    New(LoraOptions),
    /// The adapter in a folder.
    Stored(Location),
}

impl Model {
    /// Opens a folder in the Hugging Face layout: `config.json`, safetensors, and `tokenizer.json` where there is one.
    pub fn load(dir: &Location, place: &Place) -> Result<Self> {
        let checkpoint = Checkpoint::read(Source::folder(dir)?)?;
        checkpoint.open(dir, &OpenOptions::new(Key::new(0)), place)
    }

    /// A built-in model, a folder, or a hub id; a model's folder goes before a built-in one of its name. A folder that
    /// holds an adapter alone names its model, which has to come through the same door.
    pub fn open(name: &Location, options: &OpenOptions, place: &Place) -> Result<Self> {
        memory::enough()?;
        let source = Source::resolve(name, &mut |_| {})?;
        match source.adapter() {
            Some(dir) => open_adapted(dir, options, place),
            None => Checkpoint::read(source)?.open(name, options, place),
        }
    }

    /// A built-in model.
    pub fn builtin(name: &str, place: &Place) -> Result<Self> {
        Checkpoint::read(Source::builtin(name)?)?.open(&no_folder(name), &OpenOptions::new(Key::new(0)), place)
    }

    /// A built-in model with random weights.
    pub fn builtin_random(name: &str, key: Key, place: &Place) -> Result<Self> {
        let options = OpenOptions { random: true, ..OpenOptions::new(key) };
        Checkpoint::read(Source::builtin(name)?)?.open(&no_folder(name), &options, place)
    }

    /// A model with random weights; the same key gives the same weights.
    pub fn random(config: Config, tokenizer: Option<Arc<Tokenizer>>, key: Key, place: &Place) -> Result<Self> {
        let checkpoint = Checkpoint { config, files: Files::new(), weights: None };
        let options = OpenOptions { random: true, ..OpenOptions::new(key) };
        let mut model = checkpoint.open(&no_folder("random"), &options, place)?;
        model.info.tokenizer = tokenizer;
        Ok(model)
    }
}

/// A name that is no path.
fn no_folder(name: &str) -> Location {
    Door::closed(Visitor::Script).at(name)
}

/// A folder with an adapter alone: its file names the model, as a path, a hub id or a built-in name.
fn open_adapted(dir: &Location, options: &OpenOptions, place: &Place) -> Result<Model> {
    if !matches!(options.adaptation, Adaptation::None) {
        return Err(Error::value(format!("{} is an adapter, which cannot get another one", dir.display()))
            .hint("merge it first: load_model(dir).merge().save(other)"));
    }
    let path = dir.join(ADAPTER_CONFIG);
    let source = read_json(&path)?;
    let base = source.get("base_model_name_or_path").and_then(Value::as_str).ok_or_else(|| {
        Error::model(format!("{} does not name the model that the adapter belongs to", path.display()))
            .hint("load that model: load_model(name, #{ adapter: dir })")
    })?;
    // A relative path may be meant from where the adapter is, as well as from here.
    let (here, beside) = (dir.door().at(base), files::beside(&path, base));
    let base = if !files::exists(&here) && files::is_file(&beside.join(CONFIG)) { beside } else { here };
    let options = OpenOptions { adaptation: Adaptation::Stored(dir.clone()), ..options.clone() };
    Model::open(&base, &options, place).map_err(|e| {
        let hint = e.hint.clone().unwrap_or_default();
        Error::new(e.kind, format!("the model {} of the adapter {}: {}", base.display(), dir.display(), e.what))
            .hint(format!("{hint}; or give the model yourself: load_model(name, #{{ adapter: {:?} }})", dir.display()))
    })
}

/// The head that an adapter was trained with.
fn task_head(adapter: &Value) -> Option<Head> {
    if lora::has_value_head(adapter) {
        return Some(Head::LmValue);
    }
    match adapter.get("task_type").and_then(Value::as_str) {
        Some("SEQ_CLS") => Some(Head::Score),
        Some("TOKEN_CLS") => Some(Head::Value),
        _ => None,
    }
}

/// What a model is made from.
struct Checkpoint {
    config: Config,
    files: Files,
    /// Where its weights are; none where they are to be drawn.
    weights: Option<Source>,
}

impl Checkpoint {
    /// Reads all but the weights.
    fn read(source: Source) -> Result<Self> {
        if let Source::Folder(dir) = &source
            && !weights::exist(dir)
            && weights::exist(&dir.join("model"))
        {
            return Err(Error::model(format!("{} is the folder of a run", dir.display()))
                .hint(format!("its model is in {}", dir.join("model").display())));
        }
        let config = source.bytes(CONFIG)?.ok_or_else(|| source.lacks_config())?;
        let config = Config::from_json(&parse_json(&config, &source.label(CONFIG))?)?;
        let mut files = Files::new();
        for name in CARRIED.map(str::to_string).into_iter().chain(source.named_templates()?) {
            if let Some(bytes) = source.bytes(&name)? {
                files.insert(name, bytes);
            }
        }
        Ok(Self { config, files, weights: Some(source) })
    }

    fn open(self, name: &Location, options: &OpenOptions, place: &Place) -> Result<Model> {
        if let Adaptation::Stored(dir) = &options.adaptation {
            files::require_whole(dir)?;
        }
        let settings = special::tokenizer_config(|name| Ok(self.files.get(name).cloned()), self.config.model_type())?;
        let (stored, tokenizer) = with_files(self.config, &self.files, settings.as_deref())?;
        let named: Vec<(String, Vec<u8>)> = self
            .files
            .iter()
            .filter(|(name, _)| name.starts_with(NAMED))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect();
        let jinja = self.files.get(CHAT_TEMPLATE).map(Vec::as_slice);
        let chat = ChatTemplate::from_files(settings.as_deref(), jinja, &named)?.map(Arc::new);
        let head = match (&options.adaptation, options.head) {
            (Adaptation::Stored(dir), None) => task_head(&read_json(&dir.join(ADAPTER_CONFIG))?),
            (_, head) => head,
        };
        let mut config = head.map_or_else(|| Ok(stored.clone()), |head| stored.clone().with_head(head))?;
        let begun = self.weights.is_some()
            && !options.random
            && stored.head == Head::Score
            && !taken_over(&stored, &config).is_empty();
        if begun {
            config.notes.push("the value head begins as the stored score head".into());
        }
        if self.weights.is_some() && !stored.head.has(Head::Lm) && config.head.has(Head::Lm) && !config.tied {
            let what = format!("{} is a {}, which holds no language-model head", name.display(), stored.architecture);
            return Err(Error::model(what).hint("#{ head: \"lm+value\" } is for language models"));
        }
        let mut adapter = match &options.adaptation {
            Adaptation::None => None,
            Adaptation::New(lora) => Some(Adapter::new(lora, &config, lora::lasting(name))?),
            Adaptation::Stored(dir) => Some(Adapter::from_json(&read_json(&dir.join(ADAPTER_CONFIG))?, &config)?),
        };
        let heads: Vec<String> = config.measuring_parameters().into_iter().map(|(name, _)| name).collect();
        let wanted = config.parameters();
        let random = |i: usize| {
            let (name, shape) = &wanted[i];
            init::values(&config, name, shape, options.key.fold(i as u64))
        };
        let values: Vec<Vec<f32>> = match (&self.weights, options.random) {
            (None, _) | (_, true) => (0..wanted.len()).map(random).collect(),
            (Some(source), false) => {
                let read = read_weights(source, &stored, &config)?;
                read.into_iter().enumerate().map(|(i, values)| values.unwrap_or_else(|| random(i))).collect()
            }
        };
        // The shift of the scores is the bias that a value head has.
        let bias = config.measuring_name().map(|name| format!("{name}.bias"));
        let mut parameters = Vec::with_capacity(wanted.len());
        for ((name, shape), mut values) in wanted.iter().zip(values) {
            if begun && bias.as_ref() == Some(name) {
                values.fill(stored.score_shift as f32);
            }
            let trains = adapter.is_none() || heads.contains(name);
            parameters.push(Parameter::new(name.clone(), shape, values, trains)?);
        }
        if let Some(adapter) = &mut adapter {
            add_adapter(&mut parameters, adapter, &config, &heads, options)?;
        }
        let base = match (&self.weights, &options.adaptation) {
            // Random weights come from nowhere.
            _ if options.random => None,
            (Some(Source::Folder(dir)), Adaptation::Stored(adapter)) => base::of(name, &[dir, adapter]),
            (Some(Source::Folder(dir)), _) => base::of(name, &[dir]),
            _ => None,
        };
        let name = name.display().to_string();
        let (files, place, compute) = (Arc::new(self.files), place.clone(), options.compute);
        Parts { name, base, config, adapter, tokenizer, chat, files, parameters, place, compute }.build()
    }
}

/// Adds A and B of every adapted map, new or read, and takes over what the file holds beside them: a head that was
/// trained with them, and weights of the model itself, as PEFT writes embeddings that may have changed.
fn add_adapter(
    parameters: &mut Vec<Parameter>,
    adapter: &mut Adapter,
    config: &Config,
    heads: &[String],
    options: &OpenOptions,
) -> Result<()> {
    let mut wanted = adapter.parameters(config);
    let Adaptation::Stored(dir) = &options.adaptation else {
        for (i, (name, shape)) in wanted.into_iter().enumerate() {
            // The model's own parameters have the keys from 0.
            let values = lora::first_values(&name, &shape, options.key.fold((parameters.len() + i) as u64));
            parameters.push(Parameter::new(name, &shape, values, true)?);
        }
        return Ok(());
    };
    let path = dir.join(ADAPTER_WEIGHTS);
    if !files::is_file(&path) {
        return Err(weights::missing(dir, ADAPTER_WEIGHTS));
    }
    let adapted = wanted.len();
    wanted.extend(config.parameters());
    let prefixed = wanted.into_iter().map(|(name, shape)| (format!("{PREFIX}{name}"), shape));
    let mut wanted = Wanted::all(prefixed);
    let own = |wanted: &Wanted| wanted.name.strip_prefix(PREFIX).unwrap_or(&wanted.name).to_string();
    wanted[adapted..].iter_mut().for_each(|wanted| wanted.optional = !heads.contains(&own(wanted)));
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    let naming = Naming::of(config);
    let tied = naming.tied.map(|names| names.map(|name| format!("{PREFIX}{name}")));
    let values = weights::read_file(&path, &wanted, &Naming { tied, ..Naming::default() })?;
    for (wanted, values) in wanted.iter().zip(values) {
        let (name, Some(values)) = (own(wanted), values) else { continue };
        match parameters.iter_mut().find(|p| p.name == name) {
            None => parameters.push(Parameter::new(name, &wanted.shape, values, true)?),
            Some(place) => {
                let trains = heads.contains(&name);
                if !trains {
                    adapter.replaced.push(name.clone());
                }
                *place = Parameter::new(name, &wanted.shape, values, trains)?;
            }
        }
    }
    Ok(())
}

/// The stored parameters that a head of another kind takes over, by their names there and here. A score head reads a row at
/// its last token, a value head at every token: its weight begins as it is. A critic so starts as the reward model that it
/// foresees (Ouyang et al. 2022, arXiv:2203.02155, section C.4). A value head is the same on its own and beside a language
/// model's.
fn taken_over(stored: &Config, config: &Config) -> Vec<(String, String)> {
    let parts: &[&str] = match (stored.head, config.head) {
        (Head::Score, Head::Value | Head::LmValue) => &["weight"],
        (Head::Value, Head::LmValue) | (Head::LmValue, Head::Value) => &["bias", "weight"],
        _ => &[],
    };
    let names = stored.measuring_name().zip(config.measuring_name());
    let pair = |part: &&str| names.map(|(from, to)| (format!("{from}.{part}"), format!("{to}.{part}")));
    parts.iter().filter_map(pair).collect()
}

/// The stored numbers of every parameter of `config`; none for those of a new head.
fn read_weights(source: &Source, stored: &Config, config: &Config) -> Result<Vec<Option<Vec<f32>>>> {
    let names =
        |parameters: Vec<(String, Vec<usize>)>| parameters.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    // A stored head of the same name but of another kind is not this model's head.
    let (mut new, mut old) = match stored.head == config.head {
        true => (Vec::new(), Vec::new()),
        false => (names(config.head_parameters()), names(stored.head_parameters())),
    };
    if stored.head.has(Head::Lm) && config.head.has(Head::Lm) {
        let both: Vec<String> = new.iter().filter(|name| old.contains(name)).cloned().collect();
        [&mut new, &mut old].into_iter().for_each(|names| names.retain(|name| !both.contains(name)));
    }
    let taken = taken_over(stored, config);
    new.retain(|name| taken.iter().all(|(_, to)| to != name));
    old.retain(|name| taken.iter().all(|(from, _)| from != name));
    // Other programs write a value head beside a language model's without a word in the configuration.
    let may_be_there = stored.head == Head::Lm && config.head == Head::LmValue;
    let asked = |name: &String| may_be_there || !new.contains(name);
    let all = config.parameters();
    let stored_as = |name: &String| taken.iter().find(|(_, to)| to == name).map_or(name, |(from, _)| from).clone();
    let mut wanted =
        Wanted::all(all.iter().filter(|(name, _)| asked(name)).map(|(name, shape)| (stored_as(name), shape.clone())));
    wanted.iter_mut().for_each(|wanted| wanted.optional = new.contains(&wanted.name));
    let naming = Naming { ignored: old, ..Naming::of(stored) };
    let values = match source {
        Source::Folder(dir) => weights::read(dir, &wanted, &naming)?,
        Source::Builtin(model) => weights::read_bytes(model.weights, &source.label(weights::SINGLE), &wanted, &naming)?,
    };
    let mut values = values.into_iter();
    Ok(all.iter().map(|(name, _)| if asked(name) { values.next().flatten() } else { None }).collect())
}

/// What the files beside the weights say: end tokens, and the tokenizer. `settings` is its completed configuration.
///
/// What ends an answer is in three places that need not agree: `generation_config.json`, else `config.json`, and the
/// tokenizer's own `eos_token`, by which training programs end texts. All of them end one.
fn with_files(mut config: Config, files: &Files, settings: Option<&[u8]>) -> Result<(Config, Option<Arc<Tokenizer>>)> {
    if let Some(bytes) = files.get(GENERATION) {
        config = config.with_generation(&parse_json(bytes, GENERATION)?)?;
    }
    let Some(bytes) = files.get(TOKENIZER) else {
        return Ok((config, None));
    };
    let tokenizer = Tokenizer::from_bytes(bytes, settings)?;
    if tokenizer.size() > config.vocab_size {
        return Err(Error::model(format!(
            "{TOKENIZER} has {} tokens, but the model's vocabulary has {}",
            tokenizer.size(),
            config.vocab_size
        ))
        .hint("the tokenizer belongs to another model: every token needs a row in the embedding"));
    }
    if let Some(own) = tokenizer.eos().filter(|own| !config.eos.contains(own)) {
        let spelled = |id: &u32| tokenizer.decode_special(&[*id]);
        let others: Vec<String> = config.eos.iter().map(spelled).collect();
        if !others.is_empty() {
            config.notes.push(format!(
                "the files name different end tokens: the tokenizer {}, the model {}; each of them ends an answer, and \
                 the tokenizer's is put after texts",
                spelled(&own),
                others.join(", ")
            ));
        }
        let eos = [own].into_iter().chain(config.eos.iter().copied()).collect();
        config = config.with_eos(eos)?;
    }
    Ok((config, Some(Arc::new(tokenizer))))
}

fn read_json(path: &Location) -> Result<Value> {
    parse_json(&files::bytes(path)?, &path.display().to_string())
}

fn parse_json(bytes: &[u8], label: &str) -> Result<Value> {
    if bytes.len() > MOST_CONFIG {
        return Err(Error::model(format!("{label} has {} MB, which no configuration has", bytes.len() / 1_000_000))
            .hint("the file is damaged, or another one under its name"));
    }
    serde_json::from_slice(bytes).map_err(|e| Error::model(format!("{label} is not valid JSON: {e}")))
}
