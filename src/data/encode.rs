//! Rows from given texts, messages or token ids, rather than sampled ones.
//!
//! A prompt and its completion are encoded together, so that the row holds the tokens that the whole text has; the
//! border is where they part from the tokens of the prompt alone, which sampling sees. Texts and dialogues that are learned
//! as a whole are `whole`'s.

use super::batch::Batch;
use super::max_length::{Longer, MaxLength, too_long};
use super::prompts::{Chat, Content, Prompt, Prompts, template_variables};
use crate::budget::json;
use crate::error::{Error, Result};
use crate::model::chat::Ending;
use crate::model::rows::{Row, Rows};
use crate::model::{ModelInfo, Tokenizer};
use crate::tensor::Device;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A prompt with the completion to learn from; `fields` become list columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Demo {
    pub prompt: Content,
    pub completion: Content,
    pub fields: Map<String, Value>,
}

/// A prompt with a preferred completion and another one; `fields` become list columns of both rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// `None` where `chosen` and `rejected` are messages that begin with it.
    pub prompt: Option<Content>,
    pub chosen: Content,
    pub rejected: Content,
    pub fields: Map<String, Value>,
}

impl Demo {
    /// Bytes that it takes, about.
    pub fn bytes(&self) -> u64 {
        self.prompt.bytes() + self.completion.bytes() + json::of_map(&self.fields)
    }
}

impl Pair {
    /// Bytes that it takes, about.
    pub fn bytes(&self) -> u64 {
        let prompt = self.prompt.as_ref().map_or(0, Content::bytes);
        prompt + self.chosen.bytes() + self.rejected.bytes() + json::of_map(&self.fields)
    }
}

/// Rows of prompt and completion, an end token after each completion. Columns: `mask` (the completion and its end
/// token), `length`, `text`, `prompt`, and the demonstrations' fields.
///
/// The prompt alone and prompt and completion together become tokens; the row's prompt is those that both begin with,
/// its completion the rest, as TRL cuts. Texts are taken as they are. Messages are rendered by the model's chat
/// template, with the fields `tools` and `chat_template_kwargs`: the prompt with what begins the assistant's answer.
/// Such an answer ends at the end token that the template writes; white space after it is left out, since nothing is
/// ever sampled there. A completion that is a text after a prompt of messages is what the assistant says. With
/// `special`, special tokens written out in texts and messages are control tokens.
///
/// Rows longer than `max` are cut or refused.
///
/// # Errors
/// A model without tokenizer, end token or (for messages) chat template; a completion that is empty; a prompt without
/// tokens; a row that is too long. Each names the row.
pub fn encode(model: &ModelInfo, demos: &[Demo], special: bool, max: MaxLength) -> Result<Batch> {
    let encoder = Encoder::new("encode", model, special, max)?;
    let mut made = Made::default();
    for (i, demo) in demos.iter().enumerate() {
        encoder.demo(&mut made, demo).map_err(|e| e.of_row("encode", i))?;
    }
    made.batch(model, 1)
}

/// Rows of prompt and completion as [`encode`] makes them, the preferred completion of pair k in row 2k and the other
/// one in row 2k+1. Both rows of a pair have the same prompt.
///
/// # Errors
/// Those of [`encode`]; a pair without prompt whose completions are not messages or do not begin alike.
pub fn encode_pairs(model: &ModelInfo, pairs: &[Pair], special: bool, max: MaxLength) -> Result<Batch> {
    let encoder = Encoder::new("encode_pairs", model, special, max)?;
    let mut made = Made::default();
    for (i, pair) in pairs.iter().enumerate() {
        encoder.pair(&mut made, pair).map_err(|e| e.of_row("encode_pairs", i))?;
    }
    Ok(made.batch(model, 2)?.with_group(Some(2)))
}

