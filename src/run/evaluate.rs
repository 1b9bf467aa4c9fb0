//! How good a model is at a task, on prompts that it was never trained on.

use crate::data::dialogue::Start;
use crate::data::{Batch, Task};
use crate::engine::{Engine, ModelHandle, SampleOptions, SampleRequest};
use crate::error::{Error, Result};
use crate::run::converse::{ConverseOptions, ConverseRequest, Partner, converse};
use crate::tensor::Device;
use crate::tensor::rng::Key;

const CALL: &str = "evaluate";
/// The reward from which an answer counts as right, as in pass@k of `std/evaluation`.
const RIGHT: f64 = 1.0;

/// How a model is evaluated.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Held-out prompts, all of them if there are fewer.
    pub n: usize,
    /// Of an answer, or of each turn of a dialogue; the task's own number unless given.
    pub max_tokens: Option<usize>,
    /// Where the answers' random numbers begin.
    pub key: Key,
    pub sampling: Sampling,
}

/// How the answers of an evaluation are chosen.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Answers to each prompt.
    pub samples: usize,
    pub temperature: f64,
    pub top_p: Option<f64>,
    pub greedy: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { samples: 1, temperature: 1.0, top_p: None, greedy: false }
    }
}

/// What an evaluation came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Mean reward over all answers.
    pub mean: f64,
    /// Standard error of `mean`: that of the prompts' own means, as answers to one prompt are alike. NaN with one prompt.
    pub se: f64,
    /// Share of the prompts to which at least one answer is right (reward 1 or more).
    pub pass: f64,
}

/// Rewards of sampled answers, or dialogues with the task's user, to each of the task's first held-out prompts.
///
/// # Errors
/// Options outside their range; those of the task and of sampling.
pub fn evaluate(engine: &dyn Engine, task: &dyn Task, model: &ModelHandle, evaluation: &Evaluation) -> Result<Outcome> {
    let Evaluation { n, key, .. } = *evaluation;
    let Sampling { samples, temperature, top_p, greedy } = evaluation.sampling;
    if let Some((name, _)) = [("n", n), ("samples", samples)].iter().find(|(_, value)| *value == 0) {
        return Err(Error::value(format!("{CALL}: {name} is 0, expected at least 1")));
    }
    if greedy && samples > 1 {
        return Err(Error::value(format!(
            "{CALL}: samples is {samples}, but greedy answers to a prompt are all the same"
        ))
        .hint("leave out samples, or greedy"));
    }
    let prompts = task.test_prompts(n)?;
    model.require_tokenizer(CALL)?;
    let max_tokens = evaluation.max_tokens.unwrap_or(task.max_tokens());
    prompts.measure_origin(model, max_tokens, false)?;
    let sample = SampleOptions { n: samples, max_tokens, temperature, top_p, greedy, ..SampleOptions::default() };
    let answered = if task.turns() > 1 {
        let options = ConverseOptions { turns: task.turns(), sample };
        // A scripted user draws nothing: the second key is never used.
        let keys = [key, key.fold(1)];
        let (user, start) = (task.user()?, Start::Prompts(&prompts));
        converse(engine, &ConverseRequest { policy: model, partner: Partner::User(&*user), start, options, keys })?
    } else {
        let answers = engine.sample(&SampleRequest {
            call: CALL,
            model: model.clone(),
            prompts: prompts.encode(model, false)?,
            places: None,
            options: sample,
            key,
        })?;
        Batch::from_samples(answers, &prompts, samples, &Device::Cpu)?
    };
    Ok(outcome(&task.score(&answered)?.to_vec()?, samples))
}

/// `rewards` of `samples` adjacent answers to each prompt; one prompt at least.
fn outcome(rewards: &[f64], samples: usize) -> Outcome {
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    let prompts = (rewards.len() / samples) as f64;
    let each = rewards.chunks(samples).map(|group| group.iter().sum::<f64>() / samples as f64);
    let spread = each.map(|own| (own - mean).powi(2)).sum::<f64>();
    // Bessel's correction: with one prompt nothing is known of the spread.
    let se = (spread / (prompts - 1.0) / prompts).sqrt();
    let passed = rewards.chunks(samples).filter(|group| group.iter().any(|reward| *reward >= RIGHT)).count();
    Outcome { mean, se, pass: passed as f64 / prompts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_the_prompts_means() {
        // numpy: m = [[1, 0], [1, 1], [0, 0], [0.5, 0]]; m.mean(); m.mean(1).std(ddof=1) / 2
        let found = outcome(&[1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.5, 0.0], 2);
        assert_eq!((found.mean, found.pass), (0.4375, 0.5));
        assert!((found.se - 0.213_478_4).abs() < 1e-6, "{}", found.se);
        // One answer to each prompt: the usual error of a share, sqrt(p (1 - p) / (n - 1)).
        let found = outcome(&[1.0, 0.0, 0.0, 1.0, 0.0], 1);
        assert!((found.se - (0.4_f64 * 0.6 / 4.0).sqrt()).abs() < 1e-12, "{}", found.se);
        assert_eq!((found.mean, found.pass), (0.4, 0.4));
        let found = outcome(&[0.25, 0.75], 2);
        assert!(found.mean == 0.5 && found.pass == 0.0 && found.se.is_nan());
    }
}
