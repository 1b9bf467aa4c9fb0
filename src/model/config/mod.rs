//! A model's configuration: `config.json` in the Hugging Face layout, read by its family's rules, then checked into
//! [`Config`], which says everything the decoder needs and which parameters exist.
//!
//! Owns no files (`weights` and `Model` read them) and no arithmetic. What rhopo cannot compute is refused by name.

mod families;
mod keys;
pub mod layout;
mod rope;

pub use families::{Family, architectures};
pub use layout::{Layout, Linear, Names};
pub use rope::Rope;

use crate::error::{Error, Result};
use crate::kernel::elementwise::Gelu;
use crate::kernel::rotary::Scaling;
use keys::shown;
use serde_json::{Map, Value, json};

/// Widest head: what the packed keys of the KV cache are made for.
const MOST_HEAD_DIM: usize = 256;

/// The kind of normalisation before each block and after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// x / rms(x) · weight
    Rms,
    /// (x − mean) / std · weight + bias
    Layer,
}

/// The kind of MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// silu(gate) · up
    SwiGlu,
    Gelu(Gelu),
}

/// How query, key and value weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    Separate,
    /// One weight: all queries, then all keys, then all values.
    Fused,
    /// One weight: query, key and value of the first head, then of the second, …
    FusedByHead,
}

/// How tokens get their positions.
#[derive(Debug, Clone, PartialEq)]
pub enum Position {
    /// The first `dims` dimensions of every head are rotated (one more where `dims` is odd).
    Rotary { dims: usize, rope: Rope },
    /// A learned vector per position, added to the embedding.
    Learned,
}

/// What stands on the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Logits over the vocabulary.
    Lm,
    /// A number per token: the value of the state before it.
    Value,
    /// A number per row, at its last token.
    Score,
}

/// A decoder's shape, checked: sizes are positive and divide as they must.
#[derive(Debug, Clone)]
pub struct Config {
    pub family: Family,
    pub head: Head,
    /// Where the family keeps its weights.
    pub names: &'static Names,
    /// The class name in transformers.
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
    /// Width within the MLP.
    pub intermediate_size: usize,
    pub position: Position,
    pub norm: Norm,
    pub norm_eps: f64,
    pub mlp: Mlp,
    pub attention: Attention,
    /// RMSNorm of every query and key head before the rotation.
    pub qk_norm: bool,
    /// Attention and MLP both read the layer's input; otherwise the MLP reads what attention left.
    pub parallel: bool,
    /// The output head is the embedding.
    pub tied: bool,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    /// Per layer: how many tokens back a token sees, itself included; all of them where there is no window.
    pub windows: Vec<Option<usize>>,
    /// Positions the model was made for, in tokens.
    pub max_positions: usize,
    /// Tokens that end an answer; may be empty.
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
    /// The padding token of `config.json`: a score is read at the last token of a row that is another one, as
    /// transformers does, also where padding and end token are the same.
    pub unscored: Option<u32>,
    /// Standard deviation of random weights.
    pub init_std: f64,
    /// What the user should know about how the file was read.
    pub notes: Vec<String>,
    /// The file as it was, carried through to `save`.
    source: Map<String, Value>,
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
        let config = families::read(source)?;
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
    pub fn with_head(mut self, head: Head) -> Self {
        if head == self.head {
            return self;
        }
        self.head = head;
        self.architecture = self.family.class(head);
        self.source.insert("architectures".into(), json!([self.architecture]));
        if head == Head::Lm {
            for key in ["id2label", "label2id", "num_labels"] {
                self.source.shift_remove(key);
            }
        } else {
            self.source.insert("id2label".into(), json!({"0": "LABEL_0"}));
            self.source.insert("label2id".into(), json!({"LABEL_0": 0}));
            self.source.shift_remove("num_labels");
        }
        self
    }

    /// How many of a head's first dimensions are rotated.
    pub fn rotary_dim(&self) -> usize {
        match self.position {
            Position::Rotary { dims, .. } => dims.next_multiple_of(2),
            Position::Learned => 0,
        }
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
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
        if self.head_dim > MOST_HEAD_DIM {
            return Err(Error::model(format!(
                "config.json: head_dim is {}, at most {MOST_HEAD_DIM} is supported",
                self.head_dim
            )));
        }
        let mut positive = vec![("the norms' eps", self.norm_eps), ("initializer_range", self.init_std)];
        if let Position::Rotary { dims, rope } = &self.position {
            positive.push(("the base of the rotary embedding", rope.theta));
            if *dims == 0 || *dims > self.head_dim || self.rotary_dim() > self.head_dim {
                return Err(Error::model(format!(
                    "config.json: {dims} dimensions of a head are rotated, which has {}",
                    self.head_dim
                ))
                .hint("rotary embedding turns pairs of dimensions: head_dim must be even and the rotated share within 0 and 1"));
            }
            if let Scaling::Llama3 { original_max_positions, .. } = rope.scaling {
                positive.push(("original_max_position_embeddings", original_max_positions));
            }
        }
        for (key, x) in positive {
            if !(x.is_finite() && x > 0.0) {
                return Err(Error::model(format!("config.json: {key} is {x}, expected a positive number")));
            }
        }
        if self.windows.contains(&Some(0)) {
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
