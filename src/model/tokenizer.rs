//! Text to token ids and back, by `tokenizer.json`.
//!
//! Special tokens written out in a text are control tokens only where a caller asks for them (`encode_special`).
//! Owns no chat template and no padding: rows are never padded.

use super::guard::guarded;
use crate::budget::{self, memory};
use crate::error::{Error, Result};
use crate::tensor::rng::Key;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;
use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, Encoding, NormalizedString, Normalizer};

/// Bytes that the library takes for each byte of a text.
const TOKENIZING: u64 = 176;

/// A tokenizer in the `tokenizer.json` form.
#[derive(Debug)]
pub struct Tokenizer {
    /// Recognises special tokens in a text.
    inner: tokenizers::Tokenizer,
    /// Takes them for ordinary text. Made when a text first holds one: a copy of a large vocabulary costs memory.
    plain: OnceLock<tokenizers::Tokenizer>,
    special: BTreeMap<u32, String>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    /// Whether prompts begin with the begin token, where `tokenizer_config.json` says so; else the post-processor does.
    adds_bos: Option<bool>,
    /// Whether the model leaves characters out without a trace.
    drops: bool,
    vocabulary: OnceLock<u64>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where there is one, `tokenizer_config.json` as `special` completes it: it names the
    /// begin, end and padding tokens, and lists tokens that were added later.
    ///
    /// # Errors
    /// A file that cannot be read; a begin or end token that `tokenizer.json` does not hold; an added token whose id is
    /// not the next one.
    pub fn from_bytes(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Self> {
        let mut inner = parse(tokenizer)?;
        // A file saved by a training script may ask for both, and each would change what rows hold.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::model(format!("tokenizer.json: {e}")))?;
        let config: Value = match config {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|e| Error::model(format!("tokenizer_config.json could not be read: {e}")))?,
            None => Value::Null,
        };
        add_missing(&mut inner, &config)?;
        let bos = named(&mut inner, &config, "bos_token", Some("begin token"))?;
        let eos = named(&mut inner, &config, "eos_token", Some("end token"))?;
        let pad = named(&mut inner, &config, "pad_token", None)?;
        let added = inner.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special).map(|(id, token)| (id, token.content)).collect();
        let adds_bos = config.get("add_bos_token").and_then(Value::as_bool);
        let drops = drops(&inner);
        Ok(Self { inner, plain: OnceLock::new(), special, bos, eos, pad, adds_bos, drops, vocabulary: OnceLock::new() })
    }

    /// The ids of `text`, nothing added. Special tokens written out in it are ordinary text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ordinary(text, false)
    }

    /// The ids of a prompt: with what the tokenizer puts before a text (a begin token, in some families). Special
    /// tokens written out in it are ordinary text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        Ok(match self.adds_bos {
            None => self.ordinary(text, true)?,
            Some(begins) => self.begun(begins, self.ordinary(text, false)?),
        })
    }

    /// The ids of `text`, nothing added. Special tokens written out in it are recognised.
    pub fn encode_special(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.checked(text, &self.inner, false)?.get_ids().to_vec())
    }

    /// The ids of a prompt whose special tokens are recognised. Nothing is put before a text that begins with the
    /// begin token already.
    pub fn encode_prompt_special(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode_special(text)?;
        let full = match self.adds_bos {
            None => self.checked(text, &self.inner, true)?.get_ids().to_vec(),
            Some(begins) => self.begun(begins, ids.clone()),
        };
        Ok(if ids.first() == full.first() { ids } else { full })
    }

    /// The ids of a rendered chat, nothing added: special tokens are recognised, but in the ranges of bytes `quoted`
    /// they are ordinary text.
    pub fn encode_rendered(&self, text: &str, quoted: &[Range<usize>]) -> Result<Vec<u32>> {
        let whole = self.checked(text, &self.inner, false)?;
        let (found, offsets) = (whole.get_ids(), whole.get_offsets());
        if quoted.is_empty() {
            return Ok(found.to_vec());
        }
        // The control tokens of the template divide the text; a part between them that quotes one is encoded again.
        let meets = |a: usize, b: usize| quoted.iter().any(|q| q.start < b && a < q.end);
        let controls = found
            .iter()
            .zip(offsets)
            .enumerate()
            .filter(|(_, (id, at))| self.spells(**id, text, **at) && !meets(at.0, at.1));
        let controls = controls.map(|(i, (&id, &at))| (i, Some(id), at));
        let end = (found.len(), None, (text.len(), text.len()));
        let mut ids = Vec::with_capacity(found.len());
        let (mut first, mut byte, mut before) = (0, 0, None);
        for (i, control, at) in controls.chain([end]) {
            match meets(byte, at.0) {
                true => ids.extend(self.inside(&text[byte..at.0], before)?),
                false => ids.extend(&found[first..i]),
            }
            ids.extend(control);
            (first, byte, before) = (i + 1, at.1, control);
        }
        Ok(ids)
    }

    /// The text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.text(ids, true)
    }

    /// The text of `ids`, special tokens written out.
    pub fn decode_special(&self, ids: &[u32]) -> String {
        self.text(ids, false)
    }

    /// The id of a token by its exact spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The begin token that `tokenizer_config.json` names.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end token that `tokenizer_config.json` names.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The padding token that `tokenizer_config.json` names; it may be the end token too.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Whether the id is a special token's.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains_key(&id)
    }

    /// The special tokens' spellings, in the order of their ids.
    pub fn special(&self) -> impl Iterator<Item = &str> {
        self.special.values().map(String::as_str)
    }

    /// Tells vocabularies apart: equal where the same texts stand for the same ids. Added tokens do not count: a chat
    /// model or a reward model often has some that its base has not.
    pub fn vocabulary(&self) -> u64 {
        // A sum, because the map has no order.
        let one = |(token, id): (String, u32)| {
            token.bytes().fold(Key::new(u64::from(id)), |key, byte| key.fold(u64::from(byte))).bits(0)
        };
        *self.vocabulary.get_or_init(|| self.inner.get_vocab(false).into_iter().map(one).fold(0, u64::wrapping_add))
    }

    /// One more than the largest id.
    pub fn size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    fn text(&self, ids: &[u32], skip_special: bool) -> String {
        // A decoder can refuse odd pieces; their plain spelling is still what the model wrote.
        self.inner.decode(ids, skip_special).unwrap_or_else(|_| {
            let kept = ids.iter().filter(|id| !(skip_special && self.special.contains_key(id)));
            kept.filter_map(|&id| self.inner.id_to_token(id)).collect()
        })
    }

    fn begun(&self, begins: bool, ids: Vec<u32>) -> Vec<u32> {
        self.bos.filter(|_| begins).into_iter().chain(ids).collect()
    }

    /// Special tokens in `text` are ordinary text.
    fn ordinary(&self, text: &str, begin: bool) -> Result<Vec<u32>> {
        let found = self.checked(text, &self.inner, begin)?;
        // What the post-processor adds is marked; the rest stands in the text.
        let written = |e: &Encoding| {
            let cells = e.get_ids().iter().zip(e.get_offsets()).zip(e.get_special_tokens_mask());
            let mut written = cells.filter(|((id, _), added)| **added == 0 && self.special.contains_key(id));
            written.find(|((id, at), _)| self.spells(**id, text, **at)).map(|((&id, _), _)| id)
        };
        if written(&found).is_none() {
            return Ok(found.get_ids().to_vec());
        }
        let found = self.checked(text, self.plain(), begin)?;
        match written(&found) {
            None => Ok(found.get_ids().to_vec()),
            Some(id) => Err(Error::value(format!(
                "the text holds {:?}, which this tokenizer always takes for a control token",
                self.special[&id]
            ))
            .hint("remove it, or ask for control tokens with special: true")),
        }
    }

    /// A part of a text that is ordinary text and stands after the control token `before`.
    fn inside(&self, part: &str, before: Option<u32>) -> Result<Vec<u32>> {
        let Some(before) = before else { return self.ordinary(part, false) };
        // Some tokenizers put a space before a text's first word, which does not belong inside of one.
        let after = self.encode_special(&format!("{}a", self.special[&before]))?;
        if after.get(1..) == Some(&self.encode_special("a")?) {
            return self.ordinary(part, false);
        }
        let (guard, both) = (self.ordinary("\n", false)?, self.ordinary(&format!("\n{part}"), false)?);
        match both.strip_prefix(&guard[..]) {
            Some(ids) => Ok(ids.to_vec()),
            None => self.ordinary(part, false),
        }
    }

    fn plain(&self) -> &tokenizers::Tokenizer {
        self.plain.get_or_init(|| {
            let mut plain = self.inner.clone();
            plain.set_encode_special_tokens(true);
            plain
        })
    }

    /// Whether `id` is a special token that stands in the text at these bytes; `<unk>` for something else does not.
    fn spells(&self, id: u32, text: &str, at: (usize, usize)) -> bool {
        self.special.get(&id).is_some_and(|token| text.get(at.0..at.1).is_some_and(|part| part.trim() == token.trim()))
    }

    fn checked(&self, text: &str, with: &tokenizers::Tokenizer, begin: bool) -> Result<Encoding> {
        let encode = |text: &str| {
            budget::go_on()?;
            memory::room(TOKENIZING * text.len() as u64)?;
            guarded(|| with.encode(text, begin))
                .map_err(|_| unworkable())?
                .map_err(|e| Error::model(format!("{text:?} could not be tokenized: {e}")))
        };
        let found = encode(text)?;
        if self.drops && lost(text, &found).is_some() {
            // What the normalizer removes is removed on purpose: only what is left of the text counts.
            let mut normal = NormalizedString::from(text);
            if let Some(normalizer) = with.get_normalizer() {
                normalizer.normalize(&mut normal).map_err(|e| Error::model(format!("{text:?}: {e}")))?;
            }
            if let Some(c) = lost(normal.get(), &encode(normal.get())?) {
                return Err(Error::value(format!("the tokenizer has no token for {c:?} and would leave it out"))
                    .hint("remove the character, or use a model whose tokenizer knows it"));
            }
        }
        Ok(found)
    }
}

