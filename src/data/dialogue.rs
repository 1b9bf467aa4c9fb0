//! Dialogues: the policy and a user take turns, all dialogues of a batch together, turn by turn.
//!
//! A dialogue's token ids only ever grow: the policy's own tokens stay as they were sampled, and what stands between
//! two of its turns is what the chat template renders there. Owns that, and the batch that is made of it.

use super::batch::Batch;
use super::prompts::{Content, Prompt, Prompts, compose};
use super::reset::{ResetPrompts, Talk, opening};
use super::user::User;
use crate::engine::{self, SampleOptions, Samples, Settings};
use crate::error::{Error, Kind, Result};
use crate::model::chat::Ending;
use crate::model::gguf::Frozen;
use crate::model::rows::MOST_ROWS;
use crate::model::rows::{Row, Rows};
use crate::model::{Model, ModelInfo, Tokenizer};
use crate::tensor::rng::Key;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const CALL: &str = "converse";

/// Who answers the policy. A model is shown the dialogue with the roles of user and assistant swapped.
pub enum Partner<'a> {
    User(&'a dyn User),
    Model(&'a Arc<Model>),
    Frozen(&'a Frozen),
}

/// What dialogues begin from.
pub enum Start<'a> {
    Prompts(&'a Prompts),
    /// States that were reset by turn: the dialogues go on.
    Reset(&'a ResetPrompts),
}

impl Start<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Prompts(prompts) => prompts.len(),
            Self::Reset(reset) => reset.len(),
        }
    }
}

/// How long dialogues are, and how the policy (and a model as user) chooses tokens.
pub struct ConverseOptions {
    /// How often the assistant speaks at most in a whole dialogue.
    pub turns: usize,
    /// `n` dialogues per prompt; `max_tokens` per turn.
    pub sample: SampleOptions,
}

/// One dialogue under way.
struct Dialogue {
    prompt: Arc<[u32]>,
    tokens: Vec<u32>,
    /// The turn that each token belongs to: the assistant's, and the user's answer to it.
    marks: Vec<f32>,
    mask: Vec<f32>,
    logprobs: Vec<f32>,
    kept: usize,
    messages: Vec<Value>,
    turns: usize,
    said: String,
    finished: bool,
}

/// Has the policy and its partner talk. Columns are those of [`Batch::from_samples`], where `mask` is 1 on what the
/// policy said and `text` is what it said last, and `turn`, `turns`, `messages`; from reset states also `rollin`.
///
/// A dialogue ends when the user ends it, when the policy has spoken `turns` times, or when the context has no room for
/// the user's answer and another turn. `keys` are the policy's and, for a model as user, the user's.
///
/// # Errors
/// Those of sampling; a prompt whose last message is the assistant's; states that were not reset by turn, or that have
/// all their turns already; a chat template that changes what stands before a turn when the turn follows.
pub fn converse(
    model: &Arc<Model>,
    partner: &Partner,
    start: &Start,
    options: &ConverseOptions,
    keys: [Key; 2],
    settings: &Settings,
) -> Result<Batch> {
    let tokenizer = model.require_tokenizer(CALL)?;
    model.require_chat(CALL)?;
    for (name, value) in [("turns", options.turns), ("n", options.sample.n)] {
        if value == 0 {
            return Err(Error::value(format!("{CALL}: {name} must be at least 1, found 0")));
        }
    }
    let (asked, n) = (start.len(), options.sample.n);
    if asked.saturating_mul(n) > MOST_ROWS {
        return Err(Error::value(format!("{CALL}: {asked} prompts × n = {n} are more than {MOST_ROWS} dialogues"))
            .hint("converse in several calls"));
    }
    let (prompts, mut dialogues) = begin(model, start, options)?;
    let each = SampleOptions { n: 1, seed: None, ..options.sample.clone() };
    let key = options.sample.seed.map_or(keys[0], Key::new);
    let mut active: Vec<usize> = (0..dialogues.len()).collect();
    for round in 0.. {
        let ids: Vec<Vec<u32>> = active.iter().map(|&i| dialogues[i].ids()).collect();
        let spoken = engine::sample::sample_at(CALL, model, &ids, &active, &each, key.fold(round), settings)?;
        for (at, &i) in active.iter().enumerate() {
            dialogues[i].speak(&spoken, at);
        }
        active.retain(|&i| dialogues[i].turns < options.turns);
        let fields = |i: usize| &prompts.items[i / options.sample.n].fields;
        let key = keys[1].fold(round);
        let replies = partner.replies(&dialogues, &active, &fields, &each, key, settings)?;
        let mut going = Vec::with_capacity(active.len());
        for (&i, reply) in active.iter().zip(replies) {
            let Some(reply) = reply else { continue };
            let at = |e: Error| Error { what: format!("{CALL}: dialogue {i}: {}", e.what), ..e };
            let glue = dialogues[i].glue(model, tokenizer, &reply).map_err(at)?;
            if dialogues[i].len() + glue.len() + each.max_tokens <= model.context {
                dialogues[i].hear(reply, glue);
                going.push(i);
            } else {
                dialogues[i].finished = false;
            }
        }
        active = going;
        if active.is_empty() {
            break;
        }
    }
    batch(dialogues, &prompts, matches!(start, Start::Reset(_)), options, model)
}

