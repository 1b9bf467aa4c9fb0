//! The tokenizer of a GGUF file, and the tokens that end an answer.
//!
//! What the metadata says is written out as a `tokenizer.json` and read by `model::tokenizer`, so that there is one
//! tokenizer. (candle's own reader takes every pre-tokenizer that it does not know for GPT-2's, Llama 3's among them,
//! and knows no SentencePiece.)

use super::file::File;
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::model::{ChatTemplate, Tokenizer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const TOKENIZER: &str = "tokenizer.json";
const GENERATION: &str = "generation_config.json";
const BESIDE: &str = "put the tokenizer.json of the original model beside the file, or name it: #{ tokenizer: \"…\" }";

/// What a token is for, as `tokenizer.ggml.token_type` numbers it.
mod kind {
    pub const NORMAL: usize = 1;
    pub const UNKNOWN: usize = 2;
    pub const CONTROL: usize = 3;
    pub const USER_DEFINED: usize = 4;
}

/// Tokens by which chat templates end a turn: they end an answer even where the metadata names another token alone.
const TURN_ENDS: [&str; 2] = ["<|im_end|>", "<|eot_id|>"];

/// `given` is a `tokenizer.json` or its folder; `vocabulary` the rows of the embedding.
pub fn read(file: &File, given: Option<&Location>, vocabulary: usize) -> Result<(Tokenizer, Vec<u32>)> {
    let beside = |name: &str| files::beside(&file.path, name);
    let place = match given {
        Some(path) if files::is_folder(path) => Some(path.join(TOKENIZER)),
        Some(path) => Some(path.clone()),
        None => is_beside(file).then(|| beside(TOKENIZER)),
    };
    place.as_ref().and_then(Location::folder).map_or(Ok(()), |folder| files::require_whole(&folder))?;
    let vocab = Vocab::read(file)?;
    let tokenizer = match &place {
        Some(path) => from_file(file, path, vocab.as_ref())?,
        None => from_metadata(file, vocab.as_ref())?,
    };
    let size = tokenizer.size();
    if size > vocabulary {
        return Err(file
            .wrong(format!("the tokenizer has {size} tokens, but the model's embedding has {vocabulary} rows"))
            .hint(BESIDE));
    }
    let eos = end_tokens(file, vocab.as_ref(), &beside(GENERATION), vocabulary)?;
    Ok((tokenizer, eos))
}

/// Whether a tokenizer stands beside the file, which goes before the one in its metadata.
pub fn is_beside(file: &File) -> bool {
    files::is_file(&files::beside(&file.path, TOKENIZER))
}

/// The tokens in the metadata, by id.
struct Vocab<'a> {
    tokens: Vec<&'a str>,
    /// One each.
    kinds: Vec<usize>,
}

impl<'a> Vocab<'a> {
    fn read(file: &'a File) -> Result<Option<Self>> {
        let Some(tokens) = file.texts("tokenizer.ggml.tokens")? else { return Ok(None) };
        let kinds = file.counts("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![kind::NORMAL; tokens.len()]);
        if kinds.len() != tokens.len() {
            return Err(file
                .wrong(format!("the metadata has {} tokens, but {} token types", tokens.len(), kinds.len()))
                .hint(BESIDE));
        }
        Ok(Some(Self { tokens, kinds }))
    }

    fn of_kind(&self, kind: usize) -> impl Iterator<Item = (usize, &'a str)> + '_ {
        self.tokens.iter().copied().enumerate().filter(move |&(id, _)| self.kinds[id] == kind)
    }

    /// The text of the token that a metadata key names.
    fn named(&self, file: &File, key: &str) -> Result<Option<&'a str>> {
        let Some(id) = file.count(key)? else { return Ok(None) };
        let outside = || file.wrong(format!("`{key}` is {id}, but there are {} tokens", self.tokens.len()));
        self.tokens.get(id).copied().map(Some).ok_or_else(outside)
    }
}

fn from_file(file: &File, path: &Location, vocab: Option<&Vocab>) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_bytes(&files::bytes(path)?, Some(&named_tokens(file, vocab)))
        .map_err(|e| Error { what: format!("{}: {}", path.display(), e.what), ..e })?;
    let other = |&(id, token): &(usize, &str)| tokenizer.id(token) != Some(id as u32);
    match vocab.and_then(|vocab| vocab.of_kind(kind::NORMAL).find(other)) {
        Some((id, token)) => Err(file
            .wrong(format!("{} belongs to another model: token {id} is {token:?} in the GGUF file", path.display()))
            .hint("every token must have the same id in both")),
        None => Ok(tokenizer),
    }
}

