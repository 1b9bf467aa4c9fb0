//! A task put together: prompts from one place, the reward from another.

use super::rows::Rows;
use super::{Task, User};
use crate::data::encode::{Demo, Pair};
use crate::data::{Batch, Prompts};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::tensor::rng::Key;
use std::rc::Rc;

/// What an answer is worth, wherever its prompt is from.
pub trait Reward: std::fmt::Debug {
    /// `[B,1]`. Reads the columns that sampling has set: `prompt`, `text`, and the prompts' fields.
    ///
    /// # Errors
    /// Columns that are not there or are not what they must be.
    fn score(&self, batch: &Batch) -> Result<Tensor>;
}

/// `base`, but for what others give in its place.
#[derive(Debug, Clone, Copy)]
pub struct Composed<'a> {
    pub base: &'a dyn Task,
    /// Prompts and answers.
    pub rows: Option<&'a Rows>,
    pub reward: Option<&'a dyn Reward>,
}

impl Task for Composed<'_> {
    fn name(&self) -> &str {
        self.base.name()
    }

    fn prompts(&self, n: usize, key: Key) -> Result<Prompts> {
        self.rows.map_or_else(|| self.base.prompts(n, key), |rows| Ok(rows.prompts(n, key)))
    }

    fn demos(&self, n: usize, key: Key) -> Result<Vec<Demo>> {
        self.rows.map_or_else(|| self.base.demos(n, key), |rows| rows.demos(n, key))
    }

    fn pairs(&self, n: usize, key: Key) -> Result<Vec<Pair>> {
        self.rows.map_or_else(|| self.base.pairs(n, key), |rows| rows.pairs(n, key))
    }

    fn test_prompts(&self, n: usize) -> Result<Prompts> {
        self.rows.map_or_else(|| self.base.test_prompts(n), |rows| rows.test_prompts(n))
    }

    fn test_demos(&self, n: usize) -> Result<Vec<Demo>> {
        self.rows.map_or_else(|| self.base.test_demos(n), |rows| rows.test_demos(n))
    }

    fn test_pairs(&self, n: usize) -> Result<Vec<Pair>> {
        self.rows.map_or_else(|| self.base.test_pairs(n), |rows| rows.test_pairs(n))
    }

    fn score(&self, batch: &Batch) -> Result<Tensor> {
        self.reward.map_or_else(|| self.base.score(batch), |reward| reward.score(batch))
    }

    fn reads(&self) -> &'static [&'static str] {
        if self.reward.is_some() { &[] } else { self.base.reads() }
    }

    fn max_tokens(&self) -> usize {
        self.base.max_tokens()
    }

    fn turns(&self) -> usize {
        self.base.turns()
    }

    fn user(&self) -> Result<Rc<dyn User + '_>> {
        self.base.user()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::task::arithmetic::Arithmetic;
    use crate::data::task::checks::{column, reward};
    use crate::data::task::drawn::Drawn;
    use serde_json::{Value, json};

    #[derive(Debug)]
    struct Length;

    impl Reward for Length {
        fn score(&self, batch: &Batch) -> Result<Tensor> {
            let texts = batch.list("text")?;
            super::super::rewards(batch, |i| Ok(texts[i].as_str().map_or(0.0, |text| text.len() as f64)))
        }
    }

    #[test]
    fn prompts_are_the_rows_and_the_reward_is_whose_it_is_to_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.jsonl");
        let lines: String =
            (0..10).map(|i| json!({"prompt": format!("{i}+1="), "answer": i + 1}).to_string() + "\n").collect();
        std::fs::write(&path, lines).expect("written");
        let (base, rows) = (
            Drawn::new(Arithmetic::new(2, &["+"]).expect("a task")),
            Rows::open(&crate::files::anywhere(&path)).expect("rows"),
        );
        let task = Composed { base: &base, rows: Some(&rows), reward: None };
        let prompts = task.prompts(4, Key::new(2)).expect("prompts");
        let answers: Vec<Value> = prompts.items.iter().map(|prompt| prompt.fields["answer"].clone()).collect();
        let said: Vec<Value> = answers.iter().map(|answer| answer.to_string().into()).collect();
        let columns = || vec![column("text", said.clone()), column("answer", answers.clone())];
        assert_eq!(reward(&task, columns()).expect("rewards"), [1.0; 4], "numbers as in the file");
        assert_eq!((task.reads(), task.max_tokens()), (base.reads(), base.max_tokens()));
        let other = Composed { reward: Some(&Length), ..task };
        let lengths: Vec<f64> = said.iter().map(|text| text.as_str().map_or(0.0, |text| text.len() as f64)).collect();
        assert_eq!(reward(&other, columns()).expect("rewards"), lengths);
        assert!(other.reads().is_empty(), "what only the task's own reward reads need not be there");
    }
}
