//! Running models on rows: packing, sampling, deferred log-probs and their backward pass, optimizers.

pub mod adamw;
mod cache;
mod choose;
pub mod leaf;
pub mod pack;
pub mod sample;
pub mod settings;
pub mod update;

pub use adamw::{Adamw, AdamwOptions, StepStats};
pub use leaf::{entropy, logprob};
pub use sample::{SampleOptions, Samples, sample};
pub use settings::Settings;
pub use update::{Gradient, gradient};
