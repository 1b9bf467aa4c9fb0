//! Prompts, demonstrations and preferences in scripts: reading them, and rows made from them.

use super::model::AnyModel;
use crate::data::encode;
use crate::data::max_length::MaxLength;
use crate::data::{Content, Demo, Example, Pair, Prompt, Prompts, ResetPrompts, whole};
use crate::error::{Error, Result};
use crate::script::lang::native::{
    Call, Fallible, FromScript, Handle, IntoScript, OptionValue, Options, Place, Registry, Typed, options,
};
use crate::script::lang::order;
use crate::script::lang::value::{describe, from_json, to_json};
use rhai::{Array, Dynamic, Map};
use serde_json::Value;
use std::any::TypeId;

type Fields = serde_json::Map<String, Value>;

/// What scripts call Prompts: texts and dialogues to answer, or states of rows to go on from.
#[derive(Clone)]
pub enum AnyPrompts {
    Fresh(Prompts),
    Reset(ResetPrompts),
}

impl Handle for AnyPrompts {
    const NAME: &'static str = "Prompts";
    const RECEIVER: &'static str = "prompts";
}

impl Typed for Prompts {
    const TYPE: &'static str = AnyPrompts::NAME;
}

impl IntoScript for Prompts {
    fn write(self) -> Dynamic {
        AnyPrompts::Fresh(self).write()
    }
}

impl Typed for ResetPrompts {
    const TYPE: &'static str = AnyPrompts::NAME;
}

impl IntoScript for ResetPrompts {
    fn write(self) -> Dynamic {
        AnyPrompts::Reset(self).write()
    }
}

pub fn register(reg: &mut Registry) {
    reg.handle::<AnyPrompts>(|prompts| match prompts {
        AnyPrompts::Fresh(prompts) => prompts.to_string(),
        AnyPrompts::Reset(states) => states.to_string(),
    });
    reg.function(
        "encode",
        ["model", "demos", "options"],
        |AnyModel(model): AnyModel, demos: Demos, Options(options): Options<Encoding>| {
            whole::encode_examples(&model, &demos.0, options.special, options.max_length.unwrap_or_default().0)
        },
    );
    reg.function(
        "encode_pairs",
        ["model", "pairs", "options"],
        |AnyModel(model): AnyModel, pairs: Pairs, Options(options): Options<Encoding>| {
            encode::encode_pairs(&model, &pairs.0, options.special, options.max_length.unwrap_or_default().0)
        },
    );
    reg.function("encode_ids", ["prompts", "completions"], |call: &Call, prompts: Ids, completions: Ids| {
        encode::encode_ids(prompts.0, completions.0, &call.session.device())
    });
    reg.function("to_array", [], |prompts: &mut AnyPrompts| -> Fallible<Array> {
        match prompts {
            AnyPrompts::Fresh(prompts) => Ok(prompts.items.iter().map(prompt_map).collect()),
            AnyPrompts::Reset(_) => Err(Error::value("`to_array`: these are states of rows, from reset")
                .hint("give them to sample or converse; the rows' own columns hold prompts and fields")
                .into()),
        }
    });
}

options! {
    struct Encoding {
        /// whether special tokens written out in texts and messages are control tokens
        special: bool = false,
        /// tokens of a row at most, or "cut 512": longer completions end there; the model's context unless given
        max_length: Option<Most>,
    }
}

/// `max_length`: a number of tokens, or a text like `drop 512`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Most(pub MaxLength);

impl OptionValue for Most {
    const TYPE: &'static str = "int | string";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        if let Ok(text) = value.as_immutable_string_ref() {
            return MaxLength::parse(&text).map(Self);
        }
        let tokens = value.as_int().ok().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        match tokens {
            Some(tokens) => Ok(Self(MaxLength { tokens: Some(tokens), longer: None })),
            None => Err(place.refused("a number of tokens, or a text like \"drop\" or \"cut 512\"", &value)),
        }
    }
}

/// Maps with prompt and completion, or with a text or messages to learn as a whole.
struct Demos(Vec<Example>);

impl Typed for Demos {
    const TYPE: &'static str = "array";
}

impl FromScript for Demos {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        read_demos(&<Array as FromScript>::read(value, place)?).map(Self)
    }
}

/// Maps with chosen and rejected.
struct Pairs(Vec<Pair>);

impl Typed for Pairs {
    const TYPE: &'static str = "array";
}

impl FromScript for Pairs {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        read_pairs(&<Array as FromScript>::read(value, place)?).map(Self)
    }
}

/// Arrays of token ids.
struct Ids(Vec<Vec<u32>>);

