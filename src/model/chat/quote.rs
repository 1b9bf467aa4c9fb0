//! Rendered chats whose messages quote special tokens: which bytes of the text those are.
//!
//! Special tokens in messages are put between two marks before rendering, and the marks are taken out afterwards.

use super::{ChatTemplate, Ending};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::ops::Range;

/// A rendered chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// Bytes of `text` that come from messages and spell a special token: ordinary text to the model.
    pub quoted: Vec<Range<usize>>,
}

impl Rendered {
    /// What follows the first `at` bytes.
    pub fn after(&self, at: usize) -> Self {
        let quoted = self.quoted.iter().filter(|q| q.end > at);
        let quoted = quoted.map(|q| q.start.saturating_sub(at)..q.end - at).collect();
        Self { text: self.text[at..].to_string(), quoted }
    }
}

impl ChatTemplate {
    /// The text of `messages` up to `ending`, and where messages or `variables` quote one of the special tokens
    /// `special`.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`]; a last message to be continued that the template changes; quoted tokens that
    /// cannot be told from the template's own.
    pub fn compose(
        &self,
        messages: &[Value],
        ending: Ending,
        special: &[&str],
        variables: &Map<String, Value>,
    ) -> Result<Rendered> {
        let text = self.end(messages, ending, variables)?;
        let Some(token) = messages.iter().chain(variables.values()).find_map(|value| first(value, special)) else {
            return Ok(Rendered { text, quoted: Vec::new() });
        };
        let marks = unused(messages, variables);
        let marked: Vec<Value> = messages.iter().map(|message| mark(message, special, marks)).collect();
        let own = variables.iter().map(|(name, value)| (name.clone(), mark(value, special, marks))).collect();
        let rendered = unmark(&self.end(&marked, ending, &own)?, special, marks);
        if rendered.text != text {
            return Err(Error::value(format!(
                "a message holds {token:?}, and the chat template changes the message so that it cannot be told from a \
                 control token"
            ))
            .hint("remove it from the message, or ask for control tokens with special: true"));
        }
        Ok(rendered)
    }

    fn end(&self, messages: &[Value], ending: Ending, variables: &Map<String, Value>) -> Result<String> {
        let (Ending::Continue, Some((last, earlier))) = (ending, messages.split_last()) else {
            return self.render_with(messages, ending == Ending::Generate, variables);
        };
        let lost = || {
            Error::value("the last message is to be continued, but its text does not stand at the end of the chat")
                .hint("end the prompt with a user's message: the assistant's answer then begins anew")
        };
        // The space after the mark tells whether the template trims what the message ends with.
        let [mark, _] = unused(messages, variables);
        let mut last = last.clone();
        let content = match last.get_mut("content") {
            Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
            content => content,
        };
        let Some(Value::String(content)) = content else { return Err(lost()) };
        content.push_str(&format!("{mark} "));
        let text = self.render_with(&[earlier, &[last]].concat(), false, variables)?;
        let at = text.rfind(mark).ok_or_else(lost)?;
        let kept = &text[..at];
        let spaced = text[at + mark.len_utf8()..].starts_with(' ');
        Ok(if spaced { kept } else { kept.trim_end() }.to_string())
    }
}

/// The first special token that stands in a text of `value`.
fn first<'a>(value: &Value, special: &[&'a str]) -> Option<&'a str> {
    match value {
        Value::String(text) => parts(text, special).find_map(|(_, token)| token),
        Value::Array(items) => items.iter().find_map(|item| first(item, special)),
        Value::Object(map) => map.values().find_map(|item| first(item, special)),
        _ => None,
    }
}

/// `text` cut into special tokens (the longest where several begin) and what stands between them.
fn parts<'t, 'a>(text: &'t str, special: &[&'a str]) -> impl Iterator<Item = (&'t str, Option<&'a str>)> {
    let mut begins = [false; 256];
    special.iter().filter_map(|token| token.bytes().next()).for_each(|byte| begins[usize::from(byte)] = true);
    let token = move |at: usize| {
        if !begins[usize::from(text.as_bytes()[at])] {
            return None;
        }
        let here = special.iter().filter(|token| !token.is_empty() && text[at..].starts_with(**token));
        here.max_by_key(|token| token.len()).copied()
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let (i, found) = rest.char_indices().find_map(|(i, _)| Some((i, token(at + i)?)))?;
        let pieces = [(&rest[..i], None), (&rest[i..i + found.len()], Some(found))];
        at += i + found.len();
        Some(pieces)
    })
    .flatten()
    .filter(|(piece, _)| !piece.is_empty())
}

fn mark(value: &Value, special: &[&str], [open, close]: [char; 2]) -> Value {
    match value {
        Value::String(text) => {
            let mut out = String::with_capacity(text.len());
            let mut done = 0;
            for (piece, token) in parts(text, special) {
                done += piece.len();
                match token {
                    Some(_) => out.extend([open].into_iter().chain(piece.chars()).chain([close])),
                    None => out.push_str(piece),
                }
            }
            Value::String(out + &text[done..])
        }
        Value::Array(items) => items.iter().map(|item| mark(item, special, [open, close])).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, item)| (key.clone(), mark(item, special, [open, close]))).collect())
        }
        other => other.clone(),
    }
}

/// A token is quoted where both marks are still around it; a template that splits messages can part them.
fn unmark(marked: &str, special: &[&str], [open, close]: [char; 2]) -> Rendered {
    let (mut text, mut quoted) = (String::with_capacity(marked.len()), Vec::new());
    let mut opened = None;
    for c in marked.chars() {
        if c == open {
            opened = Some(text.len());
        } else if c == close {
            quoted.extend(opened.take().map(|start| start..text.len()).filter(|q| special.contains(&&text[q.clone()])));
        } else {
            text.push(c);
        }
    }
    Rendered { text, quoted }
}

/// Two characters for private use that no message and no variable holds.
fn unused(messages: &[Value], variables: &Map<String, Value>) -> [char; 2] {
    let texts = serde_json::to_string(&(messages, variables)).unwrap_or_default();
    let mut free = ('\u{F0000}'..='\u{FFFFD}').filter(|&c| !texts.contains(c));
    [(); 2].map(|()| free.next().expect("65533 characters cannot all stand in the messages"))
}
