//! What a row must look like: the formats of preference and prompt data that TRL established, found from the first row
//! and held for every row. Owns no reading and no order.
//!
//! | fields | format |
//! | --- | --- |
//! | `prompt` | prompt-only |
//! | `text` | text: all of it is learned |
//! | `prompt`, `completion` | prompt-completion |
//! | `messages` | prompt-completion: the last message, the assistant's, is the completion; prompt-only if another's is last |
//! | `prompt`, `chosen`, `rejected` | preference |
//! | `chosen`, `rejected`, of messages | preference: the prompt is the messages that both begin with |
//! | `prompt`, `completion`, `label` | unpaired preference: label true where the completion is desirable |
//! | `prompt`, `completion`, `reward` | rewarded: a number, and `logprob` under which it was sampled, one or one per token |
//!
//! Prompts and answers are texts, or arrays of messages `{"role", "content"}`, all of one kind. A content is a text or
//! an array of parts; it may be null or missing where the message says something else, like tool calls.

use super::Fields;
use super::place::Place;
use super::wrong::{describe, empty, lacking, unknown, wrong_label, wrong_logprob, wrong_reward, wrong_type};
use crate::data::prompts::said;
use crate::error::{Error, Result};
use serde_json::Value;

/// What rows are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Prompts,
    Completions,
    Pairs,
    Labelled,
    Rewarded,
    Texts,
}

impl Format {
    /// The field's own name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompt-only",
            Self::Completions => "prompt-completion",
            Self::Pairs => "preference",
            Self::Labelled => "unpaired preference",
            Self::Rewarded => "rewarded",
            Self::Texts => "text",
        }
    }

    /// The fields that make it.
    pub fn fields(self) -> &'static str {
        match self {
            Self::Prompts => "`prompt`",
            Self::Completions => "`prompt` and `completion`",
            Self::Pairs => "`prompt`, `chosen` and `rejected`",
            Self::Labelled => "`prompt`, `completion` and `label`",
            Self::Rewarded => "`prompt`, `completion` and `reward`",
            Self::Texts => "`text`",
        }
    }
}

/// How prompts and answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Messages,
}

impl Kind {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(_) => Some(Self::Text),
            Value::Array(_) => Some(Self::Messages),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Messages => "an array of messages",
        }
    }
}

/// Where the prompt and the answers of a row stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// In fields of their names.
    Named,
    /// All in `messages`.
    Dialogue,
    /// The prompt is what `chosen` and `rejected` have in common.
    Implicit,
}

/// What the first row says about all of them.
#[derive(Debug, Clone)]
pub struct Shape {
    pub format: Format,
    kind: Kind,
    layout: Layout,
    /// The field that decided the kind.
    lead: &'static str,
    /// Whether rewarded rows say how likely their answers were.
    weighed: bool,
    first: Place,
}

