//! A model's configuration: `config.json` in the Hugging Face layout, read by its family's rules, then checked into a
//! [`Trunk`], which says everything the decoder needs and which parameters exist, and what else the file states.
//!
//! Owns no files (`weights` and `Model` read them) and no arithmetic. What rhopo cannot compute is refused by name.

mod families;
mod gpt;
mod keys;
mod like_llama;
mod rope;

pub use super::trunk::{Layout, Linear};
pub use families::{FAMILIES, Family, architectures, family};

use super::trunk::{Head, Trunk};
use crate::error::{Error, Result};
use crate::kernel::rotary::Scaling;
use keys::{Keys, shown};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Widest head: what the packed keys of the KV cache are made for.
const MOST_HEAD_DIM: usize = 256;
/// A key of rhopo alone, which transformers reads over.
const SCORE_SHIFT: &str = "score_shift";
/// Another one: that a value head stands beside the language model's.
pub(super) const VALUE_HEAD: &str = "value_head";

/// A model's configuration, checked; read as its trunk.
#[derive(Debug, Clone)]
pub struct Config {
    pub family: &'static Family,
    /// The class name in transformers.
    pub architecture: String,
    /// What the decoder computes, and with which parameters.
    pub trunk: Arc<Trunk>,
    /// Tokens that end an answer; may be empty.
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
    /// The padding token of `config.json`: a score is read at the last token of a row that is another one, as
    /// transformers does, also where padding and end token are the same.
    pub unscored: Option<u32>,
    /// What is added to every score, as the file says in `score_shift`: a score head has no bias in transformers.
    pub score_shift: f64,
    /// Standard deviation of random weights.
    pub init_std: f64,
    /// What the user should know about how the file was read.
    pub notes: Vec<String>,
    /// The file as it was, carried through to `save`.
    source: Map<String, Value>,
}

impl std::ops::Deref for Config {
    type Target = Trunk;
    fn deref(&self) -> &Trunk {
        &self.trunk
    }
}

