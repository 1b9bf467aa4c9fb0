//! Text to token ids and back, by `tokenizer.json`.
//!
//! Owns no chat template and no padding: rows are never padded.

use crate::error::{Error, Result};
use serde_json::Value;

/// A tokenizer in the `tokenizer.json` form.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where there is one, `tokenizer_config.json` (which names the end token).
    pub fn from_bytes(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(tokenizer)
            .map_err(|e| Error::model(format!("tokenizer.json could not be read: {e}")))?;
        // A file saved by a training script may ask for both, and each would change what rows hold.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::model(format!("tokenizer.json: {e}")))?;
        let eos = match config {
            Some(bytes) => end_token(bytes, &inner)?,
            None => None,
        };
        Ok(Self { inner, eos })
    }

    /// The ids of `text`, nothing added. Special tokens written out in the text are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, false)
    }

    /// The ids of a prompt: with what the tokenizer puts before a text (a begin token, in some families).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    /// The text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        // A decoder can refuse odd pieces; their plain spelling is still what the model wrote.
        self.inner
            .decode(ids, true)
            .unwrap_or_else(|_| ids.iter().filter_map(|&id| self.inner.id_to_token(id)).collect())
    }

    /// The id of a token by its exact spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The end token that `tokenizer_config.json` names.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// One more than the largest id.
    pub fn size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode(text, special).map_err(|e| Error::model(format!("could not be tokenized: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// `eos_token` is a string, or an object with `content`.
fn end_token(config: &[u8], inner: &tokenizers::Tokenizer) -> Result<Option<u32>> {
    let config: Value = serde_json::from_slice(config)
        .map_err(|e| Error::model(format!("tokenizer_config.json could not be read: {e}")))?;
    let token = config.get("eos_token").map(|token| token.get("content").unwrap_or(token));
    let Some(token) = token.and_then(Value::as_str) else {
        return Ok(None);
    };
    let id = inner.token_to_id(token).ok_or_else(|| {
        Error::model(format!("tokenizer_config.json names the end token {token:?}, which tokenizer.json does not hold"))
    })?;
    Ok(Some(id))
}
