//! What is said of a row that is not what it must be: where it stands, what was expected and what was found.

use super::Fields;
use super::format::Format;
use super::place::Place;
use crate::error::Error;
use serde_json::Value;

pub(super) fn wrong_label(place: &Place, value: &Value) -> Error {
    Error::file(format!("{place}: `label` must be true or false (or 1 or 0), found {}", describe(value)))
        .hint("true says that the completion is desirable")
}

pub(super) fn wrong_reward(place: &Place, value: &Value) -> Error {
    Error::file(format!("{place}: `reward` must be a number, found {}", describe(value)))
        .hint("what the completion is worth; a field with another meaning wants another name, by `rename`")
}

pub(super) fn wrong_logprob(place: &Place, found: &str) -> Error {
    Error::file(format!("{place}: `logprob` must be a number of at most 0, or an array of them, found {found}"))
        .hint("the log-probability of the answer when it was sampled, as a whole or of each of its tokens, in nats")
}

pub(super) fn wrong_type(place: &Place, name: &str, value: &Value) -> Error {
    if name == "text" {
        return Error::file(format!("{place}: `text` must be a text, found {}", describe(value)))
            .hint("dialogues are rows of `messages`");
    }
    Error::file(format!("{place}: `{name}` must be a text or an array of messages, found {}", describe(value)))
}

pub(super) fn empty(place: &Place, name: &str) -> Error {
    let what = match name {
        "messages" => "the last answer in `messages` is empty".to_string(),
        _ => format!("`{name}` is empty"),
    };
    Error::file(format!("{place}: {what}"))
        .hint("there is nothing to learn from an answer that says nothing: leave the row out")
}

pub(super) fn lacking(place: &Place, name: &str, row: &Fields, format: Format) -> Error {
    let how = if row.contains_key(name) { "null" } else { "missing" };
    Error::file(format!("{place}: `{name}` is {how}")).hint(format!(
        "every row of {} data has the fields {}",
        format.name(),
        format.fields()
    ))
}

/// The first row has none of the fields.
pub(super) fn unknown(row: &Fields, place: &Place) -> Error {
    let names: Vec<String> = row.keys().map(|name| format!("`{name}`")).collect();
    let found = if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
    let e = Error::file(format!("{place}: no field holds a prompt; found {found}"));
    let has = |name: &str| row.contains_key(name);
    e.hint(if has("conversations") {
        "turn `conversations` of `from` and `value` into `messages` of `role` and `content`".to_string()
    } else {
        "data has `prompt`, with `completion` or `chosen` and `rejected`, or `messages`, or `text`; fields of other names \
         are mapped like this: #{ rename: #{ question: \"prompt\" } }"
            .to_string()
    })
}

/// A value as errors name it.
pub(in crate::data) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(x) => x.to_string(),
        Value::Number(x) => format!("the number {x}"),
        Value::String(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
        Value::String(text) => format!("the text {:?}…", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}
