//! What papers say of one method against another, tried in small: side by side, at equal numbers of sampled tokens.
//! Verdicts are computed from the runs; nothing here says how a comparison comes out.

use crate::Row;
use crate::plan::Plan;
use crate::runs::Outcome;

/// A claim with the runs that try it.
pub struct Claim {
    /// What the command line calls it.
    pub name: &'static str,
    pub title: &'static str,
    /// What is claimed, and by whom.
    pub said: &'static str,
    pub plans: &'static [Plan],
    pub columns: &'static [Column],
    pub findings: &'static [Finding],
}

/// A number of one run.
#[derive(Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub of: fn(&Outcome) -> f64,
    pub digits: usize,
}

/// One comparison that follows from the claim.
pub enum Finding {
    /// Plan `a` should have more of it than plan `b`.
    More { a: usize, b: usize, column: Column },
    /// Plan `a` should have less of it than plan `b`.
    Less { a: usize, b: usize, column: Column },
    /// The plans of `a` should have more reward than those of `b` where both have diverged equally far. A method's
    /// plans differ in their number of steps; between them reward is interpolated.
    MoreAtEqualDivergence { a: &'static [usize], b: &'static [usize] },
}

pub const REWARD: Column = Column { title: "reward", of: |o| measured(o, "reward"), digits: 3 };
pub const DIVERGENCE: Column = Column { title: "divergence", of: |o| measured(o, "kl_ref"), digits: 2 };
pub const LENGTH: Column = Column { title: "length", of: |o| measured(o, "length"), digits: 2 };
pub const WRONG_LENGTH: Column =
    Column { title: "length of wrong answers", of: |o| measured(o, "wrong_length"), digits: 2 };
pub const DISTINCT: Column = Column { title: "distinct", of: |o| measured(o, "distinct"), digits: 3 };
pub const PASS: Column = Column { title: "pass@8", of: |o| measured(o, "pass_at_8"), digits: 3 };
pub const TOKENS: Column = Column { title: "sampled tokens", of: Outcome::sampled, digits: 0 };
pub const SECONDS: Column = Column { title: "seconds", of: |o| o.seconds, digits: 1 };
const STEP: Column = Column { title: "divergence of a step, mean", of: |o| over(o, "approx_kl", mean), digits: 4 };
const LONGEST: Column = Column {
    title: "the largest of a run",
    of: |o| over(o, "approx_kl", |all| all.iter().copied().fold(0.0, f64::max)),
    digits: 4,
};
const OF_BOUND: Column = Column {
    title: "largest, of the bound",
    of: |o| over(o, "of_bound", |all| all.iter().copied().fold(0.0, f64::max)),
    digits: 3,
};
const RESIDUAL: Column = Column { title: "residual, mean", of: |o| over(o, "residual", mean), digits: 2 };
const HALVINGS: Column = Column { title: "halvings of a step", of: |o| over(o, "halvings", mean), digits: 2 };
pub const MEMORY: Column = Column { title: "peak MB", of: |o| o.peak, digits: 0 };

pub fn measured(outcome: &Outcome, name: &str) -> f64 {
    outcome.measured.get(name).copied().unwrap_or(f64::NAN)
}

/// A number made of all that a run logged under a name; not a number where it logged nothing.
fn over(outcome: &Outcome, name: &str, of: fn(&[f64]) -> f64) -> f64 {
    let all: Vec<f64> = outcome.series(name).into_iter().map(|point| point.1).collect();
    if all.is_empty() { f64::NAN } else { of(&all) }
}

fn mean(all: &[f64]) -> f64 {
    all.iter().sum::<f64>() / all.len() as f64
}

/// Success within so many turns.
const SOLVED: [Column; 5] = [
    Column { title: "success in 1 turn", of: |o| measured(o, "solved_1"), digits: 3 },
    Column { title: "success in 2 turns", of: |o| measured(o, "solved_2"), digits: 3 },
    Column { title: "success in 3 turns", of: |o| measured(o, "solved_3"), digits: 3 },
    Column { title: "success in 4 turns", of: |o| measured(o, "solved_4"), digits: 3 },
    Column { title: "success in 5 turns", of: |o| measured(o, "solved_5"), digits: 3 },
];

