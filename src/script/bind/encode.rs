//! Prompts, demonstrations and preferences in scripts: reading them, and rows made from them.

use super::convert::Answer;
use crate::data::encode;
use crate::data::{Batch, Content, Demo, Pair, Prompt, Prompts};
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::run::Session;
use crate::script::options::{Options, describe};
use crate::script::registry::{Doc, Registry};
use crate::script::value::to_json;
use rhai::{Array, Dynamic, Map};
use serde_json::Value;
use std::rc::Rc;

type Fields = serde_json::Map<String, Value>;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Prompts>("Prompts");
    for name in ["to_string", "to_debug"] {
        reg.global().set_native_fn(name, |prompts: &mut Prompts| -> Answer<String> { Ok(prompts.to_string()) });
    }
    texts(reg);
    pairs(reg);
    ids(reg, session);
    prompts(reg);
}

fn texts(reg: &mut Registry) {
    let doc = Doc::new(
        "encode(model: Model, demos: array, options?: map) -> Batch",
        "Rows of given prompts and completions, the model's end token after each completion.",
    )
    .param("model", "Model", "its tokenizer, chat template and end token are used")
    .param(
        "demos",
        "array of #{ prompt, completion, … }",
        "texts, or arrays of messages #{ role, content } for the chat template; other keys become list columns",
    )
    .param("special", "bool", "whether special tokens written out in texts and messages are control tokens; false unless given")
    .errors(
        "A map without prompt or completion, an empty completion, a prompt without tokens, a row longer than the \
         model's context, a model without tokenizer, end token or (for messages) chat template.",
    )
    .source("prompt and completion are encoded each on its own: the prompt's tokens are those that sample sees")
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = encode(model, [#{ prompt: \"1+2=\", completion: \"3\" }, #{ prompt: \"5+7=\", completion: \"12\" }]);\n\
         assert_eq(b.length.to_array(), [[2.0], [3.0]]);   // the end token counts\n\
         assert_eq(b.mask.to_array(), [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]);\n\
         assert_eq(b.text, [\"3\", \"12\"]);\n\
         let b = encode(model, [#{\n    prompt: [#{ role: \"user\", content: \"1+2=\" }],\n    \
         completion: [#{ role: \"assistant\", content: \"3\" }],\n}]);\n\
         assert_eq(b.text, [\"3\"]);\nassert_eq(b.prompt[0][0].role, \"user\");",
    );
    reg.add(doc, |m| {
        m.set_native_fn("encode", |model: ModelHandle, demos: Array| -> Answer<Batch> {
            Ok(encode::encode(&model, &read_demos(&demos)?, false)?)
        });
        m.set_native_fn("encode", |model: ModelHandle, demos: Array, options: Map| -> Answer<Batch> {
            Ok(encode::encode(&model, &read_demos(&demos)?, read_special("encode", options)?)?)
        });
    });
}

fn pairs(reg: &mut Registry) {
    let doc = Doc::new(
        "encode_pairs(model: Model, pairs: array, options?: map) -> Batch",
        "Rows of preferences: the preferred completion of pair k in row 2k, the other one in row 2k+1.",
    )
    .param("model", "Model", "its tokenizer, chat template and end token are used")
    .param(
        "pairs",
        "array of #{ prompt, chosen, rejected, … }",
        "as for encode; without prompt, the messages that chosen and rejected begin with; other keys become list \
         columns of both rows",
    )
    .param("special", "bool", "as for encode")
    .errors("As encode; a map without chosen or rejected; no prompt, and no message that both begin with.")
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = encode_pairs(model, [#{ prompt: \"1+2=\", chosen: \"3\", rejected: \"12\", source: \"sums\" }]);\n\
         assert_eq(b.text, [\"3\", \"12\"]);\nassert_eq(b.source, [\"sums\", \"sums\"]);\n\
         assert_close(pair_diff(b.length), [[-1.0]]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("encode_pairs", |model: ModelHandle, pairs: Array| -> Answer<Batch> {
            Ok(encode::encode_pairs(&model, &read_pairs(&pairs)?, false)?)
        });
        m.set_native_fn("encode_pairs", |model: ModelHandle, pairs: Array, options: Map| -> Answer<Batch> {
            Ok(encode::encode_pairs(&model, &read_pairs(&pairs)?, read_special("encode_pairs", options)?)?)
        });
    });
}

fn ids(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "encode_ids(prompts: array, completions: array) -> Batch",
        "Rows of token ids as they are; no end token is added.",
    )
    .param("prompts", "[B] arrays of int", "token ids, at least one each")
    .param("completions", "[B] arrays of int", "token ids")
    .errors("Different numbers of prompts and completions, an empty prompt, something that is no token id.")
    .example(
        "let b = encode_ids([[5], [6, 7]], [[1, 2], [3]]);\nassert_eq(b.mask.to_array(), [[1.0, 1.0], [1.0, 0.0]]);",
    );
    let device = session.device();
    reg.add(doc, |m| {
        m.set_native_fn("encode_ids", move |prompts: Array, completions: Array| -> Answer<Batch> {
            let (prompts, completions) = (read_ids("prompts", &prompts)?, read_ids("completions", &completions)?);
            Ok(encode::encode_ids(prompts, completions, &device)?)
        });
    });
}

fn prompts(reg: &mut Registry) {
    let doc = Doc::named(
        "to_array",
        "prompts.to_array() -> array",
        "Prompts as maps: the text or the messages as `prompt`, and the fields.",
    )
    .example(
        "let task = load_task(\"arithmetic\");\nlet p = task.prompts(2).to_array();\n\
             assert_eq(p.len(), 2);\nassert(p[0].prompt.ends_with(\"=\") && p[0].answer.len() > 0);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("to_array", |prompts: &mut Prompts| -> Answer<Array> {
            prompts.items.iter().map(prompt_map).collect()
        });
    });
}

