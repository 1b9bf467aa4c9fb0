//! What an engine is asked and what it answers, as plain data: token rows, keys, temperatures, planes.

use super::handle::{Gradient, ModelHandle, Moments, Pass};
use crate::files::Location;
use crate::gpu::Place;
pub use crate::kernel::divergence::Divergence;
use crate::model::rows::Rows;
use crate::model::{Config, Head, OpenOptions};
use crate::tensor::rng::Key;
use std::sync::Arc;

/// The lowest temperature at which logits of any sound model, divided by it, are numbers of f32.
pub const COLDEST: f64 = 1e-30;

/// Which model to open.
#[derive(Debug, Clone)]
pub enum OpenRequest {
    /// A built-in model, a folder in the Hugging Face layout or a hub id, ready to be trained; folders are opened through
    /// the door of the name.
    Stored { name: Location, options: OpenOptions, place: Place },
    /// A GGUF file, which only answers and scores; its tokenizer, where that is not the file's own.
    Gguf { path: Location, tokenizer: Option<Location> },
    /// Random weights and no tokenizer; the same key gives the same weights.
    Random { config: Box<Config>, key: Key, place: Place },
}

/// What to sample and how to choose.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleOptions {
    /// Answers per prompt.
    pub n: usize,
    /// Tokens per answer at most, the end token included.
    pub max_tokens: usize,
    pub temperature: f64,
    pub top_p: Option<f64>,
    pub top_k: Option<usize>,
    pub min_p: Option<f64>,
    pub greedy: bool,
    /// Texts that end an answer; they are cut from its text, not from its tokens.
    pub stop: Vec<String>,
    /// Random numbers of their own, in place of the run's.
    pub seed: Option<u64>,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            n: 1,
            max_tokens: 64,
            temperature: 1.0,
            top_p: None,
            top_k: None,
            min_p: None,
            greedy: false,
            stop: Vec::new(),
            seed: None,
        }
    }
}

/// `options.n` answers to each prompt.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// The function's name in scripts, for errors.
    pub call: &'static str,
    pub model: ModelHandle,
    /// Token ids.
    pub prompts: Vec<Vec<u32>>,
    /// The prompts' numbers in the keys of random numbers, where they are not 0, 1, …: some of many prompts are answered
    /// as they would be among all.
    pub places: Option<Vec<usize>>,
    pub options: SampleOptions,
    pub key: Key,
}

/// How members of a mixture go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixing {
    /// The softmax of Σ wᵢ·zᵢ; weights may be negative and need not sum to 1 (classifier-free guidance).
    Geometric,
    /// Σ wᵢ·pᵢ / Σ wᵢ, weights 0 or more.
    Linear,
}

/// One model of a mixture and what it reads before the answers.
#[derive(Debug, Clone)]
pub struct Member {
    pub model: ModelHandle,
    /// Token ids, one for each of the request's prompts.
    pub prompts: Vec<Vec<u32>>,
    pub weight: f64,
}

/// Answers of a mixture; at least one member.
#[derive(Debug, Clone)]
pub struct MixtureRequest {
    pub kind: Mixing,
    pub members: Vec<Member>,
    /// The rows' own prompts, and the model whose tokens they are: the first.
    pub sample: SampleRequest,
}

/// What was sampled: rows of one prompt are adjacent, n each.
#[derive(Debug)]
pub struct Samples {
    pub rows: Arc<Rows>,
    /// Of each chosen token, under the full softmax at the temperature (nats).
    pub logprobs: Vec<Vec<f32>>,
    /// Whether the answer ended by itself: an end token or a stop text.
    pub finished: Vec<bool>,
    pub texts: Vec<String>,
    pub temperature: f64,
}

impl Samples {
    /// How many tokens were sampled.
    pub fn tokens(&self) -> u64 {
        self.logprobs.iter().map(|row| row.len() as u64).sum()
    }
}