type Edit = (&'static str, &'static str);

// Dynamic sampling takes more batches per step than plain sampling: both end at the same number of tokens instead.
const COUNT: Edit = ("let run    = open_run(cfg);", "let spent = 0.0;\nlet run    = open_run(cfg);");
const SPEND: Edit = ("got.reward = task.score(got);", "got.reward = task.score(got); spent += sum(got.length).item();");
const STOP: Edit = ("    let parts = [];", "    if spent > 80000.0 { break; }\n    let parts = [];");
const DECAY: Edit = (
    "schedule::linear(step, cfg.steps, cfg.warmup)",
    "max(0.0, 1.0 - spent / 80000.0) * schedule::warmup(step, cfg.warmup + 1)",
);
const NO_PENALTY: Edit = ("b.reward + reward::overlong(b.length, cfg.max_tokens, cfg.cache)", "b.reward");
const FILTER: Edit = ("    for mb in b.minibatches", "    b.mask = b.mask * b.finished;\n    for mb in b.minibatches");
const PER_ANSWER: Edit = ("-token_mean(gain, b.mask)", "-seq_mean(gain, b.mask)");
const EVERY_GROUP: Edit = ("apart[i / n][0] > 0.0", "true");
const NOISE: Edit = ("= task.score(b);", "= task.score(b) + randn([b.rows, 1]);");
const THIS_TURN: Edit = ("= task.score(b);", "= task.score(b) * (b.turns == b.h);");
// RAFT imitates the best answer to each prompt, whatever it is worth, and of equal ones any.
const BEST: Edit = (
    "b.advantage = advantage::rloo(b.reward - cfg.beta * away, cfg.group);",
    "let r    = reshape(b.reward, [-1, cfg.group]);\n    \
     let best = gather(argsort(r), full([r.shape[0], 1], cfg.group - 1), 1);\n    \
     b.advantage = reshape(one_hot(reshape(best, [-1]), cfg.group), [-1, 1]);",
);

/// Answers to arithmetic have three or four tokens; one of five is cut off, or a token too long.
const SHORT: &str = "max_tokens=5";

const LADDER: &[Plan] =
    &[
        Plan::new("grpo (no divergence)", "arithmetic")
            .of("dapo")
            .sets(&["steps=1000", SHORT, "cache=1", "tries=1", "clip_high=0.2"])
            .edits(&[COUNT, SPEND, STOP, DECAY, NO_PENALTY, PER_ANSWER, EVERY_GROUP]),
        Plan::new("+ overlong filtering", "arithmetic")
            .of("dapo")
            .sets(&["steps=1000", SHORT, "cache=1", "tries=1", "clip_high=0.2"])
            .edits(&[COUNT, SPEND, STOP, DECAY, NO_PENALTY, PER_ANSWER, EVERY_GROUP, FILTER]),
        Plan::new("+ clip-higher", "arithmetic")
            .of("dapo")
            .sets(&["steps=1000", SHORT, "cache=1", "tries=1"])
            .edits(&[COUNT, SPEND, STOP, DECAY, NO_PENALTY, PER_ANSWER, EVERY_GROUP, FILTER]),
        Plan::new("+ soft overlong penalty", "arithmetic")
            .of("dapo")
            .sets(&["steps=1000", SHORT, "cache=1", "tries=1"])
            .edits(&[COUNT, SPEND, STOP, DECAY, PER_ANSWER, EVERY_GROUP, FILTER]),
        Plan::new("+ token mean", "arithmetic").of("dapo").sets(&["steps=1000", SHORT, "cache=1", "tries=1"]).edits(&[
            COUNT,
            SPEND,
            STOP,
            DECAY,
            EVERY_GROUP,
            FILTER,
        ]),
        Plan::new("+ dynamic sampling", "arithmetic")
            .of("dapo")
            .sets(&["steps=1000", SHORT, "cache=1"])
            .edits(&[COUNT, SPEND, STOP, DECAY, FILTER]),
    ];