fn from_metadata(file: &File, vocab: Option<&Vocab>) -> Result<Tokenizer> {
    let model = file.text("tokenizer.ggml.model")?;
    let (Some(model), Some(vocab)) = (model, vocab) else {
        return Err(file.wrong("the metadata holds no tokenizer").hint(BESIDE));
    };
    let mut ids = Map::new();
    for (id, token) in vocab.tokens.iter().enumerate() {
        if ids.insert(token.to_string(), id.into()).is_some() {
            return Err(file.wrong(format!("the metadata holds the token {token:?} twice")).hint(BESIDE));
        }
    }
    let mut json = match model {
        "gpt2" => byte_level(file, ids)?,
        "llama" => sentence_piece(file, vocab, ids)?,
        _ => {
            return Err(file
                .wrong(format!("a tokenizer of the kind `{model}` cannot be made from the metadata"))
                .hint(BESIDE));
        }
    };
    let added = |special: bool| {
        move |(id, token): (usize, &str)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": special})
        }
    };
    let special = [kind::UNKNOWN, kind::CONTROL].into_iter().flat_map(|kind| vocab.of_kind(kind)).map(added(true));
    let mut tokens: Vec<Value> = special.chain(vocab.of_kind(kind::USER_DEFINED).map(added(false))).collect();
    tokens.sort_by_key(|token| token["id"].as_u64());
    json["version"] = "1.0".into();
    json["added_tokens"] = tokens.into();
    json["post_processor"] = begin(file, vocab, model)?;
    let bytes = serde_json::to_vec(&json).expect("a JSON value is written without failure");
    Tokenizer::from_bytes(&bytes, Some(&named_tokens(file, Some(vocab)))).map_err(|e| {
        let what = e.what.replace(TOKENIZER, "the tokenizer in the metadata");
        file.wrong(what).hint(BESIDE)
    })
}

/// The begin and the end token, as a `tokenizer_config.json` names them: where the tokenizer has no such token it goes
/// without. Ids that are none are refused where they are needed.
fn named_tokens(file: &File, vocab: Option<&Vocab>) -> Vec<u8> {
    let mut named = Map::new();
    for name in ["bos", "eos"] {
        let key = format!("tokenizer.ggml.{name}_token_id");
        if let Some(Ok(Some(token))) = vocab.map(|vocab| vocab.named(file, &key)) {
            named.insert(format!("{name}_token"), json!({"content": token, "usual": true}));
        }
    }
    serde_json::to_vec(&named).expect("a JSON value is written without failure")
}

/// How texts are cut before the merges.
enum Split {
    Gpt2,
    /// GPT-2's, digits one by one.
    Digits,
    /// By a pattern of its own.
    Pattern(&'static str),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names that `tokenizer.ggml.pre` may have. Any other stands for a pattern that is not known here.
const SPLITS: [(&str, Split); 11] = [
    ("gpt-2", Split::Gpt2),
    ("olmo", Split::Gpt2),
    ("llama-bpe", Split::Pattern(LLAMA3)),
    ("llama3", Split::Pattern(LLAMA3)),
    ("llama-v3", Split::Pattern(LLAMA3)),
    ("dbrx", Split::Pattern(LLAMA3)),
    ("smaug-bpe", Split::Pattern(LLAMA3)),
    ("qwen2", Split::Pattern(QWEN2)),
    ("deepseek-r1-qwen", Split::Pattern(QWEN2)),
    ("smollm", Split::Digits),
    ("refact", Split::Digits),
];

/// Llama 3's own files: others that cut texts alike have its pattern alone.
fn is_llama3(pre: &str) -> bool {
    ["llama-bpe", "llama3", "llama-v3"].contains(&pre)
}

/// Byte-level BPE (Radford et al. 2019).
fn byte_level(file: &File, ids: Map<String, Value>) -> Result<Value> {
    let pre = file.text("tokenizer.ggml.pre")?;
    let Some((name, split)) = SPLITS.iter().find(|(name, _)| Some(*name) == pre) else {
        let known: Vec<&str> = SPLITS.iter().map(|(name, _)| *name).collect();
        let found = pre.map_or("is missing".into(), |pre| format!("is `{pre}`"));
        return Err(file
            .wrong(format!("`tokenizer.ggml.pre` {found}, which can be: {}", known.join(", ")))
            .hint(BESIDE));
    };
    let merges = file.require("tokenizer.ggml.merges", file.texts("tokenizer.ggml.merges")?)?;
    let pair = |merge: &&str| {
        let parts = merge.split_once(' ').map(|(a, b)| json!([a, b]));
        parts.ok_or_else(|| file.wrong(format!("the merge {merge:?} is not a pair")).hint(BESIDE))
    };
    let merges = merges.iter().map(pair).collect::<Result<Vec<_>>>()?;
    let bytes = |own_pattern: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": own_pattern});
    let sequence =
        |first: Value, own_pattern: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(own_pattern)]});
    let pre_tokenizer = match split {
        Split::Gpt2 => bytes(true),
        Split::Digits => sequence(json!({"type": "Digits", "individual_digits": true}), true),
        Split::Pattern(pattern) => {
            let cut = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            sequence(cut, false)
        }
    };
    Ok(json!({
        "normalizer": if *name == "qwen2" { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre_tokenizer,
        "decoder": bytes(true),
        // Llama 3 keeps a piece whole that is a token, whatever the merges would make of it.
        "model": {"type": "BPE", "fuse_unk": false, "byte_fallback": false, "ignore_merges": is_llama3(name),
                  "vocab": ids, "merges": merges},
    }))
}

