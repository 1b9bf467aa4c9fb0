//! Mixtures of several models' next-token distributions: by their logits or by their probabilities.
//!
//! Owns what the logits of a mixture are, and which models go together; `sample` owns the loop.

use super::network::Network;
use crate::engine::request::{Member, Mixing, MixtureRequest};
use crate::error::{Error, Kind, Result};
use crate::kernel::softmax::softmax;

/// How the members of a mixture go together.
pub(super) struct Mixed {
    kind: Mixing,
    weights: Vec<f32>,
}

impl Mixed {
    pub(super) fn of(MixtureRequest { kind, members, .. }: &MixtureRequest) -> Self {
        let total: f64 = members.iter().map(|member| member.weight).sum();
        let share = |member: &Member| match kind {
            Mixing::Geometric => member.weight as f32,
            Mixing::Linear => (member.weight / total) as f32,
        };
        Self { kind: *kind, weights: members.iter().map(share).collect() }
    }

    /// Logits whose softmax at the temperature is the mixture; one row of each member.
    pub(super) fn logits(&self, rows: &[&[f32]], temperature: f64) -> Vec<f32> {
        let scale = (1.0 / temperature) as f32;
        let parts = rows.iter().zip(&self.weights);
        let mut sum = vec![0.0; rows[0].len()];
        match self.kind {
            Mixing::Geometric => {
                for (row, weight) in parts {
                    sum.iter_mut().zip(*row).for_each(|(sum, z)| *sum += weight * z);
                }
            }
            Mixing::Linear => {
                for (row, weight) in parts {
                    let lse = softmax(row, scale).lse;
                    sum.iter_mut().zip(*row).for_each(|(sum, z)| *sum += weight * (z * scale - lse).exp());
                }
                sum.iter_mut().for_each(|p| *p = p.ln() / scale);
            }
        }
        sum
    }
}

/// One vocabulary, one place.
pub(super) fn check(networks: &[&dyn Network], members: &[Member]) -> Result<()> {
    let first = (networks[0], &members[0].model);
    for (network, member) in networks.iter().zip(members) {
        let (own, other) = (first.0.sizes().vocabulary, network.sizes().vocabulary);
        let apart = first.0.vocabulary().zip(network.vocabulary()).is_some_and(|(a, b)| a != b);
        if own != other || apart {
            return Err(Error::model(format!(
                "mixture: {} and {} have other tokens ({own} and {other} of them)",
                first.1.name, member.model.name
            ))
            .hint("members need one tokenizer: their distributions are over the same tokens"));
        }
        if first.0.place() != network.place() {
            return Err(Error::new(Kind::Device, "mixture: its members are in different places")
                .hint("open them with the same `device`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probabilities(logits: &[f32], temperature: f64) -> Vec<f64> {
        let e: Vec<f64> = logits.iter().map(|z| (f64::from(*z) / temperature).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|e| e / sum).collect()
    }

    #[test]
    fn a_mixture_is_what_it_is_said_to_be() {
        let rows: [&[f32]; 2] = [&[0.3, -1.0, 2.0, 0.5], &[1.5, 0.2, -0.4, 0.1]];
        let temperature = 0.7;
        let [p, q] = rows.map(|row| probabilities(row, temperature));
        let linear = Mixed { kind: Mixing::Linear, weights: vec![0.25, 0.75] };
        let found = probabilities(&linear.logits(&rows, temperature), temperature);
        for ((found, p), q) in found.iter().zip(&p).zip(&q) {
            assert!((found - (0.25 * p + 0.75 * q)).abs() < 1e-6);
        }
        // Classifier-free guidance: away from the second.
        let guided = Mixed { kind: Mixing::Geometric, weights: vec![2.5, -1.5] };
        let found = probabilities(&guided.logits(&rows, temperature), temperature);
        let raw: Vec<f64> = p.iter().zip(&q).map(|(p, q)| p.powf(2.5) * q.powf(-1.5)).collect();
        let sum: f64 = raw.iter().sum();
        for (found, raw) in found.iter().zip(raw) {
            assert!((found - raw / sum).abs() < 1e-6);
        }
    }
}