const RESETS: &[Plan] = &[
    Plan::new("ppo, 10 steps", "reverse").of("ppo").sets(&["steps=10"]),
    Plan::new("ppo, 20 steps", "reverse").of("ppo").sets(&["steps=20"]),
    Plan::new("ppo, 28 steps", "reverse").of("ppo").sets(&["steps=28"]),
    Plan::new("ppo_pp, 10 steps", "reverse").of("ppo_pp").sets(&["steps=10"]),
    Plan::new("ppo_pp, 20 steps", "reverse").of("ppo_pp").sets(&["steps=20"]),
    Plan::new("ppo_pp, 28 steps", "reverse").of("ppo_pp").sets(&["steps=28"]),
    Plan::new("dr_po, 10 steps", "reverse").of("dr_po").sets(&["steps=10"]),
    Plan::new("dr_po, 20 steps", "reverse").of("dr_po").sets(&["steps=20"]),
    Plan::new("dr_po, 28 steps", "reverse").of("dr_po").sets(&["steps=28"]),
];

/// As many answers for each: 8192 sampled rows.
const REBEL: &[Plan] = &[
    Plan::new("rebel, 8192 answers", "arithmetic").of("rebel").sets(&["steps=16", "prompts=256"]),
    Plan::new("ppo, 8192 answers", "arithmetic").of("ppo").sets(&["steps=32", "prompts=64", "group=4"]),
    Plan::new("dpo, 8192 answers", "arithmetic").of("dpo").sets(&["prompts=4096", "steps=120"]),
];

const REFUEL: &[Plan] = &[
    Plan::new("refuel, whole future", "guess:max=12").of("refuel").sets(&["steps=14"]).tokens(4),
    Plan::new("rebel, one turn", "guess:max=12").of("refuel").sets(&["steps=14"]).tokens(4).edits(&[THIS_TURN]),
];

const NOISY: &[Plan] = &[
    Plan::new("rloo, clean reward", "arithmetic").of("rloo").sets(&["steps=40", "beta=0.0"]),
    Plan::new("rloo, noisy reward", "arithmetic").of("rloo").sets(&["steps=40", "beta=0.0"]).edits(&[NOISE]),
    Plan::new("raft, clean reward", "arithmetic").of("rloo").sets(&["steps=40", "beta=0.0"]).edits(&[BEST]),
    Plan::new("raft, noisy reward", "arithmetic").of("rloo").sets(&["steps=40", "beta=0.0"]).edits(&[BEST, NOISE]),
];

const TABLE: &[Plan] = &[
    Plan::new("neither (rloo)", "countdown").of("gro").sets(&["steps=50", "method=rloo"]),
    Plan::new("w alone (contrast)", "countdown").of("gro").sets(&["steps=50", "method=contrast"]),
    Plan::new("v alone (awr)", "countdown").of("gro").sets(&["steps=50", "method=awr"]),
    Plan::new("w and v (proposal)", "countdown").of("gro").sets(&["steps=50", "method=proposal"]),
];

const LENGTHS: &[Plan] = &[
    Plan::new("grpo on countdown", "countdown").of("grpo").sets(&["steps=40", "beta=0.0"]),
    Plan::new("dr_grpo on countdown", "countdown").of("dr_grpo").sets(&["steps=40"]),
];

// How far a step goes is measured alike for all: over the whole vocabulary, from a copy of the policy that answered.
const MOVED: Edit = (
    "    run.log(#{ reward: mean(b.reward), length",
    "    run.log(#{ approx_kl: token_mean(kl::full(before, policy, b), b.mask) });\n    \
     run.log(#{ reward: mean(b.reward), length",
);
const BEFORE_PPO: Edit =
    ("    for mb in b.minibatches(", "    let before = policy.frozen();\n    for mb in b.minibatches(");
const BEFORE_ONE: Edit =
    ("    let logp = logprob(policy, b); ", "    let before = policy.frozen();\n    let logp = logprob(policy, b); ");