/// Prompt, chosen and rejected. Two dialogues without a prompt, or with one that is a text and so repeats what they
/// begin with, have as their prompt the messages that they share.
fn parts(pair: &Pair) -> Result<[Content; 3]> {
    let (Content::Messages(chosen), Content::Messages(rejected), None | Some(Content::Text(_))) =
        (&pair.chosen, &pair.rejected, &pair.prompt)
    else {
        let prompt = pair.prompt.clone().ok_or_else(|| {
            Error::value("there is no `prompt`")
                .hint("only where chosen and rejected are arrays of messages, what they begin with is the prompt")
        })?;
        return Ok([prompt, pair.chosen.clone(), pair.rejected.clone()]);
    };
    let shared = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
    // Two completions that are the same still need a message each.
    let shared = shared.min(chosen.len() - 1).min(rejected.len() - 1);
    if shared == 0 {
        return Err(Error::value("`chosen` and `rejected` share no first message")
            .hint("what both begin with is the prompt; otherwise give it as `prompt`, an array of messages"));
    }
    let from = |messages: &[Value]| Content::Messages(messages.to_vec());
    Ok([from(&chosen[..shared]), from(&chosen[shared..]), from(&rejected[shared..])])
}

/// Why no row can be made of something.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It has more tokens than there is room for.
    TooLong(Error),
    Other(Error),
}

impl From<Error> for Unfit {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

impl Unfit {
    pub(super) fn error(&self) -> &Error {
        let (Self::TooLong(e) | Self::Other(e)) = self;
        e
    }

    pub(super) fn of_row(self, function: &str, i: usize) -> Error {
        let (Self::TooLong(e) | Self::Other(e)) = self;
        Error { what: format!("{function}: row {i}: {}", e.what), ..e }
    }
}

/// Rows under way with their columns, and the prompts with their fields.
#[derive(Default)]
pub(super) struct Made {
    rows: Vec<Row>,
    texts: Vec<Value>,
    prompts: Prompts,
    /// Of rows of whose completions not every token is learned.
    masks: BTreeMap<usize, Vec<f32>>,
}

/// One row with its columns.
pub(super) struct Single {
    pub row: Row,
    /// Where not every token of the completion is learned.
    pub mask: Option<Vec<f32>>,
    pub text: String,
    pub prompt: Prompt,
}

impl Made {
    /// The rows alone.
    pub(super) fn rows(self, model: &ModelInfo) -> Arc<Rows> {
        Rows::of(self.rows, model.vocabulary())
    }

    pub(super) fn push(&mut self, Single { row, mask, text, prompt }: Single) {
        self.masks.extend(mask.map(|mask| (self.rows.len(), mask)));
        self.rows.push(row);
        self.texts.push(text.into());
        self.prompts.items.push(prompt);
    }

    /// `n` adjacent rows per prompt.
    pub(super) fn batch(self, model: &ModelInfo, n: usize) -> Result<Batch> {
        let rows = Rows::of(self.rows, model.vocabulary());
        let mut batch = Batch::new(rows.clone(), 1.0, &Device::Cpu)?;
        if !self.masks.is_empty() {
            let mask = |(i, row): (usize, &Row)| match self.masks.get(&i) {
                Some(mask) => mask.clone(),
                None => vec![1.0; row.completion.len()],
            };
            let masks: Vec<Vec<f32>> = rows.iter().enumerate().map(mask).collect();
            batch.insert_numbers("length", masks.iter().map(|mask| mask.iter().sum()))?;
            batch.insert_tokens("mask", masks.into_iter(), rows.width())?;
        }
        batch.insert_list("text", self.texts);
        batch.insert_fields(&self.prompts, n)?;
        Ok(batch)
    }
}

/// Makes rows for a model.
pub(super) struct Encoder<'a> {
    pub(super) model: &'a ModelInfo,
    pub(super) tokenizer: &'a Tokenizer,
    /// Put after completions that do not end with an end token: the tokenizer's own, by which training programs end
    /// texts, else the model's first.
    pub(super) end: u32,
    pub(super) special: bool,
    pub(super) max: MaxLength,
}

