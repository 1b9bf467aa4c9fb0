//! Prompts with what a task knows about each of them: texts, or messages that the model's chat template renders.

use super::origin::Origin;
use crate::budget::json;
use crate::error::{Error, Result};
use crate::model::ModelInfo;
use crate::model::chat::{Ending, Rendered};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::rc::Rc;

/// A text, or the messages of a dialogue.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Text(String),
    /// Maps with `role` and whatever else the chat template reads; at least one.
    Messages(Vec<Value>),
}

impl Content {
    /// Bytes that it takes, about.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Messages(messages) => messages.iter().map(json::of_value).sum(),
        }
    }

    /// Reads a text or an array of messages; `what` names it in errors.
    pub fn read(what: &str, value: Value) -> Result<Self> {
        let messages = match value {
            Value::String(text) => return Ok(Self::Text(text)),
            Value::Array(messages) => messages,
            other => {
                return Err(Error::value(format!("{what} must be a text or an array of messages, found {other}")));
            }
        };
        if messages.is_empty() {
            return Err(Error::value(format!("{what} is empty: it holds no message")));
        }
        match messages.iter().position(|message| message.get("role").and_then(Value::as_str).is_none()) {
            None => Ok(Self::Messages(messages)),
            Some(i) => Err(Error::value(format!("{what}: message {i} has no `role`: {}", messages[i]))
                .hint("a message is a map: #{ role: \"user\", content: \"…\" }")),
        }
    }

    /// As a column holds it.
    pub fn value(&self) -> Value {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Messages(messages) => messages.clone().into(),
        }
    }

    /// What people are shown: the text, or what the last message says.
    pub fn shown(value: &Value) -> Cow<'_, str> {
        match value {
            Value::String(text) => text.into(),
            Value::Array(messages) => match messages.iter().rev().find_map(said) {
                Some(text) => text.into(),
                None => value.to_string().into(),
            },
            other => other.to_string().into(),
        }
    }
}

/// What a message says: its content, or the texts of its parts.
pub(super) fn said(message: &Value) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part.get("text")?.as_str()).collect()),
        _ => None,
    }
}

/// What the fields of a prompt give to its chat template: `tools`, an array or its JSON text, and the entries of
/// `chat_template_kwargs`. No tools are as good as none given, as TRL has it.
///
/// # Errors
/// Fields of these names that are something else.
pub(super) fn template_variables(fields: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut variables = Map::new();
    match fields.get("tools") {
        None | Some(Value::Null) => {}
        Some(Value::Array(tools)) if tools.is_empty() => {}
        Some(Value::Array(tools)) => drop(variables.insert("tools".into(), tools.clone().into())),
        Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(tools)) if tools.is_empty() => {}
            Ok(tools @ Value::Array(_)) => drop(variables.insert("tools".into(), tools)),
            _ => return Err(wrong_field("tools", "an array of tools, or its JSON text", &text.clone().into())),
        },
        Some(other) => return Err(wrong_field("tools", "an array of tools, or its JSON text", other)),
    }
    match fields.get("chat_template_kwargs") {
        None | Some(Value::Null) => {}
        Some(Value::Object(more)) => {
            variables.extend(more.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())));
        }
        Some(other) => return Err(wrong_field("chat_template_kwargs", "a map of the template's variables", other)),
    }
    Ok(variables)
}

fn wrong_field(name: &str, expected: &str, found: &Value) -> Error {
    Error::value(format!("the field `{name}` must be {expected}, found {}", super::dataset::describe(found)))
        .hint("chat templates read it; give a field with another meaning another name")
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// What is to be continued, and fields (`answer`, …) that become list columns of the batch sampled from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub content: Content,
    pub fields: Map<String, Value>,
}

impl Prompt {
    /// Bytes that it takes, about.
    pub fn bytes(&self) -> u64 {
        size_of::<Self>() as u64 + self.content.bytes() + json::of_map(&self.fields)
    }
}

/// Prompts in order.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    pub items: Vec<Prompt>,
    /// The rows that they were drawn from, where there are such.
    pub origin: Option<Rc<Origin>>,
}

impl PartialEq for Prompts {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

impl Prompts {
    pub fn of(items: Vec<Prompt>) -> Self {
        Self { items, origin: None }
    }

