//! Text and tokens in scripts: chat templates, token ids and back.

use super::model::Frozen;
use crate::data::Content;
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::model::{ModelInfo, Tokenizer};
use crate::script::lang::native::{Options, Registry, options};
use crate::script::lang::value::{describe, to_json};
use rhai::{Array, Dynamic, INT, ImmutableString, Map};

pub fn register(reg: &mut Registry) {
    reg.function(
        "chat",
        ["messages", "options"],
        |model: &mut ModelHandle, messages: Array, Options(options): Options<Chatting>| {
            render(model, messages, &options)
        },
    );
    reg.form(["messages", "options"], |judge: &mut Frozen, messages: Array, Options(options): Options<Chatting>| {
        render(&judge.0, messages, &options)
    });
    reg.function(
        "tokenize",
        ["text", "options"],
        |model: &mut ModelHandle, text: ImmutableString, Options(options): Options<Tokenizing>| {
            tokenize(model.require_tokenizer("tokenize")?, &text, &options)
        },
    );
    reg.form(
        ["text", "options"],
        |judge: &mut Frozen, text: ImmutableString, Options(options): Options<Tokenizing>| {
            tokenize(judge.0.require_tokenizer("tokenize")?, &text, &options)
        },
    );
    reg.function(
        "detokenize",
        ["ids", "options"],
        |model: &mut ModelHandle, ids: Array, Options(options): Options<Detokenizing>| {
            detokenize(model, &ids, options.special)
        },
    );
    reg.form(["ids", "options"], |judge: &mut Frozen, ids: Array, Options(options): Options<Detokenizing>| {
        detokenize(&judge.0, &ids, options.special)
    });
}

options! {
    struct Chatting {
        /// whether what begins the assistant's answer follows
        generate: bool = false,
        /// what else the template reads: #{ enable_thinking: false }, #{ tools: […] }
        variables: Option<Map>,
    }
}

options! {
    struct Tokenizing {
        /// whether special tokens written out in the text are control tokens
        special: bool = false,
        /// whether what the tokenizer puts before a prompt is added (a begin token, in some families)
        begin: bool = false,
    }
}

options! {
    struct Detokenizing {
        /// whether special tokens are written out
        special: bool = false,
    }
}

fn render(model: &ModelInfo, messages: Array, options: &Chatting) -> Result<String> {
    let variables =
        options.variables.iter().flatten().map(|(name, value)| (name.to_string(), to_json(value))).collect();
    match Content::read("`chat`: messages", to_json(&messages.into()))? {
        Content::Messages(messages) => model.require_chat("chat")?.render_with(&messages, options.generate, &variables),
        Content::Text(text) => Ok(text),
    }
}

fn tokenize(tokenizer: &Tokenizer, text: &str, options: &Tokenizing) -> Result<Array> {
    let encode = match (options.special, options.begin) {
        (false, false) => Tokenizer::encode,
        (false, true) => Tokenizer::encode_prompt,
        (true, false) => Tokenizer::encode_special,
        (true, true) => Tokenizer::encode_prompt_special,
    };
    let ids = encode(tokenizer, text)?;
    Ok(ids.into_iter().map(|id| Dynamic::from(INT::from(id))).collect())
}

fn detokenize(model: &ModelInfo, ids: &Array, special: bool) -> Result<String> {
    let tokenizer = model.require_tokenizer("detokenize")?;
    let size = model.vocab_size;
    let id = |value: &Dynamic| {
        let id = value.as_int().ok().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < size);
        id.ok_or_else(|| {
            Error::value(format!("`detokenize`: expected token ids below {size}, found {}", describe(value)))
        })
    };
    let ids = ids.iter().map(id).collect::<Result<Vec<u32>>>()?;
    Ok(if special { tokenizer.decode_special(&ids) } else { tokenizer.decode(&ids) })
}