fn prompt_map(prompt: &Prompt) -> Answer<Dynamic> {
    map_of([("prompt", &prompt.content)], &prompt.fields)
}

/// A demonstration as `encode` takes it.
pub(super) fn demo_map(demo: &Demo) -> Answer<Dynamic> {
    map_of([("prompt", &demo.prompt), ("completion", &demo.completion)], &demo.fields)
}

/// A pair as `encode_pairs` takes it.
pub(super) fn pair_map(pair: &Pair) -> Answer<Dynamic> {
    let answers = [("chosen", &pair.chosen), ("rejected", &pair.rejected)];
    match &pair.prompt {
        Some(prompt) => map_of([("prompt", prompt), answers[0], answers[1]], &pair.fields),
        None => map_of(answers, &pair.fields),
    }
}

fn map_of<const N: usize>(contents: [(&str, &Content); N], fields: &Fields) -> Answer<Dynamic> {
    let mut map = Map::new();
    for (name, content) in contents {
        map.insert(name.into(), rhai::serde::to_dynamic(content.value())?);
    }
    for (name, value) in fields {
        map.insert(name.as_str().into(), rhai::serde::to_dynamic(value)?);
    }
    Ok(map.into())
}

/// Prompts as scripts give them: a handle, or an array of texts, of dialogues or of maps with `prompt`.
pub(super) fn read_prompts(function: &str, value: Dynamic) -> Result<Prompts> {
    if let Some(prompts) = value.read_lock::<Prompts>() {
        return some(function, prompts.clone());
    }
    let wrong = |found: String| {
        Error::value(format!("`{function}`: expected prompts, found {found}")).hint(
            "prompts come from task.prompts(n), or as an array of texts, of dialogues [#{ role, content }, …] or of \
             maps #{ prompt, … }",
        )
    };
    let Ok(items) = value.as_array_ref() else { return Err(wrong(describe(&value))) };
    let one = |(i, item): (usize, &Dynamic)| {
        if item.is_string() || item.is_array() {
            let content = Content::read(&format!("`{function}`: prompt {i}"), to_json(item))?;
            return Ok(Prompt { content, fields: Fields::new() });
        }
        let Ok(map) = item.as_map_ref() else { return Err(wrong(format!("an array with {}", describe(item)))) };
        if map.contains_key("role") && !map.contains_key("prompt") {
            return Err(Error::value(format!("`{function}`: prompt {i} is a message, not a prompt")).hint(
                "a dialogue is an array of messages, and prompts are an array of those: [[#{ role, content }]]",
            ));
        }
        let content = content_of(function, i, &map, "prompt")?.ok_or_else(|| without(function, i, "prompt"))?;
        Ok(Prompt { content, fields: rest_of(&map, &["prompt"]) })
    };
    some(function, Prompts { items: items.iter().enumerate().map(one).collect::<Result<_>>()? })
}

