//! Chat templates: arrays of messages to text, as transformers renders them (`utils/chat_template_utils.py`).
//!
//! Owns no tokens: it says which parts of a rendered text come from messages and spell special tokens, and `tokenizer`
//! encodes them. What templates may call beside Jinja is `python`'s.

mod fuel;
mod joined;
mod methods;
mod printed;
mod python;
mod quote;
mod source;

pub use quote::Rendered;

use super::guard::guarded;
use super::special::spelling;
use crate::budget;
use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Argument};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

const CONFIG: &str = "tokenizer_config.json";
const JINJA: &str = "chat_template.jinja";
/// The template that is taken unless another one is asked for.
const DEFAULT: &str = "default";
/// The one that is taken where there are tools.
const TOOL_USE: &str = "tool_use";
/// The variable that names a template.
const CHOSEN: &str = "chat_template";
/// The folder of other templates than the default one, each in a file of its name.
pub const NAMED: &str = "additional_chat_templates";

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

/// A model's chat template, or several of them by name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// In the order of their names.
    templates: BTreeMap<String, Template>,
    /// `bos_token`, `eos_token` and whatever other tokens the configuration names.
    tokens: BTreeMap<String, String>,
}

/// One of the templates in the environment.
#[derive(Debug)]
struct Template {
    /// The file that it stands in.
    file: String,
    /// One that cannot be parsed spoils chats, not the model: the error waits for the first chat.
    parsed: Result<()>,
}

impl ChatTemplate {
    /// The template of `chat_template.jinja`, else those of `tokenizer_config.json` (`chat_template`: a text, or a list
    /// of `{name, template}`), if either is there; and the files of the folder [`NAMED`], which go before them.
    ///
    /// # Errors
    /// A file that is not valid JSON or UTF-8.
    pub fn from_files(
        tokenizer_config: Option<&[u8]>,
        jinja: Option<&[u8]>,
        named: &[(String, Vec<u8>)],
    ) -> Result<Option<Self>> {
        let config: Value = match tokenizer_config {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|e| Error::model(format!("{CONFIG} could not be read: {e}")))?
            }
            None => Value::Null,
        };
        let text = |file: &str, bytes: &[u8]| -> Result<String> {
            let text = str::from_utf8(bytes).map_err(|e| Error::model(format!("{file} is not UTF-8: {e}")))?;
            Ok(text.to_string())
        };
        let mut sources = match jinja {
            Some(bytes) => vec![(DEFAULT.to_string(), JINJA.to_string(), text(JINJA, bytes)?)],
            None => configured(&config)?,
        };
        for (file, bytes) in named {
            let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".jinja");
            sources.push((name.to_string(), file.clone(), text(file, bytes)?));
        }
        if sources.is_empty() {
            return Ok(None);
        }
        let entries = config.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
        let tokens = entries.filter_map(|(name, value)| Some((name.clone(), spelling(value)?))).collect();
        Ok(Some(Self::of(sources, tokens)))
    }

    /// A template that stands in no file of its own: `place` names where it stands, `tokens` what else it may use
    /// (`bos_token`, `eos_token`).
    pub fn from_text(place: &str, source: &str, tokens: BTreeMap<String, String>) -> Self {
        Self::of(vec![(DEFAULT.into(), place.into(), source.into())], tokens)
    }

    /// Of names, places and texts; the last one of a name counts.
    fn of(sources: Vec<(String, String, String)>, tokens: BTreeMap<String, String>) -> Self {
        let mut environment = environment();
        let mut templates = BTreeMap::new();
        for (name, file, source) in sources {
            let parsed = environment
                .add_template_owned(name.clone(), source::for_minijinja(&source))
                .map_err(|e| unparsable(&file, &e));
            templates.insert(name, Template { file, parsed });
        }
        Self { environment: Arc::new(environment), templates, tokens }
    }

    /// The template for a chat with these variables: that for tools where there are tools, or the one that
    /// `chat_template` names.
    fn chosen(&self, variables: &Map<String, Value>) -> Result<(&str, &Template)> {
        let found = |name: &str| self.templates.get_key_value(name).map(|(name, template)| (name.as_str(), template));
        let names = || self.templates.keys().map(String::as_str).collect::<Vec<_>>();
        if let Some(name) = variables.get(CHOSEN).and_then(Value::as_str) {
            return found(name).ok_or_else(|| Error::unknown("chat template", name, &names()));
        }
        let tools = variables.get("tools").is_some_and(|tools| !tools.is_null());
        found(TOOL_USE).filter(|_| tools).or_else(|| found(DEFAULT)).ok_or_else(|| {
            Error::model(format!("the model has the chat templates {}, but none `{DEFAULT}`", names().join(", ")))
                .hint(format!("name the one to use: #{{ variables: #{{ {CHOSEN}: {:?} }} }}", names()[0]))
        })
    }

    /// Whether all templates can be parsed.
    pub fn check(&self) -> Result<()> {
        self.templates.values().try_for_each(|template| template.parsed.clone())
    }

    /// Where the templates stand, and what those are called that are not the default one.
    pub fn places(&self) -> String {
        let place = |(name, template): (&String, &Template)| match name.as_str() {
            DEFAULT => template.file.clone(),
            name => format!("{} ({name})", template.file),
        };
        self.templates.iter().map(place).collect::<Vec<_>>().join(", ")
    }

    /// The text of `messages`; with `generate`, also what begins the assistant's answer.
    ///
    /// # Errors
    /// No messages; a template that cannot be parsed, uses something undefined, or refuses the messages (its own words
    /// are given).
    pub fn render(&self, messages: &[Value], generate: bool) -> Result<String> {
        self.render_with(messages, generate, &Map::new())
    }

    /// The same with variables of the template's own: `tools`, `enable_thinking`. `chat_template` names one of several
    /// templates.
    ///
    /// # Errors
    /// As `render`; a variable that every template has already; a template that is not there.
    pub fn render_with(&self, messages: &[Value], generate: bool, variables: &Map<String, Value>) -> Result<String> {
        if let Some(name) = ["messages", "add_generation_prompt"].iter().find(|name| variables.contains_key(**name)) {
            return Err(
                Error::value(format!("the chat template gets `{name}` already")).hint("leave it out of variables")
            );
        }
        let (name, chosen) = self.chosen(variables)?;
        chosen.parsed.clone()?;
        if messages.is_empty() {
            return Err(Error::value("there are no messages for the chat template"));
        }
        let messages: Vec<_> = messages.iter().map(python::normal).collect();
        let given = [
            ("messages", Argument::from(Serde(messages))),
            ("add_generation_prompt", Argument::from(generate)),
            // transformers passes both, as None, where a caller gives none.
            ("tools", Argument::from(())),
            ("documents", Argument::from(())),
        ];
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), Argument::from(token.as_str())));
        let own = variables
            .iter()
            .filter(|(name, _)| *name != CHOSEN)
            .map(|(name, value)| (name.as_str(), Argument::from(Serde(value))));
        let context = Argument::from_pairs(tokens.chain(given).chain(own));
        // Templates come with models, and minijinja has panicked in one.
        let (environment, name) = (self.environment.clone(), name.to_string());
        let render = move || guarded(|| environment.get_template(&name).and_then(|template| template.render(context)));
        budget::apart(fuel::LONGEST, render)?
            .ok_or_else(|| {
                Error::model(format!("the chat template was stopped: {} takes longer than a chat needs", chosen.file))
                    .hint("it loops, or compares lists within lists, without an end that is near")
            })?
            .map_err(|_| Error::model("the chat template failed: minijinja, which runs it, broke off"))?
            .map_err(|e| failed(&chosen.file, &e))
    }
}