const TRUST: &[Plan] = &[
    Plan::new("trpo", "arithmetic").sets(&["steps=20"]),
    Plan::new("npg", "arithmetic").sets(&["steps=20"]),
    Plan::new("ppo, 20 steps", "arithmetic").of("ppo").sets(&["steps=20"]).edits(&[BEFORE_PPO, MOVED]),
    Plan::new("a2c, 20 steps", "arithmetic").of("a2c").sets(&["steps=20"]).edits(&[BEFORE_ONE, MOVED]),
    Plan::new("reinforce, 20 steps", "arithmetic")
        .of("reinforce")
        .sets(&["steps=20", "prompts=64", "group=4"])
        .edits(&[BEFORE_ONE, MOVED]),
];

const PENALTIES: &[Plan] = &[
    Plan::new("ppo_penalty, estimated", "arithmetic").of("ppo_penalty").sets(&["steps=40"]),
    Plan::new("ppo_penalty, exact", "arithmetic").of("ppo_penalty").sets(&["steps=40", "exact=true"]),
    Plan::new("ppo_clip_kl, estimated", "arithmetic").of("ppo_clip_kl").sets(&["steps=30"]),
    Plan::new("ppo_clip_kl, exact", "arithmetic").of("ppo_clip_kl").sets(&["steps=30", "exact=true"]),
];

