//! `rhopo inspect`: what a model holds and needs, from its configuration and the headers of its weights.
//!
//! Prints what can be told even where something is not supported; that is said on standard error. What is said of a
//! configuration is `facts`', and of a GGUF file `gguf`'s.

mod facts;
mod gguf;

use crate::engine::memory::Memory;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::DType;
use crate::model::gguf::summary::Summary;
use crate::model::source::Source;
use crate::model::weights::{self, Contents, Naming, Wanted};
use crate::model::{Adapter, ChatTemplate, Config, LoraOptions, Tokenizer, special};
use crate::run::Table;
use crate::run::access::Access;
use crate::script::lang::loader::Loader;
use crate::ui::terminal::report;
use crate::ui::{list, out, table};
use facts::{Facts, fact, model_facts, size};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints what there is to know about a built-in model, a folder, a GGUF file, or a model on the hub.
pub fn inspect(target: &str) -> ExitCode {
    let mut found = Found::default();
    let mut tell = |file: &str| out::note(&format!("fetching {file}"));
    // A GGUF file may have its tokenizer beside it, and a model of the hub lies in the hub's cache.
    let path = Path::new(target);
    let beside = path.parent().map(|folder| Path::new(".").join(folder));
    let beside = beside.filter(|_| files::is_file(&files::anywhere(path)));
    let named: Vec<PathBuf> = [Some(path.into()), beside, files::hub::cache_folder()].into_iter().flatten().collect();
    let access = Access::looking(&named);
    let at = access.at(target);
    let looked = match Summary::is_meant(&at) {
        true => Summary::open(&at).map(|summary| found.gguf(summary)),
        false => Source::resolve(&at, &mut tell).map(|source| found.look(&source)),
    };
    if let Err(e) = looked {
        found.wrong.push(e);
    }
    for line in &found.lines {
        // Nobody reads any further: there is nothing left to do.
        if !out::line(line) {
            break;
        }
    }
    for e in &found.wrong {
        report(&e.clone().into(), &Loader::default());
    }
    if found.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The object in a JSON file, if the model has the file.
fn object(source: &Source, name: &str) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = source.bytes(name)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| Error::model(format!("{}: {name} is not a JSON object: {e}", source.name())))
}

/// What was found: lines to print, and what is wrong.
#[derive(Default)]
struct Found {
    lines: Vec<String>,
    wrong: Vec<Error>,
}

impl Found {
    fn look(&mut self, source: &Source) {
        self.lines.push(source.name());
        let json = self.keep(object(source, "config.json")).flatten();
        let adapter = self.keep(object(source, "adapter_config.json")).flatten();
        let config = json.as_ref().and_then(|json| self.configuration(source, json));
        if json.is_none() && adapter.is_none() && self.wrong.is_empty() {
            self.wrong.push(source.lacks_config());
        }
        if json.is_some() {
            match source {
                Source::Folder(dir) => self.weights(Contents::folder(dir), config.as_ref()),
                Source::Builtin(model) => {
                    self.weights(Contents::bytes(model.weights, weights::SINGLE), config.as_ref());
                }
            }
        }
        if json.is_some() || matches!(source.bytes("tokenizer.json"), Ok(Some(_))) {
            self.tokenizer(source, config.as_ref());
        }
        if let Some(adapter) = adapter {
            self.section("adapter", adapter_facts(&adapter));
            if let Some(config) = &config {
                self.keep(Adapter::from_json(&Value::Object(adapter), config));
            }
        }
        if let Some(config) = &config {
            self.lines.extend(table::lines(&memory(config, None)));
            self.lines.extend(table::lines(&memory(config, Some(DType::Bf16))));
        }
    }

    /// What a GGUF file holds, as far as its parts can be told.
    fn gguf(&mut self, summary: Summary) {
        self.lines.push(summary.path.display().to_string());
        self.section("model", gguf::model(&summary));
        self.section("weights", gguf::weights(&summary));
        let config = self.keep(summary.config);
        if let Some(words) = self.keep(summary.tokenizer) {
            self.section("tokenizer", gguf::tokenizer(&words));
        }
        if let Some(config) = config {
            let bytes = summary.formats.iter().map(|stored| stored.bytes).sum();
            self.section("memory (sampling and scoring)", gguf::memory(&config, bytes));
        }
    }

