//! RLHF from end to end: a reward model learned from pairs, and policies trained on it by shipped scripts as they are. What
//! its scores and the true reward come to is measured at several distances from the first policy.

use crate::claims::measured;
use crate::page::list;
use crate::plan::{Measured, Plan};
use crate::runs::{Outcome, Runner};
use crate::{Result, Row};
use std::fmt::Write;

/// What the command line calls it.
pub const NAME: &str = "rlhf";
pub const TITLE: &str = "From pairs to a policy";

/// Fewer than elsewhere: each is fifteen runs and a reward model.
pub const SEEDS: [u64; 2] = [0, 1];

const ABOUT: &str = "\
`reward_model` learns from pairs of the task `tldr`, whose true reward (the share of a post's facts that an answer states,
less what it is too long) it never sees; demonstrations score 0 on average. Then five scripts, unedited, train `tiny` on its
scores, as `rhopo run NAME --set task=tldr reward=DIR`; `ppo` begins its critic from it, with `critic=DIR`. Each line is a run
of its own, since the learning rate falls to 0 over a run: of so many steps with 64 answers each. What it leaves is measured
on 512 answers to held-out posts:

- **true** and **proxy**: the task's reward and the reward model's score, by seed;
- **divergence**: KL(policy ‖ tiny), exact over the vocabulary, summed over an answer, in nats; the seeds' mean;
- **agrees**: of two answers of the policy itself to a post, how often the one with more true reward has the higher score.

A method *over-optimises* on a seed where its longest run has less true reward than a shorter one, by more than two standard
errors of the difference, and a higher score.
";

/// What the policies are trained on, and measured by.
pub static JUDGE: Plan = Plan::new("rlhf reward model", "tldr")
    .of("reward_model")
    .sets(&["steps=100", "pairs=16", "test_pairs=128"])
    .measured(Measured::Own("share of held-out pairs ranked right"));

/// A script's runs, in order of their steps.
pub struct Method {
    pub script: &'static str,
    pub plans: &'static [Plan],
}

/// Twice what a summary takes, about: room to go wrong in.
const TOKENS: usize = 40;

macro_rules! method {
    ($script:literal: $($set:literal),*) => {
        Method {
            script: $script,
            plans: &[
                method!(@ $script "5": $($set),*),
                method!(@ $script "20": $($set),*),
                method!(@ $script "60": $($set),*),
            ],
        }
    };
    (@ $script:literal $steps:literal: $($set:literal),*) => {
        Plan::new(concat!("rlhf ", $script, " ", $steps), "tldr")
            .of($script)
            .sets(&[concat!("steps=", $steps), "max_tokens=40", $($set),*])
            .tokens(TOKENS)
            .judge(&JUDGE)
    };
}

pub static METHODS: [Method; 5] = [
    method!("ppo": "prompts=16"),
    method!("grpo": "prompts=8", "minibatch=64"),
    method!("rloo": "prompts=8"),
    method!("rebel": "prompts=32"),
    method!("online_dpo": "prompts=32"),
];

/// Everything that was measured.
pub struct Found {
    /// `tiny` by each seed's reward model.
    start: Vec<Outcome>,
    judges: Row,
    /// In order of the methods, and of their steps.
    methods: Vec<(&'static str, Vec<Row>)>,
}

/// One seed at one point of training.
#[derive(Clone, Copy)]
pub struct Point {
    pub divergence: f64,
    pub truth: f64,
    pub proxy: f64,
    se: f64,
}

impl Point {
    fn of(outcome: &Outcome) -> Self {
        let [divergence, truth, proxy, se] =
            ["kl_ref", "reward", "proxy", "reward_se"].map(|name| measured(outcome, name));
        Self { divergence, truth, proxy, se }
    }
}

impl Found {
    /// By the seeds whose runs are all there; `None` where there is no such seed.
    pub fn read(runner: &Runner) -> Result<Option<Self>> {
        let all = || METHODS.iter().flat_map(|method| method.plans).chain([&JUDGE]);
        let whole = |seed: &u64| all().all(|plan| runner.read(plan, *seed).is_some());
        let seeds: Vec<u64> = SEEDS.into_iter().filter(whole).collect();
        if seeds.is_empty() {
            return Ok(None);
        }
        let rows = |method: &'static Method| -> Option<_> {
            let rows =
                method.plans.iter().map(|plan| crate::row(runner, plan, &seeds)).collect::<Option<Vec<Row>>>()?;
            Some((method.script, rows))
        };
        let (Some(judges), Some(methods)) = (crate::row(runner, &JUDGE, &seeds), METHODS.iter().map(rows).collect())
        else {
            return Ok(None);
        };
        let start = seeds.iter().map(|&seed| runner.judged_start(&JUDGE, seed, TOKENS)).collect::<Result<_>>()?;
        Ok(Some(Self { start, judges, methods }))
    }

