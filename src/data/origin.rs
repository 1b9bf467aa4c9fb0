//! The rows that prompts are drawn from. All of them are measured when the first are to be answered, so that one that
//! leaves no room for an answer is named before any step, and not when it is drawn at last.

use super::prompts::{Content, Prompt, Prompts};
use crate::error::{Error, Result};
use crate::model::ModelInfo;
use std::cell::RefCell;
use std::sync::Arc;

/// Rows of a file, or of a task's list.
#[derive(Debug)]
pub struct Origin {
    /// What errors call the whole.
    name: String,
    rows: Vec<Prompt>,
    /// Of each row, where they stand in files.
    places: Vec<String>,
    measured: RefCell<Vec<Measured>>,
}

/// What rows were found to fit.
#[derive(Debug, PartialEq, Eq)]
struct Measured {
    vocabulary: Option<u64>,
    /// Where the chat template is: copies of a model share it.
    template: usize,
    special: bool,
    room: usize,
}

impl Origin {
    /// Rows with their places; without those they are counted from 1.
    pub(super) fn new(name: String, rows: Vec<Prompt>, places: Vec<String>) -> Self {
        Self { name, rows, places, measured: RefCell::default() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn rows(&self) -> &[Prompt] {
        &self.rows
    }

    /// Fails where a prompt leaves no room for `max_tokens` in the model's context. What is wrong with a row in another way
    /// is said when it is drawn.
    ///
    /// # Errors
    /// The first such row, by its place.
    pub fn measure(&self, model: &ModelInfo, max_tokens: usize, special: bool) -> Result<()> {
        let now = Measured {
            vocabulary: model.vocabulary(),
            template: model.chat.as_ref().map_or(0, |chat| Arc::as_ptr(chat) as usize),
            special,
            room: model.context.saturating_sub(max_tokens),
        };
        let fits = |before: &Measured| *before == Measured { room: before.room, ..now } && before.room <= now.room;
        if self.measured.borrow().iter().any(fits) {
            return Ok(());
        }
        let long: Vec<(usize, usize)> = (0..self.rows.len())
            .filter_map(|i| Some((i, tokens(&self.rows[i], model, special, now.room)?)))
            .filter(|(_, tokens)| *tokens > now.room)
            .collect();
        let Some(&(i, tokens)) = long.first() else {
            self.measured.borrow_mut().push(now);
            return Ok(());
        };
        let more = if long.len() > 1 { format!("; so do {} more rows", long.len() - 1) } else { String::new() };
        let place = self.places.get(i).cloned().unwrap_or_else(|| format!("{}: row {}", self.name, i + 1));
        Err(Error::value(format!(
            "{place}: the prompt has {tokens} tokens and max_tokens is {max_tokens}, which is more than the model's context \
             of {}{more}",
            model.context
        ))
        .hint("shorten the row or leave it out, or lower max_tokens"))
    }
}

/// The tokens of a prompt, unless it has so few bytes that it fits, or cannot be encoded.
fn tokens(row: &Prompt, model: &ModelInfo, special: bool, room: usize) -> Option<usize> {
    /// Of what a tokenizer may put around a text.
    const BORDERS: usize = 4;
    match &row.content {
        Content::Text(text) if text.len() + BORDERS <= room => None,
        _ => Prompts::of(vec![row.clone()]).encode(model, special).ok()?.first().map(Vec::len),
    }
}
