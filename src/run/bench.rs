//! One GRPO step on a random model, taken apart and timed: what `rhopo bench` and the benchmarks measure.
//!
//! Owns the measurement; `shape` has the shapes of work, `work` what they take at least. Prints nothing.

mod shape;
mod work;

pub use shape::{SHAPES, Shape};
pub use work::Work;

use crate::engine::{
    AdamwOptions, Engine, ForwardRequest, Measure, ModelHandle, OpenRequest, Optimizer, SampleOptions, SampleRequest,
    measure,
};
use crate::error::Result;
use crate::gpu::Place;
use crate::model::rows::Rows;
use crate::rl::{advantage, clip, divergence, mask};
use crate::run::machine::Machine;
use crate::tensor::rng::Key;
use crate::tensor::{Device, Tensor, ops};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a phase took, and what it had to do.
#[derive(Debug, Clone, Default)]
pub struct Phase {
    pub elapsed: Duration,
    pub work: Vec<Work>,
}

impl Phase {
    /// Seconds that the work takes at least.
    pub fn floor(&self, machine: &Machine) -> f64 {
        self.work.iter().map(|work| work.seconds(machine)).sum()
    }

    /// The limit that most of the floor comes from.
    pub fn limit(&self, machine: &Machine) -> &'static str {
        let reading: f64 = self.work.iter().filter(|work| work.reads(machine)).map(|work| work.seconds(machine)).sum();
        if reading > self.floor(machine) / 2.0 { "reading" } else { "multiply-adds" }
    }
}

/// The phases of one step.
#[derive(Debug, Clone)]
pub struct Timing {
    pub sample: Phase,
    /// Log-probs under the frozen reference.
    pub reference: Phase,
    /// Log-probs under the policy, backward pass and optimizer.
    pub update: Phase,
    /// Answer tokens of the step.
    pub tokens: usize,
}

impl Timing {
    pub fn step(&self) -> Phase {
        let phases = [&self.sample, &self.reference, &self.update];
        Phase {
            elapsed: phases.iter().map(|phase| phase.elapsed).sum(),
            work: phases.iter().flat_map(|phase| phase.work.clone()).collect(),
        }
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
        let end: &[u32] = if shape.ends { &[1] } else { &[] };
        let config = shape.model.config(end)?;
        let key = Key::new(0);
        let (config, place) = (Box::new(config), place.clone());
        let policy = engine.open(&OpenRequest::Random { config, key: key.fold(0), place })?;
        let options = AdamwOptions { lr: 1e-5, ..AdamwOptions::default() };
        let token = |i: usize| key.fold(1).below(i as u64, shape.model.vocabulary as u64 - 3) as u32 + 3;
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
        let updated = Instant::now();
        let (sizes, rows) = (&self.shape.model, &samples.rows);
        Ok(Timing {
            sample: Phase { elapsed: sampled - start, work: work::sampling(sizes, rows) },
            reference: Phase { elapsed: scored - sampled, work: vec![work::forward(sizes, rows)] },
            update: Phase { elapsed: updated - scored, work: work::update(sizes, rows) },
            tokens: rows.iter().map(|row| row.completion.len()).sum(),
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
        let reward = Tensor::from_vec(reward, &[rows.len(), 1], device)?;
        // An answer that is alone has no group to be better than.
        let advantage = if self.shape.group > 1 { advantage::group(&reward, self.shape.group)? } else { reward };
        let logp = self.logprob(&self.policy, rows)?;
        let ratio = ops::EXP.on(&ops::SUB.on(&logp, &old)?)?;
        let clipped = clip(&ratio, &ratio.number(0.8)?, &ratio.number(1.2)?)?;
        let gain = ops::MIN.on(&ops::MUL.on(&ratio, &advantage)?, &ops::MUL.on(&clipped, &advantage)?)?;
        let divergence = ops::MUL.on(&divergence::k3(&logp, reference)?, &logp.number(0.04)?)?;
        mask::seq_mean(&ops::SUB.on(&divergence, &gain)?, &inside)
    }
}
