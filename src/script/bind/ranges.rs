//! The ranges of hyper-parameters whose names mean the same in every script: a value from outside of a script that lies
//! outside of its range is refused before a run begins.
//!
//! Owns no types, which a script's defaults say (`args.rs`), and no checks of what calls are given.

use crate::error::{Error, Result};
use crate::script::lang::lex;
use crate::script::lang::value::describe;
use rhai::{Array, Dynamic, FLOAT};

/// Which numbers a hyper-parameter may be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Range {
    /// A count of something of which there must be one.
    AtLeastOne,
    /// A bound or a weight; infinity is no bound.
    NotNegative,
    /// A rate or a weight by which numbers are multiplied.
    Finite,
    /// A scale by which numbers are divided.
    Positive,
    /// A probability or a share.
    Share,
    /// Of labels: at one half they say nothing.
    BelowHalf,
    /// A bound of ratios beyond 1.
    AboveOne,
    /// On the scale of a reward, whatever that is.
    Number,
}

const RANGES: [(Range, &[&str]); 10] = [
    (
        Range::AtLeastOne,
        &[
            "prompts",
            "group",
            "max_tokens",
            "epochs",
            "minibatch",
            "batch",
            "pairs",
            "pool",
            "answers",
            "most",
            "tries",
            "rank",
            "grows",
            "test_pairs",
            "candidates",
            "accepted",
            "eval_prompts",
            "iterations",
            "max_length",
            "products",
            "members",
        ],
    ),
    (Range::NotNegative, &["clip", "clip_low", "clip_high", "value_clip", "delta", "delta_low", "delta_high", "steps"]),
    (Range::NotNegative, &["warmup", "lessons", "cache", "eval_every", "eval_n", "demos", "stop_at"]),
    // gamma is a discount, and the margin of simpo; lambda the trace of an advantage, and a weight of spin.
    (
        Range::Finite,
        &["lr", "value_lr", "beta", "penalty", "ptx", "entropy", "vf_coef", "desirable", "undesirable", "damping"],
    ),
    (Range::Finite, &["gamma", "lambda", "tau"]),
    (
        Range::Positive,
        &["temperature", "tau_pos", "tau_neg", "eta", "value_beta", "target", "alpha", "max_weight", "max_ratio"],
    ),
    (Range::Share, &["share", "mix", "follow", "own", "jsd", "soft", "soft_end"]),
    (Range::BelowHalf, &["label_smoothing"]),
    (Range::AboveOne, &["dual"]),
    (Range::Number, &["thresholds"]),
];

impl Range {
    fn of(name: &str) -> Option<Self> {
        RANGES.iter().find(|(_, names)| names.contains(&name)).map(|(range, _)| *range)
    }