impl Config {
    /// Reads the object of a `config.json`.
    ///
    /// # Errors
    /// An unknown architecture, a feature that rhopo does not compute, a missing or impossible size.
    pub fn from_json(value: &Value) -> Result<Self> {
        let source = value.as_object().ok_or_else(|| {
            Error::model(format!("config.json holds {}, expected an object", shown(value)))
                .hint("a model folder needs the config.json that transformers writes")
        })?;
        let (family, head) = families::identify(source)?;
        let mut keys = Keys::new(source);
        let head = match source.get(VALUE_HEAD) {
            Some(Value::Bool(true)) if head == Head::Lm && keys.value(VALUE_HEAD).is_some() => Head::LmValue,
            _ => head,
        };
        let trunk = families::read(family, head, source, &mut keys)?;
        let pad = keys.ids("pad_token_id")?.first().copied();
        let config = Self {
            family,
            architecture: family.class(head)?.to_string(),
            trunk: Arc::new(trunk),
            eos: keys.ids("eos_token_id")?,
            pad,
            unscored: pad,
            score_shift: keys.number(SCORE_SHIFT)?.unwrap_or(0.0),
            init_std: keys.number("initializer_range")?.unwrap_or(0.02),
            notes: keys.finish(head)?,
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

    /// What its file calls the family: `qwen2`.
    pub fn model_type(&self) -> Option<&str> {
        self.source.get("model_type").and_then(Value::as_str)
    }

    /// Takes the end and padding tokens of a `generation_config.json`, which override those of `config.json`.
    pub fn with_generation(mut self, generation: &Value) -> Result<Self> {
        let ids = |key: &str| -> Result<Option<Vec<u32>>> {
            match generation.get(key) {
                None | Some(Value::Null) => Ok(None),
                Some(found) => keys::ids(found).map(Some).ok_or_else(|| {
                    Error::model(format!(
                        "generation_config.json: {key} is {}, expected a token id or a list of them",
                        shown(found)
                    ))
                }),
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

    /// The same trunk with another head, as the class of transformers that has it.
    ///
    /// # Errors
    /// A head that the family has no class for.
    pub fn with_head(mut self, head: Head) -> Result<Self> {
        if head == self.head {
            return Ok(self);
        }
        self.architecture = self.family.class(head)?.to_string();
        Arc::make_mut(&mut self.trunk).head = head;
        self.source.insert("architectures".into(), json!([self.architecture]));
        self.source.shift_remove(SCORE_SHIFT);
        self.score_shift = 0.0;
        self.source.shift_remove(VALUE_HEAD);
        if head == Head::LmValue {
            self.source.insert(VALUE_HEAD.into(), json!(true));
        }
        if head.has(Head::Lm) {
            for key in ["id2label", "label2id", "num_labels"] {
                self.source.shift_remove(key);
            }
        } else {
            self.source.insert("id2label".into(), json!({"0": "LABEL_0"}));
            self.source.insert("label2id".into(), json!({"LABEL_0": 0}));
            self.source.shift_remove("num_labels");
        }
        Ok(self)
    }

    /// The same with `by` added to every score.
    ///
    /// # Errors
    /// A model without a score head; a shift that is no number.
    pub fn with_score_shift(mut self, by: f64) -> Result<Self> {
        if self.head != Head::Score {
            return Err(Error::model(format!("there are no scores to shift: the model is a {}", self.architecture))
                .hint("load it with load_model(name, #{ head: \"score\" })"));
        }
        if !by.is_finite() {
            return Err(Error::value(format!("scores cannot be shifted by {by}, expected a finite number")));
        }
        self.score_shift += by;
        self.source.insert(SCORE_SHIFT.into(), json!(self.score_shift));
        Ok(self)
    }

    fn check(&self) -> Result<()> {
        let block = &self.blocks[0];
        let heads = block.heads;
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", heads.query),
            ("num_key_value_heads", heads.key),
            ("head_dim", heads.dim),
            ("intermediate_size", block.mlp.width),
            ("max_position_embeddings", self.max_positions),
        ];
        for (key, size) in sizes {
            // The upper bound keeps products of two sizes far from overflow.
            if size == 0 || size > 1 << 28 {
                return Err(Error::model(format!("config.json: {key} is {size}, expected a positive size")));
            }
        }
        if !heads.query.is_multiple_of(heads.key) {
            return Err(Error::model(format!(
                "config.json: num_attention_heads {} is not a multiple of num_key_value_heads {}",
                heads.query, heads.key
            )));
        }
        if heads.dim > MOST_HEAD_DIM {
            return Err(Error::model(format!(
                "config.json: head_dim is {}, at most {MOST_HEAD_DIM} is supported",
                heads.dim
            )));
        }
        let mut positive = vec![("the norms' eps", self.norm.eps()), ("initializer_range", self.init_std)];
        for rotation in &self.rotations {
            let dims = rotation.dims;
            positive.push(("the base of the rotary embedding", rotation.theta));
            if dims == 0 || dims > heads.dim || dims.next_multiple_of(2) > heads.dim {
                return Err(Error::model(format!(
                    "config.json: {dims} dimensions of a head are rotated, which has {}",
                    heads.dim
                ))
                .hint("rotary embedding turns pairs of dimensions: head_dim must be even and the rotated share within 0 and 1"));
            }
            match &rotation.scaling {
                Scaling::Llama3 { original_max_positions, .. } => {
                    positive.push(("original_max_position_embeddings", *original_max_positions));
                }
                Scaling::Factors { factors, .. } if factors.len() != dims.div_ceil(2) => {
                    return Err(Error::model(format!(
                        "config.json: short_factor has {} numbers, expected one for each of {} pairs of dimensions",
                        factors.len(),
                        dims.div_ceil(2)
                    )));
                }
                _ => {}
            }
        }
        for (key, x) in positive {
            if !(x.is_finite() && x > 0.0) {
                return Err(Error::model(format!("config.json: {key} is {x}, expected a positive number")));
            }
        }
        if self.blocks.iter().any(|block| block.heads.window == Some(0)) {
            return Err(Error::model("config.json: sliding_window is 0, expected a positive size or null"));
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

#[cfg(test)]
mod tests;
