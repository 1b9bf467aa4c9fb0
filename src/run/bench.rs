//! One GRPO step on a random model, taken apart and timed: what `rhopo bench` and the benchmarks measure.
//!
//! Owns shapes of work and the measurement; prints nothing.

use crate::engine::{
    AdamwOptions, Engine, ForwardRequest, Measure, ModelHandle, OpenRequest, Optimizer, SampleOptions, SampleRequest,
    measure,
};
use crate::error::Result;
use crate::gpu::Place;
use crate::model::Config;
use crate::model::rows::Rows;
use crate::rl::{advantage, clip, divergence, mask};
use crate::tensor::rng::Key;
use crate::tensor::{Device, Tensor, ops};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A shape of work, as (prompts, answers per prompt, prompt tokens, answer tokens at most, vocabulary, layers).
/// Width 256, 4 heads and SwiGLU 768 throughout.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub about: &'static str,
    prompts: usize,
    group: usize,
    prompt_tokens: usize,
    max_tokens: usize,
    vocabulary: usize,
    layers: usize,
    /// Whether answers may end before `max_tokens`.
    ends: bool,
}

/// The shapes that `rhopo bench` knows.
pub const SHAPES: [Shape; 4] = [
    Shape {
        name: "uniform",
        about: "128 rows of 8 + 32 tokens",
        prompts: 16,
        group: 8,
        prompt_tokens: 8,
        max_tokens: 32,
        vocabulary: 256,
        layers: 6,
        ends: false,
    },
    Shape {
        name: "ragged",
        about: "128 rows of 8 + up to 256 tokens, 32 on average",
        prompts: 16,
        group: 8,
        prompt_tokens: 8,
        max_tokens: 256,
        vocabulary: 32,
        layers: 6,
        ends: true,
    },
    Shape {
        name: "tldr",
        about: "32 rows of 512 + 53 tokens",
        prompts: 4,
        group: 8,
        prompt_tokens: 512,
        max_tokens: 53,
        vocabulary: 256,
        layers: 6,
        ends: false,
    },
    Shape {
        name: "vocab",
        about: "16 rows of 16 + 64 tokens over 151936 tokens",
        prompts: 2,
        group: 8,
        prompt_tokens: 16,
        max_tokens: 64,
        vocabulary: 151_936,
        layers: 2,
        ends: false,
    },
];

/// How long the parts of one step took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    pub sample: Duration,
    /// Log-probs under the frozen reference.
    pub reference: Duration,
    /// Log-probs under the policy, backward pass and optimizer.
    pub update: Duration,
    /// Answer tokens of the step.
    pub tokens: usize,
}

impl Timing {
    pub fn step(&self) -> Duration {
        self.sample + self.reference + self.update
    }
}

/// A policy, its reference and an optimizer, ready to step.
pub struct Bench {
    shape: Shape,
    engine: Rc<dyn Engine>,
    policy: ModelHandle,
    reference: ModelHandle,
    optimizer: Optimizer,
    prompts: Vec<Vec<u32>>,
    steps: u64,
}

impl Bench {
    pub fn new(shape: Shape, place: &Place, engine: Rc<dyn Engine>) -> Result<Self> {
        let end = if shape.ends { vec![1] } else { vec![] };
        let config = Config::from_json(&serde_json::json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "vocab_size": shape.vocabulary, "hidden_size": 256, "intermediate_size": 768,
            "num_hidden_layers": shape.layers, "num_attention_heads": 4, "num_key_value_heads": 4,
            "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "eos_token_id": end,
        }))?;
        let key = Key::new(0);
        let (config, place) = (Box::new(config), place.clone());
        let policy = engine.open(&OpenRequest::Random { config, key: key.fold(0), place })?;
        let options = AdamwOptions { lr: 1e-5, ..AdamwOptions::default() };
        let token = |i: usize| key.fold(1).below(i as u64, shape.vocabulary as u64 - 3) as u32 + 3;
        let prompt = |p: usize| (0..shape.prompt_tokens).map(|t| token(p * shape.prompt_tokens + t)).collect();
        Ok(Self {
            shape,
            reference: engine.frozen(&policy)?,
            optimizer: Optimizer::adamw(&*engine, std::slice::from_ref(&policy), options)?,
            policy,
            engine,
            prompts: (0..shape.prompts).map(prompt).collect(),
            steps: 0,
        })
    }

    /// Samples, scores under the reference, and takes one step of GRPO's loss with a random reward.
    pub fn step(&mut self) -> Result<Timing> {
        self.steps += 1;
        let key = Key::new(1).fold(self.steps);
        let options =
            SampleOptions { n: self.shape.group, max_tokens: self.shape.max_tokens, ..SampleOptions::default() };
        let start = Instant::now();
        let samples = self.engine.sample(&SampleRequest {
            call: "sample",
            model: self.policy.clone(),
            prompts: self.prompts.clone(),
            places: None,
            options,
            key,
        })?;
        let sampled = Instant::now();
        let reference = self.logprob(&self.reference, &samples.rows)?;
        let scored = Instant::now();
        let loss = self.loss(&samples.rows, &samples.logprobs, &reference, key)?;
        self.optimizer.step(&*self.engine, &loss)?;
        Ok(Timing {
            sample: sampled - start,
            reference: scored - sampled,
            update: scored.elapsed(),
            tokens: samples.rows.iter().map(|row| row.completion.len()).sum(),
        })
    }

    fn logprob(&self, model: &ModelHandle, rows: &Arc<Rows>) -> Result<Tensor> {
        let (model, rows) = (model.clone(), rows.clone());
        measure(&*self.engine, &ForwardRequest { model, rows, temperature: 1.0, measure: Measure::Logprob }, "")
    }

    /// seq_mean(0.04·k3 − min(ratio·A, clip(ratio)·A)), as `scripts/grpo.rhai` has it.
    fn loss(&self, rows: &Arc<Rows>, old: &[Vec<f32>], reference: &Tensor, key: Key) -> Result<Tensor> {
        let (device, width) = (&Device::Cpu, rows.width());
        let padded = |row: &Vec<f32>| row.iter().copied().chain(std::iter::repeat(0.0)).take(width).collect::<Vec<_>>();
        let old = Tensor::from_vec(old.iter().flat_map(padded).collect(), &[rows.len(), width], device)?;
        let inside = rows.iter().flat_map(|row| (0..width).map(|t| f32::from(t < row.completion.len())));
        let inside = Tensor::from_vec(inside.collect(), &[rows.len(), width], device)?;
        let reward = (0..rows.len()).map(|i| key.uniform(i as u64) as f32).collect();
        let advantage = advantage::group(&Tensor::from_vec(reward, &[rows.len(), 1], device)?, self.shape.group)?;
        let logp = self.logprob(&self.policy, rows)?;
        let ratio = ops::EXP.on(&ops::SUB.on(&logp, &old)?)?;
        let clipped = clip(&ratio, &ratio.number(0.8)?, &ratio.number(1.2)?)?;
        let gain = ops::MIN.on(&ops::MUL.on(&ratio, &advantage)?, &ops::MUL.on(&clipped, &advantage)?)?;
        let divergence = ops::MUL.on(&divergence::k3(&logp, reference)?, &logp.number(0.04)?)?;
        mask::seq_mean(&ops::SUB.on(&divergence, &gain)?, &inside)
    }
}