    fn has(self, x: FLOAT) -> bool {
        match self {
            Self::AtLeastOne => x >= 1.0,
            Self::NotNegative => x >= 0.0,
            Self::Finite => x >= 0.0 && x.is_finite(),
            Self::Positive => x > 0.0 && x.is_finite(),
            Self::Share => (0.0..=1.0).contains(&x),
            Self::BelowHalf => (0.0..0.5).contains(&x),
            Self::AboveOne => x > 1.0,
            Self::Number => x.is_finite(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::AtLeastOne => "1 or more",
            Self::NotNegative => "0 or more",
            Self::Finite => "0 or more, and finite",
            Self::Positive => "above 0, and finite",
            Self::Share => "in [0, 1]",
            Self::BelowHalf => "in [0, 0.5)",
            Self::AboveOne => "above 1",
            Self::Number => "finite",
        }
    }

    /// Whether every number of a value lies within; what is no number has no range.
    fn holds(self, value: &Dynamic) -> bool {
        if let Some(list) = value.read_lock::<Array>() {
            return list.iter().all(|value| self.holds(value));
        }
        let number = value.as_float().ok().or_else(|| value.as_int().ok().map(|n| n as FLOAT));
        number.is_none_or(|x| self.has(x))
    }
}

/// Refuses a value that lies outside the range of its name. A script whose own default does means something else by the name,
/// and may be given what it likes.
///
/// # Errors
/// Such a value.
pub fn check(name: &str, value: &Dynamic, default: &Dynamic) -> Result<()> {
    match Range::of(name).filter(|range| range.holds(default) && !range.holds(value)) {
        Some(range) => {
            let what = format!("`{name}` must be {}, found {}", range.words(), describe(value));
            Err(Error::value(what).hint(format!("the script's default is {}", describe(default))))
        }
        None => Ok(()),
    }
}

/// Refuses 0 where the script divides by it: `/ cfg.beta`, `/ (2 * cfg.beta)`.
///
/// # Errors
/// Such a value.
pub fn check_divisor(name: &str, value: &Dynamic, program: &str) -> Result<()> {
    let zero = value.as_float().is_ok_and(|x| x == 0.0) || value.as_int().is_ok_and(|n| n == 0);
    if zero && divides(program, name) {
        return Err(Error::value(format!("--set {name}={value}: the script divides by it"))
            .hint(format!("{name} must not be 0; a small number comes near to it")));
    }
    Ok(())
}

fn divides(program: &str, name: &str) -> bool {
    let code: Vec<&str> = lex::code(program).into_iter().map(|piece| piece.text).collect();
    let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    (0..code.len()).filter(|&at| code[at] == "/").any(|at| {
        let behind = match &code[at + 1..] {
            ["(", factor, "*", rest @ ..] if number(factor) => rest,
            ["(", rest @ ..] | rest => rest,
        };
        matches!(behind, [_, ".", found, ..] if *found == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::access::Access;
    use crate::script::lang::loader;
    use rhai::{Engine, Map};

    fn refused(name: &str, value: impl Into<Dynamic>, default: impl Into<Dynamic>) -> Option<String> {
        check(name, &value.into(), &default.into()).err().map(|e| e.to_string())
    }

    #[test]
    fn what_lies_outside_is_named_with_its_range() {
        let e = refused("clip", -0.1, 0.2).expect("negative");
        assert!(e.starts_with("`clip` must be 0 or more, found the float -0.1"), "{e}");
        let list = |x: f64| Dynamic::from(vec![Dynamic::from(0.0), Dynamic::from(x)]);
        let outside = [
            refused("batch", 0_i64, 64_i64),
            refused("epochs", 0_i64, 1_i64),
            refused("lr", f64::INFINITY, 1e-3),
            refused("temperature", 0.0, 1.0),
            refused("share", 1.5, 0.5),
            refused("label_smoothing", 0.5, 0.1),
            refused("dual", 1.0, 3.0),
            refused("thresholds", list(f64::NAN), list(0.5)),
        ];
        assert!(outside.iter().all(Option::is_some), "{outside:?}");
    }

    #[test]
    fn what_lies_within_or_means_something_else_is_taken() {
        assert_eq!(refused("clip", f64::INFINITY, 0.2), None);
        assert_eq!(refused("clip", -2.0, -1.0), None);
        assert_eq!(refused("thresholds", Dynamic::from(vec![Dynamic::ONE]), Dynamic::from(Array::new())), None);
        assert_eq!(refused("mine", -2.0, 1.0), None);
        assert_eq!(refused("turns", "every", 5_i64), None);
    }

    #[test]
    fn what_a_script_divides_by_is_not_0() {
        let text =
            |name: &str| loader::list(&Access::everything()).into_iter().find(|s| s.stem() == name).expect(name).text;
        let refused = |script: &str, name: &str, value: Dynamic| check_divisor(name, &value, &text(script)).err();
        for (script, name) in
            [("ipo", "beta"), ("awr", "beta"), ("discopop", "tau"), ("ipo_md", "tau"), ("gro", "beta")]
        {
            let e = refused(script, name, 0.0.into()).unwrap_or_else(|| panic!("{script}: {name}")).to_string();
            assert!(e.starts_with(&format!("--set {name}=0.0: the script divides by it")), "{e}");
            assert!(refused(script, name, 0.1.into()).is_none(), "{script}: {name}");
        }
        for (script, name) in [("dpo", "beta"), ("grpo", "beta"), ("nash_md", "tau"), ("rest", "lr")] {
            assert!(refused(script, name, 0.0.into()).is_none(), "{script}: {name}");
        }
    }

    #[test]
    fn every_default_of_a_shipped_script_lies_in_its_range() {
        let mut engine = Engine::new();
        engine.set_max_expr_depths(0, 0);
        engine.register_fn("path", |text: &str| text.to_string());
        let mut ranged = 0;
        for source in loader::list(&Access::everything()) {
            let Some((_, map)) = source.text.split_once("args(") else { continue };
            let (map, _) = map.split_once("\n})").expect("a map over several lines");
            for (name, default) in engine.eval::<Map>(&format!("{map}\n}}")).expect("hyper-parameters") {
                ranged += usize::from(Range::of(&name).is_some());
                let outside = Range::of(&name).filter(|range| !range.holds(&default));
                assert_eq!(outside, None, "{}: {name} is {default:?}", source.label);
            }
        }
        assert!(ranged > 300, "{ranged}");
    }
}
