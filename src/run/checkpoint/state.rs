//! What a checkpoint holds of a run beside its script's values: where it stands, and what it has written.

use crate::run::exact;
use crate::run::meter::Spent;
use crate::run::metrics::MetricsState;
use crate::run::suspect::Suspect;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// As it is written, first of all files of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunState {
    /// Steps that are done.
    pub step: u64,
    /// Which of the script's step loops is under way, from 1.
    pub number: u64,
    /// That loop's first step.
    pub first: u64,
    pub seed: u64,
    /// Tokens that models have sampled.
    pub sampled: u64,
    /// What the step that is done has cost; older checkpoints do not say.
    #[serde(default)]
    pub spent: Spent,
    pub suspect: Option<Suspect>,
    /// Seconds that the run has lasted.
    #[serde(with = "exact")]
    pub seconds: f64,
    pub metrics: MetricsState,
    /// The best model that was kept: of which number, its value, and when.
    pub best: Option<Best>,
    /// Bytes of `samples.jsonl` and `log.txt`; older checkpoints do not say.
    #[serde(default)]
    pub samples: Option<u64>,
    #[serde(default)]
    pub log: Option<u64>,
    /// The script's values, in the form of whoever wrote them.
    pub values: Value,
}

/// The best of what was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub name: String,
    #[serde(with = "exact")]
    pub value: f64,
    pub step: u64,
}
