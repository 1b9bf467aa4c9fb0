//! The numbers of one step: what is logged again is averaged. Owns no file (`metrics.rs`, `events.rs`).

use crate::run::exact;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A number being averaged over the calls of one step. What is not finite is left out, unless nothing else came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mean {
    name: String,
    #[serde(with = "exact")]
    sum: f64,
    count: u32,
    /// The last number that was left out.
    #[serde(with = "exact::optional")]
    odd: Option<f64>,
}

impl Mean {
    fn add(&mut self, value: f64) {
        match value.is_finite() {
            true => {
                self.sum += value;
                self.count += 1;
            }
            false => self.odd = Some(value),
        }
    }

    fn value(&self) -> f64 {
        if self.count == 0 { self.odd.unwrap_or(f64::NAN) } else { self.sum / f64::from(self.count) }
    }
}

/// The numbers of one step, in the order in which they were first logged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Line {
    pub step: u64,
    pub(super) means: Vec<Mean>,
}

impl Line {
    pub fn get(&self, name: &str) -> Option<f64> {
        self.means.iter().find(|m| m.name == name).map(Mean::value)
    }

    /// Names and numbers, in the order in which the names were first logged.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, f64)> {
        self.means.iter().map(|mean| (mean.name.as_str(), mean.value()))
    }

    /// Whether nothing was logged.
    pub fn is_empty(&self) -> bool {
        self.means.is_empty()
    }

    pub(super) fn add(&mut self, name: &str, value: f64) {
        let at = self.means.iter().position(|m| m.name == name).unwrap_or_else(|| {
            self.means.push(Mean { name: name.to_string(), sum: 0.0, count: 0, odd: None });
            self.means.len() - 1
        });
        self.means[at].add(value);
    }

    /// What `to_json` has written: the numbers of a line that is over.
    pub(super) fn of(object: &Map<String, Value>) -> Option<Self> {
        let mut line = Self { step: object.get("step")?.as_u64()?, means: Vec::new() };
        for (name, value) in object.iter().filter(|(name, _)| *name != "step") {
            line.add(name, value.as_f64().unwrap_or(f64::NAN));
        }
        Some(line)
    }

    /// `{"step": 3, "seconds": 1.25, "loss": 0.1}`; what is not finite has no JSON number and becomes `null`.
    pub(super) fn to_json(&self, seconds: f64) -> Value {
        let mut object = Map::new();
        object.insert("step".into(), json!(self.step));
        object.insert("seconds".into(), json!(seconds));
        for mean in &self.means {
            object.insert(mean.name.clone(), json!(mean.value()));
        }
        Value::Object(object)
    }
}