/// Reads `tokenizer.json`.
fn parse(file: &[u8]) -> Result<tokenizers::Tokenizer> {
    let unreadable = |e: &dyn std::fmt::Display| {
        Error::model(format!("tokenizer.json could not be read: {e}"))
            .hint("the file is damaged or incomplete: fetch it again")
    };
    memory::room(budget::json::of_text(file))?;
    serde_json::from_slice::<serde::de::IgnoredAny>(file).map_err(|e| unreadable(&e))?;
    guarded(|| tokenizers::Tokenizer::from_bytes(file)).map_err(|_| unworkable())?.map_err(|e| unreadable(&e))
}

/// A file on which the library breaks off.
fn unworkable() -> Error {
    Error::model("tokenizer.json does not describe a working tokenizer")
        .hint("the file is damaged or was changed by hand: fetch it again")
}

/// Adds the tokens of `added_tokens_decoder` that `tokenizer.json` does not hold, in the order of their ids; those that
/// it holds become special where they are special there.
fn add_missing(inner: &mut tokenizers::Tokenizer, config: &Value) -> Result<()> {
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object);
    let mut listed: Vec<(u32, &str, &Value)> = listed
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((id.parse().ok()?, token.get("content")?.as_str()?, token)))
        .collect();
    listed.sort_by_key(|(id, ..)| *id);
    for (id, content, token) in listed {
        let flag = |name: &str, usual: bool| token.get(name).and_then(Value::as_bool).unwrap_or(usual);
        let special = flag("special", false);
        let known = inner.token_to_id(content).is_some();
        if known && (!special || inner.get_added_vocabulary().is_special_token(content)) {
            continue;
        }
        let added = AddedToken::from(content, special)
            .normalized(flag("normalized", !special))
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false));
        let added = if special { inner.add_special_tokens([added]) } else { inner.add_tokens([added]) };
        added.map_err(|e| Error::model(format!("the added token {content:?} could not be added: {e}")))?;
        if let Some(found) = inner.token_to_id(content).filter(|found| !known && *found != id) {
            return Err(Error::model(format!(
                "the added token {content:?} has the id {id}, but the next one after tokenizer.json's is {found}"
            ))
            .hint("tokenizer.json must hold the added tokens: save the tokenizer again with transformers"));
        }
    }
    Ok(())
}