pub const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_exact",
        title: "PPO's penalty, exact and estimated",
        said: "The penalty of Schulman et al. 2017 (arXiv:1707.06347, eq. 8) is the divergence of two distributions. Unless \
               `exact=true`, which takes it over the vocabulary, the sampled tokens estimate it. The estimate has noise of its own, \
               and says nothing of what was not sampled: the exact one should end with more reward.",
        plans: PENALTIES,
        columns: &[REWARD, DIVERGENCE, TOKENS],
        findings: &[Finding::More { a: 1, b: 0, column: REWARD }, Finding::More { a: 3, b: 2, column: REWARD }],
    },
    Claim {
        name: "claim_trpo",
        title: "TRPO against PPO and the plain policy gradient, at equal samples",
        said: "Schulman et al. 2015 (arXiv:1502.05477) report that TRPO gains where a natural gradient of fixed step does not, and \
               that every step stays within the bound on the divergence; Schulman et al. 2017 (arXiv:1707.06347, figure 3) \
               report more reward for PPO than for TRPO and A2C at equal samples. Each takes 20 steps of 256 answers. The \
               divergence KL(old ‖ new) of every step is measured over the whole vocabulary, on the step's answers, in nats per \
               token; TRPO's bound is 0.01. The residual is that of its linear solver after ten products with the Fisher \
               matrix, and its line search halves the step until the bound holds. `reinforce` has the batch's mean for a \
               baseline, the others but `npg` a critic.",
        plans: TRUST,
        columns: &[REWARD, DIVERGENCE, STEP, LONGEST, OF_BOUND, RESIDUAL, HALVINGS, TOKENS],
        findings: &[
            Finding::More { a: 0, b: 1, column: REWARD },
            Finding::More { a: 2, b: 0, column: REWARD },
            Finding::More { a: 2, b: 3, column: REWARD },
            Finding::More { a: 0, b: 3, column: REWARD },
            Finding::More { a: 0, b: 4, column: REWARD },
            Finding::Less { a: 0, b: 2, column: LONGEST },
        ],
    },
    Claim {
        name: "claim_gro",
        title: "GRO's two ingredients, alone and together",
        said: "Cai 2025 (arXiv:2503.19523) asks for this comparison: a weight w that looks at how far an answer lags behind \
               its rivals, and an increasing v in place of the advantage itself. It supposes that v lessens the collapse of \
               answers onto a few, and w more so. On `countdown` a prompt has several right answers. The baseline is the \
               group's mean throughout; beta is 0.5.",
        plans: TABLE,
        columns: &[REWARD, PASS, DISTINCT, DIVERGENCE, TOKENS],
        findings: &[
            Finding::More { a: 1, b: 0, column: REWARD },
            Finding::More { a: 2, b: 0, column: REWARD },
            Finding::More { a: 3, b: 0, column: REWARD },
            Finding::More { a: 3, b: 2, column: REWARD },
            Finding::More { a: 1, b: 0, column: DISTINCT },
            Finding::More { a: 2, b: 0, column: DISTINCT },
            Finding::More { a: 3, b: 2, column: DISTINCT },
        ],
    },
    Claim {
        name: "claim_dapo",
        title: "DAPO's ingredients, added to GRPO one at a time",
        said: "Yu et al. 2025 (arXiv:2503.14476, table 1) report that the score of GRPO without a divergence rises with each \
               of these, in this order. Every run ends after 80,000 sampled tokens; dynamic sampling pays for what it throws \
               away. Answers are cut off after five tokens, one more than a right one has, which is one answer in a hundred.",
        plans: LADDER,
        columns: &[REWARD, DIVERGENCE, LENGTH, TOKENS, SECONDS],
        findings: &[
            Finding::More { a: 1, b: 0, column: REWARD },
            Finding::More { a: 2, b: 1, column: REWARD },
            Finding::More { a: 3, b: 2, column: REWARD },
            Finding::More { a: 4, b: 3, column: REWARD },
            Finding::More { a: 5, b: 4, column: REWARD },
        ],
    },
    Claim {
        name: "claim_resets",
        title: "Resets against PPO, at equal divergence",
        said: "Chang et al. report more reward at the same divergence when rollouts restart from prefixes of \
               demonstrations (DR-PO, arXiv:2404.08495); of restarts from the reference's own answers (PPO++, \
               arXiv:2306.11816) they report more reward. Both are tried at equal divergence here. Three lengths of \
               training, in steps of as many answers, trace each method's path; rewards are compared at the largest \
               divergence that both paths reach.",
        plans: RESETS,
        columns: &[REWARD, DIVERGENCE, TOKENS, SECONDS],
        findings: &[
            Finding::MoreAtEqualDivergence { a: &[3, 4, 5], b: &[0, 1, 2] },
            Finding::MoreAtEqualDivergence { a: &[6, 7, 8], b: &[0, 1, 2] },
        ],
    },
    Claim {
        name: "claim_rebel",
        title: "REBEL against PPO and DPO",
        said: "Gao et al. 2024 (arXiv:2404.16767) report that REBEL matches or exceeds PPO and DPO in reward, and takes \
               less time and memory than PPO, which has a critic. Each samples 8,192 answers.",
        plans: REBEL,
        columns: &[REWARD, DIVERGENCE, TOKENS, SECONDS, MEMORY],
        findings: &[
            Finding::More { a: 0, b: 1, column: REWARD },
            Finding::More { a: 0, b: 2, column: REWARD },
            Finding::Less { a: 0, b: 1, column: SECONDS },
            Finding::Less { a: 0, b: 1, column: MEMORY },
        ],
    },
    Claim {
        name: "claim_refuel",
        title: "REFUEL against single-turn REBEL",
        said: "Gao et al. 2024 (arXiv:2410.04612) report that regressing on a turn's whole future gains most in late turns, \
               where methods that look at one turn fall behind. The single-turn run is the same script with the reward \
               of the turn itself (`guess`: 1 if this guess is right) in place of the dialogue's.",
        plans: REFUEL,
        columns: &[SOLVED[0], SOLVED[1], SOLVED[2], SOLVED[3], SOLVED[4], DIVERGENCE, TOKENS],
        findings: &[Finding::More { a: 0, b: 1, column: SOLVED[4] }, Finding::More { a: 0, b: 1, column: SOLVED[2] }],
    },
    Claim {
        name: "claim_rloo",
        title: "RLOO against RAFT under reward noise",
        said: "Ahmadian et al. 2024 (arXiv:2402.14740, section 5.3) report that noise in the reward hurts RLOO less than RAFT, \
               which imitates the best of a group. Normal noise of standard deviation 1 is added to every training reward, \
               which is 0 or 1. Neither has a divergence here; both see the same number of answers.",
        plans: NOISY,
        columns: &[REWARD, DIVERGENCE, TOKENS, SECONDS],
        findings: &[Finding::More { a: 1, b: 3, column: REWARD }, Finding::More { a: 0, b: 2, column: REWARD }],
    },
    Claim {
        name: "claim_dr_grpo",
        title: "Dr. GRPO against GRPO by the length of wrong answers",
        said: "Liu et al. 2025 (arXiv:2503.20783) report that GRPO's division by the answer's length lets wrong answers grow, \
               and that Dr. GRPO's do not.",
        plans: LENGTHS,
        columns: &[REWARD, LENGTH, WRONG_LENGTH, TOKENS],
        findings: &[Finding::Less { a: 1, b: 0, column: WRONG_LENGTH }],
    },
];

