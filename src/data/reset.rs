//! States in the middle of a row, to go on from: prompts that carry token ids, so that nothing is tokenised again.
//!
//! Owns what is kept and how kept and new tokens make one row; sampling sees prompts of token ids.

use super::batch::{Batch, Column};
use super::prompts::{Content, Prompt, Prompts};
use crate::engine::Samples;
use crate::error::{Error, Kind, Result};
use crate::model::rows::{Row, Rows};
use crate::model::{ModelInfo, Tokenizer};
use crate::tensor::Device;
use serde_json::{Map, Value};
use std::sync::Arc;

/// List columns that are not the prompt's fields.
const OWN: [&str; 3] = ["text", "prompt", "messages"];

/// A row's tokens up to where something else may follow.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub prompt: Arc<[u32]>,
    /// The first tokens of the completion.
    pub kept: Arc<[u32]>,
    /// Where it stands in a dialogue, if it was reset by turn.
    pub talk: Option<Talk>,
}

/// A dialogue so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Talk {
    pub messages: Vec<Value>,
    /// The number of the turn that each kept token belongs to.
    pub marks: Vec<f32>,
    /// How often the assistant has spoken.
    pub turns: usize,
}

/// Prompts with the states that they are continued from, one for each.
#[derive(Debug, Clone, PartialEq)]
pub struct ResetPrompts {
    pub prompts: Prompts,
    pub states: Vec<State>,
}

/// The states of `b` after the first `at[i]` completion tokens of row i. The rows' list columns but `text`, `prompt`
/// and `messages` stay with them as fields.
///
/// # Errors
/// A batch without tokens; another number of entries than rows; an entry beyond its row's end, or after the end that
/// the row came to by itself. Rows are named.
pub fn reset(b: &Batch, at: &[usize]) -> Result<ResetPrompts> {
    let rows = b.require_rows("reset")?;
    check_count(b, "at", at.len())?;
    let finished = b.tensor("finished").and_then(|finished| finished.to_vec()).ok();
    let state = |(i, (row, &at)): (usize, (&Row, &usize))| {
        let length = row.completion.len();
        if at > length {
            return Err(Error::value(format!(
                "reset: row {i} has {length} completion tokens, but {at} are to be kept"
            ))
            .hint("at counts the completion's tokens: b.length holds how many were sampled"));
        }
        if at == length && finished.as_ref().is_some_and(|finished| finished[i] != 0.0) {
            return Err(Error::value(format!("reset: row {i} ended with its token {at}: nothing follows it"))
                .hint("keep fewer tokens than the row has"));
        }
        Ok(State { prompt: row.prompt.clone(), kept: row.completion[..at].into(), talk: None })
    };
    let states = rows.iter().zip(at).enumerate().map(state).collect::<Result<_>>()?;
    Ok(ResetPrompts { prompts: prompts(b)?, states })
}

/// The states of the dialogues `b` before the assistant speaks its `turns[i]`-th turn.
///
/// # Errors
/// A batch that holds no dialogues; another number of entries than rows; a turn that the dialogue does not have. Rows
/// are named.
pub fn reset_turns(b: &Batch, turns: &[usize]) -> Result<ResetPrompts> {
    let rows = b.require_rows("reset")?;
    check_count(b, "turn", turns.len())?;
    let none = |_| {
        Error::value("reset: the batch holds no dialogues: it has no columns `turn`, `turns` and `messages`")
            .hint("dialogues come from converse; other rows are reset by tokens: reset(b, at)")
    };
    let (marks, had) = (b.tensor("turn").map_err(none)?.to_rows()?, b.tensor("turns").map_err(none)?.to_vec()?);
    let messages = b.list("messages").map_err(none)?;
    let prompts = prompts(b)?;
    let mut states = Vec::with_capacity(rows.len());
    for (i, &turn) in turns.iter().enumerate() {
        let had = had[i] as usize;
        if !(1..=had).contains(&turn) {
            return Err(Error::value(format!("reset: row {i} has turns 1 to {had}, found {turn}")));
        }
        let marks: Vec<f32> = marks[i].iter().map(|&mark| mark as f32).collect();
        let kept = marks.iter().position(|&mark| mark as usize == turn).unwrap_or(0);
        // Of each turn before this one, what was said and what was answered.
        let said = opening(&prompts.items[i].content).len() + 2 * (turn - 1);
        let whole = messages[i].as_array().filter(|all| all.len() > said).ok_or_else(|| {
            Error::value(format!(
                "reset: `messages` of row {i} is not the dialogue of its turns, expected more than {said}"
            ))
        })?;
        states.push(State {
            prompt: rows[i].prompt.clone(),
            kept: rows[i].completion[..kept].into(),
            talk: Some(Talk { messages: whole[..said].to_vec(), marks: marks[..kept].to_vec(), turns: turn - 1 }),
        });
    }
    Ok(ResetPrompts { prompts, states })
}

/// The messages that a prompt opens a dialogue with: a text is what the user says first.
pub(super) fn opening(content: &Content) -> Vec<Value> {
    match content {
        Content::Text(text) => vec![serde_json::json!({"role": "user", "content": text})],
        Content::Messages(messages) => messages.clone(),
    }
}

