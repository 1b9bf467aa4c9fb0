//! What the phases of a step must compute and read at least, from the rows that were run, and so how long they take at
//! least on a machine.
//!
//! With M numbers in the matrices of the layers (queries, keys, values and output of attention; three of SwiGLU), V·H in
//! the head, and a token that *sees* the tokens of its row up to itself:
//!
//! - **Forward**: 2·M operations for each token, 2·V·H for each token that is measured or continued, and
//!   4·layers·heads·dim for each token that a token sees (scores and weighted values). A prompt's tokens count once for
//!   all the answers that follow it; an answer's last token is not run. The weights, 4·(M + V·H) bytes, are read once.
//! - **Sampling**: a forward pass over the prompts, measured at their ends, then a step for every further token of the
//!   longest answer. A step runs one token of each answer that has not ended; it reads the weights once, and the keys and
//!   values of what its tokens see, 8·layers·key heads·dim bytes a token: a prompt's once for all of its answers.
//! - **Update**: forward and backward pass take 3 times a forward pass's operations, read the weights twice and write the
//!   gradients once. Then AdamW, which needs the norm of all gradients before it begins, reads weights, gradients and two
//!   moments, and writes weights and moments: 7 times the bytes of the weights.
//!
//! Passes and steps wait for each other, so each takes max(operations / peak, bytes / bandwidth), and a phase the sum of
//! its own. What an engine could do without does not count: what is computed again to save memory (a head's logits in the
//! backward pass), activations, logits and packed copies on their way through memory, norms and other elementwise work,
//! choosing tokens. Nothing is taken to stay in caches from one pass to the next; weights that do, those of the small
//! shapes, can be read faster than memory is.

use super::shape::Sizes;
use crate::model::rows::Rows;
use crate::run::machine::Machine;
use std::collections::BTreeMap;
use std::ops::Mul;

/// What a pass or a step must do at least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Of f32; a multiply-add is two.
    pub operations: f64,
    /// To read, or to write.
    pub bytes: f64,
}

impl Work {
    /// The shortest time that it takes.
    pub fn seconds(&self, machine: &Machine) -> f64 {
        (self.operations / machine.operations).max(self.bytes / machine.reading)
    }

    /// Whether reading takes longer than multiplying.
    pub fn reads(&self, machine: &Machine) -> bool {
        self.bytes / machine.reading > self.operations / machine.operations
    }
}

/// A forward pass of all rows, each prompt once.
pub(super) fn forward(sizes: &Sizes, rows: &Rows) -> Work {
    let (mut tokens, mut measured, mut seen) = (0, 0, 0);
    for (prompt, answers) in by_prompt(rows) {
        tokens += prompt;
        measured += 1;
        seen += triangle(0, prompt);
        for answer in answers {
            tokens += answer - 1;
            measured += answer - 1;
            seen += triangle(prompt, prompt + answer - 1);
        }
    }
    sizes.pass(tokens, measured, seen)
}

/// A pass over the prompts, then one for each further token of the longest answer.
pub(super) fn sampling(sizes: &Sizes, rows: &Rows) -> Vec<Work> {
    let groups = by_prompt(rows);
    let (prompts, count) = (groups.iter().map(|(prompt, _)| prompt), groups.len());
    let prefill = sizes.pass(prompts.clone().sum(), count, prompts.map(|&prompt| triangle(0, prompt)).sum());
    let longest = groups.iter().flat_map(|(_, answers)| answers).max().copied().unwrap_or(0);
    let step = |done: usize| {
        let (mut active, mut seen, mut kept) = (0, 0, 0);
        for (prompt, answers) in &groups {
            let going = answers.iter().filter(|answer| **answer > done).count();
            active += going;
            seen += going * (prompt + done);
            kept += if going > 0 { prompt + going * done } else { 0 };
        }
        let pass = sizes.pass(active, active, seen);
        Work { bytes: pass.bytes + sizes.key_value_bytes() * kept as f64, ..pass }
    };
    std::iter::once(prefill).chain((1..longest).map(step)).collect()
}

/// Forward and backward pass, then AdamW.
pub(super) fn update(sizes: &Sizes, rows: &Rows) -> Vec<Work> {
    let (forward, weights) = (forward(sizes, rows), sizes.weight_bytes());
    let passes = forward * 3.0;
    vec![passes, Work { operations: 0.0, bytes: 7.0 * weights }]
}

impl Mul<f64> for Work {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { operations: self.operations * times, bytes: self.bytes * times }
    }
}

/// Different prompts by their tokens: how many these are, and how many tokens each of the answers has.
fn by_prompt(rows: &Rows) -> Vec<(usize, Vec<usize>)> {
    let mut groups: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
    for row in rows.iter() {
        groups.entry(&row.prompt).or_default().push(row.completion.len());
    }
    groups.into_iter().map(|(prompt, answers)| (prompt.len(), answers)).collect()
}

/// How many tokens those from place `from` to before `to` of a row see.
fn triangle(from: usize, to: usize) -> usize {
    (to * (to + 1) - from * (from + 1)) / 2
}

