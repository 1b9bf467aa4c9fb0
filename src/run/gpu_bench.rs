//! A training step of a Qwen2 with random weights on a device, timed: what `rhopo gpu bench` measures.
//!
//! Owns sizes, work and figures; prints nothing.

use crate::engine::{
    AdamwOptions, Engine, ForwardRequest, Measure, ModelHandle, Moments, OpenRequest, Settings, StepRequest, Upstream,
    local,
};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Gpu, Place};
use crate::model::Config;
use crate::model::rows::{Row, Rows};
use crate::tensor::rng::Key;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// A model and its rows.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub name: &'static str,
    vocabulary: usize,
    width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    prompts: usize,
    /// Answers to each prompt, which is computed once for all of them.
    group: usize,
    prompt_tokens: usize,
    answer_tokens: usize,
    /// Whether it needs a GPU to end in a time that anyone waits for.
    large: bool,
}

/// `tiny` runs anywhere; the others are Qwen2's.
pub const SIZES: [Size; 3] = [
    Size {
        name: "tiny",
        vocabulary: 300,
        width: 64,
        inner: 96,
        layers: 2,
        heads: 4,
        prompts: 2,
        group: 2,
        prompt_tokens: 5,
        answer_tokens: 8,
        large: false,
    },
    Size { name: "0.5B", width: 896, inner: 4864, layers: 24, heads: 14, ..QWEN2 },
    Size { name: "1.5B", width: 1536, inner: 8960, layers: 28, heads: 12, ..QWEN2 },
];

/// 32 rows of 256 tokens, shared by 8, and 768 tokens.
const QWEN2: Size = Size {
    name: "",
    vocabulary: 151_936,
    width: 0,
    inner: 0,
    layers: 0,
    heads: 0,
    prompts: 4,
    group: 8,
    prompt_tokens: 256,
    answer_tokens: 768,
    large: true,
};

impl Size {
    /// Rows, and tokens of a prompt and of an answer.
    pub fn rows(&self) -> [usize; 3] {
        [self.prompts * self.group, self.prompt_tokens, self.answer_tokens]
    }

    /// Tokens that a pass computes: those of a prompt once.
    pub fn tokens(&self) -> usize {
        self.prompts * (self.prompt_tokens + self.group * self.answer_tokens)
    }

    /// Operations of a forward pass: 2 for each weight and token, and 4 for each number of a query and each key that it
    /// sees. A backward pass takes twice as many; what is computed again to save memory does not count.
    pub fn operations(&self, parameters: usize) -> f64 {
        let sum = |from: usize, to: usize| (from..to).map(|place| place as f64 + 1.0).sum::<f64>();
        let whole = self.prompt_tokens + self.answer_tokens;
        let seen = sum(0, self.prompt_tokens) + self.group as f64 * sum(self.prompt_tokens, whole);
        let attention = 4.0 * (self.layers * self.width * self.prompts) as f64 * seen;
        2.0 * parameters as f64 * self.tokens() as f64 + attention
    }
}

/// Seconds of the parts of a step.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Log-probs under a frozen copy.
    pub score: f64,
    /// Log-probs under the policy, backward pass and AdamW.
    pub update: f64,
}

/// A policy in bf16 with its frozen copy, ready to step.
pub struct TrainingBench {
    gpu: Gpu,
    engine: Rc<dyn Engine>,
    policy: ModelHandle,
    reference: ModelHandle,
    moments: Moments,
    rows: Arc<Rows>,
}

impl TrainingBench {
    /// # Errors
    /// No GPU; a size that an emulated device would take days for; too little memory.
    pub fn new(size: &Size, place: &Place) -> Result<Self> {
        let gpu = place.gpu().cloned().ok_or_else(|| {
            Error::new(Kind::Device, format!("`rhopo gpu bench` needs a GPU, and {place} is not one"))
                .hint("use --device cuda; `rhopo bench` measures the CPU")
        })?;
        if size.large && gpu.name() == "emulated" {
            let what = format!("a model of {} takes days on an emulated device", size.name);
            return Err(Error::new(Kind::Device, what).hint("use --size tiny there"));
        }
        let config = Config::from_json(&serde_json::json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "vocab_size": size.vocabulary, "hidden_size": size.width, "intermediate_size": size.inner,
            "num_hidden_layers": size.layers, "num_attention_heads": size.heads, "num_key_value_heads": 2,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": true,
        }))?;
        let key = Key::new(0);
        let engine = local(Settings::at(place));
        let policy = engine.open(&OpenRequest::Random { config: Box::new(config), key, place: place.clone() })?;
        let tokens = |stream: usize, count: usize| -> Arc<[u32]> {
            let key = key.fold(1).fold(stream as u64);
            (0..count as u64).map(|at| key.below(at, size.vocabulary as u64) as u32).collect()
        };
        let row = |i: usize| {
            Row::new(tokens(i / size.group, size.prompt_tokens), tokens(size.prompts + i, size.answer_tokens))
        };
        Ok(Self {
            gpu,
            reference: engine.frozen(&policy)?,
            moments: engine.moments(std::slice::from_ref(&policy))?,
            rows: Rows::new((0..size.prompts * size.group).map(row).collect()),
            engine,
            policy,
        })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// N: numbers in the model's parameters.
    pub fn parameters(&self) -> usize {
        self.policy.size
    }

    /// The most bytes that arrays have taken so far.
    pub fn most(&self) -> u64 {
        self.gpu.counters().most
    }

    /// Scores the rows, and takes a step that raises their log-probs.
    ///
    /// # Errors
    /// A device that has failed, or has too little memory.
    pub fn step(&self) -> Result<Timing> {
        let start = Instant::now();
        self.logprob(&self.reference)?;
        let score = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let upstream = self.logprob(&self.policy)?;
        let gradients = self.engine.backward(&upstream)?;
        let options = AdamwOptions { lr: 1e-6, ..AdamwOptions::default() };
        let request = StepRequest { moments: &self.moments, gradients: &gradients, options: &options };
        self.engine.step(&request)?;
        self.gpu.synchronise()?;
        Ok(Timing { score, update: start.elapsed().as_secs_f64() })
    }

    fn logprob(&self, model: &ModelHandle) -> Result<Vec<Upstream>> {
        let (model, rows) = (model.clone(), self.rows.clone());
        let request = ForwardRequest { model, rows, temperature: 1.0, measure: Measure::Logprob };
        let plane = self.engine.forward(&request)?;
        let count = plane.values.len();
        let values = vec![-1.0 / count as f32; count];
        Ok(plane.pass.map(|pass| Upstream { pass, values }).into_iter().collect())
    }
}
