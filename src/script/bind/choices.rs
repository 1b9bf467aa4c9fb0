//! The options of `sample`, `generate` and `converse`: one set, of which each takes what it has use for.

use crate::engine::SampleOptions;
use crate::script::lang::native::options;

options! {
    /// How answers are drawn: of all three.
    pub(super) struct Choices {
        /// answers per prompt, so that B = P·n
        n: usize = 1,
        /// tokens per answer, or turn, at most, the end token included
        max_tokens: usize = 64,
        /// divides the logits
        temperature: f64 = 1.0,
        /// only the k most probable tokens
        top_k: Option<usize>,
        /// only the most probable tokens that together hold this share
        top_p: Option<f64>,
        /// only tokens at least this share as probable as the most probable one
        min_p: Option<f64>,
        /// the most probable token each time
        greedy: bool = false,
        /// random numbers of its own instead of the run's
        seed: Option<u64>,
    }
}

options! {
    /// Of `sample` and `generate`.
    pub(super) struct Answering: choices: Choices {
        /// texts that end an answer; they are cut from `text`, not from the tokens
        stop: Option<Vec<String>>,
        /// whether special tokens written out in prompts are control tokens, as in a text from model.chat
        special: bool = false,
    }
}

options! {
    /// Of `converse`.
    pub(super) struct Conversing: choices: Choices {
        /// how often the assistant speaks at most, kept turns included
        turns: usize = 5,
    }
}

impl From<Choices> for SampleOptions {
    fn from(choices: Choices) -> Self {
        let Choices { n, max_tokens, temperature, top_k, top_p, min_p, greedy, seed } = choices;
        Self { n, max_tokens, temperature, top_p, top_k, min_p, greedy, stop: Vec::new(), seed }
    }
}

impl From<Answering> for SampleOptions {
    fn from(answering: Answering) -> Self {
        Self { stop: answering.stop.unwrap_or_default(), ..answering.choices.into() }
    }
}