/// The dialogues before anyone speaks, `n` for each prompt.
fn begin(model: &ModelInfo, start: &Start, options: &ConverseOptions) -> Result<(Prompts, Vec<Dialogue>)> {
    let n = options.sample.n;
    let fresh = |prompt: &[u32], messages: Vec<Value>| Dialogue {
        prompt: prompt.into(),
        tokens: Vec::new(),
        marks: Vec::new(),
        mask: Vec::new(),
        logprobs: Vec::new(),
        kept: 0,
        messages,
        turns: 0,
        said: String::new(),
        finished: false,
    };
    let mut dialogues = Vec::new();
    match start {
        Start::Prompts(prompts) => {
            let mut rendered = (*prompts).clone();
            for (i, prompt) in rendered.items.iter_mut().enumerate() {
                let messages = opening(&prompt.content);
                if Ending::of_prompt(&messages) == Ending::Continue {
                    return Err(Error::value(format!("{CALL}: prompt {i} ends with the assistant's message"))
                        .hint("a dialogue begins with what the user says"));
                }
                prompt.content = Content::Messages(messages);
            }
            for (prompt, ids) in rendered.items.iter().zip(rendered.encode(model, false)?) {
                dialogues.extend((0..n).map(|_| fresh(&ids, opening(&prompt.content))));
            }
            Ok(((*prompts).clone(), dialogues))
        }
        Start::Reset(reset) => {
            for (i, state) in reset.states.iter().enumerate() {
                let Some(Talk { messages, marks, turns }) = &state.talk else {
                    return Err(Error::value(format!("{CALL}: row {i} was not reset by turn"))
                        .hint("dialogues go on from reset(d, #{ turn: h }); sample goes on from single tokens"));
                };
                if *turns >= options.turns {
                    let most = options.turns;
                    return Err(Error::value(format!("{CALL}: row {i} keeps {turns} turns, and turns is {most}"))
                        .hint("turns counts the whole dialogue: raise it, or reset to an earlier turn"));
                }
                dialogues.extend((0..n).map(|_| Dialogue {
                    prompt: state.prompt.clone(),
                    tokens: state.kept.to_vec(),
                    marks: marks.clone(),
                    mask: vec![0.0; marks.len()],
                    logprobs: vec![0.0; marks.len()],
                    kept: marks.len(),
                    turns: *turns,
                    ..fresh(&[], messages.clone())
                }));
            }
            Ok((reset.prompts.clone(), dialogues))
        }
    }
}

impl Dialogue {
    fn len(&self) -> usize {
        self.prompt.len() + self.tokens.len()
    }

    fn ids(&self) -> Vec<u32> {
        [&*self.prompt, &self.tokens].concat()
    }

    /// Adds answer `at` of `spoken` as the assistant's next turn.
    fn speak(&mut self, spoken: &Samples, at: usize) {
        let new = &spoken.rows[at].completion;
        self.turns += 1;
        self.extend(new, 1.0);
        self.logprobs.extend(&spoken.logprobs[at]);
        self.said = spoken.texts[at].clone();
        self.finished = spoken.finished[at];
        self.messages.push(json!({"role": "assistant", "content": self.said}));
    }

    fn hear(&mut self, reply: String, glue: Vec<u32>) {
        self.extend(&glue, 0.0);
        self.logprobs.resize(self.tokens.len(), 0.0);
        self.messages.push(json!({"role": "user", "content": reply}));
    }

    fn extend(&mut self, tokens: &[u32], mask: f32) {
        self.tokens.extend(tokens);
        self.mask.resize(self.tokens.len(), mask);
        self.marks.resize(self.tokens.len(), self.turns as f32);
    }

