//! What a GGUF file's metadata says about the decoder in it: the keys of a `config.json`, by which its family makes a
//! trunk.
//!
//! Owns the architectures that are supported and the refusal of everything that would change the numbers without
//! being computed here.

use super::file::File;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::trunk::{Slot, Trunk, names};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Layers, heads and widths at most: far beyond any model, and small enough to multiply.
const MOST: usize = 1 << 24;

/// An architecture of GGUF files.
pub struct Architecture {
    /// As files spell it.
    pub name: &'static str,
    /// Its family's `model_type`, and that of files with a sliding window where it is another.
    family: &'static str,
    windowed: Option<&'static str>,
    /// Maps whose rows are stored with the two halves of a head interleaved.
    pub interleaved: &'static [Slot],
}

const ARCHITECTURES: [Architecture; 3] = [
    // Llama, Mistral and whatever else is stored as one.
    Architecture { name: "llama", family: "llama", windowed: Some("mistral"), interleaved: &[Slot::Query, Slot::Key] },
    Architecture { name: "qwen2", family: "qwen2", windowed: None, interleaved: &[] },
    Architecture { name: "qwen3", family: "qwen3", windowed: None, interleaved: &[] },
];

/// Keys that ask for arithmetic which is not here, each with the value at which it does nothing.
const REFUSED: [(&str, f64); 7] = [
    ("expert_count", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.scale", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("embedding_scale", 1.0),
];

/// The architecture of a file and its trunk, whose parts have the names of GGUF files.
pub fn read(file: &File) -> Result<(&'static Architecture, Arc<Trunk>)> {
    let (architecture, config) = config(file)?;
    Ok((architecture, Arc::new(Trunk { names: &names::GGUF, ..Trunk::clone(&config.trunk) })))
}

/// The architecture of a file and its configuration, as its family in the Hugging Face layout has it.
pub fn config(file: &File) -> Result<(&'static Architecture, Config)> {
    let name = file.require("general.architecture", file.text("general.architecture")?)?;
    let Some(architecture) = ARCHITECTURES.iter().find(|known| known.name == name) else {
        let names = ARCHITECTURES.map(|known| known.name);
        return Err(file
            .wrong(format!("the architecture `{name}` is not supported"))
            .hint(format!("supported in GGUF files: {}", names.join(", "))));
    };
    if file.count("split.count")?.is_some_and(|parts| parts > 1) {
        return Err(file
            .wrong("the model is split over several files")
            .hint("join them with `llama-gguf-split --merge`"));
    }
    let key = |part: &str| format!("{name}.{part}");
    for (part, nothing) in REFUSED {
        if let Some(value) = file.number(&key(part))?.filter(|&v| v != 0.0 && v != nothing) {
            return Err(file.wrong(format!("`{}` is {value}, which is not supported", key(part))));
        }
    }
    if file.flag(&key("attention.causal"))? == Some(false) {
        return Err(file.wrong("attention is not causal: the model does not continue texts"));
    }
    let config = Config::from_json(&Value::Object(keys(file, architecture)?));
    let config = config.map_err(|e| Error { what: file.wrong(e.what).what, ..e })?;
    Ok((architecture, config))
}

/// The metadata as the keys of a `config.json`.
fn keys(file: &File, architecture: &Architecture) -> Result<Map<String, Value>> {
    let key = |part: &str| format!("{}.{part}", architecture.name);
    let count = |part: &str| -> Result<Option<usize>> {
        let value = file.count(&key(part))?;
        match value.filter(|n| !(1..=MOST).contains(n)) {
            Some(n) => Err(file.wrong(format!("`{}` is {n}, expected 1 to {MOST}", key(part)))),
            None => Ok(value),
        }
    };
    let required = |part: &str| file.require(&key(part), count(part)?);
    let (width, query) = (required("embedding_length")?, required("attention.head_count")?);
    let keys = count("attention.head_count_kv")?.unwrap_or(query);
    let dim = count("attention.key_length")?.unwrap_or(width / query);
    let window = window(file, architecture, &key("attention.sliding_window"))?;
    let consistent = query % keys == 0 && dim > 0 && dim % 2 == 0;
    let same = |part: &str| Ok::<_, Error>(count(part)?.is_none_or(|n| n == dim));
    if !consistent || !same("attention.value_length")? || !same("rope.dimension_count")? {
        return Err(file.wrong(format!(
            "{query} query heads, {keys} key heads, {dim} numbers per head: expected key heads that divide the query \
             heads, and an even number per head for keys, values and rotation alike"
        )));
    }
    let vocabulary = match file.dims("token_embd.weight") {
        Some(&[rows, _]) => rows,
        _ => return Err(file.wrong("the tensor token_embd.weight is missing, or is no matrix")),
    };
    let eps_key = key("attention.layer_norm_rms_epsilon");
    let eps = file.require(&eps_key, file.number(&eps_key)?)?;
    let theta = file.number(&key("rope.freq_base"))?.unwrap_or(1e4);
    if !(eps.is_finite() && eps > 0.0 && theta.is_finite() && theta > 0.0) {
        return Err(file.wrong(format!("{eps_key} is {eps} and {} is {theta}", key("rope.freq_base"))));
    }
    let family_type = if window.is_some() { architecture.windowed } else { None }.unwrap_or(architecture.family);
    let all = json!({
        "model_type": family_type,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": required("block_count")?,
        "num_attention_heads": query,
        "num_key_value_heads": keys,
        "head_dim": dim,
        "intermediate_size": required("feed_forward_length")?,
        "max_position_embeddings": required("context_length")?,
        "rms_norm_eps": eps,
        "rope_theta": theta,
        "rope_scaling": scaling(file, architecture.name)?,
        "sliding_window": window,
        "tie_word_embeddings": !file.has("output.weight"),
    });
    Ok(all.as_object().expect("an object was written").clone())
}

/// A sliding window, where the architecture may have one. A window of Qwen's would not cover all layers.
fn window(file: &File, architecture: &Architecture, key: &str) -> Result<Option<usize>> {
    let window = file.count(key)?.filter(|&n| n > 0);
    if window.is_some() && architecture.windowed.is_none() {
        return Err(file.wrong(format!("`{key}` is set, which is not supported for this architecture")));
    }
    Ok(window)
}

/// As `rope_scaling`.
fn scaling(file: &File, family: &str) -> Result<Value> {
    let key = |name: &str| format!("{family}.rope.{name}");
    let factor = match file.number(&key("scaling.factor"))? {
        Some(factor) => Some(factor),
        None => file.number(&key("scale_linear"))?,
    };
    let kind = file.text(&key("scaling.type"))?.unwrap_or(if factor.is_some() { "linear" } else { "none" });
    match (kind, factor) {
        ("none", _) => Ok(Value::Null),
        ("linear", Some(factor)) if factor.is_finite() && factor > 0.0 => {
            Ok(json!({"rope_type": "linear", "factor": factor}))
        }
        ("linear", _) => Err(file.wrong(format!("`{}` is missing or no positive number", key("scaling.factor")))),
        _ => Err(file
            .wrong(format!("the rotary scaling `{kind}` is not supported"))
            .hint("supported in GGUF files: none, linear, and the factors of Llama 3")),
    }
}