/// SentencePiece's BPE (Kudo & Richardson 2018, arXiv:1808.06226): the pair whose joint piece has the highest score is
/// merged first, and what is no piece falls back to bytes.
fn sentence_piece(file: &File, vocab: &Vocab, ids: Map<String, Value>) -> Result<Value> {
    let scores = file.require("tokenizer.ggml.scores", file.numbers("tokenizer.ggml.scores")?)?;
    if scores.len() != vocab.tokens.len() {
        let (tokens, found) = (vocab.tokens.len(), scores.len());
        return Err(file.wrong(format!("the metadata has {tokens} tokens, but {found} scores")).hint(BESIDE));
    }
    let pieces: BTreeMap<&str, usize> = vocab.of_kind(kind::NORMAL).map(|(id, token)| (token, id)).collect();
    let mut merges: Vec<(f64, usize, usize)> = Vec::new();
    for (&piece, &id) in &pieces {
        for (at, _) in piece.char_indices().skip(1) {
            if let (Some(&left), Some(&right)) = (pieces.get(&piece[..at]), pieces.get(&piece[at..])) {
                merges.push((scores[id], left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let merges: Vec<Value> = merges.iter().map(|&(_, l, r)| json!([vocab.tokens[l], vocab.tokens[r]])).collect();
    let prefix = file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let mut normalizers = vec![space];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocab.of_kind(kind::UNKNOWN).next().map(|(_, token)| token);
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": ids, "merges": merges},
    }))
}

/// The begin token before a prompt, where the model was trained with one. An end token is never put after a prompt:
/// it is there to be continued.
fn begin(file: &File, vocab: &Vocab, model: &str) -> Result<Value> {
    let usual = model == "llama" || file.text("tokenizer.ggml.pre")?.is_some_and(is_llama3);
    if !file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(usual) {
        return Ok(Value::Null);
    }
    let key = "tokenizer.ggml.bos_token_id";
    let id = file.require(key, file.count(key)?)?;
    let token = file.require(key, vocab.named(file, key)?)?;
    let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
    Ok(json!({
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [special, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }))
}

/// The chat template in the metadata, if there is one.
pub fn chat(file: &File) -> Result<Option<ChatTemplate>> {
    let Some(template) = file.text("tokenizer.chat_template")? else { return Ok(None) };
    let mut tokens = BTreeMap::new();
    if let Some(vocab) = Vocab::read(file)? {
        for name in ["bos", "eos"] {
            if let Some(token) = vocab.named(file, &format!("tokenizer.ggml.{name}_token_id"))? {
                tokens.insert(format!("{name}_token"), token.to_string());
            }
        }
    }
    Ok(Some(ChatTemplate::from_text("tokenizer.chat_template", template, tokens)))
}

/// The ids that the metadata names, those of `generation_config.json` beside the file, and turn ends.
fn end_tokens(file: &File, vocab: Option<&Vocab>, generation: &Location, vocabulary: usize) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ids.extend(file.count(key)?);
    }
    if files::is_file(generation) {
        let config: Value = serde_json::from_slice(&files::bytes(generation)?)
            .map_err(|e| Error::model(format!("{} could not be read: {e}", generation.display())))?;
        let id = |id: &Value| id.as_u64().and_then(|id| usize::try_from(id).ok());
        match &config["eos_token_id"] {
            Value::Array(list) => ids.extend(list.iter().filter_map(id)),
            one => ids.extend(id(one)),
        }
    }
    let turn_ends = vocab.into_iter().flat_map(|vocab| vocab.of_kind(kind::CONTROL));
    ids.extend(turn_ends.filter(|(_, token)| TURN_ENDS.contains(token)).map(|(id, _)| id));
    ids.sort_unstable();
    ids.dedup();
    match ids.iter().find(|&&id| id >= vocabulary) {
        Some(id) => Err(file.wrong(format!("the end token {id} is outside the vocabulary of {vocabulary}"))),
        None if ids.is_empty() => Err(file
            .wrong("no end token is known")
            .hint("put the generation_config.json of the original model, with its eos_token_id, beside the file")),
        None => Ok(ids.into_iter().map(|id| id as u32).collect()),
    }
}