    /// The tokens from the end of what the assistant has just said to where it speaks next, the user's answer among
    /// them. An answer that was cut off gets its end token here.
    fn glue(&self, model: &ModelInfo, tokenizer: &Tokenizer, reply: &str) -> Result<Vec<u32>> {
        let Some((_, before)) = self.messages.split_last() else { return Ok(Vec::new()) };
        // Something stands for what was said, so that neither trimming nor quoting can blur where it ends.
        let stand_in = unused(before, reply).to_string();
        let follows = [json!({"role": "assistant", "content": stand_in}), json!({"role": "user", "content": reply})];
        let earlier = compose(model, before, Ending::Generate, false)?;
        let whole = compose(model, &[before, &follows].concat(), Ending::Generate, false)?;
        let changed = || {
            Error::model(format!(
                "the chat template of {} changes what stands before the assistant's turn {} when the turn follows it",
                model.name, self.turns
            ))
            .hint("dialogues need a template whose text before a turn begins the text after it: put such a one into chat_template.jinja")
        };
        let rest = whole.text.strip_prefix(&earlier.text).ok_or_else(changed)?;
        let at = rest.find(&stand_in).filter(|&at| rest[..at].trim().is_empty()).ok_or_else(changed)?;
        let after = whole.after(earlier.text.len() + at + stand_in.len());
        let mut glue = tokenizer.encode_rendered(&after.text, &after.quoted)?;
        let ends = |id: Option<&u32>| id.is_some_and(|id| model.eos.contains(id));
        match (ends(self.tokens.last()), ends(glue.first())) {
            (true, true) => drop(glue.remove(0)),
            (false, false) => glue.splice(..0, model.eos.first().copied()).for_each(drop),
            _ => {}
        }
        Ok(glue)
    }
}

/// A character for private use that no message holds.
fn unused(messages: &[Value], reply: &str) -> char {
    let texts = serde_json::to_string(messages).unwrap_or_default();
    ('\u{E000}'..='\u{F8FF}').find(|&c| !texts.contains(c) && !reply.contains(c)).unwrap_or('\u{E000}')
}

impl Partner<'_> {
    /// What the partner says in each of the dialogues `active`; `None` ends one.
    fn replies<'f>(
        &self,
        dialogues: &[Dialogue],
        active: &[usize],
        fields: &dyn Fn(usize) -> &'f Map<String, Value>,
        options: &SampleOptions,
        key: Key,
        settings: &Settings,
    ) -> Result<Vec<Option<String>>> {
        if active.is_empty() {
            return Ok(Vec::new());
        }
        let swapped = || Prompts {
            items: active
                .iter()
                .map(|&i| Prompt { content: Content::Messages(swap(&dialogues[i].messages)), fields: Map::new() })
                .collect(),
        };
        let call = "converse: the user";
        let answers = match self {
            Self::User(user) => {
                return active.iter().map(|&i| user.reply(&dialogues[i].messages, fields(i))).collect();
            }
            Self::Model(model) => {
                model.require_tokenizer(call)?;
                let ids = swapped().encode(model, false)?;
                engine::sample::sample_at(call, model, &ids, active, options, key, settings)?
            }
            Self::Frozen(model) => {
                let ids = swapped().encode(model, false)?;
                engine::sample::answer(call, *model, &ids, active, options, key, settings)?
            }
        };
        Ok(answers.texts.into_iter().map(Some).collect())
    }
}

/// The dialogue as the other side sees it.
fn swap(messages: &[Value]) -> Vec<Value> {
    let swap = |message: &Value| {
        let mut message = message.clone();
        let role = match message.get("role").and_then(Value::as_str) {
            Some("user") => "assistant",
            Some("assistant") => "user",
            _ => return message,
        };
        message["role"] = role.into();
        message
    };
    messages.iter().map(swap).collect()
}

fn batch(
    dialogues: Vec<Dialogue>,
    prompts: &Prompts,
    reset: bool,
    options: &ConverseOptions,
    model: &ModelInfo,
) -> Result<Batch> {
    if let Some(d) = dialogues.iter().find(|d| d.logprobs.len() != d.tokens.len() || d.marks.len() != d.tokens.len()) {
        let (tokens, logprobs) = (d.tokens.len(), d.logprobs.len());
        return Err(Error::new(Kind::Internal, format!("a dialogue has {tokens} tokens and {logprobs} log-probs")));
    }
    let row = |d: &Dialogue| Row { prompt: d.prompt.clone(), completion: d.tokens.clone().into() };
    let rows = Rows::of(dialogues.iter().map(row).collect(), model.vocabulary());
    let width = rows.width();
    let n = options.sample.n;
    let mut b = Batch::new(rows, options.sample.temperature, &model.device)?.with_group(Some(n));
    b.insert_tokens("mask", dialogues.iter().map(|d| d.mask.clone()), width)?;
    b.insert_tokens("turn", dialogues.iter().map(|d| d.marks.clone()), width)?;
    if reset {
        b.insert_tokens("rollin", dialogues.iter().map(|d| vec![1.0; d.kept]), width)?;
    }
    b.insert_tokens("old_logprob", dialogues.iter().map(|d| d.logprobs.clone()), width)?;
    b.insert_numbers("length", dialogues.iter().map(|d| d.mask.iter().sum()))?;
    b.insert_numbers("turns", dialogues.iter().map(|d| d.turns as f32))?;
    b.insert_numbers("finished", dialogues.iter().map(|d| f32::from(u8::from(d.finished))))?;
    b.insert_list("text", dialogues.iter().map(|d| d.said.clone().into()).collect());
    b.insert_list("messages", dialogues.into_iter().map(|d| d.messages.into()).collect());
    b.insert_fields(prompts, n)?;
    Ok(b)
}
