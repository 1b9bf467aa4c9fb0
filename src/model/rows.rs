//! Token rows: what models run on. A row is a prompt and a completion; rows that share a prompt are adjacent
//! when they come from `sample`, and the engine finds equal prompts by their content.
//!
//! Owns no columns (rewards, masks): those are `data::Batch`'s.

use crate::kernel::softmax::Scored;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of one call: far more than a step needs, and still a size that memory holds.
pub const MOST_ROWS: usize = 1 << 20;

/// One row: the model sees `prompt` then `completion`; log-probs exist for the completion's tokens. Rows are equal where
/// their tokens are.
#[derive(Debug, Clone)]
pub struct Row {
    pub prompt: Arc<[u32]>,
    pub completion: Arc<[u32]>,
    record: Option<Arc<Record>>,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        (&self.prompt, &self.completion) == (&other.prompt, &other.completion)
    }
}

impl Eq for Row {}

impl Row {
    pub fn new(prompt: impl Into<Arc<[u32]>>, completion: impl Into<Arc<[u32]>>) -> Self {
        Self { prompt: prompt.into(), completion: completion.into(), record: None }
    }

    /// A row whose whole completion was sampled, with what the sampler saw.
    pub fn sampled(prompt: impl Into<Arc<[u32]>>, completion: impl Into<Arc<[u32]>>, record: Record) -> Self {
        Self { record: Some(Arc::new(record)), ..Self::new(prompt, completion) }
    }

    /// What the sampler saw at each token of the completion, where it chose all of them with these weights at this
    /// temperature.
    pub fn recorded(&self, model: u64, version: u64, temperature: f64) -> Option<&[Scored]> {
        let record = self.record.as_ref()?;
        let same = (record.model, record.version) == (model, version) && record.temperature == temperature;
        (same && record.tokens.len() == self.completion.len()).then_some(&record.tokens)
    }
}

/// What a sampler saw when it chose the tokens of a completion. It stays with the row, wherever that is selected to;
/// rows of which something was not sampled, or that were put together anew, have none.
#[derive(Debug)]
pub struct Record {
    /// The model's id and version, and the temperature.
    pub model: u64,
    pub version: u64,
    pub temperature: f64,
    pub tokens: Vec<Scored>,
}

/// Rows with an identity: two `Rows` with the same id are the same tokens.
#[derive(Debug)]
pub struct Rows {
    id: u64,
    rows: Vec<Row>,
    vocabulary: Option<u64>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Rows {
    pub fn new(rows: Vec<Row>) -> Arc<Self> {
        Self::of(rows, None)
    }

    /// Rows that a tokenizer made, by its `Tokenizer::vocabulary`; `None` where that is not known.
    pub fn of(rows: Vec<Row>, vocabulary: Option<u64>) -> Arc<Self> {
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), rows, vocabulary })
    }

    /// Whose token ids these are.
    pub fn vocabulary(&self) -> Option<u64> {
        self.vocabulary
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// T: the longest completion, at least 1 so that `[B,T]` tensors are never empty.
    pub fn width(&self) -> usize {
        self.rows.iter().map(|row| row.completion.len()).max().unwrap_or(0).max(1)
    }

    /// The rows at `indices`, in that order, as rows of their own.
    pub fn select(&self, indices: &[usize]) -> Arc<Self> {
        Self::of(indices.iter().map(|&i| self.rows[i].clone()).collect(), self.vocabulary)
    }
}

impl std::ops::Index<usize> for Rows {
    type Output = Row;
    fn index(&self, i: usize) -> &Row {
        &self.rows[i]
    }
}