fn some(function: &str, prompts: Prompts) -> Result<Prompts> {
    if prompts.is_empty() {
        return Err(Error::value(format!("`{function}`: there are no prompts, expected at least one")));
    }
    Ok(prompts)
}

fn read_demos(demos: &Array) -> Result<Vec<Demo>> {
    let one = |(i, item): (usize, &Dynamic)| {
        let map = row_map("encode", "#{ prompt, completion }", item)?;
        let content = |key| content_of("encode", i, &map, key)?.ok_or_else(|| without("encode", i, key));
        Ok(Demo {
            prompt: content("prompt")?,
            completion: content("completion")?,
            fields: rest_of(&map, &["prompt", "completion"]),
        })
    };
    demos.iter().enumerate().map(one).collect()
}

fn read_pairs(pairs: &Array) -> Result<Vec<Pair>> {
    let one = |(i, item): (usize, &Dynamic)| {
        let map = row_map("encode_pairs", "#{ prompt, chosen, rejected }", item)?;
        let content = |key| content_of("encode_pairs", i, &map, key)?.ok_or_else(|| without("encode_pairs", i, key));
        Ok(Pair {
            prompt: content_of("encode_pairs", i, &map, "prompt")?,
            chosen: content("chosen")?,
            rejected: content("rejected")?,
            fields: rest_of(&map, &["prompt", "chosen", "rejected"]),
        })
    };
    pairs.iter().enumerate().map(one).collect()
}

fn read_special(function: &'static str, options: Map) -> Result<bool> {
    let mut options = Options::new(function, options)?;
    let special = options.bool("special")?.unwrap_or(false);
    options.finish()?;
    Ok(special)
}

fn row_map<'a>(function: &str, expected: &str, item: &'a Dynamic) -> Result<impl std::ops::Deref<Target = Map> + 'a> {
    item.as_map_ref()
        .map_err(|_| Error::value(format!("`{function}`: expected maps {expected}, found {}", describe(item))))
}

fn content_of(function: &str, i: usize, map: &Map, key: &str) -> Result<Option<Content>> {
    let Some(value) = map.get(key).filter(|value| !value.is_unit()) else { return Ok(None) };
    let what = format!("`{function}`: row {i}: `{key}`");
    if !value.is_string() && !value.is_array() {
        return Err(Error::value(format!("{what} must be a text or an array of messages, found {}", describe(value))));
    }
    Ok(Some(Content::read(&what, to_json(value))?))
}

fn without(function: &str, i: usize, key: &str) -> Error {
    Error::value(format!("`{function}`: row {i} has no `{key}`"))
}

/// Every key but these, as fields.
fn rest_of(map: &Map, keys: &[&str]) -> Fields {
    let rest = map.iter().filter(|(key, _)| !keys.contains(&key.as_str()));
    rest.map(|(key, value)| (key.to_string(), to_json(value))).collect()
}

fn read_ids(name: &str, rows: &Array) -> Result<Vec<Vec<u32>>> {
    let wrong = |value: &Dynamic| {
        Error::value(format!("`encode_ids`: {name} must be arrays of token ids, found {}", describe(value)))
    };
    let id = |value: &Dynamic| value.as_int().ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| wrong(value));
    rows.iter().map(|row| row.as_array_ref().map_err(|_| wrong(row))?.iter().map(id).collect()).collect()
}
