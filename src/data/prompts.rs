//! Prompts with what a task knows about each of them.

use crate::error::{Error, Result};
use crate::model::Tokenizer;
use serde_json::{Map, Value};

/// A text to be continued, and fields (`answer`, …) that become list columns of the batch sampled from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub text: String,
    pub fields: Map<String, Value>,
}

/// Prompts in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompts {
    pub items: Vec<Prompt>,
}

impl Prompts {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The token ids of each prompt.
    ///
    /// # Errors
    /// A prompt without any token: a model needs one to begin from.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
        let encode = |(i, prompt): (usize, &Prompt)| {
            let ids = tokenizer.encode_prompt(&prompt.text)?;
            if ids.is_empty() {
                return Err(Error::value(format!("prompt {i} has no tokens: its text is {:?}", prompt.text))
                    .hint("a model needs at least one token to begin from"));
            }
            Ok(ids)
        };
        self.items.iter().enumerate().map(encode).collect()
    }
}

impl std::fmt::Display for Prompts {
    /// `Prompts(16, the first "12+34=")`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.items.first() {
            Some(first) => write!(f, "Prompts({}, the first {:?})", self.len(), first.text),
            None => write!(f, "Prompts(0)"),
        }
    }
}