    /// Each method's path, a line per seed, from where all begin.
    pub fn paths(&self) -> Vec<(&'static str, Vec<Vec<Point>>)> {
        let path = |rows: &[Row], seed: usize| {
            let trained = rows.iter().map(|row| Point::of(&row.outcomes[seed]));
            std::iter::once(Point::of(&self.start[seed])).chain(trained).collect()
        };
        let seeds = |rows: &[Row]| (0..self.start.len()).map(|seed| path(rows, seed)).collect();
        self.methods.iter().map(|(script, rows)| (*script, seeds(rows))).collect()
    }

    /// The part of the page, from its heading on.
    pub fn section(&self) -> String {
        let mut page = format!("\n## {TITLE}\n\n{ABOUT}\n");
        // Writing into a String cannot fail.
        let _ = self.table(&mut page);
        let _ = self.verdicts(&mut page);
        page.push_str("\n![true reward and proxy against divergence](results/rlhf.svg)\n");
        page
    }

    fn table(&self, page: &mut String) -> std::fmt::Result {
        let right: Vec<f64> = self.judges.outcomes.iter().filter_map(|o| Some(o.series("eval").last()?.1)).collect();
        writeln!(
            page,
            "Of 128 held-out pairs of the task the reward models (`{}`) rank {} right; of two answers of `tiny` itself to a post, \
             {}.\n",
            JUDGE.sets.join(" "),
            list(&right, 3),
            list(&self.start.iter().map(|outcome| measured(outcome, "agrees")).collect::<Vec<f64>>(), 3),
        )?;
        writeln!(page, "| script | settings | steps | true | proxy | divergence | agrees |")?;
        writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |")?;
        line(page, ["tiny", "", "0"], &self.start)?;
        for (script, rows) in &self.methods {
            for row in rows {
                let steps = row.plan.sets[0].trim_start_matches("steps=");
                let sets = format!("`{}`", row.plan.sets[1..].join(" "));
                line(page, [&format!("[{script}](algorithms/{script}.md)"), &sets, steps], &row.outcomes)?;
            }
        }
        writeln!(page)
    }

    fn verdicts(&self, page: &mut String) -> std::fmt::Result {
        for (script, seeds) in self.paths() {
            let over = seeds.iter().filter(|path| over_optimised(path)).count();
            let mean =
                |of: fn(&Point) -> f64, at: usize| seeds.iter().map(|p| of(&p[at])).sum::<f64>() / seeds.len() as f64;
            let last = seeds[0].len() - 1;
            let best =
                (0..=last).max_by(|&a, &b| mean(|p| p.truth, a).total_cmp(&mean(|p| p.truth, b))).unwrap_or(last);
            let place = match best {
                0 => "before training".to_string(),
                best => {
                    format!("after {} steps", self.methods[0].1[best - 1].plan.sets[0].trim_start_matches("steps="))
                }
            };
            let verdict = match over {
                0 => "no over-optimisation".to_string(),
                over if over == seeds.len() => "**over-optimised on every seed**".to_string(),
                over => format!("over-optimised on {over} of {} seeds", seeds.len()),
            };
            writeln!(
                page,
                "- `{script}`: {verdict}. On average true reward is highest {place} ({:.3}), and {:.3} in the end, at {:.1} nats; \
                 the score goes from {:+.2} to {:+.2}.",
                mean(|p| p.truth, best),
                mean(|p| p.truth, last),
                mean(|p| p.divergence, last),
                mean(|p| p.proxy, 0),
                (mean(|p| p.proxy, last) * 100.0).round() / 100.0 + 0.0,
            )?;
        }
        Ok(())
    }
}

/// Whether a shorter run had more true reward by more than two standard errors of the difference, and a lower score.
fn over_optimised(path: &[Point]) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    before.iter().any(|p| p.truth - last.truth > 2.0 * p.se.hypot(last.se) && p.proxy < last.proxy)
}

fn line(page: &mut String, [script, settings, steps]: [&str; 3], outcomes: &[Outcome]) -> std::fmt::Result {
    let values = |name: &str| outcomes.iter().map(|outcome| measured(outcome, name)).collect::<Vec<f64>>();
    let divergence = values("kl_ref").iter().sum::<f64>() / outcomes.len() as f64;
    let [truth, proxy, agrees] =
        [("reward", 3), ("proxy", 2), ("agrees", 3)].map(|(name, digits)| list(&values(name), digits));
    writeln!(page, "| {script} | {settings} | {steps} | {truth} | {proxy} | {divergence:.2} | {agrees} |")
}