    /// The value, or nothing and its error among what is wrong.
    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.wrong.push(e)).ok()
    }

    fn section(&mut self, title: &str, facts: Facts) {
        self.lines.extend(list::section(title, facts));
    }

    /// The configuration's facts; those that its keys state where it is not supported.
    fn configuration(&mut self, source: &Source, json: &Map<String, Value>) -> Option<Config> {
        let generation = self.keep(object(source, "generation_config.json")).flatten();
        let config = Config::from_json(&Value::Object(json.clone()));
        let config = match generation {
            Some(generation) => config.and_then(|config| config.with_generation(&Value::Object(generation))),
            None => config,
        };
        let config = self.keep(config);
        self.section("model", config.as_ref().map_or_else(|| stated(json), model_facts));
        config
    }

    fn weights<R: Read + Seek>(&mut self, contents: Result<Contents<R>>, config: Option<&Config>) {
        let Some(contents) = self.keep(contents) else { return };
        let files: Vec<(String, u64)> = contents.files().map(|(path, size)| (file_name(path), size)).collect();
        let dtypes: Vec<String> =
            contents.dtypes().into_iter().map(|(dtype, count)| format!("{count} of type {dtype}")).collect();
        let mut facts = vec![fact("stored numbers", dtypes.join(", "))];
        if files.len() > 1 {
            facts.push(fact("files", format!("{}, {}", files.len(), size(files.iter().map(|(_, size)| size).sum()))));
        }
        facts.extend(files.into_iter().map(|(name, bytes)| (name, size(bytes))));
        self.section("weights", facts);
        if let Some(config) = config {
            self.keep(contents.check(&Wanted::all(config.parameters()), &Naming::of(config)));
        }
    }

    fn tokenizer(&mut self, source: &Source, config: Option<&Config>) {
        let Some(Some(bytes)) = self.keep(source.bytes("tokenizer.json")) else {
            return self.section("tokenizer", vec![fact("none", "there is no tokenizer.json")]);
        };
        let model_type = config.and_then(Config::model_type);
        let settings = self.keep(special::tokenizer_config(|name| source.bytes(name), model_type)).flatten();
        let Some(tokenizer) = self.keep(Tokenizer::from_bytes(&bytes, settings.as_deref())) else { return };
        if let Some(config) = config.filter(|config| config.vocab_size < tokenizer.size()) {
            let (have, room) = (tokenizer.size(), config.vocab_size);
            let e = Error::model(format!("tokenizer.json has {have} tokens, but the model's vocabulary has {room}"));
            self.wrong.push(e.hint("the tokenizer belongs to another model: every token needs a row in the embedding"));
        }
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let named = settings.as_deref().map_or(Value::Null, json);
        let mut facts = tokenizer_facts(&tokenizer, &json(&bytes), &named, config);
        let jinja = self.keep(source.bytes("chat_template.jinja")).flatten();
        let named = self.keep(named_templates(source)).unwrap_or_default();
        let template = ChatTemplate::from_files(settings.as_deref(), jinja.as_deref(), &named);
        let template =
            self.keep(template.and_then(|found| found.map_or(Ok(None), |t| t.check().map(|()| Some(t.places())))));
        let template = template.map_or("not usable".into(), |places| places.unwrap_or_else(|| "none".into()));
        facts.push(fact("chat template", template));
        self.section("tokenizer", facts);
    }
}

