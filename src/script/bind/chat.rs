//! Text and tokens in scripts: chat templates, token ids and back.

use super::convert::Answer;
use super::frozen::Frozen;
use crate::data::Content;
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::model::{ModelInfo, Tokenizer};
use crate::script::options::{Options, describe};
use crate::script::registry::{Doc, Registry};
use crate::script::value::to_json;
use rhai::{Array, Dynamic, INT, Map};

pub fn register(reg: &mut Registry) {
    chat(reg);
    tokens(reg);
}

fn chat(reg: &mut Registry) {
    let doc = Doc::named(
        "chat",
        "model.chat(messages: array, options?: map) -> string",
        "Messages as the model's chat template renders them.",
    )
    .param("messages", "array of #{ role, content, … }", "in order; which roles there are is the template's affair")
    .param("generate", "bool", "whether what begins the assistant's answer follows; false unless given")
    .param("variables", "map", "what else the template reads: #{ enable_thinking: false }, #{ tools: […] }")
    .errors("A model without chat template, a template that cannot be parsed or refuses the messages.")
    .source(
        "what transformers' apply_chat_template gives; strftime_now is in UTC; `sample` takes the messages themselves, \
         a rendered text only with special: true, since control tokens in texts are ordinary text otherwise",
    )
    .example(
        "let model = load_model(\"tiny\");\n\
         let text = model.chat([#{ role: \"user\", content: \"1+2=\" }], #{ generate: true });\n\
         assert_eq(text, \"<user>1+2=<assistant>\");",
    );
    reg.add(doc, |m| {
        m.set_native_fn("chat", |model: &mut ModelHandle, messages: Array| -> Answer<String> {
            Ok(render(model, messages, Dynamic::UNIT)?)
        });
        m.set_native_fn("chat", |model: &mut ModelHandle, messages: Array, options: Map| -> Answer<String> {
            Ok(render(model, messages, options.into())?)
        });
    });
}

fn render(model: &ModelInfo, messages: Array, options: Dynamic) -> Result<String> {
    let mut options = Options::new("chat", options)?;
    let generate = options.bool("generate")?.unwrap_or(false);
    let variables = options.map("variables")?.unwrap_or_default();
    options.finish()?;
    let variables = variables.iter().map(|(name, value)| (name.to_string(), to_json(value))).collect();
    match Content::read("`chat`: messages", to_json(&messages.into()))? {
        Content::Messages(messages) => model.require_chat("chat")?.render_with(&messages, generate, &variables),
        Content::Text(text) => Ok(text),
    }
}

fn tokens(reg: &mut Registry) {
    let doc = Doc::named(
        "tokenize",
        "model.tokenize(text: string, options?: map) -> array",
        "The token ids of a text; also of a frozen model, whose own tokens `encode_ids` makes rows of.",
    )
    .param("text", "string", "any text that the tokenizer has tokens for")
    .param("special", "bool", "whether special tokens written out in the text are control tokens; false unless given")
    .param("begin", "bool", "whether what the tokenizer puts before a prompt is added (a begin token, in some families); false unless given")
    .errors("A model without tokenizer, a character that the tokenizer would leave out.")
    .example(
        "let model = load_model(\"tiny\");\n\
         assert_eq(model.tokenize(\"12\"), [26, 27]);\n\
         assert_eq(model.tokenize(\"<eos>\").len(), 5);\n\
         assert_eq(model.tokenize(\"<eos>\", #{ special: true }), [1]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("tokenize", |model: &mut ModelHandle, text: &str| -> Answer<Array> {
            Ok(tokenize(model.require_tokenizer("tokenize")?, text, Dynamic::UNIT)?)
        });
        m.set_native_fn("tokenize", |model: &mut ModelHandle, text: &str, options: Map| -> Answer<Array> {
            Ok(tokenize(model.require_tokenizer("tokenize")?, text, options.into())?)
        });
        m.set_native_fn("tokenize", |model: &mut Frozen, text: &str| -> Answer<Array> {
            Ok(tokenize(model.0.require_tokenizer("tokenize")?, text, Dynamic::UNIT)?)
        });
        m.set_native_fn("tokenize", |model: &mut Frozen, text: &str, options: Map| -> Answer<Array> {
            Ok(tokenize(model.0.require_tokenizer("tokenize")?, text, options.into())?)
        });
    });
    let doc =
        Doc::named("detokenize", "model.detokenize(ids: array, options?: map) -> string", "The text of token ids.")
            .param("ids", "array of int", "token ids of this model")
            .param("special", "bool", "whether special tokens are written out; false unless given")
            .errors("A model without tokenizer, something that is no token id of this model.")
            .example(
                "let model = load_model(\"tiny\");\n\
         assert_eq(model.detokenize([26, 27, 1]), \"12\");\n\
         assert_eq(model.detokenize([26, 27, 1], #{ special: true }), \"12<eos>\");",
            );
    reg.add(doc, |m| {
        m.set_native_fn("detokenize", |model: &mut ModelHandle, ids: Array| -> Answer<String> {
            Ok(detokenize(model, &ids, Dynamic::UNIT)?)
        });
        m.set_native_fn("detokenize", |model: &mut ModelHandle, ids: Array, options: Map| -> Answer<String> {
            Ok(detokenize(model, &ids, options.into())?)
        });
    });
}

fn tokenize(tokenizer: &Tokenizer, text: &str, options: Dynamic) -> Result<Array> {
    let mut options = Options::new("tokenize", options)?;
    let special = options.bool("special")?.unwrap_or(false);
    let begin = options.bool("begin")?.unwrap_or(false);
    options.finish()?;
    let encode = match (special, begin) {
        (false, false) => Tokenizer::encode,
        (false, true) => Tokenizer::encode_prompt,
        (true, false) => Tokenizer::encode_special,
        (true, true) => Tokenizer::encode_prompt_special,
    };
    let ids = encode(tokenizer, text)?;
    Ok(ids.into_iter().map(|id| Dynamic::from(INT::from(id))).collect())
}

fn detokenize(model: &ModelInfo, ids: &Array, options: Dynamic) -> Result<String> {
    let mut options = Options::new("detokenize", options)?;
    let special = options.bool("special")?.unwrap_or(false);
    options.finish()?;
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
