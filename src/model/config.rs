//! A model's configuration: `config.json` in the Hugging Face layout, read into a raw form, then checked into
//! [`Config`], which says everything the decoder needs and which parameters exist.
//!
//! Owns no files (`weights` and `Model` read them) and no arithmetic. What rhopo cannot compute is refused by name.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Architectures that can be run.
pub const ARCHITECTURES: [&str; 1] = ["Qwen2ForCausalLM"];

/// Widest head: what the packed keys of the KV cache are made for.
const MOST_HEAD_DIM: usize = 256;

/// Keys of `config.json` that do not change how a decoder computes.
const WITHOUT_EFFECT: [&str; 18] = [
    "_name_or_path",
    "bos_token_id",
    "chat_template",
    "dtype",
    "initializer_range",
    "keys_to_ignore_at_inference",
    "max_length",
    "max_window_layers",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "pretraining_tp",
    "return_dict",
    "sliding_window",
    "torch_dtype",
    "transformers_version",
    "unsloth_version",
    "use_cache",
];

/// The kind of normalisation before each block and after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// x / rms(x) · weight
    Rms,
}

/// A decoder's shape, checked: sizes are positive and divide as they must.
#[derive(Debug, Clone)]
pub struct Config {
    /// The class name of the architecture, one of [`ARCHITECTURES`].
    pub architecture: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads` is a multiple.
    pub kv_heads: usize,
    /// Width of one head; need not be `hidden_size / heads`.
    pub head_dim: usize,
    /// How many of a head's first dimensions are rotated; even, at most `head_dim`.
    pub rotary_dim: usize,
    pub rope_theta: f64,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    pub norm: Norm,
    pub norm_eps: f64,
    /// The output head is the embedding.
    pub tied: bool,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    /// Positions the model was made for, in tokens.
    pub max_positions: usize,
    /// Tokens that end an answer; may be empty.
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
    /// Standard deviation of random weights.
    pub init_std: f64,
    /// The file as it was, carried through to `save`.
    source: Map<String, Value>,
}

/// One token id or several: both are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        }
    }
}

/// `config.json` of Qwen2 as it is written, by transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`).
#[derive(Debug, Deserialize)]
struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    attention_dropout: Option<f64>,
    initializer_range: Option<f64>,
    eos_token_id: Option<Ids>,
    pad_token_id: Option<Ids>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Config {
    /// Reads the object of a `config.json`.
    ///
    /// # Errors
    /// An unknown architecture, a feature that rhopo does not compute, a missing or impossible size.
    pub fn from_json(value: &Value) -> Result<Self> {
        let source = value.as_object().ok_or_else(|| {
            Error::model(format!("config.json holds {}, expected an object", kind_of(value)))
                .hint("a model folder needs the config.json that transformers writes")
        })?;
        let architecture = architecture(source)?;
        let raw: Raw = serde_json::from_value(value.clone()).map_err(|e| {
            Error::model(format!("config.json: {e}"))
                .hint(format!("a {architecture} needs the keys that transformers writes for it"))
        })?;
        refuse_unsupported(&raw)?;
        let rope_theta = rope_theta(&raw)?;
        let kv_heads = raw.num_key_value_heads.unwrap_or(raw.num_attention_heads);
        let head_dim = match raw.head_dim {
            Some(dim) => dim,
            None if raw.num_attention_heads == 0 || !raw.hidden_size.is_multiple_of(raw.num_attention_heads) => {
                return Err(Error::model(format!(
                    "config.json: hidden_size {} is not a multiple of num_attention_heads {}",
                    raw.hidden_size, raw.num_attention_heads
                ))
                .hint("give head_dim where the heads do not divide the width"));
            }
            None => raw.hidden_size / raw.num_attention_heads,
        };
        let config = Self {
            architecture,
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            kv_heads,
            head_dim,
            rotary_dim: head_dim,
            rope_theta,
            intermediate_size: raw.intermediate_size,
            norm: Norm::Rms,
            norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            tied: raw.tie_word_embeddings.unwrap_or(false),
            qkv_bias: true,
            out_bias: false,
            mlp_bias: false,
            max_positions: raw.max_position_embeddings.unwrap_or(32768),
            eos: raw.eos_token_id.map(Ids::into_vec).unwrap_or_default(),
            pad: raw.pad_token_id.and_then(|ids| ids.into_vec().first().copied()),
            init_std: raw.initializer_range.unwrap_or(0.02),
            source: source.clone(),
        };
        config.check()?;
        Ok(config)
    }

    /// The object to write: the one that was read, unknown keys included.
    pub fn to_json(&self) -> Value {
        Value::Object(self.source.clone())
    }

    /// The object to write for weights stored as `dtype` (`float32`, `float16`, `bfloat16`).
    pub fn to_json_as(&self, dtype: &str) -> Value {
        let mut out = self.source.clone();
        // transformers 5 writes `dtype` and still reads `torch_dtype`; transformers 4 knows the latter only.
        let key = if out.contains_key("dtype") && !out.contains_key("torch_dtype") { "dtype" } else { "torch_dtype" };
        out.insert(key.into(), json!(dtype));
        Value::Object(out)
    }

    /// Takes the end and padding tokens of a `generation_config.json`, which override those of `config.json`.
    pub fn with_generation(mut self, generation: &Value) -> Result<Self> {
        let ids = |key: &str| -> Result<Option<Vec<u32>>> {
            match generation.get(key) {
                None | Some(Value::Null) => Ok(None),
                Some(found) => {
                    serde_json::from_value::<Ids>(found.clone()).map(|ids| Some(ids.into_vec())).map_err(|_| {
                        Error::model(format!(
                            "generation_config.json: {key} is {found}, expected a token id or a list of them"
                        ))
                    })
                }
            }
        };
        if let Some(eos) = ids("eos_token_id")? {
            self.eos = eos;
        }
        if let Some(pad) = ids("pad_token_id")? {
            self.pad = pad.first().copied();
        }
        self.check()?;
        Ok(self)
    }

    /// The same with other tokens that end an answer.
    pub fn with_eos(mut self, eos: Vec<u32>) -> Result<Self> {
        self.eos = eos;
        self.check()?;
        Ok(self)
    }

    /// Every parameter's name in the Hugging Face layout and its shape, sorted by name. Weights are `[out, in]`.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut all = vec![
            ("model.embed_tokens.weight".to_string(), vec![self.vocab_size, hidden]),
            ("model.norm.weight".to_string(), vec![hidden]),
        ];
        if !self.tied {
            all.push(("lm_head.weight".to_string(), vec![self.vocab_size, hidden]));
        }
        for layer in 0..self.layers {
            let mut linear = |name: &str, out: usize, input: usize, bias: bool| {
                all.push((format!("model.layers.{layer}.{name}.weight"), vec![out, input]));
                if bias {
                    all.push((format!("model.layers.{layer}.{name}.bias"), vec![out]));
                }
            };
            linear("self_attn.q_proj", queries, hidden, self.qkv_bias);
            linear("self_attn.k_proj", keys, hidden, self.qkv_bias);
            linear("self_attn.v_proj", keys, hidden, self.qkv_bias);
            linear("self_attn.o_proj", hidden, queries, self.out_bias);
            linear("mlp.gate_proj", inner, hidden, self.mlp_bias);
            linear("mlp.up_proj", inner, hidden, self.mlp_bias);
            linear("mlp.down_proj", hidden, inner, self.mlp_bias);
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push((format!("model.layers.{layer}.{norm}.weight"), vec![hidden]));
            }
        }
        all.sort();
        all
    }

    /// How many numbers the parameters hold together.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_positions),
        ];
        for (key, size) in sizes {
            // The upper bound keeps products of two sizes far from overflow.
            if size == 0 || size > 1 << 28 {
                return Err(Error::model(format!("config.json: {key} is {size}, expected a positive size")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::model(format!(
                "config.json: num_attention_heads {} is not a multiple of num_key_value_heads {}",
                self.heads, self.kv_heads
            )));
        }
        if !self.rotary_dim.is_multiple_of(2) {
            return Err(Error::model(format!("config.json: head_dim is {}, expected an even number", self.head_dim))
                .hint("rotary embedding turns pairs of dimensions"));
        }
        if self.head_dim > MOST_HEAD_DIM {
            return Err(Error::model(format!(
                "config.json: head_dim is {}, at most {MOST_HEAD_DIM} is supported",
                self.head_dim
            )));
        }
        for (key, x) in
            [("rms_norm_eps", self.norm_eps), ("rope_theta", self.rope_theta), ("initializer_range", self.init_std)]
        {
            if !(x.is_finite() && x > 0.0) {
                return Err(Error::model(format!("config.json: {key} is {x}, expected a positive number")));
            }
        }
        if let Some(id) = self.eos.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(Error::model(format!(
                "the end token {id} is outside the vocabulary of {} tokens",
                self.vocab_size
            ))
            .hint("see eos_token_id in config.json and generation_config.json"));
        }
        Ok(())
    }
}

