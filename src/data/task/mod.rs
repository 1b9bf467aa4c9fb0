//! Tasks: prompts with a reward, in two parts that never overlap, and demonstrations of good answers.
//!
//! Owns what is asked and how an answer is scored; sampling answers is `engine`'s affair. Each shipped task has a file of
//! its own and is a `drawn::Family`; `rows` are prompts that are listed instead, `composed` puts prompts and a reward
//! together that are from different places, and `grader` has a program of the user's give the reward.

pub mod arithmetic;
pub mod composed;
pub mod countdown;
mod draw;
pub mod drawn;
pub mod grader;
pub mod guess;
pub mod reverse;
pub mod rows;
pub mod tldr;

use super::dataset::describe;
use super::encode::{Demo, Pair};
use super::{Batch, Column, Prompt, Prompts, User};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::rng::Key;
use serde_json::Value;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// Something to be learned. Training prompts and held-out ones never overlap; nor do demonstrations and pairs of the
/// one part with prompts of the other.
pub trait Task: std::fmt::Debug {
    fn name(&self) -> &str;

    /// `n` training prompts drawn from `key`.
    fn prompts(&self, n: usize, key: Key) -> Result<Prompts>;

    /// `n` training prompts drawn from `key`, each with a good answer.
    fn demos(&self, n: usize, key: Key) -> Result<Vec<Demo>>;

    /// `n` training prompts drawn from `key`, each with a good answer and a flawed one.
    fn pairs(&self, n: usize, key: Key) -> Result<Vec<Pair>>;

    /// The first `n` held-out prompts in an order that never changes, or all of them if there are fewer.
    fn test_prompts(&self, n: usize) -> Result<Prompts>;

    /// Demonstrations for the first `n` held-out problems.
    fn test_demos(&self, n: usize) -> Result<Vec<Demo>>;

    /// Pairs for the first `n` held-out problems.
    fn test_pairs(&self, n: usize) -> Result<Vec<Pair>>;

    /// The reward of each row, `[B,1]`. Reads the columns that sampling from this task's prompts has set.
    fn score(&self, batch: &Batch) -> Result<Tensor>;

    /// The fields of a prompt that the reward reads.
    fn reads(&self) -> &'static [&'static str];

    /// How many tokens an answer may take when it is evaluated.
    fn max_tokens(&self) -> usize;

    /// How often the assistant may speak: 1 where an answer is all there is.
    fn turns(&self) -> usize {
        1
    }

    /// Who answers the assistant.
    ///
    /// # Errors
    /// A task of one turn has none.
    fn user(&self) -> Result<Rc<dyn User + '_>> {
        Err(no_user(self.name()))
    }
}

/// Every task's name and one line about it.
pub const CATALOG: [(&str, &str); 5] = [
    ("arithmetic", "sums, differences and products with a chosen number of digits; reward 1 for the exact answer"),
    ("countdown", "reach a target from given numbers; reward 1 for any expression that does"),
    ("reverse", "reverse a string of letters; reward: the share of correct positions"),
    ("tldr", "state the facts of a short post briefly; reward: the share of facts, less what is too long"),
    ("guess", "find a number in five turns from \"higher\" and \"lower\"; reward 1 when found"),
];

/// The names of [`CATALOG`].
pub fn names() -> Vec<&'static str> {
    CATALOG.iter().map(|(name, _)| *name).collect()
}

/// Fails unless there is a task called `name`.
pub fn check_name(name: &str) -> Result<()> {
    if names().contains(&name) { Ok(()) } else { Err(Error::unknown("task", name, &names())) }
}

fn no_user(task: &str) -> Error {
    Error::value(format!("{task}: one answer ends the task, so there is no user")).hint("`guess` is a task with a user")
}

/// `[B,1]`: the number of each row.
fn rewards(batch: &Batch, of: impl Fn(usize) -> Result<f64>) -> Result<Tensor> {
    let values = (0..batch.len()).map(|i| Ok(of(i)? as f32)).collect::<Result<Vec<f32>>>()?;
    Tensor::from_vec(values, &[batch.len(), 1], batch.device())
}

/// A column with one value per row; numbers that a script set as a tensor are values again.
fn values(batch: &Batch, name: &str) -> Result<Arc<Vec<Value>>> {
    let tensor = match batch.get(name)? {
        Column::List(list) => return Ok(list),
        Column::Tensor(tensor) => tensor,
    };
    let number = |x: f64| if x.fract() == 0.0 && x.abs() < 2f64.powi(53) { Value::from(x as i64) } else { x.into() };
    let row = |row: Vec<f64>| match row[..] {
        [x] => number(x),
        _ => row.into_iter().map(number).collect(),
    };
    Ok(Arc::new(tensor.to_rows()?.into_iter().map(row).collect()))
}

/// What an answer says; nothing, where there is no text.
fn said(answer: &Value) -> &str {
    answer.as_str().unwrap_or_default()
}

/// A text, or a number as it is written. `place` is the row and the column.
fn written<'a>(place: (usize, &str), value: &'a Value) -> Result<Cow<'a, str>> {
    match value {
        Value::String(text) => Ok(text.into()),
        Value::Number(number) => Ok(number.to_string().into()),
        other => Err(misplaced(place, "a text or a number", other)),
    }
}

/// A whole number, or a text that is one.
fn whole(place: (usize, &str), value: &Value) -> Result<i64> {
    let float = || value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 2f64.powi(53)).map(|x| x as i64);
    let number = value.as_i64().or_else(float).or_else(|| value.as_str()?.trim().parse().ok());
    number.ok_or_else(|| misplaced(place, "a whole number", value))
}

fn misplaced((row, column): (usize, &str), expected: &str, found: &Value) -> Error {
    Error::value(format!("task.score: row {row}: `{column}` must be {expected}, found {}", describe(found)))
        .hint("the reward reads what the prompt's fields say")
}

/// A prompt with a good answer.
fn demo(prompt: Prompt, completion: String) -> Demo {
    Demo { prompt: prompt.content, completion: completion.into(), fields: prompt.fields }
}

/// A prompt with a good answer and a flawed one.
fn pair(prompt: Prompt, chosen: String, rejected: String) -> Pair {
    let Prompt { content, fields } = prompt;
    Pair { prompt: Some(content), chosen: chosen.into(), rejected: rejected.into(), fields }
}

/// `name` must lie in a range; `task` is named in the error.
fn check_range(task: &str, name: &str, found: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(Error::value(format!("{task}: {name} is {found}, expected {} to {}", range.start(), range.end())))
}

/// `name` must be a share.
fn check_share(task: &str, name: &str, found: f64) -> Result<()> {
    if (0.0..=1.0).contains(&found) {
        return Ok(());
    }
    Err(Error::value(format!("{task}: {name} is {found}, expected 0 to 1")))
}

#[cfg(test)]
mod checks;