fn check_count(b: &Batch, name: &str, found: usize) -> Result<()> {
    if found == b.len() {
        return Ok(());
    }
    Err(Error::shape(format!("reset: `{name}` has {found} entries, but the batch has {} rows", b.len())))
}

/// The prompts of the rows, one for each.
fn prompts(b: &Batch) -> Result<Prompts> {
    let lists = b.columns().filter_map(|(name, column)| match column {
        Column::List(list) if !OWN.contains(&name) => Some((name, list)),
        _ => None,
    });
    let fields: Vec<_> = lists.collect();
    let asked = b.list("prompt").ok();
    let item = |i: usize| {
        let content = match &asked {
            Some(asked) => Content::read(&format!("reset: `prompt` of row {i}"), asked[i].clone())?,
            None => Content::Text(String::new()),
        };
        let fields = fields.iter().map(|(name, list)| (name.to_string(), list[i].clone()));
        Ok(Prompt { content, fields: fields.collect::<Map<_, _>>() })
    };
    Ok(Prompts::of((0..b.len()).map(item).collect::<Result<_>>()?))
}

impl ResetPrompts {
    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The token ids that are continued: prompt and kept tokens of each state.
    ///
    /// # Errors
    /// A state whose last kept token is an end token of the model.
    pub fn encode(&self, model: &ModelInfo) -> Result<Vec<Vec<u32>>> {
        let ids = |(i, state): (usize, &State)| {
            let ended = state.kept.last().is_some_and(|last| model.eos.contains(last));
            if ended && state.talk.is_none() {
                let kept = state.kept.len();
                return Err(Error::value(format!("reset: row {i} ends with its token {kept}: nothing follows it"))
                    .hint("keep fewer tokens: a demonstration's last one is its end token"));
            }
            Ok([&*state.prompt, &*state.kept].concat())
        };
        self.states.iter().enumerate().map(ids).collect()
    }

    /// What was sampled from these states, `n` adjacent rows for each: the rows' prompts are the original ones, their
    /// completions kept and new tokens. Columns as of [`Batch::from_samples`], and `rollin` (1 on kept tokens); `mask`
    /// and `old_logprob` cover the new tokens, `text` is of the whole completion.
    pub fn batch(&self, samples: Samples, n: usize, tokenizer: &Tokenizer, device: &Device) -> Result<Batch> {
        if samples.rows.len() != self.len() * n {
            let (found, expected) = (samples.rows.len(), self.len() * n);
            return Err(Error::new(Kind::Internal, format!("{found} rows were sampled, expected {expected}")));
        }
        let state = |i: usize| &self.states[i / n];
        let row =
            |(i, new): (usize, &Row)| Row::new(state(i).prompt.clone(), [&*state(i).kept, &*new.completion].concat());
        let rows = Rows::of(samples.rows.iter().enumerate().map(row).collect(), samples.rows.vocabulary());
        let text = |(i, new): (usize, &Row)| told(tokenizer, &state(i).kept, &new.completion, &samples.texts[i]);
        let texts: Vec<Value> = samples.rows.iter().enumerate().map(|at| text(at).into()).collect();
        let lengths: Vec<usize> = samples.logprobs.iter().map(Vec::len).collect();
        let parts = |i: usize, kept: f32, new: Vec<f32>| [vec![kept; state(i).kept.len()], new].concat();
        let width = rows.width();
        let mut batch = Batch::new(rows, samples.temperature, device)?.with_group(Some(n));
        let ones = |(i, &len): (usize, &usize)| parts(i, 0.0, vec![1.0; len]);
        batch.insert_tokens("mask", lengths.iter().enumerate().map(ones), width)?;
        let kept = |(i, _): (usize, &usize)| parts(i, 1.0, Vec::new());
        batch.insert_tokens("rollin", lengths.iter().enumerate().map(kept), width)?;
        let logprobs = samples.logprobs.into_iter().enumerate().map(|(i, new)| parts(i, 0.0, new));
        batch.insert_tokens("old_logprob", logprobs, width)?;
        batch.insert_numbers("length", lengths.iter().map(|&len| len as f32))?;
        batch.insert_numbers("finished", samples.finished.iter().map(|&f| f32::from(u8::from(f))))?;
        batch.insert_list("text", texts);
        batch.insert_fields(&self.prompts, n)?;
        Ok(batch)
    }
}

/// The text of kept and new tokens together; `text` is what sampling says of the new ones, without what ended them.
fn told(tokenizer: &Tokenizer, kept: &[u32], new: &[u32], text: &str) -> String {
    let cut = tokenizer.decode(new).len().saturating_sub(text.len());
    let whole = tokenizer.decode(&[kept, new].concat());
    let mut end = whole.len().saturating_sub(cut);
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    whole[..end].to_string()
}

impl std::fmt::Display for ResetPrompts {
    /// `Prompts(16, 3.5 tokens kept on average)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept: usize = self.states.iter().map(|state| state.kept.len()).sum();
        write!(f, "Prompts({}, {:.1} tokens kept on average)", self.len(), kept as f64 / self.len().max(1) as f64)
    }
}