impl Typed for Ids {
    const TYPE: &'static str = "array";
}

impl FromScript for Ids {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        read_ids(place.name, &<Array as FromScript>::read(value, place)?).map(Self)
    }
}

/// Prompts as scripts give them: a handle, or an array of texts, of dialogues or of maps with `prompt`.
pub(super) struct Asked(pub AnyPrompts);

impl Typed for Asked {
    const TYPE: &'static str = "Prompts | array";
}

impl FromScript for Asked {
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match value.try_cast_result::<AnyPrompts>() {
            Ok(AnyPrompts::Fresh(prompts)) => some(place.function, prompts).map(AnyPrompts::Fresh).map(Self),
            Ok(states) => Ok(Self(states)),
            Err(value) => read_prompts(place.function, &value).map(AnyPrompts::Fresh).map(Self),
        }
    }
}

/// The same where no row is gone on from.
pub(super) struct AskedAnew(pub Prompts);

impl Typed for AskedAnew {
    const TYPE: &'static str = Asked::TYPE;
}

impl FromScript for AskedAnew {
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match <Asked as FromScript>::read(value, place)?.0 {
            AnyPrompts::Fresh(prompts) => Ok(Self(prompts)),
            AnyPrompts::Reset(_) => Err(no_prompts(place.function, "states of rows, from reset")),
        }
    }
}

fn no_prompts(function: &str, found: &str) -> Error {
    Error::value(format!("`{function}`: expected prompts, found {found}")).hint(
        "prompts come from task.prompts(n), or as an array of texts, of dialogues [#{ role, content }, …] or of \
         maps #{ prompt, … }",
    )
}

fn prompt_map(prompt: &Prompt) -> Dynamic {
    map_of([("prompt", &prompt.content)], &prompt.fields)
}

/// A demonstration as `encode` takes it.
pub(super) fn demo_map(demo: &Demo) -> Dynamic {
    map_of([("prompt", &demo.prompt), ("completion", &demo.completion)], &demo.fields)
}

/// A pair as `encode_pairs` takes it.
pub(super) fn pair_map(pair: &Pair) -> Dynamic {
    let answers = [("chosen", &pair.chosen), ("rejected", &pair.rejected)];
    match &pair.prompt {
        Some(prompt) => map_of([("prompt", prompt), answers[0], answers[1]], &pair.fields),
        None => map_of(answers, &pair.fields),
    }
}

fn map_of<const N: usize>(contents: [(&str, &Content); N], fields: &Fields) -> Dynamic {
    let own = contents.into_iter().map(|(name, content)| (name.into(), from_json(&content.value())));
    order::map(own.chain(fields.iter().map(|(name, value)| (name.into(), from_json(value)))))
}

/// An array of texts, of dialogues or of maps with `prompt`.
pub(super) fn read_prompts(function: &str, value: &Dynamic) -> Result<Prompts> {
    let wrong = |found: String| no_prompts(function, &found);
    let Ok(items) = value.as_array_ref() else { return Err(wrong(describe(value))) };
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
    some(function, Prompts::of(items.iter().enumerate().map(one).collect::<Result<_>>()?))
}

fn some(function: &str, prompts: Prompts) -> Result<Prompts> {
    if prompts.is_empty() {
        return Err(Error::value(format!("`{function}`: there are no prompts, expected at least one")));
    }
    Ok(prompts)
}

fn read_demos(demos: &Array) -> Result<Vec<Example>> {
    let one = |(i, item): (usize, &Dynamic)| {
        let map = row_map("encode", "#{ prompt, completion }", item)?;
        let content = |key| content_of("encode", i, &map, key)?.ok_or_else(|| without("encode", i, key));
        let whole = ["text", "messages"].into_iter().find(|key| map.contains_key(*key));
        if let Some(key) = whole.filter(|_| !map.contains_key("prompt") && !map.contains_key("completion")) {
            let fields = rest_of(&map, &[key]);
            return match (key, content(key)?) {
                ("text", Content::Text(text)) => Ok(Example::Text { text, fields }),
                ("messages", Content::Messages(messages)) => Ok(Example::Dialogue { messages, fields }),
                (key, _) => {
                    let wanted = if key == "text" { "a text" } else { "an array of messages" };
                    Err(Error::value(format!("`encode`: row {i}: `{key}` must be {wanted}")))
                }
            };
        }
        Ok(Example::Demo(Demo {
            prompt: content("prompt")?,
            completion: content("completion")?,
            fields: rest_of(&map, &["prompt", "completion"]),
        }))
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