impl<'a> Encoder<'a> {
    /// # Errors
    /// A model without tokenizer or end token; they name the function.
    pub(super) fn new(function: &'static str, model: &'a ModelInfo, special: bool, max: MaxLength) -> Result<Self> {
        let tokenizer = model.require_tokenizer(function)?;
        let end = tokenizer.eos().or(model.eos.first().copied()).ok_or_else(|| {
            Error::model(format!("{function}: the model {} has no end token to put after completions", model.name))
                .hint("name it as eos_token_id in config.json or generation_config.json")
        })?;
        Ok(Self { model, tokenizer, end, special, max })
    }

    /// Adds the row of a demonstration.
    pub(super) fn demo(&self, made: &mut Made, demo: &Demo) -> std::result::Result<(), Unfit> {
        self.add(made, &demo.prompt, &[("completion", &demo.completion)], &demo.fields)
    }

    /// Adds both rows of a pair.
    pub(super) fn pair(&self, made: &mut Made, pair: &Pair) -> std::result::Result<(), Unfit> {
        let [prompt, chosen, rejected] = parts(pair)?;
        self.add(made, &prompt, &[("chosen", &chosen), ("rejected", &rejected)], &pair.fields)
    }

    /// Adds a row for each of the completions, which have the names of their fields.
    fn add(
        &self,
        made: &mut Made,
        prompt: &Content,
        completions: &[(&str, &Content)],
        fields: &Map<String, Value>,
    ) -> std::result::Result<(), Unfit> {
        let empty = |field: &str| {
            Error::value(format!("`{field}` is empty")).hint("a completion needs at least one token before its end")
        };
        let blank = |content: &Content| matches!(content, Content::Text(text) if text.is_empty());
        if let Some((field, _)) = completions.iter().find(|(_, content)| blank(content)) {
            return Err(empty(field).into());
        }
        let (ids, ends) = match prompt {
            Content::Text(text) => self.texts(text, completions)?,
            Content::Messages(messages) => self.messages(messages, completions, fields)?,
        };
        if ids.is_empty() {
            let text = Content::shown(&prompt.value()).into_owned();
            return Err(Error::value(format!("`prompt` has no tokens: its text is {text:?}"))
                .hint("a model needs at least one token to begin from")
                .into());
        }
        for ((field, content), mut completion) in completions.iter().zip(ends) {
            self.finish(&mut completion, matches!(prompt, Content::Messages(_)));
            if completion.len() < 2 {
                return Err(empty(field).into());
            }
            self.fit(field, ids.len(), &mut completion, self.max.of_answers())?;
            made.texts.push(match content {
                Content::Text(text) => text.clone().into(),
                Content::Messages(_) => self.tokenizer.decode(&completion[..completion.len() - 1]).into(),
            });
            made.rows.push(Row::new(ids.clone(), completion));
        }
        made.prompts.items.push(Prompt { content: prompt.clone(), fields: fields.clone() });
        Ok(())
    }

    /// Ends a completion where there is no more room, or refuses it by the field that it is from.
    pub(super) fn fit(
        &self,
        field: &str,
        prompt: usize,
        completion: &mut Vec<u32>,
        longer: Longer,
    ) -> std::result::Result<(), Unfit> {
        let room = self.max.room(self.model);
        if longer == Longer::Cut && prompt < room {
            completion.truncate(room - prompt);
        }
        let answer = completion.len();
        if prompt + answer <= room {
            return Ok(());
        }
        let has = match field {
            "text" | "messages" => format!("`{field}` has {} tokens", prompt + answer),
            _ => format!("`prompt` has {prompt} tokens and `{field}` {answer}"),
        };
        let whose = if room < self.model.context { "max_length is" } else { "the model's context holds" };
        Err(Unfit::TooLong(too_long(format!("{has}, but {whose} {room}"))))
    }

