//! Prompts with what a task knows about each of them: texts, or messages that the model's chat template renders.

use crate::error::{Error, Result};
use crate::model::ModelInfo;
use crate::model::chat::{Ending, Rendered};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A text, or the messages of a dialogue.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Text(String),
    /// Maps with `role` and whatever else the chat template reads; at least one.
    Messages(Vec<Value>),
}

impl Content {
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
        let content = |message: &Value| message.get("content").and_then(Value::as_str).map(str::to_string);
        match value {
            Value::String(text) => text.into(),
            Value::Array(messages) => match messages.iter().rev().find_map(content) {
                Some(text) => text.into(),
                None => value.to_string().into(),
            },
            other => other.to_string().into(),
        }
    }
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

/// Prompts in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompts {
    pub items: Vec<Prompt>,
}

impl Prompts {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
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
                    let rendered = compose(model, messages, Ending::of_prompt(messages), special).map_err(at)?;
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

/// Messages as the model's chat template renders them. Unless `special`, the special tokens that messages quote are
/// marked as ordinary text.
pub(super) fn compose(model: &ModelInfo, messages: &[Value], ending: Ending, special: bool) -> Result<Rendered> {
    let template = model.require_chat("a prompt of messages")?;
    let quotable: Vec<&str> = match special {
        true => Vec::new(),
        false => model.tokenizer.iter().flat_map(|tokenizer| tokenizer.special()).collect(),
    };
    template.compose(messages, ending, &quotable)
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
        let prompts = Prompts {
            items: vec![Prompt { content: Content::read("p", said).expect("messages"), fields: Map::new() }],
        };
        assert_eq!(prompts.to_string(), "Prompts(1, the first \"b\")");
    }
}