fn failed(file: &str, e: &minijinja::Error) -> Error {
    if let Some(message) = python::raised(e) {
        return Error::model(format!("the chat template refuses the messages: {message}"))
            .hint("the template decides which roles may follow each other and what a message may hold");
    }
    if e.kind() == ErrorKind::OutOfFuel {
        let line = e.line().map_or(String::new(), |line| format!(", line {line}"));
        let what = format!("the chat template was stopped in {file}{line}: it does far more than a chat needs");
        return Error::model(what).hint("it loops, or makes one text out of another, without an end that is near");
    }
    Error::model(format!("the chat template failed: {}", described(file, e)))
        .hint(format!("it stands in {file} of the model's folder"))
}

fn unparsable(file: &str, e: &minijinja::Error) -> Error {
    Error::model(format!("the chat template cannot be parsed: {}", described(file, e)))
        .hint(format!("put a simpler one into {JINJA} of the model's folder, which goes before {CONFIG}"))
}

/// The templates that `tokenizer_config.json` holds: their names, its own, their texts.
fn configured(config: &Value) -> Result<Vec<(String, String, String)>> {
    let wrong = || Error::model(format!("{CONFIG}: `chat_template` is neither a text nor a list of templates"));
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![(DEFAULT.into(), CONFIG.into(), text.clone())]),
        Some(Value::Array(list)) => {
            let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_string);
            let one = |item| text(item, "name").zip(text(item, "template")).ok_or_else(wrong);
            list.iter().map(one).map(|one| one.map(|(name, text)| (name, CONFIG.to_string(), text))).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("Jinja's own delimiters differ from each other"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(fuel::FUEL));
    python::install(&mut environment);
    environment
}

/// `chat_template.jinja, line 3: syntax error: unexpected end of input`
fn described(file: &str, e: &minijinja::Error) -> String {
    let line = e.line().map_or(String::new(), |line| format!(", line {line}"));
    let reason = e.detail().map_or(e.kind().to_string(), |detail| format!("{}: {detail}", e.kind()));
    format!("{file}{line}: {reason}")
}