/// The class name, from `architectures` or else from `model_type`.
fn architecture(source: &Map<String, Value>) -> Result<String> {
    let named = source.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let model_type = source.get("model_type").and_then(Value::as_str);
    let found = match (named, model_type) {
        (Some(name), _) => name,
        (None, Some("qwen2")) => "Qwen2ForCausalLM",
        (None, Some(other)) => other,
        (None, None) => {
            return Err(Error::model("config.json names no architecture")
                .hint(format!("`architectures` must hold one of: {}", ARCHITECTURES.join(", "))));
        }
    };
    if ARCHITECTURES.contains(&found) {
        return Ok(found.to_string());
    }
    Err(Error::model(format!("the architecture {found} is not supported"))
        .hint(format!("supported: {}", ARCHITECTURES.join(", "))))
}

fn refuse_unsupported(raw: &Raw) -> Result<()> {
    let refuse = |key: &str, found: String, supported: &str| {
        Err(Error::model(format!("config.json: {key} {found} is not supported"))
            .hint(format!("supported: {supported}")))
    };
    if let Some(act) = raw.hidden_act.as_deref().filter(|&act| act != "silu") {
        return refuse("hidden_act", format!("`{act}`"), "`silu`");
    }
    if raw.use_sliding_window == Some(true) {
        return refuse("use_sliding_window", "true".into(), "false (every layer attends to the whole row)");
    }
    if let Some(kind) = raw.layer_types.iter().flatten().find(|&kind| kind != "full_attention") {
        return refuse("layer_types", format!("`{kind}`"), "`full_attention`");
    }
    if let Some(rate) = raw.attention_dropout.filter(|&rate| rate != 0.0) {
        return refuse("attention_dropout", rate.to_string(), "0");
    }
    for (key, value) in &raw.rest {
        let known = ["architectures", "model_type"].contains(&key.as_str()) || WITHOUT_EFFECT.contains(&key.as_str());
        if known || is_off(value) {
            continue;
        }
        let text = value.to_string();
        let shown: String = text.chars().take(60).collect();
        return Err(Error::model(format!("config.json: {key} = {shown} is not known, so it cannot be honoured"))
            .hint("remove the key if it does not change how the model computes"));
    }
    Ok(())
}