impl Shape {
    /// The shape of the first row.
    ///
    /// # Errors
    /// Fields that make no format; what is there is listed.
    pub fn of(row: &Fields, place: &Place) -> Result<Self> {
        let has = |name: &str| row.get(name).is_some_and(|value| !value.is_null());
        let kind_of = |name: &str| row.get(name).and_then(Kind::of);
        let make = |format, layout, lead: &'static str| {
            let kind = kind_of(lead).ok_or_else(|| wrong_type(place, lead, row.get(lead).unwrap_or(&Value::Null)))?;
            Ok(Self { format, kind, layout, lead, weighed: has("logprob"), first: place.clone() })
        };
        if has("chosen") || has("rejected") {
            let answer = if has("chosen") { "chosen" } else { "rejected" };
            // Some data sets repeat the question as a text beside whole dialogues.
            let apart = has("prompt") && kind_of("prompt") != Some(Kind::Text);
            if kind_of(answer) == Some(Kind::Messages) && !apart {
                return make(Format::Pairs, Layout::Implicit, answer);
            }
            if !has("prompt") {
                return Err(Error::file(format!("{place}: `prompt` is missing")).hint(
                    "`chosen` and `rejected` may hold the prompt themselves only as messages; texts need a `prompt`",
                ));
            }
            return make(Format::Pairs, Layout::Named, "prompt");
        }
        if has("completion") {
            let format = match (row.contains_key("label"), row.contains_key("reward")) {
                (true, _) => Format::Labelled,
                (_, true) => Format::Rewarded,
                _ => Format::Completions,
            };
            if !has("prompt") {
                return Err(lacking(place, "prompt", row, format));
            }
            return make(format, Layout::Named, "prompt");
        }
        if has("messages") {
            let answered = row["messages"].as_array().and_then(|all| all.last()).is_some_and(is_answer);
            let format = if answered { Format::Completions } else { Format::Prompts };
            return make(format, Layout::Dialogue, "messages");
        }
        if has("prompt") {
            return make(Format::Prompts, Layout::Named, "prompt");
        }
        if row.contains_key("text") {
            return make(Format::Texts, Layout::Named, "text");
        }
        Err(unknown(row, place))
    }

    /// Whether all of a row stands in `messages`.
    pub fn is_dialogue(&self) -> bool {
        self.layout == Layout::Dialogue
    }

    /// Holds a row to this shape.
    pub fn check(&self, row: &Fields, place: &Place) -> Result<()> {
        let get = |name: &str| {
            let value = row.get(name).filter(|value| !value.is_null());
            value.ok_or_else(|| lacking(place, name, row, self.format))
        };
        match (self.layout, self.format) {
            (Layout::Dialogue, format) => {
                let messages = self.messages(get("messages")?, place, "messages")?;
                self.dialogue(messages, place, format)
            }
            (Layout::Implicit, _) => {
                let chosen = self.messages(get("chosen")?, place, "chosen")?;
                let rejected = self.messages(get("rejected")?, place, "rejected")?;
                implicit(chosen, rejected, place)
            }
            (Layout::Named, Format::Texts) => match get("text")? {
                Value::String(text) if text.is_empty() => Err(empty(place, "text")),
                Value::String(_) => Ok(()),
                other => Err(wrong_type(place, "text", other)),
            },
            (Layout::Named, format) => {
                self.content(get("prompt")?, place, "prompt", false)?;
                let answers: &[&str] = match format {
                    Format::Prompts | Format::Texts => &[],
                    Format::Pairs => &["chosen", "rejected"],
                    Format::Completions | Format::Labelled | Format::Rewarded => &["completion"],
                };
                for name in answers {
                    self.content(get(name)?, place, name, true)?;
                }
                match format {
                    Format::Labelled => {
                        label(get("label")?).map(|_| ()).ok_or_else(|| wrong_label(place, &row["label"]))
                    }
                    Format::Rewarded => {
                        let reward = get("reward")?;
                        if !reward.is_number() {
                            return Err(wrong_reward(place, reward));
                        }
                        self.logprob(row.get("logprob").filter(|value| !value.is_null()), place)
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// The row with its parts in fields of their names: `prompt` and `completion`, or `chosen` and `rejected`; `label`
    /// is 1 or -1. The other fields come along. The row must have been checked.
    pub fn parts(&self, row: &Fields) -> Fields {
        let mut parts = row.clone();
        match self.layout {
            Layout::Named => {}
            Layout::Dialogue => {
                let messages = array(&row["messages"]);
                let answer = if self.format == Format::Completions { 1 } else { 0 };
                let (prompt, completion) = messages.split_at(messages.len() - answer);
                parts.remove("messages");
                parts.insert("prompt".into(), prompt.into());
                if answer > 0 {
                    parts.insert("completion".into(), completion.into());
                }
            }
            Layout::Implicit => {
                let (chosen, rejected) = (array(&row["chosen"]), array(&row["rejected"]));
                let n = prompt(chosen, rejected);
                parts.insert("prompt".into(), chosen[..n].into());
                parts.insert("chosen".into(), chosen[n..].into());
                parts.insert("rejected".into(), rejected[n..].into());
            }
        }
        if self.format == Format::Labelled {
            let sign = if label(&row["label"]) == Some(true) { 1 } else { -1 };
            parts.insert("label".into(), sign.into());
        }
        parts
    }

    /// A prompt or an answer.
    fn content(&self, value: &Value, place: &Place, name: &str, answer: bool) -> Result<()> {
        let kind = Kind::of(value).ok_or_else(|| wrong_type(place, name, value))?;
        if kind != self.kind {
            return Err(self.mixed(kind, place, name));
        }
        match value {
            Value::Array(_) => {
                let messages = self.messages(value, place, name)?;
                if answer && messages.iter().all(is_silent) {
                    return Err(empty(place, name));
                }
            }
            Value::String(text) if answer && text.is_empty() => return Err(empty(place, name)),
            _ => {}
        }
        Ok(())
    }

    /// How likely an answer was: in all rows or in none.
    fn logprob(&self, value: Option<&Value>, place: &Place) -> Result<()> {
        let hint = "either every row says how likely its answer was, or none does";
        let negative = |value: &Value| value.as_f64().is_some_and(|x| x <= 0.0);
        match value {
            None if self.weighed => {
                let what = format!("{place}: `logprob` is missing, expected it as in the first row ({})", self.first);
                Err(Error::file(what).hint(hint))
            }
            None => Ok(()),
            Some(_) if !self.weighed => {
                let what = format!("{place}: there is a `logprob`, but the first row ({}) has none", self.first);
                Err(Error::file(what).hint(hint))
            }
            Some(Value::Array(tokens)) => match tokens.iter().find(|token| !negative(token)) {
                Some(token) => Err(wrong_logprob(place, &format!("an array with {}", describe(token)))),
                None if tokens.is_empty() => Err(wrong_logprob(place, "an empty array")),
                None => Ok(()),
            },
            Some(value) if negative(value) => Ok(()),
            Some(value) => Err(wrong_logprob(place, &describe(value))),
        }
    }

    fn mixed(&self, kind: Kind, place: &Place, name: &str) -> Error {
        let (found, expected) = (kind.name(), self.kind.name());
        let what = match self.first == *place {
            true => format!("{place}: `{name}` is {found}, but `{}` is {expected}", self.lead),
            false => format!("{place}: `{name}` is {found}, expected {expected} as in the first row ({})", self.first),
        };
        Error::file(what).hint("prompts and answers are all texts or all messages in one data set")
    }

    /// Messages with a role and something that they say, at least one.
    fn messages<'a>(&self, value: &'a Value, place: &Place, name: &str) -> Result<&'a [Value]> {
        let wrong = |what: String| {
            Error::file(format!("{place}: {what}"))
                .hint("a message is {\"role\": \"user\", \"content\": \"…\"}; a content may be parts: [{\"type\": \"text\", \"text\": \"…\"}]")
        };
        let Value::Array(messages) = value else {
            return Err(match Kind::of(value) {
                Some(kind) => self.mixed(kind, place, name),
                None => wrong_type(place, name, value),
            });
        };
        if messages.is_empty() {
            return Err(Error::file(format!("{place}: `{name}` is empty, expected at least one message")));
        }
        for (i, message) in messages.iter().enumerate() {
            let Value::Object(fields) = message else {
                return Err(wrong(format!("`{name}[{i}]` must be a message, found {}", describe(message))));
            };
            match fields.get("role") {
                Some(Value::String(_)) => {}
                None => return Err(wrong(format!("`{name}[{i}]` has no `role`"))),
                Some(other) => {
                    return Err(wrong(format!("`{name}[{i}].role` must be a text, found {}", describe(other))));
                }
            }
            match fields.get("content") {
                Some(Value::String(_)) => {}
                Some(Value::Array(parts)) if parts.iter().all(Value::is_object) => {}
                None | Some(Value::Null) if says_more(fields) => {}
                None => return Err(wrong(format!("`{name}[{i}]` has no `content`"))),
                Some(other) => {
                    let what = format!("`{name}[{i}].content` must be a text or an array of parts");
                    return Err(wrong(format!("{what}, found {}", describe(other))));
                }
            }
        }
        Ok(messages)
    }

    /// A row of `messages`: all end with the assistant's answer, or none does.
    fn dialogue(&self, messages: &[Value], place: &Place, format: Format) -> Result<()> {
        let last = &messages[messages.len() - 1];
        match format {
            Format::Completions if !is_answer(last) => {
                let role = last["role"].as_str().unwrap_or_default();
                let what =
                    format!("{place}: `messages` ends with a message of the {role}, expected the assistant's answer");
                Err(Error::file(format!("{what} as in the first row ({})", self.first)))
            }
            Format::Completions if messages.len() == 1 => {
                Err(Error::file(format!("{place}: `messages` holds an answer only, expected a prompt before it")))
            }
            Format::Completions if is_silent(last) => Err(empty(place, "messages")),
            Format::Prompts if is_answer(last) => {
                let what = format!("{place}: `messages` ends with an answer of the assistant, expected a prompt");
                Err(Error::file(format!("{what} as in the first row ({})", self.first)))
            }
            _ => Ok(()),
        }
    }
}

/// Two dialogues that begin alike and go on, each with an answer of its own.
fn implicit(chosen: &[Value], rejected: &[Value], place: &Place) -> Result<()> {
    let n = common(chosen, rejected);
    for (name, messages) in [("chosen", chosen), ("rejected", rejected)] {
        if chosen.len() != rejected.len() && n == messages.len() {
            let what = format!("{place}: `{name}` is empty after the messages that both answers begin with");
            return Err(Error::file(what));
        }
    }
    let n = prompt(chosen, rejected);
    if n == 0 {
        let what = format!("{place}: `chosen` and `rejected` have no first message in common, so there is no prompt");
        return Err(Error::file(what).hint("give the prompt's messages in a field `prompt`"));
    }
    for (name, messages) in [("chosen", chosen), ("rejected", rejected)] {
        if messages[n..].iter().all(is_silent) {
            return Err(empty(place, name));
        }
    }
    Ok(())
}

/// How many messages two dialogues begin with alike.
fn common(a: &[Value], b: &[Value]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How many of them are the prompt: equal dialogues still keep an answer each.
fn prompt(chosen: &[Value], rejected: &[Value]) -> usize {
    let answers = chosen.len().min(rejected.len()).saturating_sub(1);
    common(chosen, rejected).min(answers)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_answer(message: &Value) -> bool {
    message["role"] == "assistant"
}

fn is_silent(message: &Value) -> bool {
    let texts = said(message).is_none_or(|text| text.is_empty());
    texts && !message.as_object().is_some_and(says_more)
}

/// Whether a message holds anything beside its content: tool calls, reasoning.
fn says_more(message: &Fields) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    message.iter().any(|(key, value)| !["role", "content", "name"].contains(&key.as_str()) && !empty(value))
}

/// `true` and 1, `false` and 0.
fn label(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(label) => Some(*label),
        Value::Number(x) if x.as_f64() == Some(1.0) => Some(true),
        Value::Number(x) if x.as_f64() == Some(0.0) => Some(false),
        _ => None,
    }
}