    fn texts(&self, prompt: &str, completions: &[(&str, &Content)]) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let encode = |text: &str| match self.special {
            true => self.tokenizer.encode_prompt_special(text),
            false => self.tokenizer.encode_prompt(text),
        };
        let whole = |(field, content): &(&str, &Content)| match content {
            Content::Text(text) => encode(&format!("{prompt}{text}")),
            Content::Messages(_) => Err(Error::value(format!("`prompt` is a text, but `{field}` is messages"))
                .hint("give both as texts or both as arrays of messages")),
        };
        let alone = encode(prompt)?;
        let (shared, ends) = cut(&alone, completions.iter().map(whole).collect::<Result<_>>()?);
        if shared.is_empty() {
            // A first token that reaches into the completion would leave nothing to begin from.
            let apart = |(_, content): &(&str, &Content)| match content {
                Content::Text(text) if self.special => self.tokenizer.encode_special(text),
                Content::Text(text) => self.tokenizer.encode(text),
                Content::Messages(_) => Ok(Vec::new()),
            };
            return Ok((alone, completions.iter().map(apart).collect::<Result<_>>()?));
        }
        Ok((shared, ends))
    }

    fn messages(
        &self,
        prompt: &[Value],
        completions: &[(&str, &Content)],
        fields: &Map<String, Value>,
    ) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let encode = |messages: &[Value], ending: Ending| self.rendered(messages, ending, fields);
        let whole = |(_, content): &(&str, &Content)| match content {
            Content::Messages(messages) => encode(&[prompt, messages].concat(), Ending::Closed),
            Content::Text(text) => {
                encode(&[prompt, &[json!({"role": "assistant", "content": text})]].concat(), Ending::Closed)
            }
        };
        let alone = encode(prompt, Ending::of_prompt(prompt))?;
        Ok(cut(&alone, completions.iter().map(whole).collect::<Result<_>>()?))
    }

    /// The tokens of messages as the model's chat template renders them.
    pub(super) fn rendered(&self, messages: &[Value], ending: Ending, fields: &Map<String, Value>) -> Result<Vec<u32>> {
        let variables = template_variables(fields)?;
        let chat = Chat { model: self.model, variables: &variables, special: self.special };
        let text = chat.compose(messages, ending)?;
        self.tokenizer.encode_rendered(&text.text, &text.quoted)
    }

    /// Leaves out white space after the token that ends the completion, and puts an end token where there is none. In a
    /// rendered one, whatever control token stands last is the end that the template writes.
    pub(super) fn finish(&self, completion: &mut Vec<u32>, rendered: bool) {
        let blank = |ids: &[u32]| self.tokenizer.decode_special(ids).trim().is_empty();
        let ends = |id: &u32| self.ends(*id);
        let control = |id: &u32| rendered && self.tokenizer.is_special(*id);
        let last = completion.iter().rposition(ends).filter(|&at| blank(&completion[at + 1..]));
        let last = last.or_else(|| completion.iter().rposition(control).filter(|&at| blank(&completion[at + 1..])));
        match last {
            Some(at) => completion.truncate(at + 1),
            None => completion.push(self.end),
        }
    }

    /// Whether a token ends an answer.
    pub(super) fn ends(&self, id: u32) -> bool {
        self.model.eos.contains(&id) || id == self.end
    }
}

/// The tokens that the prompt alone and all rows begin with, and what follows in each row.
fn cut(alone: &[u32], whole: Vec<Vec<u32>>) -> (Vec<u32>, Vec<Vec<u32>>) {
    let shared = |whole: &Vec<u32>| alone.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let at = whole.iter().map(shared).min().unwrap_or(0);
    (alone[..at].to_vec(), whole.into_iter().map(|whole| whole[at..].to_vec()).collect())
}

/// Rows of token ids as they are; nothing is added. Columns: `mask` and `length`.
pub fn encode_ids(prompts: Vec<Vec<u32>>, completions: Vec<Vec<u32>>, device: &Device) -> Result<Batch> {
    if prompts.len() != completions.len() {
        return Err(Error::shape(format!(
            "encode_ids: {} prompts, but {} completions",
            prompts.len(),
            completions.len()
        )));
    }
    if let Some(i) = prompts.iter().position(Vec::is_empty) {
        return Err(Error::value(format!("encode_ids: prompt {i} has no tokens"))
            .hint("a model needs at least one token to begin from"));
    }
    let row = |(prompt, completion): (Vec<u32>, Vec<u32>)| Row::new(prompt, completion);
    Batch::new(Rows::new(prompts.into_iter().zip(completions).map(row).collect()), 1.0, device)
}
