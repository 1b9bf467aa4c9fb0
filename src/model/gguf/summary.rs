//! What a GGUF file says of itself, told from its header alone: sizes, the formats of its tensors, its tokenizer.
//!
//! Plain data for whoever shows it; no weight is read. What is not supported is an error beside what can be told.

use super::file::File;
use super::{facts, tokens};
use crate::error::Result;
use crate::files::{self, Location};
use crate::model::config::Config;
use crate::model::{ADAPTER_CONFIG, CONFIG, ChatTemplate, Tokenizer};
use std::collections::{BTreeMap, BTreeSet};

/// The header of a file.
pub struct Summary {
    pub path: Location,
    /// Bytes of the file.
    pub size: u64,
    /// As the metadata spells them, where it does.
    pub architecture: Option<String>,
    pub name: Option<String>,
    /// How many numbers the tensors hold.
    pub parameters: u64,
    /// What the decoder would be.
    pub config: Result<Config>,
    /// Whether angles are divided by factors that the file holds.
    pub stretched: bool,
    /// Largest first.
    pub formats: Vec<Stored>,
    pub tokenizer: Result<Words>,
}

/// The tensors of one format.
pub struct Stored {
    /// `Q4K`
    pub format: String,
    pub tensors: usize,
    pub numbers: u64,
    pub bytes: u64,
    /// Which ones, without their layers: `attn_q`, `ffn_down`.
    pub kinds: BTreeSet<String>,
}

/// The tokenizer and what belongs to it.
pub struct Words {
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// `gpt2, smollm`: the metadata's words for how texts are cut; nothing where a file beside it says so.
    pub kind: Option<String>,
    pub chat: Option<ChatTemplate>,
}

impl Summary {
    /// Whether a path means a GGUF file: one, or a folder that holds one and no model in the Hugging Face layout.
    pub fn is_meant(path: &Location) -> bool {
        let named = |path: &Location| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        if files::is_folder(path) {
            let other = [CONFIG, ADAPTER_CONFIG].iter().any(|name| files::is_file(&path.join(name)));
            return !other && files::entries(path).is_ok_and(|found| found.iter().any(named));
        }
        named(path) || (files::is_file(path) && super::file::begins(path))
    }

    /// Reads the header of a file, or of the only one in a folder.
    ///
    /// # Errors
    /// A file that is no GGUF file, or is cut short.
    pub fn open(path: &Location) -> Result<Self> {
        let file = File::open(path)?;
        let text = |key: &str| file.text(key).ok().flatten().map(str::to_string);
        let config = facts::config(&file).map(|(_, config)| config);
        let tokenizer = words(&file, config.as_ref().ok());
        let mut formats: Vec<Stored> = formats(&file).into_values().collect();
        formats.sort_by_key(|stored| std::cmp::Reverse(stored.bytes));
        Ok(Self {
            size: file.size(),
            architecture: text("general.architecture"),
            name: text("general.name"),
            parameters: file.parameters() as u64,
            stretched: file.has(super::FACTORS),
            config,
            formats,
            tokenizer,
            path: file.path,
        })
    }
}

fn formats(file: &File) -> BTreeMap<String, Stored> {
    let mut formats: BTreeMap<String, Stored> = BTreeMap::new();
    for tensor in file.tensors() {
        let format = format!("{:?}", tensor.format);
        let empty = || Stored { format: format.clone(), tensors: 0, numbers: 0, bytes: 0, kinds: BTreeSet::new() };
        let stored = formats.entry(format.clone()).or_insert_with(empty);
        stored.tensors += 1;
        stored.numbers += tensor.numbers as u64;
        stored.bytes += tensor.bytes;
        stored.kinds.insert(kind(tensor.name).to_string());
    }
    formats
}

/// `attn_q` of `blk.3.attn_q.weight`.
fn kind(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let inner = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    inner.map_or(name, |(_, kind)| kind)
}

fn words(file: &File, config: Option<&Config>) -> Result<Words> {
    // Where the model is not known its tokenizer may still be.
    let vocabulary = config.map_or(usize::MAX, |config| config.vocab_size);
    let (tokenizer, ends) = tokens::read(file, None, vocabulary)?;
    let said = |key: &str| file.text(key).ok().flatten();
    let own = !tokens::is_beside(file);
    let kind = [said("tokenizer.ggml.model"), said("tokenizer.ggml.pre")].into_iter().flatten().collect::<Vec<_>>();
    let chat = tokens::chat(file)?;
    if let Some(chat) = &chat {
        chat.check()?;
    }
    Ok(Words { tokenizer, ends, kind: own.then(|| kind.join(", ")), chat })
}
