//! The options of `sample`, `generate` and `converse`: what they mean, and reading them, side by side.

use crate::engine::SampleOptions;
use crate::error::Result;
use crate::script::options::Options;
use crate::script::registry::Param;
use rhai::Dynamic;

/// The options that `choices` reads: of `sample`, `generate` and `converse`.
pub(super) const CHOICES: [Param; 8] = [
    Param::new("n", "int", "answers per prompt, so that B = P·n; 1 unless given"),
    Param::new("max_tokens", "int", "tokens per answer, or turn, at most, the end token included; 64 unless given"),
    Param::new("temperature", "float", "divides the logits; 1 unless given"),
    Param::new("top_k", "int", "only the k most probable tokens"),
    Param::new("top_p", "float", "only the most probable tokens that together hold this share"),
    Param::new("min_p", "float", "only tokens at least this share as probable as the most probable one"),
    Param::new("greedy", "bool", "the most probable token each time; false unless given"),
    Param::new("seed", "int", "random numbers of its own instead of the run's"),
];
/// Those that `answers` reads beside them: of `sample` and `generate`.
pub(super) const ANSWERS: [Param; 2] = [
    Param::new("stop", "array of string", "texts that end an answer; they are cut from `text`, not from the tokens"),
    Param::new(
        "special",
        "bool",
        "whether special tokens written out in prompts are control tokens, as in a text from model.chat; false unless \
         given",
    ),
];

/// The options of `sample` and `generate`, and whether prompts hold special tokens.
pub(super) fn sample_options(call: &'static str, map: Dynamic) -> Result<(SampleOptions, bool)> {
    let mut o = Options::new(call, map)?;
    let options = choices(&mut o)?;
    let (stop, special) = answers(&mut o)?;
    o.finish()?;
    Ok((SampleOptions { stop, ..options }, special))
}

fn answers(o: &mut Options) -> Result<(Vec<String>, bool)> {
    Ok((o.strings("stop")?.unwrap_or_default(), o.bool("special")?.unwrap_or(false)))
}

/// How many answers, how long, and how tokens are chosen.
pub(super) fn choices(o: &mut Options) -> Result<SampleOptions> {
    let base = SampleOptions::default();
    Ok(SampleOptions {
        n: o.count("n")?.unwrap_or(base.n),
        max_tokens: o.count("max_tokens")?.unwrap_or(base.max_tokens),
        temperature: o.float("temperature")?.unwrap_or(base.temperature),
        top_p: o.float("top_p")?,
        top_k: o.count("top_k")?,
        min_p: o.float("min_p")?,
        greedy: o.bool("greedy")?.unwrap_or(base.greedy),
        stop: base.stop,
        seed: o.count("seed")?.map(|seed| seed as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(params: &[Param]) -> Vec<&'static str> {
        params.iter().map(|param| param.name).collect()
    }

    fn sorted(mut names: Vec<&'static str>) -> Vec<&'static str> {
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_read_is_what_is_documented() {
        let mut o = Options::new("converse", Dynamic::UNIT).expect("no options");
        choices(&mut o).expect("all absent");
        assert_eq!(sorted(o.known().to_vec()), sorted(names(&CHOICES)));
        answers(&mut o).expect("all absent");
        assert_eq!(sorted(o.known().to_vec()), sorted([names(&CHOICES), names(&ANSWERS)].concat()));
    }
}
