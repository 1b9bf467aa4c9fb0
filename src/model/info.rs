//! What is known of a model without its weights: whose tokens it reads, how it renders a chat, what it can hold.
//!
//! Plain data. Whoever makes prompts, rows and batches needs this alone, wherever the weights are.

use super::{ChatTemplate, Head, Tokenizer};
use crate::error::{Error, Result};
use crate::gpu::{DType, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A model, told without its weights.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Unique in this process; copies have their own.
    pub id: u64,
    /// What the user called it: a built-in name, a folder, a file, or a hub id.
    pub name: String,
    /// The hub id of the model that it was made from, where that is known.
    pub base: Option<String>,
    /// As its file spells it: `Qwen2ForCausalLM`, `llama`.
    pub architecture: String,
    pub head: Head,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub chat: Option<Arc<ChatTemplate>>,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// Tokens of a row at most.
    pub context: usize,
    /// V: tokens that it has a row in the embedding for.
    pub vocab_size: usize,
    /// Numbers in its parameters, an adapter's included.
    pub size: usize,
    /// How many of them are trained.
    pub trained: usize,
    /// Of an adapter on frozen weights.
    pub rank: Option<usize>,
    /// The format of most weights of a GGUF file: `Q4K`.
    pub format: Option<String>,
    /// What its configuration asks for and a user should know.
    pub notes: Vec<String>,
    /// Where its weights are.
    pub place: Place,
    /// The type that its operations compute in on a device.
    pub compute: DType,
}

impl ModelInfo {
    /// An id that no other model of this process has.
    pub(super) fn fresh_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether any parameter is trained.
    pub fn trainable(&self) -> bool {
        self.trained > 0
    }

    /// Whose token ids it reads, where it has a tokenizer.
    pub fn vocabulary(&self) -> Option<u64> {
        self.tokenizer.as_ref().map(|tokenizer| tokenizer.vocabulary())
    }

    /// The tokenizer, or an error that says what needs it.
    pub fn require_tokenizer(&self, what: &str) -> Result<&Arc<Tokenizer>> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::model(format!("{what} needs a tokenizer, but the model {} has none", self.name))
                .hint("put tokenizer.json into the model's folder, or give token ids with encode_ids")
        })
    }

    /// The chat template, or an error that says what needs it.
    pub fn require_chat(&self, what: &str) -> Result<&Arc<ChatTemplate>> {
        self.chat.as_ref().ok_or_else(|| match self.format {
            None => Error::model(format!("{what} needs a chat template, but the model {} has none", self.name))
                .hint("put chat_template.jinja into the model's folder, or give prompts as texts"),
            Some(_) => {
                Error::model(format!("{what} needs a chat template, but {} has none in its metadata", self.name))
                    .hint("give prompts as texts")
            }
        })
    }

    /// Fails unless the model has the head that `what` needs.
    pub fn require_head(&self, head: Head, what: &str) -> Result<()> {
        if self.head.has(head) {
            return Ok(());
        }
        let (found, how) = match head {
            Head::Lm => ("a language-model head", "load it without the option `head`"),
            Head::Value | Head::LmValue => ("a value head", "load it with load_model(name, #{ head: \"value\" })"),
            Head::Score => ("a score head", "load it with load_model(name, #{ head: \"score\" })"),
        };
        Err(Error::model(format!("{what} needs {found}, but the model {} is a {}", self.name, self.architecture))
            .hint(how))
    }
}

impl std::fmt::Display for ModelInfo {
    /// `Model(tiny, Qwen2ForCausalLM, 999040 parameters)`, `Frozen(judge.gguf, qwen2, Q8_0, 494032768 parameters)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, architecture, size, trained, .. } = self;
        if let Some(format) = &self.format {
            return write!(f, "Frozen({name}, {architecture}, {format}, {size} parameters)");
        }
        write!(f, "Model({name}, {architecture}, {size} parameters")?;
        match self.rank {
            Some(rank) if self.trainable() => write!(f, ", lora rank {rank}, {trained} trained)"),
            Some(rank) => write!(f, ", lora rank {rank}, frozen)"),
            None if self.trainable() => write!(f, ")"),
            None => write!(f, ", frozen)"),
        }
    }
}