    /// Fails where a row of what they were drawn from leaves no room for `max_tokens`, whether it was drawn or not.
    ///
    /// # Errors
    /// As [`Origin::measure`].
    pub fn measure_origin(&self, model: &ModelInfo, max_tokens: usize, special: bool) -> Result<()> {
        self.origin.as_ref().map_or(Ok(()), |origin| origin.measure(model, max_tokens, special))
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All prompts with their fields, in a form that `from_value` reads.
    pub fn to_value(&self) -> Value {
        self.items.iter().map(|prompt| json!([prompt.content.value(), prompt.fields])).collect()
    }

    /// What `to_value` has written.
    ///
    /// # Errors
    /// Another form.
    pub fn from_value(value: &Value) -> Result<Self> {
        let wrong = || Error::value("these are not stored prompts");
        let prompt = |value: &Value| {
            let content = Content::read("a stored prompt", value[0].clone())?;
            Ok(Prompt { content, fields: value[1].as_object().ok_or_else(wrong)?.clone() })
        };
        Ok(Self::of(value.as_array().ok_or_else(wrong)?.iter().map(prompt).collect::<Result<_>>()?))
    }

    /// The token ids of each prompt. Messages are rendered by the model's chat template, with what begins the
    /// assistant's answer; nothing is added to what it renders. With `special`, special tokens written out in texts and
    /// messages are control tokens; otherwise they are ordinary text.
    ///
    /// # Errors
    /// A model without tokenizer, or without chat template where there are messages; a template that refuses them; a
    /// prompt without any token: a model needs one to begin from.
    pub fn encode(&self, model: &ModelInfo, special: bool) -> Result<Vec<Vec<u32>>> {
        let tokenizer = model.require_tokenizer("a prompt")?;
        let encode = |(i, prompt): (usize, &Prompt)| {
            let at = |e: Error| Error { what: format!("prompt {i}: {}", e.what), ..e };
            let ids = match &prompt.content {
                Content::Text(text) if special => tokenizer.encode_prompt_special(text).map_err(at)?,
                Content::Text(text) => tokenizer.encode_prompt(text).map_err(at)?,
                Content::Messages(messages) => {
                    let variables = template_variables(&prompt.fields).map_err(at)?;
                    let chat = Chat { model, variables: &variables, special };
                    let rendered = chat.compose(messages, Ending::of_prompt(messages)).map_err(at)?;
                    tokenizer.encode_rendered(&rendered.text, &rendered.quoted).map_err(at)?
                }
            };
            if ids.is_empty() {
                let text = Content::shown(&prompt.content.value()).into_owned();
                return Err(Error::value(format!("prompt {i} has no tokens: its text is {text:?}"))
                    .hint("a model needs at least one token to begin from"));
            }
            Ok(ids)
        };
        self.items.iter().enumerate().map(encode).collect()
    }
}

/// How the messages of one row become a text.
pub(super) struct Chat<'a> {
    pub model: &'a ModelInfo,
    /// What its template reads beside messages: [`template_variables`].
    pub variables: &'a Map<String, Value>,
    /// Whether special tokens that messages quote are control tokens; otherwise they are marked as ordinary text.
    pub special: bool,
}

impl Chat<'_> {
    /// Messages as the model's chat template renders them.
    pub fn compose(&self, messages: &[Value], ending: Ending) -> Result<Rendered> {
        let template = self.model.require_chat("a prompt of messages")?;
        let quotable: Vec<&str> = match self.special {
            true => Vec::new(),
            false => self.model.tokenizer.iter().flat_map(|tokenizer| tokenizer.special()).collect(),
        };
        template.compose(messages, ending, &quotable, self.variables)
    }
}

impl std::fmt::Display for Prompts {
    /// `Prompts(16, the first "12+34=")`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.items.first() {
            Some(first) => {
                write!(f, "Prompts({}, the first {:?})", self.len(), Content::shown(&first.content.value()))
            }
            None => write!(f, "Prompts(0)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn contents_are_texts_or_messages() {
        let read = |value| Content::read("`prompt`", value);
        assert_eq!(read(json!("a")).expect("a text"), "a".into());
        let messages = vec![json!({"role": "user", "content": "a"})];
        assert_eq!(read(json!(messages)).expect("messages"), Content::Messages(messages.clone()));
        assert_eq!(read(json!(messages)).expect("messages").value(), json!(messages));
        let text = |value| read(value).expect_err("neither").what;
        assert_eq!(text(json!(3)), "`prompt` must be a text or an array of messages, found 3");
        assert_eq!(text(json!([])), "`prompt` is empty: it holds no message");
        assert_eq!(text(json!([messages[0], "a"])), "`prompt`: message 1 has no `role`: \"a\"");
    }

    #[test]
    fn people_are_shown_what_was_said_last() {
        let said = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "tool"}]);
        assert_eq!(Content::shown(&said), "b");
        assert_eq!(Content::shown(&json!("text")), "text");
        assert_eq!(Content::shown(&json!([{"role": "user"}])), "[{\"role\":\"user\"}]");
        let said = Content::read("p", said).expect("messages");
        let prompts = Prompts::of(vec![Prompt { content: said, fields: Map::new() }]);
        assert_eq!(prompts.to_string(), "Prompts(1, the first \"b\")");
    }
}
