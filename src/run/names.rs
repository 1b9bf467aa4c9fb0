//! The names of metrics: what each number of `metrics.jsonl` is, who writes it, where it is drawn, and whether a run that
//! is repeated comes to the same. Curves, the progress line, the reference, TensorBoard's tags and whatever compares runs
//! read this table.
//!
//! Scripts may log any other name. Nothing is known of those: they are drawn by themselves, and are compared.

use std::fmt::Write;

/// The name under which evaluations are logged.
pub const EVAL: &str = "eval";

/// Who writes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The script, by `run.log`.
    Script,
    /// `run.show`, of the batch that it is given, unless the script has logged it.
    Show,
    /// The run, on every line where there is such a number, unless the script has logged it.
    Run,
    /// The run, on every line; scripts cannot.
    Line,
}

/// A name and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    pub name: &'static str,
    /// Title of the panel of the curves that it is drawn in; `None` is the axis of all of them.
    pub panel: Option<&'static str>,
    pub unit: &'static str,
    pub what: &'static str,
    pub writer: Writer,
    /// Whether the same run comes to the same number again: not what a clock or the machine says.
    pub exact: bool,
    /// Whether the progress line prefers it.
    pub told: bool,
}

impl Name {
    const fn by(self, writer: Writer) -> Self {
        Self { writer, ..self }
    }

    const fn told(self) -> Self {
        Self { told: true, ..self }
    }

    const fn measured(self) -> Self {
        Self { exact: false, writer: Writer::Run, ..self }
    }
}

const fn name(name: &'static str, panel: &'static str, unit: &'static str, what: &'static str) -> Name {
    Name { name, panel: Some(panel), unit, what, writer: Writer::Script, exact: true, told: false }
}

const REWARD: &str = "reward";
const DIVERGENCE: &str = "divergence (nats per token)";
const LOSS: &str = "loss";
const SHARES: &str = "shares";
const SECONDS: &str = "seconds of a step";
const MEMORY: &str = "peak memory (bytes)";

/// All of them, in the order of panels and of the reference.
pub const TABLE: &[Name] = &[
    name("reward", REWARD, "reward", "mean reward of the answers of the step").told(),
    name("reward_std", REWARD, "reward", "standard deviation of the rewards of the batch that is shown")
        .by(Writer::Show),
    name("eval", "evaluation on held-out prompts", "reward", "mean reward of answers to held-out prompts"),
    name("kl_ref", DIVERGENCE, "nats per token", "KL(policy ‖ reference), the reference being mostly the first policy")
        .told(),
    name("approx_kl", DIVERGENCE, "nats per token", "KL(policy that sampled the batch ‖ policy)").told(),
    name("loss", LOSS, "", "the objective, mean over the updates of the step").told(),
    name("value_loss", LOSS, "", "the critic's loss, mean over the updates of the step"),
    name("right", SHARES, "share", "of the pairs of the step, those whose preferred answer is ahead").told(),
    name("clipped", SHARES, "share", "of the tokens (of `gspo` the answers), those that the clip leaves no gradient"),
    name("dead", SHARES, "share", "of the groups, those whose rewards are all equal: they teach nothing"),
    name("truncated", SHARES, "share", "of the answers sampled in the step, those cut off at `max_tokens`")
        .by(Writer::Run),
    name("margin", "margin", "", "mean lead of the preferred answers, as the objective measures it").told(),
    name(
        "grad_norm",
        "norm of the gradient",
        "",
        "of all parameters together before it is clipped, mean over the updates",
    ),
    name(
        "explained_variance",
        "explained variance",
        "share",
        "of the variance of the returns, what the critic explains",
    ),
    name("length", "length (tokens)", "tokens", "mean length of the answers, the end token included"),
    name(
        "entropy",
        "entropy (nats per token)",
        "nats per token",
        "−log p of the sampled tokens of the batch that is shown",
    )
    .by(Writer::Show),
    name("lr", "learning rate", "", "of the optimizer that steps first in the step, as it was set last")
        .by(Writer::Run),
    name("seconds/sample", SECONDS, "seconds", "of the step: sampling by `sample`, `converse` and `generate`")
        .measured(),
    name("seconds/score", SECONDS, "seconds", "of the step: forward passes through which no gradient is taken")
        .measured(),
    name("seconds/update", SECONDS, "seconds", "of the step: the other forward passes, backward passes and optimizers")
        .measured(),
    name(
        "tokens_per_second",
        "sampled tokens per second",
        "tokens per second",
        "tokens sampled in the step by `seconds/sample`",
    )
    .measured(),
    name("peak_bytes", MEMORY, "bytes", "the most memory that the process has held so far (Linux)").measured(),
    name("peak_bytes/device", MEMORY, "bytes", "the most memory that arrays on the run's GPU have held so far")
        .measured(),
    name(
        "sampled",
        "tokens sampled so far",
        "tokens",
        "by sample since the run began, whatever the model: what methods are compared by",
    )
    .by(Writer::Line),
    Name { exact: false, ..name("seconds", "seconds so far", "seconds", "since the run began").by(Writer::Line) },
    Name { panel: None, ..name("step", "", "", "the step; 0 before the first").by(Writer::Line) },
];

/// Names that were in use before there was a table, and what is meant.
const FORMER: [(&str, &str); 2] = [("kl", ONE_OF_TWO), ("divergence", ONE_OF_TWO)];
const ONE_OF_TWO: &str = "`kl_ref`, from the reference, or `approx_kl`, from the policy that sampled";

