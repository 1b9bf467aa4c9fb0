//! Chat templates: arrays of messages to text, as transformers renders them (`utils/chat_template_utils.py`).
//!
//! Owns no tokens: it says which parts of a rendered text come from messages and spell special tokens, and `tokenizer`
//! encodes them. What templates may call beside Jinja is `python`'s.

mod python;
mod quote;

pub use quote::Rendered;

use super::guard::guarded;
use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Argument};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const CONFIG: &str = "tokenizer_config.json";
const JINJA: &str = "chat_template.jinja";
/// The name of the one template in its environment.
const NAME: &str = "chat";

/// Where a rendered chat stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// After the last message.
    Closed,
    /// After what begins an assistant's message.
    Generate,
    /// Within the last message, which is to be continued.
    Continue,
}

impl Ending {
    /// How a prompt ends: an assistant's message that stands last is continued, otherwise a new one begins.
    pub fn of_prompt(messages: &[Value]) -> Self {
        let role = messages.last().and_then(|message| message.get("role"));
        if role.and_then(Value::as_str) == Some("assistant") { Self::Continue } else { Self::Generate }
    }
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    /// A template that cannot be parsed spoils chats, not the model: the error waits for the first chat.
    environment: Result<Environment<'static>>,
    /// The file that it stands in.
    file: &'static str,
    /// `bos_token`, `eos_token` and whatever other tokens the configuration names.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// The template of `chat_template.jinja`, else that of `tokenizer_config.json` (`chat_template`: a text, or a list
    /// of `{name, template}` of which `default` is taken), if either is there.
    ///
    /// # Errors
    /// A file that is not valid JSON or UTF-8; several templates of which none is called `default`.
    pub fn from_files(tokenizer_config: Option<&[u8]>, jinja: Option<&[u8]>) -> Result<Option<Self>> {
        let config: Value = match tokenizer_config {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|e| Error::model(format!("{CONFIG} could not be read: {e}")))?
            }
            None => Value::Null,
        };
        let (file, source) = match jinja {
            Some(bytes) => {
                let text =
                    std::str::from_utf8(bytes).map_err(|e| Error::model(format!("{JINJA} is not UTF-8: {e}")))?;
                (JINJA, text.to_string())
            }
            None => match configured(&config)? {
                Some(text) => (CONFIG, text),
                None => return Ok(None),
            },
        };
        let entries = config.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
        let token = |value: &Value| value.get("content").unwrap_or(value).as_str().map(str::to_string);
        let tokens = entries.filter_map(|(name, value)| Some((name.clone(), token(value)?))).collect();
        Ok(Some(Self { environment: environment(file, &source), file, tokens }))
    }

    /// A template that stands in no file of its own: `place` names where it stands, `tokens` what else it may use
    /// (`bos_token`, `eos_token`).
    pub fn from_text(place: &'static str, source: &str, tokens: BTreeMap<String, String>) -> Self {
        Self { environment: environment(place, source), file: place, tokens }
    }

    /// Whether the template can be parsed.
    pub fn check(&self) -> Result<()> {
        self.environment.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// The file that the template stands in.
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// The text of `messages`; with `generate`, also what begins the assistant's answer.
    ///
    /// # Errors
    /// No messages; a template that cannot be parsed, uses something undefined, or refuses the messages (its own words
    /// are given).
    pub fn render(&self, messages: &[Value], generate: bool) -> Result<String> {
        self.render_with(messages, generate, &Map::new())
    }

    /// The same with variables of the template's own: `tools`, `enable_thinking`.
    ///
    /// # Errors
    /// As `render`; a variable that every template has already.
    pub fn render_with(&self, messages: &[Value], generate: bool, variables: &Map<String, Value>) -> Result<String> {
        if let Some(name) = ["messages", "add_generation_prompt"].iter().find(|name| variables.contains_key(**name)) {
            return Err(
                Error::value(format!("the chat template gets `{name}` already")).hint("leave it out of variables")
            );
        }
        let environment = self.environment.as_ref().map_err(Clone::clone)?;
        if messages.is_empty() {
            return Err(Error::value("there are no messages for the chat template"));
        }
        let messages: Vec<_> = messages.iter().map(python::with_reasoning).collect();
        let given = [
            ("messages", Argument::from(Serde(messages))),
            ("add_generation_prompt", Argument::from(generate)),
            // transformers passes both, as None, where a caller gives none.
            ("tools", Argument::from(())),
            ("documents", Argument::from(())),
        ];
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), Argument::from(token.as_str())));
        let template = environment.get_template(NAME).map_err(|e| self.failed(&e))?;
        let own = variables.iter().map(|(name, value)| (name.as_str(), Argument::from(Serde(value))));
        let context = Argument::from_pairs(tokens.chain(given).chain(own));
        // Templates come with models, and minijinja can panic in one: it reverses an empty list out of bounds.
        guarded(|| template.render(context))
            .map_err(|_| Error::model("the chat template failed: minijinja, which runs it, broke off"))?
            .map_err(|e| self.failed(&e))
    }

    fn failed(&self, e: &minijinja::Error) -> Error {
        if let Some(message) = python::raised(e) {
            return Error::model(format!("the chat template refuses the messages: {message}"))
                .hint("the template decides which roles may follow each other and what a message may hold");
        }
        Error::model(format!("the chat template failed: {}", described(self.file, e)))
            .hint(format!("it stands in {} of the model's folder", self.file))
    }
}

/// The template that `tokenizer_config.json` holds.
fn configured(config: &Value) -> Result<Option<String>> {
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) => {
            let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_string);
            let default = list.iter().find(|item| text(item, "name").as_deref() == Some("default"));
            let found = default.and_then(|item| text(item, "template"));
            let names: Vec<String> = list.iter().filter_map(|item| text(item, "name")).collect();
            found.map(Some).ok_or_else(|| {
                Error::model(format!("{CONFIG} holds the chat templates {}, but none `default`", names.join(", ")))
                    .hint(format!("put the one to use into {JINJA}"))
            })
        }
        Some(_) => Err(Error::model(format!("{CONFIG}: `chat_template` is neither a text nor a list of templates"))),
    }
}

fn environment(file: &'static str, source: &str) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| Error::model(e.to_string()))?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    python::install(&mut environment);
    environment.add_template_owned(NAME, python::without_generation(source)).map_err(|e| {
        Error::model(format!("the chat template cannot be parsed: {}", described(file, &e)))
            .hint(format!("put a simpler one into {JINJA} of the model's folder, which goes before {CONFIG}"))
    })?;
    Ok(environment)
}

/// `chat_template.jinja, line 3: syntax error: unexpected end of input`
fn described(file: &str, e: &minijinja::Error) -> String {
    let line = e.line().map_or(String::new(), |line| format!(", line {line}"));
    let reason = e.detail().map_or(e.kind().to_string(), |detail| format!("{}: {detail}", e.kind()));
    format!("{file}{line}: {reason}")
}
