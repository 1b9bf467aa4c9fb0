//! Every shipped script trained from `tiny` on three seeds, measured on held-out prompts, the papers' claims in small, and
//! RLHF from end to end: writes docs/results.md and docs/results/*.svg.
//!
//! `cargo bench --bench results` takes about an hour; runs that are in target/results already are not repeated.
//! `cargo bench --bench results -- grpo ppo` runs only these and the claims named; of others what was written stays.
//! `cargo bench --bench results -- rlhf` takes minutes, and writes its own part of the page alone; `surrogates`, a picture,
//! takes seconds.

mod claims;
mod curve;
mod page;
mod paths;
mod plan;
mod rlhf;
mod runs;
mod surrogates;

use plan::{Plan, SCRIPTS, SEEDS};
use runs::{Outcome, Runner};
use std::fs;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One plan's outcomes, a seed each.
pub struct Row {
    pub plan: &'static Plan,
    pub outcomes: Vec<Outcome>,
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let only: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runner = Runner::new(root);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| word == name);

    let mut plans: Vec<&Plan> = SCRIPTS.iter().filter(|plan| wanted(plan.name)).collect();
    plans.extend(claims::CLAIMS.iter().filter(|claim| wanted(claim.name)).flat_map(|claim| claim.plans));
    // A seed after the other: what is wrong with a script shows early.
    let mut runs: Vec<(&Plan, u64)> =
        SEEDS.iter().flat_map(|seed| plans.iter().map(move |plan| (*plan, *seed))).collect();
    if wanted(rlhf::NAME) {
        let plans = || rlhf::METHODS.iter().flat_map(|method| method.plans);
        runs.extend(rlhf::SEEDS.iter().flat_map(|seed| plans().map(move |plan| (plan, *seed))));
    }
    for (i, &(plan, seed)) in runs.iter().enumerate() {
        eprint!("[{}/{}] ", i + 1, runs.len());
        if let Err(e) = runner.run(plan, seed) {
            eprintln!("{}: {e}", plan.name);
        }
    }

    let curves = root.join("docs/results");
    fs::create_dir_all(&curves)?;
    let path = root.join("docs/results.md");
    let written = fs::read_to_string(&path).unwrap_or_default();
    let page = if only == [rlhf::NAME] { written.clone() } else { others(&runner, &curves, &written, &wanted)? };
    // What is not all there stays as it was written.
    let part = match rlhf::Found::read(&runner)? {
        Some(found) => {
            paths::write(&found.paths(), &curves.join("rlhf.svg"))?;
            found.section()
        }
        None => page::part(&written, rlhf::TITLE).map(|range| written[range].to_string()).unwrap_or_default(),
    };
    let page = page::with_part(&page, rlhf::TITLE, &part);
    let part = if wanted(surrogates::NAME) {
        let lines = runner.example(surrogates::NAME)?;
        surrogates::write(&lines, &curves.join("surrogates.svg"))?;
        surrogates::section(&lines)
    } else {
        page::part(&written, surrogates::TITLE).map(|range| written[range].to_string()).unwrap_or_default()
    };
    fs::write(path, page::with_part(&page, surrogates::TITLE, &part))?;
    Ok(())
}

/// The page without RLHF, its curves drawn.
fn others(runner: &Runner, curves: &Path, written: &str, wanted: &dyn Fn(&str) -> bool) -> Result<String> {
    let plans = SCRIPTS.iter().filter(|plan| wanted(plan.name));
    let rows: Vec<Row> = plans.filter_map(|plan| row(runner, plan, &SEEDS)).collect();
    let mut claims = Vec::new();
    for claim in claims::CLAIMS.iter().filter(|claim| wanted(claim.name)) {
        let rows: Option<Vec<Row>> = claim.plans.iter().map(|plan| row(runner, plan, &SEEDS)).collect();
        claims.extend(rows.map(|rows| (claim, rows)));
    }
    let needed = |task: &&str| rows.iter().any(|row| row.plan.task == *task);
    let tasks = plan::tasks().into_iter().filter(needed);
    let start: Vec<(&str, Outcome)> = tasks.map(|task| Ok((task, runner.start(task)?))).collect::<Result<_>>()?;
    for row in &rows {
        curve::write(row, &curves.join(format!("{}.svg", row.plan.name)))?;
    }
    Ok(page::write(&rows, &claims, &start, written))
}

/// The outcomes of `plan`; `None` where some are missing.
fn row(runner: &Runner, plan: &'static Plan, seeds: &[u64]) -> Option<Row> {
    let outcomes = seeds.iter().map(|&seed| runner.read(plan, seed)).collect::<Option<_>>()?;
    Some(Row { plan, outcomes })
}
