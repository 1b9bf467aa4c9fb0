//! Where a number that is not finite was first seen.

use crate::run::exact;
use serde::{Deserialize, Serialize};

/// The first number in a column that is not finite: what a NaN loss is traced back to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    pub column: String,
    pub row: usize,
    #[serde(with = "exact")]
    pub value: f64,
    pub step: u64,
}
