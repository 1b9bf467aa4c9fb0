//! From logits to a token: temperature, top-k, top-p, min-p, greedy.
//!
//! Filters apply in that order to the softmax at the temperature; the log-prob reported is that of the full softmax.

use crate::kernel::simd::{exp, max, simd, sum_by};

/// How to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    pub temperature: f64,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    pub greedy: bool,
}

impl Choice {
    /// Chooses by the uniform number `u` in [0, 1); overwrites `logits` `[V]`. Returns the token and its log-prob (nats).
    pub fn pick(&self, logits: &mut [f32], u: f64) -> (u32, f32) {
        let lse = scaled(logits, (1.0 / self.temperature) as f32);
        let token = if self.greedy {
            argmax(logits)
        } else if self.filters() {
            self.filtered(logits, lse, u)
        } else {
            let logits = &*logits;
            inverse(logits.iter().enumerate().map(|(i, z)| (i as u32, f64::from(z - lse).exp())), 1.0, u)
        };
        (token, logits[token as usize] - lse)
    }

    fn filters(&self) -> bool {
        self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some()
    }

    /// The kept tokens, most probable first; equal ones in order of their ids.
    fn filtered(&self, z: &[f32], lse: f32, u: f64) -> u32 {
        let mut kept: Vec<(u32, f64)> =
            z.iter().enumerate().map(|(i, z)| (i as u32, f64::from(z - lse).exp())).collect();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if let Some(k) = self.top_k {
            kept.truncate(k.max(1));
        }
        if let Some(p) = self.top_p {
            // The smallest set that holds at least p of what is left; always the first.
            let total: f64 = kept.iter().map(|(_, q)| q).sum();
            let mut before = 0.0;
            let more = |(_, q): &(u32, f64)| {
                let keep = before < p * total;
                before += q;
                keep
            };
            let most = kept.iter().map(more).take_while(|keep| *keep).count().max(1);
            kept.truncate(most);
        }
        if let Some(min_p) = self.min_p {
            let least = min_p * kept[0].1;
            kept.retain(|(_, q)| *q >= least);
        }
        let total = kept.iter().map(|(_, q)| q).sum();
        inverse(kept.into_iter(), total, u)
    }
}

/// The first token at which the cumulated probability passes u·total.
fn inverse(tokens: impl Iterator<Item = (u32, f64)>, total: f64, u: f64) -> u32 {
    let (mut sum, mut last) = (0.0, 0);
    for (token, p) in tokens {
        if p > 0.0 {
            last = token;
        }
        sum += p;
        if sum > u * total {
            return token;
        }
    }
    // Rounding left the sum just below u·total: the last token that has any probability.
    last
}

fn argmax(z: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in z.iter().enumerate() {
        if *v > z[best] {
            best = i;
        }
    }
    best as u32
}

simd! {
    /// Scales logits in place and returns their log-sum-exp.
    pub(super) fn scaled(logits: &mut [f32], scale: f32) -> f32 {
        logits.iter_mut().for_each(|z| *z *= scale);
        let top = max(logits);
        top + sum_by(logits.len(), |i| exp(logits[i] - top)).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Choice = Choice { temperature: 1.0, top_k: None, top_p: None, min_p: None, greedy: false };

    fn support(choice: Choice, logits: &[f32]) -> Vec<u32> {
        let mut seen: Vec<u32> = (0..2000).map(|i| choice.pick(&mut logits.to_vec(), i as f64 / 2000.0).0).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln()).collect();
        assert_eq!(support(PLAIN, &logits), [0, 1, 2, 3]);
        assert_eq!(support(Choice { top_k: Some(2), ..PLAIN }, &logits), [1, 3]);
        assert_eq!(support(Choice { top_p: Some(0.65), ..PLAIN }, &logits), [1, 3]);
        assert_eq!(support(Choice { top_p: Some(0.75), ..PLAIN }, &logits), [1, 2, 3]);
        assert_eq!(support(Choice { min_p: Some(0.6), ..PLAIN }, &logits), [1, 3]);
        assert_eq!(support(Choice { greedy: true, ..PLAIN }, &logits), [1]);
        assert_eq!(
            support(Choice { top_p: Some(1e-9), ..PLAIN }, &logits),
            [1],
            "the most probable token always stays"
        );
    }

    #[test]
    fn the_logprob_is_that_of_the_full_softmax_at_the_temperature() {
        let choice = Choice { temperature: 2.0, top_k: Some(1), ..PLAIN };
        let (token, logprob) = choice.pick(&mut [0.0, 2.0, 1.0], 0.3);
        let exact = 1.0 - (0f64.exp() + 1f64.exp() + 0.5f64.exp()).ln();
        assert_eq!(token, 1);
        assert!((f64::from(logprob) - exact).abs() < 1e-6);
    }
}