/// What a finding comes to, as a sentence.
pub fn verdict(finding: &Finding, rows: &[Row]) -> String {
    let name = |i: usize| rows[i].plan.name;
    match finding {
        Finding::More { a, b, column } => {
            let gaps = gaps(&rows[*a], &rows[*b], column);
            sentence(name(*a), "more", column.title, name(*b), &gaps, column.digits)
        }
        Finding::Less { a, b, column } => {
            let gaps: Vec<f64> = gaps(&rows[*a], &rows[*b], column).into_iter().map(|gap| -gap).collect();
            sentence(name(*a), "less", column.title, name(*b), &gaps, column.digits)
        }
        Finding::MoreAtEqualDivergence { a, b } => {
            let seeds = rows[a[0]].outcomes.len();
            let gaps: Vec<f64> = (0..seeds).filter_map(|seed| gap_at_equal(rows, a, b, seed)).collect();
            let script = |i: usize| rows[i].plan.script;
            let what = "reward at the divergence that both reach";
            sentence(script(a[0]), "more", what, script(b[0]), &gaps, 3)
        }
    }
}

/// Seed by seed.
fn gaps(a: &Row, b: &Row, column: &Column) -> Vec<f64> {
    a.outcomes.iter().zip(&b.outcomes).map(|(a, b)| (column.of)(a) - (column.of)(b)).collect()
}

/// It holds where every seed says so, fails where every seed denies it, and is undecided else.
fn sentence(a: &str, more: &str, what: &str, b: &str, gaps: &[f64], digits: usize) -> String {
    let verdict = match gaps {
        [] => "cannot be told",
        gaps if gaps.iter().all(|gap| *gap > 0.0) => "**reproduces**",
        gaps if gaps.iter().all(|gap| *gap <= 0.0) => "**does not reproduce**",
        _ => "**undecided**: the seeds disagree",
    };
    let signed = |gap: &f64| format!("{:+.digits$}", if more == "less" { -gap } else { *gap });
    let shown: Vec<String> = gaps.iter().map(signed).collect();
    format!("`{a}` has {more} {what} than `{b}`: {verdict} (differences by seed: {}).", shown.join(", "))
}

/// Reward of `a` minus that of `b` at the largest divergence that both reach.
fn gap_at_equal(rows: &[Row], a: &[usize], b: &[usize], seed: usize) -> Option<f64> {
    let path = |plans: &[usize]| {
        let point = |&i: &usize| {
            let outcome = &rows[i].outcomes[seed];
            (measured(outcome, "kl_ref"), measured(outcome, "reward"))
        };
        let mut points: Vec<(f64, f64)> = plans.iter().map(point).collect();
        points.sort_by(|p, q| p.0.total_cmp(&q.0));
        points
    };
    let (a, b) = (path(a), path(b));
    let at = a.last()?.0.min(b.last()?.0);
    Some(interpolate(&a, at)? - interpolate(&b, at)?)
}

fn interpolate(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = points.iter().position(|p| p.0 >= x)?;
    let (x1, y1) = points[after];
    if x1 == x {
        return Some(y1);
    }
    // Below the first point there is nothing to interpolate from.
    let (x0, y0) = points[after.checked_sub(1)?];
    Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
}