/// What a forward pass measures.
#[derive(Debug, Clone)]
pub enum Measure {
    /// log π(token) of every completion token, `[B,T]` in nats.
    Logprob,
    /// The entropy of the distribution at every completion token, `[B,T]` in nats.
    Entropy,
    /// The value of the state before every completion token, `[B,T]`.
    Value,
    /// The score of every row at its last token, `[B,1]`.
    Score,
    /// A divergence from a reference at every completion token, `[B,T]` in nats, exact over the vocabulary. The reference
    /// counts as constant, trainable or not. It reads the rows of `under` where there are such: the same completions after
    /// other prompts.
    Divergence { of: Divergence, reference: ModelHandle, under: Option<Arc<Rows>> },
    /// How many tokens are likelier than the one that followed, `[B,T]`; no gradient.
    Rank,
}

impl Measure {
    /// The script's function.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Logprob => "logprob",
            Self::Entropy => "entropy",
            Self::Value => "value",
            Self::Score => "score",
            Self::Divergence { of: Divergence::Full, .. } => "kl::full",
            Self::Divergence { of: Divergence::Forward, .. } => "kl::forward",
            Self::Divergence { of: Divergence::Jsd(_), .. } => "kl::jsd",
            Self::Rank => "rank",
        }
    }

    /// The head that it needs.
    pub fn head(&self) -> Head {
        match self {
            Self::Logprob | Self::Entropy | Self::Divergence { .. } | Self::Rank => Head::Lm,
            Self::Value => Head::Value,
            Self::Score => Head::Score,
        }
    }
}

/// One measurement of some rows. Those of the same model, version, rows and temperature share one forward pass.
#[derive(Debug, Clone)]
pub struct ForwardRequest {
    pub model: ModelHandle,
    pub rows: Arc<Rows>,
    pub temperature: f64,
    pub measure: Measure,
}

/// F of some rows: Σ wᵢ·Jᵢᵀ(diag p − ppᵀ)Jᵢ over their completion tokens, Jᵢ of the logits over the temperature by the
/// trained parameters.
#[derive(Debug, Clone)]
pub struct FisherRequest {
    pub model: ModelHandle,
    pub rows: Arc<Rows>,
    pub temperature: f64,
    /// w, row-major `[B,T]`: a mask over its sum is a mean over the masked tokens.
    pub weights: Vec<f32>,
}

/// Numbers of some rows.
pub struct Plane {
    /// Row-major; cells past a row's end are 0.
    pub values: Vec<f32>,
    /// T, or 1 for scores.
    pub width: usize,
    /// The way back, where the model is trained.
    pub pass: Option<Pass>,
}

/// ∂loss/∂plane, row-major as the plane is.
#[derive(Clone)]
pub struct Upstream {
    pub pass: Pass,
    pub values: Vec<f32>,
}

/// Hyper-parameters of AdamW, with their defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwOptions {
    pub lr: f64,
    pub betas: (f64, f64),
    pub eps: f64,
    /// Per step and unit of lr, on every parameter.
    pub weight_decay: f64,
    /// Largest joint norm of all gradients; larger ones are scaled down to it.
    pub max_norm: f64,
}

impl Default for AdamwOptions {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, max_norm: 1.0 }
    }
}

/// One update of the models that the gradients are of.
pub struct StepRequest<'a> {
    pub moments: &'a Moments,
    pub gradients: &'a [Gradient],
    pub options: &'a AdamwOptions,
}

/// What has a state.
#[derive(Clone, Copy)]
pub enum Stateful<'a> {
    /// The parameters that can change: trained ones, or those of a copy that can be mixed.
    Model(&'a ModelHandle),
    /// A gradient's numbers, which become a gradient again by `Engine::gradient`.
    Gradient(&'a Gradient),
    /// Moments and numbers of steps.
    Optimizer(&'a Moments),
    /// The numbers that a frozen copy has of the parameters that `of` trains.
    Copy { copy: &'a ModelHandle, of: &'a ModelHandle },
}