/// The base of the rotary frequencies; any scaling is refused.
fn rope_theta(raw: &Raw) -> Result<f64> {
    let plain = |table: &Map<String, Value>, key: &str| -> Result<()> {
        for (name, value) in table {
            let fine = match name.as_str() {
                "rope_type" | "type" => value.as_str() == Some("default"),
                "rope_theta" => value.is_number(),
                "partial_rotary_factor" => value.as_f64() == Some(1.0),
                _ => value.is_null(),
            };
            if !fine {
                return Err(Error::model(format!("config.json: {key} with {name} = {value} is not supported"))
                    .hint("supported: null, or the rope_type `default` with a rope_theta"));
            }
        }
        Ok(())
    };
    if let Some(table) = &raw.rope_scaling {
        plain(table, "rope_scaling")?;
    }
    if let Some(table) = &raw.rope_parameters {
        plain(table, "rope_parameters")?;
    }
    let nested = raw.rope_parameters.as_ref().and_then(|table| table.get("rope_theta")).and_then(Value::as_f64);
    match (nested, raw.rope_theta) {
        (Some(a), Some(b)) if a != b => {
            Err(Error::model(format!("config.json: rope_theta is {b}, but {a} in rope_parameters"))
                .hint("keep one of them"))
        }
        (Some(theta), _) | (None, Some(theta)) => Ok(theta),
        (None, None) => Ok(10_000.0),
    }
}