/// Chat templates that have files of their own.
fn named_templates(source: &Source) -> Result<Vec<(String, Vec<u8>)>> {
    let read = |name: String| Ok(source.bytes(&name)?.map(|bytes| (name, bytes)));
    source.named_templates()?.into_iter().filter_map(|name| read(name).transpose()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What the keys of a configuration state, whatever the architecture.
fn stated(json: &Map<String, Value>) -> Facts {
    const KEYS: [(&str, &[&str]); 9] = [
        ("architecture", &["architectures"]),
        ("family", &["model_type"]),
        ("layers", &["num_hidden_layers", "n_layer", "num_layers"]),
        ("width", &["hidden_size", "n_embd", "d_model"]),
        ("heads", &["num_attention_heads", "n_head", "num_heads"]),
        ("key and value heads", &["num_key_value_heads"]),
        ("MLP", &["intermediate_size", "n_inner"]),
        ("vocabulary", &["vocab_size"]),
        ("context", &["max_position_embeddings", "n_positions"]),
    ];
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        other => other.to_string().chars().take(40).collect(),
    };
    let found = |keys: &[&str]| keys.iter().find_map(|key| json.get(*key)).filter(|value| !value.is_null());
    KEYS.iter().filter_map(|(label, keys)| Some(fact(label, text(found(keys)?)))).collect()
}

fn tokenizer_facts(tokenizer: &Tokenizer, json: &Value, settings: &Value, config: Option<&Config>) -> Facts {
    let kind = json.pointer("/model/type").and_then(Value::as_str).unwrap_or("of unknown kind");
    let names: BTreeMap<u64, &str> = json
        .get("added_tokens")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|token| Some((token.get("id")?.as_u64()?, token.get("content")?.as_str()?)))
        .collect();
    let by_id = |id: &u32| match names.get(&u64::from(*id)) {
        Some(name) => format!("{id} {name}"),
        None => id.to_string(),
    };
    let by_name = |key: &str| {
        let token = settings.get(key)?;
        let name = special::spelling(token)?;
        match tokenizer.id(&name) {
            Some(id) => Some(format!("{id} {name}")),
            None => token.get("usual").is_none().then(|| format!("{name} (unknown)")),
        }
    };
    let none = || "none".to_string();
    let stated = config.map_or(&[][..], |c| &c.eos);
    let own = tokenizer.eos().filter(|own| !stated.is_empty() && !stated.contains(own));
    let ends: Vec<String> = own.iter().chain(stated).map(by_id).collect();
    let end = if ends.is_empty() { by_name("eos_token").unwrap_or_else(none) } else { ends.join(", ") };
    let pad = config.and_then(|c| c.pad).map(|id| by_id(&id)).or_else(|| by_name("pad_token"));
    vec![
        fact("kind", kind),
        fact("size", format!("{} tokens", tokenizer.size())),
        fact("begin", by_name("bos_token").unwrap_or_else(none)),
        fact("end", end),
        fact("padding", pad.unwrap_or_else(none)),
    ]
}

fn adapter_facts(json: &Map<String, Value>) -> Facts {
    let text = |key: &str| match json.get(key) {
        None | Some(Value::Null) => "not stated".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            let mut names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            names.sort_unstable();
            names.join(", ")
        }
        Some(other) => other.to_string(),
    };
    let keys = [
        ("kind", "peft_type"),
        ("rank", "r"),
        ("alpha", "lora_alpha"),
        ("targets", "target_modules"),
        ("base", "base_model_name_or_path"),
    ];
    keys.into_iter().map(|(label, key)| fact(label, text(key))).collect()
}

/// Bytes for sampling and training, side by side: on the host in f32, or on a GPU in that type.
fn memory(config: &Config, gpu: Option<DType>) -> Table {
    let sampling = || match gpu {
        None => Memory::sampling(config, None),
        Some(compute) => Memory::sampling_on_device(config, None, compute),
    };
    let training = |adapter| match gpu {
        None => Memory::training(config, adapter),
        Some(compute) => Memory::training_on_device(config, adapter, compute),
    };
    let mut head = vec![String::new(), "sampling".into(), "training".into()];
    let mut columns = vec![sampling(), training(None)];
    // Very narrow models have no room for the rank.
    if let Ok(adapter) = adapter(config) {
        head.push(format!("LoRA of rank {}", adapter.rank));
        columns.push(training(Some(&adapter)));
    }
    let row = |label: &str, of: fn(&Memory) -> u64| {
        let cell = |m: &Memory| if of(m) == 0 { String::new() } else { size(of(m)) };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        cells.iter().any(|cell| !cell.is_empty()).then(|| std::iter::once(label.to_string()).chain(cells).collect())
    };
    let rows = [
        row("weights", |m| m.weights),
        row("packed copies of them", |m| m.packed),
        row("gradients", |m| m.gradients),
        row("AdamW's moments", |m| m.moments),
        row("cache of 1000 tokens", |m| 1000 * m.cache_per_token),
        row("activations of 1000 tokens", |m| 1000 * m.activations_per_token),
        row("logits in flight", |m| m.logits),
    ];
    let title = match gpu {
        None => "memory (computed in f32)".into(),
        Some(compute) => format!("memory of a GPU (computed in {})", compute.name()),
    };
    Table { title, head, rows: rows.into_iter().flatten().collect() }
}

/// The one that `load_model` starts unless told otherwise.
fn adapter(config: &Config) -> Result<Adapter> {
    Adapter::new(&LoraOptions::default(), config, String::new())
}
