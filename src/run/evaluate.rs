//! How good a model is at a task, on prompts that it was never trained on.

use crate::data::Batch;
use crate::data::Task;
use crate::engine::{self, SampleOptions, Settings};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tensor::rng::Key;
use std::sync::Arc;

/// The mean reward of one answer, sampled at temperature 1, to each of the task's first `n` held-out prompts.
pub fn mean_reward(task: &dyn Task, model: &Arc<Model>, n: usize, key: Key, settings: &Settings) -> Result<f64> {
    if n == 0 {
        return Err(Error::value("evaluate: n is 0, expected at least 1"));
    }
    let prompts = task.held_out(n)?;
    model.require_tokenizer("evaluate")?;
    let ids = prompts.encode(model, false)?;
    let options = SampleOptions { n: 1, max_tokens: task.max_tokens(), ..SampleOptions::default() };
    let samples = engine::sample(model, &ids, &options, key, settings)?;
    let rewards = task.score(&Batch::from_samples(samples, &prompts, 1, model.device())?)?.to_vec()?;
    Ok(rewards.iter().sum::<f64>() / rewards.len() as f64)
}
