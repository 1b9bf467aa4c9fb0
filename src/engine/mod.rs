//! Running models on rows: packing, sampling, deferred log-probs and their backward pass, optimizers.

mod solo;

pub use solo::adamw::{Adamw, AdamwOptions, StepStats};
pub use solo::divergence::kl_full;
pub use solo::generate::generate;
pub use solo::leaf::{entropy, held, logprob, score, value};
pub use solo::sample::{SampleOptions, Samples, sample};
pub use solo::settings::Settings;
pub use solo::update::{Gradient, gradient};
pub use solo::{generate, memory, sample, update};