/// What is known of a name.
pub fn find(name: &str) -> Option<&'static Name> {
    TABLE.iter().find(|known| known.name == name)
}

/// Whether every line has it of its own, so that no script logs it.
pub fn is_of_every_line(name: &str) -> bool {
    find(name).is_some_and(|known| known.writer == Writer::Line)
}

/// Whether the same run comes to the same number again.
pub fn is_exact(name: &str) -> bool {
    find(name).is_none_or(|known| known.exact)
}

/// The tag of a name in the event file. TensorBoard groups tags by what comes before a `/`: those of the table that have no
/// group of their own are of training, or of what a clock or the machine says.
pub fn tag(name: &str) -> String {
    match find(name) {
        Some(known) if name != EVAL && !name.contains('/') => {
            format!("{}/{name}", if known.exact { "train" } else { "perf" })
        }
        _ => name.to_string(),
    }
}

/// What the table has in the place of a former name.
pub fn in_place_of(name: &str) -> Option<&'static str> {
    FORMER.iter().find(|(former, _)| *former == name).map(|(_, now)| *now)
}

/// The names of a line that say most, up to `most`: those that the table prefers, then the script's own in the order in
/// which they were logged, then the others.
pub fn told<'a>(logged: &[&'a str], most: usize) -> Vec<&'a str> {
    let preferred = TABLE.iter().filter(|known| known.told);
    let preferred = preferred.filter_map(|known| logged.iter().find(|name| **name == known.name));
    let own = logged.iter().filter(|name| find(name).is_none());
    let others =
        logged.iter().filter(|name| find(name).is_some_and(|known| !known.told && known.writer == Writer::Script));
    preferred.chain(own).chain(others).take(most).copied().collect()
}

/// The table as a page of the reference.
pub fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         The names of the numbers in a run's `metrics.jsonl`, one line a step. A script may log any other name as well: it is\n\
         drawn in a panel of its own, or with those that begin alike before a `/`. `rhopo doc metrics` shows this page.\n\n\
         | name | unit | what it is | written by | panel of `curves.svg` |\n| --- | --- | --- | --- | --- |\n",
    );
    for Name { name, panel, unit, what, writer, exact, .. } in TABLE {
        let writer = match writer {
            Writer::Script => "the script",
            Writer::Show => "`run.show`",
            Writer::Run | Writer::Line => "the run",
        };
        let star = if *exact { "" } else { "*" };
        let panel = panel.unwrap_or("the axis of all");
        // Writing into a String cannot fail.
        let _ = writeln!(page, "| `{name}`{star} | {unit} | {what} | {writer} | {panel} |");
    }
    page += "\n\\* Times and memory are not the same when a run is repeated: `rhopo replay` compares everything but these.\n\n\
             `step`, `seconds` and `sampled` belong to the line; what else `run.show` and the run write, they write unless the\n\
             script logs that name itself, and where there is such a number: no `truncated` where nothing was sampled, no `lr`\n\
             where no optimizer stepped. Evaluations count in none of the `seconds/…`, nor in `truncated`. A name that comes again\n\
             within a step is averaged.\n\n\
             A line with a text under `event` holds no numbers: it says what was edited from that step on\n\
             ([long runs](../guide/long-runs.md#on-the-disk)).\n\n\
             The run's event file for TensorBoard holds the same numbers as 32-bit floats. There the names of this table have\n\
             `train/` before them, and those with a star `perf/`; `eval`, names that hold a `/`, and a script's own names are\n\
             as they are.\n";
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once_and_say_something() {
        for (i, known) in TABLE.iter().enumerate() {
            assert!(TABLE[i + 1..].iter().all(|other| other.name != known.name), "{} comes twice", known.name);
            assert!(!known.what.is_empty() && !known.what.contains('|'), "{}", known.name);
            assert!(known.panel.is_some() || known.name == "step", "{} is not drawn", known.name);
            assert!(page().contains(&format!("| `{}`", known.name)));
        }
        assert!(FORMER.iter().all(|(former, _)| find(former).is_none()));
    }

    #[test]
    fn what_a_clock_says_is_not_exact_and_all_else_is() {
        let inexact: Vec<&str> = TABLE.iter().filter(|known| !known.exact).map(|known| known.name).collect();
        let expected = [
            "seconds/sample",
            "seconds/score",
            "seconds/update",
            "tokens_per_second",
            "peak_bytes",
            "peak_bytes/device",
            "seconds",
        ];
        assert_eq!(inexact, expected);
        assert!(is_exact("a name of one's own"));
    }

    #[test]
    fn tags_are_grouped_and_no_two_names_share_one() {
        let expected = [("loss", "train/loss"), ("sampled", "train/sampled"), ("peak_bytes", "perf/peak_bytes")];
        let kept = ["eval", "seconds/sample", "peak_bytes/device", "reward/format", "mine"];
        for (name, expected) in expected.into_iter().chain(kept.map(|name| (name, name))) {
            assert_eq!(tag(name), expected);
        }
        let mut tags: Vec<String> = TABLE.iter().map(|known| tag(known.name)).collect();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), TABLE.len());
    }

    #[test]
    fn the_progress_line_prefers_the_table_and_falls_back_to_what_is_logged() {
        assert_eq!(told(&["loss", "grad_norm", "kl_ref", "reward", "length"], 3), ["reward", "kl_ref", "loss"]);
        assert_eq!(told(&["mine", "loss", "yours", "lr"], 3), ["loss", "mine", "yours"]);
        assert_eq!(told(&["n", "eval"], 3), ["n", "eval"]);
        assert!(told(&["lr", "entropy"], 3).is_empty());
    }
}