impl Sizes {
    /// A forward pass over `tokens`, of which the head reads `measured`, and which see `seen` in all.
    fn pass(&self, tokens: usize, measured: usize, seen: usize) -> Work {
        let attention = 4 * self.layers * self.heads * self.head_dim;
        let products = 2.0 * (self.layers() * tokens as f64 + self.head() * measured as f64);
        Work { operations: products + attention as f64 * seen as f64, bytes: self.weight_bytes() }
    }

    /// M: numbers in the matrices of the layers.
    fn layers(&self) -> f64 {
        let (queries, keys) = (self.heads * self.head_dim, self.key_heads * self.head_dim);
        (self.layers * self.width * (2 * queries + 2 * keys + 3 * self.inner)) as f64
    }

    /// V·H
    fn head(&self) -> f64 {
        (self.vocabulary * self.width) as f64
    }

    fn weight_bytes(&self) -> f64 {
        4.0 * (self.layers() + self.head())
    }

    /// Keys and values of one token.
    fn key_value_bytes(&self) -> f64 {
        (8 * self.layers * self.key_heads * self.head_dim) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::SHAPES;
    use super::*;
    use crate::model::rows::Row;
    use std::sync::Arc;

    fn rows(list: &[(&[u32], usize)]) -> Arc<Rows> {
        let row = |(prompt, answer): &(&[u32], usize)| Row::new(*prompt, (0..*answer as u32).collect::<Vec<_>>());
        Rows::new(list.iter().map(row).collect())
    }

    /// `tiny` as its folder has it: width 128, 5 layers, 4 heads of 32, 2 of keys, SwiGLU of 384, 104 tokens.
    fn tiny() -> Sizes {
        SHAPES.iter().find(|shape| shape.name == "wide").unwrap().model
    }

    const LAYERS: f64 = 5.0 * (128.0 * 128.0 * 2.0 + 2.0 * 128.0 * 64.0 + 3.0 * 128.0 * 384.0);
    const HEAD: f64 = 104.0 * 128.0;
    const SEEN: f64 = 4.0 * 5.0 * 4.0 * 32.0;
    const WEIGHTS: f64 = 4.0 * (LAYERS + HEAD);

    #[test]
    fn a_pass_runs_a_shared_prompt_once_and_no_last_token() {
        // Prompts of 3 and 1 tokens; answers of 2, 4 and 1. Run are 3 + 1 + 3 and 1 + 0 tokens.
        let rows = rows(&[(&[5, 6, 7], 2), (&[5, 6, 7], 4), (&[9], 1)]);
        let seen = (1 + 2 + 3) + 4 + (4 + 5 + 6) + 1;
        let work = forward(&tiny(), &rows);
        assert_eq!(work.operations, 2.0 * LAYERS * 8.0 + 2.0 * HEAD * 6.0 + SEEN * f64::from(seen));
        assert_eq!(work.bytes, WEIGHTS);
        let [passes, adamw] = update(&tiny(), &rows)[..] else { panic!("two parts") };
        assert_eq!((passes.operations, passes.bytes), (3.0 * work.operations, 3.0 * WEIGHTS));
        assert_eq!((adamw.operations, adamw.bytes), (0.0, 7.0 * WEIGHTS));
    }

    #[test]
    fn sampling_reads_the_weights_for_every_token_of_the_longest_answer() {
        let rows = rows(&[(&[5, 6, 7], 2), (&[5, 6, 7], 4), (&[9], 1)]);
        let kept = |tokens: f64| WEIGHTS + 8.0 * 5.0 * 2.0 * 32.0 * tokens;
        let work = |tokens: f64, measured: f64, seen: f64| 2.0 * (LAYERS * tokens + HEAD * measured) + SEEN * seen;
        let expected = [
            Work { operations: work(4.0, 2.0, 7.0), bytes: WEIGHTS },
            // Both answers to the first prompt: each sees it and itself.
            Work { operations: work(2.0, 2.0, 8.0), bytes: kept(5.0) },
            Work { operations: work(1.0, 1.0, 5.0), bytes: kept(5.0) },
            Work { operations: work(1.0, 1.0, 6.0), bytes: kept(6.0) },
        ];
        assert_eq!(sampling(&tiny(), &rows), expected);
    }

    #[test]
    fn sampled_tokens_cost_what_scoring_them_costs() {
        // Ends differ in what is measured alone: every answer's tokens are, and of each prompt the last.
        let rows = rows(&[(&[5, 6, 7], 9), (&[5, 6, 7], 4), (&[9, 8], 17)]);
        let sampled: f64 = sampling(&tiny(), &rows).iter().map(|work| work.operations).sum();
        assert_eq!(sampled, forward(&tiny(), &rows).operations);
    }

    #[test]
    fn the_slower_of_both_limits_holds() {
        let machine = Machine { operations: 100.0, reading: 10.0, threads: 1, instructions: "portable" };
        assert_eq!(Work { operations: 200.0, bytes: 10.0 }.seconds(&machine), 2.0);
        assert_eq!(Work { operations: 200.0, bytes: 30.0 }.seconds(&machine), 3.0);
    }

    #[test]
    fn sizes_are_those_of_the_models() {
        let real = SHAPES.iter().find(|shape| shape.name == "real").unwrap().model;
        // Parameters of SmolLM2-135M less its 61 norms of width 576.
        assert_eq!(real.layers() + real.head(), 134_515_008.0 - 61.0 * 576.0);
    }
}
