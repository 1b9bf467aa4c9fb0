//! How good a model is at a task, on prompts that it was never trained on.

use crate::data::dialogue::Start;
use crate::data::{Batch, Task};
use crate::engine::{Engine, ModelHandle, SampleOptions, SampleRequest};
use crate::error::{Error, Result};
use crate::run::converse::{ConverseOptions, ConverseRequest, Partner, converse};
use crate::tensor::Device;
use crate::tensor::rng::Key;

/// How a model is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation {
    /// Held-out prompts, all of them if there are fewer.
    pub n: usize,
    /// Of an answer, or of each turn of a dialogue; the task's own number unless given.
    pub max_tokens: Option<usize>,
    /// Where the answers' random numbers begin.
    pub key: Key,
}

/// The mean reward of one answer, or one dialogue with the task's user, sampled at temperature 1, to each of the task's
/// first held-out prompts.
pub fn mean_reward(engine: &dyn Engine, task: &dyn Task, model: &ModelHandle, evaluation: &Evaluation) -> Result<f64> {
    if evaluation.n == 0 {
        return Err(Error::value("evaluate: n is 0, expected at least 1"));
    }
    let key = evaluation.key;
    let prompts = task.test_prompts(evaluation.n)?;
    model.require_tokenizer("evaluate")?;
    let max_tokens = evaluation.max_tokens.unwrap_or(task.max_tokens());
    prompts.measure_origin(model, max_tokens, false)?;
    let sample = SampleOptions { n: 1, max_tokens, ..SampleOptions::default() };
    let answered = if task.turns() > 1 {
        let options = ConverseOptions { turns: task.turns(), sample };
        // A scripted user draws nothing: the second key is never used.
        let keys = [key, key.fold(1)];
        let (user, start) = (task.user()?, Start::Prompts(&prompts));
        converse(engine, &ConverseRequest { policy: model, partner: Partner::User(&*user), start, options, keys })?
    } else {
        let samples = engine.sample(&SampleRequest {
            call: "sample",
            model: model.clone(),
            prompts: prompts.encode(model, false)?,
            places: None,
            options: sample,
            key,
        })?;
        Batch::from_samples(samples, &prompts, 1, &Device::Cpu)?
    };
    let rewards = task.score(&answered)?.to_vec()?;
    Ok(rewards.iter().sum::<f64>() / rewards.len() as f64)
}