/// A key that is unknown but switched off asks for nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qwen2(changes: Value) -> Value {
        let text = include_str!("../../tests/fixtures/models/qwen2/config.json");
        let mut value: Value = serde_json::from_str(text).expect("fixture");
        for (key, change) in changes.as_object().expect("an object") {
            value[key] = change.clone();
        }
        value
    }

    fn refused(changes: Value) -> (String, String) {
        let e = Config::from_json(&qwen2(changes)).expect_err("must be refused");
        (e.what, e.hint.unwrap_or_default())
    }

    #[test]
    fn reads_the_fixture() {
        let config = Config::from_json(&qwen2(json!({}))).expect("valid");
        assert_eq!((config.layers, config.heads, config.kv_heads, config.head_dim), (3, 4, 2, 12));
        assert_eq!((config.vocab_size, config.hidden_size, config.intermediate_size), (384, 48, 104));
        assert_eq!((config.rope_theta, config.norm_eps), (1e6, 1e-6));
        assert_eq!((config.eos.as_slice(), config.pad), ([2].as_slice(), Some(0)));
        assert!(config.tied && config.qkv_bias && !config.out_bias && !config.mlp_bias);
        assert_eq!(config.parameter_count(), 84720, "the number that transformers reports");
    }

    #[test]
    fn both_ways_to_write_the_rotary_base_are_read() {
        let new = json!({"rope_theta": null, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}});
        assert_eq!(Config::from_json(&qwen2(new)).expect("valid").rope_theta, 5e5);
        let (what, _) = refused(json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}));
        assert_eq!(what, "config.json: rope_theta is 1000000, but 500000 in rope_parameters");
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let (what, hint) = refused(json!({"architectures": ["GPT2LMHeadModel"]}));
        assert_eq!(what, "the architecture GPT2LMHeadModel is not supported");
        assert_eq!(hint, "supported: Qwen2ForCausalLM");
        let cases = [
            (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "rope_type"),
            (json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6}}), "rope_type"),
            (json!({"use_sliding_window": true}), "use_sliding_window"),
            (json!({"hidden_act": "gelu"}), "hidden_act `gelu`"),
            (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types `sliding_attention`"),
            (json!({"attention_dropout": 0.1}), "attention_dropout 0.1"),
            (json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        ];
        for (change, named) in cases {
            let (what, hint) = refused(change);
            assert!(what.contains(named), "{what:?} must name {named:?}");
            assert!(!hint.is_empty());
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let cases = [
            (json!({"num_attention_heads": 0}), "hidden_size 48 is not a multiple of num_attention_heads 0"),
            (json!({"num_attention_heads": 5}), "hidden_size 48 is not a multiple of num_attention_heads 5"),
            (json!({"num_key_value_heads": 3}), "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
            (json!({"vocab_size": 0}), "vocab_size is 0, expected a positive size"),
            (json!({"hidden_size": -1}), "invalid value: integer `-1`"),
            (json!({"head_dim": 7}), "head_dim is 7, expected an even number"),
            (json!({"rms_norm_eps": 0.0}), "rms_norm_eps is 0, expected a positive number"),
            (json!({"eos_token_id": [2, 384]}), "the end token 384 is outside the vocabulary of 384 tokens"),
        ];
        for (change, text) in cases {
            let (what, _) = refused(change);
            assert!(what.contains(text), "{what:?} must contain {text:?}");
        }
    }

    #[test]
    fn generation_config_overrides_the_end_tokens() {
        let config = Config::from_json(&qwen2(json!({}))).expect("valid");
        let config = config.with_generation(&json!({"eos_token_id": [1, 2]})).expect("valid");
        assert_eq!(config.eos, [1, 2]);
        let e = config.with_generation(&json!({"eos_token_id": "x"})).expect_err("a string");
        assert_eq!(e.what, "generation_config.json: eos_token_id is \"x\", expected a token id or a list of them");
    }

    #[test]
    fn an_untied_head_is_a_parameter() {
        let names = |tied: bool| {
            let config = Config::from_json(&qwen2(json!({"tie_word_embeddings": tied}))).expect("valid");
            config.parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert!(!names(true).contains(&"lm_head.weight".to_string()));
        assert!(names(false).contains(&"lm_head.weight".to_string()));
        assert!(names(false).is_sorted());
    }
}
