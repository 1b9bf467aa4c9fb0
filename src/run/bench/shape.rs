//! Shapes of work that can be measured: a model with random weights, and the rows of a step.
//!
//! Owns the list; computes nothing.

use crate::error::Result;
use crate::model::Config;

/// Sizes of a model: an embedding that is its head as well, and blocks of attention and SwiGLU.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// `LlamaForCausalLM` and `llama`, or another family's class and type.
    class: [&'static str; 2],
    /// V
    pub(super) vocabulary: usize,
    /// H
    pub(super) width: usize,
    /// Width of the MLP.
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// Heads of keys and values, each of which serves several of queries.
    pub(super) key_heads: usize,
    pub(super) head_dim: usize,
}

impl Sizes {
    pub(super) fn config(&self, ends: &[u32]) -> Result<Config> {
        let [class, model_type] = self.class;
        Config::from_json(&serde_json::json!({
            "architectures": [class], "model_type": model_type, "hidden_act": "silu",
            "vocab_size": self.vocabulary, "hidden_size": self.width, "intermediate_size": self.inner,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads, "head_dim": self.head_dim,
            "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "eos_token_id": ends,
        }))
    }
}

/// A Qwen2 of 5 million parameters in its layers.
const SMALL: Sizes = Sizes {
    class: ["Qwen2ForCausalLM", "qwen2"],
    vocabulary: 256,
    width: 256,
    inner: 768,
    layers: 6,
    heads: 4,
    key_heads: 4,
    head_dim: 64,
};

/// The built-in model `tiny`.
const TINY: Sizes =
    Sizes { vocabulary: 104, width: 128, inner: 384, layers: 5, heads: 4, key_heads: 2, head_dim: 32, ..SMALL };

/// SmolLM2-135M.
const SMOLLM2: Sizes = Sizes {
    class: ["LlamaForCausalLM", "llama"],
    vocabulary: 49_152,
    width: 576,
    inner: 1536,
    layers: 30,
    heads: 9,
    key_heads: 3,
    head_dim: 64,
};

/// A model and the rows of its steps.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub about: &'static str,
    pub(super) model: Sizes,
    pub(super) prompts: usize,
    /// Answers to each prompt.
    pub(super) group: usize,
    pub(super) prompt_tokens: usize,
    pub(super) max_tokens: usize,
    /// Whether answers may end before `max_tokens`.
    pub(super) ends: bool,
}

/// The shapes that `rhopo bench` knows.
pub const SHAPES: [Shape; 7] = [
    UNIFORM,
    Shape {
        name: "ragged",
        about: "128 rows of 8 + up to 256 tokens, 32 on average",
        model: Sizes { vocabulary: 32, ..SMALL },
        max_tokens: 256,
        ends: true,
        ..UNIFORM
    },
    Shape {
        name: "tldr",
        about: "32 rows of 512 + 53 tokens",
        prompts: 4,
        prompt_tokens: 512,
        max_tokens: 53,
        ..UNIFORM
    },
    Shape {
        name: "vocab",
        about: "16 rows of 16 + 64 tokens over 151936 tokens",
        model: Sizes { vocabulary: 151_936, layers: 2, ..SMALL },
        prompts: 2,
        prompt_tokens: 16,
        max_tokens: 64,
        ..UNIFORM
    },
    REAL,
    Shape {
        name: "one",
        about: "1 row of 40 + 128 tokens on SmolLM2-135M's sizes: what sampling a single answer takes",
        prompts: 1,
        group: 1,
        max_tokens: 128,
        ..REAL
    },
    Shape {
        name: "wide",
        about: "1024 rows of 1 + 32 tokens on the sizes of `tiny`",
        model: TINY,
        prompts: 64,
        group: 16,
        prompt_tokens: 1,
        ..UNIFORM
    },
];

const UNIFORM: Shape = Shape {
    name: "uniform",
    about: "128 rows of 8 + 32 tokens",
    model: SMALL,
    prompts: 16,
    group: 8,
    prompt_tokens: 8,
    max_tokens: 32,
    ends: false,
};

const REAL: Shape = Shape {
    name: "real",
    about: "32 rows of 40 + 64 tokens on SmolLM2-135M's sizes",
    model: SMOLLM2,
    prompts: 4,
    group: 8,
    prompt_tokens: 40,
    max_tokens: 64,
    ends: false,
};