/// The token that `tokenizer_config.json` gives under `key`: a string, or an object with `content`. It is special,
/// whether `tokenizer.json` says so or not. `what` is named where a token that does not exist is an error.
fn named(inner: &mut tokenizers::Tokenizer, config: &Value, key: &str, what: Option<&str>) -> Result<Option<u32>> {
    let token = config.get(key).map(|token| token.get("content").unwrap_or(token));
    let Some(token) = token.and_then(Value::as_str) else {
        return Ok(None);
    };
    let usual = config.get(key).is_some_and(|token| token.get("usual").is_some());
    let Some(id) = inner.token_to_id(token) else {
        return match what.filter(|_| !usual) {
            None => Ok(None),
            Some(what) => Err(Error::model(format!(
                "tokenizer_config.json names the {what} {token:?}, which tokenizer.json does not hold"
            ))),
        };
    };
    if !inner.get_added_vocabulary().is_special_token(token) {
        inner
            .add_special_tokens([AddedToken::from(token, true)])
            .map_err(|e| Error::model(format!("tokenizer_config.json: the token {token:?} could not be added: {e}")))?;
    }
    Ok(Some(id))
}

/// Byte-pair encoding leaves out what it has no token for, unless it has an unknown token, falls back to bytes, or
/// knows every byte.
fn drops(inner: &tokenizers::Tokenizer) -> bool {
    let ModelWrapper::BPE(model) = inner.get_model() else {
        return false;
    };
    let bytes = || tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let knows = |c: char| inner.token_to_id(c.encode_utf8(&mut [0; 4])).is_some();
    model.unk_token.is_none() && !model.byte_fallback && !bytes().into_iter().all(knows)
}

/// The first character, white space aside, that no token covers.
fn lost(text: &str, found: &Encoding) -> Option<char> {
    let mut covered = vec![false; text.len()];
    for &(start, end) in found.get_offsets() {
        if let Some(part) = covered.get_mut(start..end) {
            part.fill(true);
        }
    }
    text.char_indices().find(|&(i, c)| !covered[i] && !c.is_whitespace()).map(|(_, c)| c)
}
