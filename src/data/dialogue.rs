//! Dialogues under way: what each party sees, the tokens so far, and the batch that they become.
//!
//! A dialogue's token ids only ever grow: the policy's own tokens stay as they were sampled, and what stands between
//! two of its turns is what the chat template renders there. Who speaks when is `run::converse`'s affair.

use super::batch::Batch;
use super::prompts::{Chat, Content, Prompt, Prompts, template_variables};
use super::reset::{ResetPrompts, Talk, opening};
use crate::engine::Samples;
use crate::error::{Error, Kind, Result};
use crate::model::chat::Ending;
use crate::model::rows::{Row, Rows};
use crate::model::{ModelInfo, Tokenizer};
use crate::tensor::Device;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const CALL: &str = "converse";

/// What dialogues begin from.
pub enum Start<'a> {
    Prompts(&'a Prompts),
    /// States that were reset by turn: the dialogues go on.
    Reset(&'a ResetPrompts),
}

impl Start<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Prompts(prompts) => prompts.len(),
            Self::Reset(reset) => reset.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The dialogues of one batch.
pub struct Dialogues {
    prompts: Prompts,
    items: Vec<Dialogue>,
    /// Dialogues per prompt.
    n: usize,
    /// Whether they go on from the middle of earlier ones.
    reset: bool,
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

impl Dialogues {
    /// The dialogues before anyone speaks, `n` for each prompt; in all, the assistant may speak `most` times.
    ///
    /// # Errors
    /// A prompt whose last message is the assistant's; states that were not reset by turn, or that have all their turns
    /// already; messages that the chat template refuses.
    pub fn begin(model: &ModelInfo, start: &Start, n: usize, most: usize) -> Result<Self> {
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
                Ok(Self { prompts: (*prompts).clone(), items: dialogues, n, reset: false })
            }
            Start::Reset(reset) => {
                for (i, state) in reset.states.iter().enumerate() {
                    let Some(Talk { messages, marks, turns }) = &state.talk else {
                        return Err(Error::value(format!("{CALL}: row {i} was not reset by turn"))
                            .hint("dialogues go on from reset(d, #{ turn: h }); sample goes on from single tokens"));
                    };
                    if *turns >= most {
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
                Ok(Self { prompts: reset.prompts.clone(), items: dialogues, n, reset: true })
            }
        }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How often the assistant has spoken in dialogue `i`.
    pub fn turns(&self, i: usize) -> usize {
        self.items[i].turns
    }

    pub fn messages(&self, i: usize) -> &[Value] {
        &self.items[i].messages
    }

    /// What the task knows about the prompt of dialogue `i`.
    pub fn fields(&self, i: usize) -> &Map<String, Value> {
        &self.prompts.items[i / self.n].fields
    }

    /// The token ids that the assistant continues in the dialogues `active`.
    pub fn ids(&self, active: &[usize]) -> Vec<Vec<u32>> {
        active.iter().map(|&i| self.items[i].ids()).collect()
    }

    /// The dialogues `active` as the other side sees them: roles of user and assistant swapped.
    pub fn swapped(&self, active: &[usize]) -> Prompts {
        let prompt =
            |&i: &usize| Prompt { content: Content::Messages(swap(&self.items[i].messages)), fields: Map::new() };
        Prompts::of(active.iter().map(prompt).collect())
    }

    /// The assistant's next turn in each of the dialogues `active`.
    pub fn speak(&mut self, active: &[usize], spoken: &Samples) {
        for (at, &i) in active.iter().enumerate() {
            self.items[i].speak(spoken, at);
        }
    }

    /// The user's answer in dialogue `i`, unless the context has no room for it and `next` tokens more: then the dialogue
    /// is over, unfinished, and `false` is returned.
    ///
    /// # Errors
    /// A chat template that changes what stands before a turn when the turn follows.
    pub fn hear(&mut self, i: usize, model: &ModelInfo, reply: String, next: usize) -> Result<bool> {
        let tokenizer = model.require_tokenizer(CALL)?;
        let at = |e: Error| Error { what: format!("{CALL}: dialogue {i}: {}", e.what), ..e };
        let variables = template_variables(self.fields(i)).map_err(at)?;
        let chat = Chat { model, variables: &variables, special: false };
        let glue = self.items[i].glue(&chat, tokenizer, &reply).map_err(at)?;
        let fits = self.items[i].len() + glue.len() + next <= model.context;
        match fits {
            true => self.items[i].hear(reply, glue),
            false => self.items[i].finished = false,
        }
        Ok(fits)
    }

    /// One row for each dialogue. Columns are those of [`Batch::from_samples`], where `mask` is 1 on what the policy said
    /// and `text` is what it said last, and `turn`, `turns`, `messages`; from reset states also `rollin`.
    ///
    /// # Errors
    /// Columns that do not agree, which would be a fault of this module.
    pub fn batch(self, model: &ModelInfo, temperature: f64) -> Result<Batch> {
        let Self { prompts, items, n, reset } = self;
        if let Some(d) = items.iter().find(|d| d.logprobs.len() != d.tokens.len() || d.marks.len() != d.tokens.len()) {
            let (tokens, logprobs) = (d.tokens.len(), d.logprobs.len());
            return Err(Error::new(Kind::Internal, format!("a dialogue has {tokens} tokens and {logprobs} log-probs")));
        }
        let row = |d: &Dialogue| Row::new(d.prompt.clone(), d.tokens.clone());
        let rows = Rows::of(items.iter().map(row).collect(), model.vocabulary());
        let width = rows.width();
        let mut b = Batch::new(rows, temperature, &Device::Cpu)?.with_group(Some(n));
        b.insert_tokens("mask", items.iter().map(|d| d.mask.clone()), width)?;
        b.insert_tokens("turn", items.iter().map(|d| d.marks.clone()), width)?;
        if reset {
            b.insert_tokens("rollin", items.iter().map(|d| vec![1.0; d.kept]), width)?;
        }
        b.insert_tokens("old_logprob", items.iter().map(|d| d.logprobs.clone()), width)?;
        b.insert_numbers("length", items.iter().map(|d| d.mask.iter().sum()))?;
        b.insert_numbers("turns", items.iter().map(|d| d.turns as f32))?;
        b.insert_numbers("finished", items.iter().map(|d| f32::from(u8::from(d.finished))))?;
        b.insert_list("text", items.iter().map(|d| d.said.clone().into()).collect());
        b.insert_list("messages", items.into_iter().map(|d| d.messages.into()).collect());
        b.insert_fields(&prompts, n)?;
        Ok(b)
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
    fn glue(&self, chat: &Chat, tokenizer: &Tokenizer, reply: &str) -> Result<Vec<u32>> {
        let model = chat.model;
        let Some((_, before)) = self.messages.split_last() else { return Ok(Vec::new()) };
        // Something stands for what was said, so that neither trimming nor quoting can blur where it ends.
        let stand_in = unused(before, reply).to_string();
        let follows = [json!({"role": "assistant", "content": stand_in}), json!({"role": "user", "content": reply})];
        let earlier = chat.compose(before, Ending::Generate)?;
        let whole = chat.compose(&[before, &follows].concat(), Ending::Generate)?;
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
