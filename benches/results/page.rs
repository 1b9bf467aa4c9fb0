//! docs/results.md from what was measured.

use crate::Row;
use crate::claims::{CLAIMS, Claim, measured, verdict};
use crate::plan::{Measured, Plan, SCRIPTS};
use crate::runs::Outcome;
use std::fmt::Write;

/// Title of the part with a line for each script.
const EVERY: &str = "Every script";
const HEAD: &str = "\
# Results

Written by `cargo bench --bench results`; nothing on this page is typed by hand. Every shipped script is run from `tiny`
on two cores with three seeds, as `rhopo run NAME --seed N` with the settings given, and what it leaves is measured on
512 answers to held-out prompts (`benches/results/measure.rhai`), the same way for every script:

- **reward**: the task's mean reward of answers sampled at temperature 1, before and after;
- **gain**: the mean of reward after minus before, and the seeds' smallest and largest;
- **beyond the spread**: whether the smallest gain of the seeds is larger than the difference between seeds
  (largest minus smallest);
- **divergence**: KL(policy ‖ tiny), exact over the vocabulary, summed over an answer, in nats;
- **ranked**: share of held-out pairs (two answers of `tiny`, judged by the reward) of which the better one has the
  higher mean log-probability per token, before and after;
- **distinct**: different answers among 8 to the same held-out prompt, as a share, and **pass@8**: the share of prompts
  with a right one among them, where a comparison shows them;
- **sampled**: tokens that the policy sampled while training; **seconds**: the whole command; **peak**: resident memory.

Most settings were chosen while looking at held-out rewards of the same tasks, mostly on seed 0, so those rewards are no
untouched test of the settings; how the methods compare depends on them as well. The warm-up, and all settings of the
scripts that came after it (`cispo`, `sapo`, `dppo`, `gmpo`, `dual_clip`, `max_rl`, `reinforce_pp_baseline`, `a2c`,
`ppo_clip_kl`, `a_star_po`, `alol`, `spin`, `opd`, `trpo`, `npg`, `cpi`, `gkd`, `distill`, `self_distill`, `nash_md`,
`ipo_md`, `ema_dpo`, `ppo_shared`, and `gro`'s beta), were taken from elsewhere or chosen by rewards of training prompts, on seeds 11 to
13; beta and follow of `ema_dpo` were changed after its rewards had fallen on seeds 0 to 2. Rewards, divergences and tokens are the same on every machine; seconds are not, and those of `trpo` to `ema_dpo` in this
list are of one thread beside other work, those of `ppo_shared` also of a build that is not fully optimised.
";

const CLAIMS_HEAD: &str = "
## The papers' claims, in small

Side by side at equal numbers of sampled tokens, or of answers or steps where that is said. A comparison *reproduces*
where every seed says so, does *not* where every seed denies it, and is *undecided* where they disagree. Three seeds of
one small task give a direction and no more: they say nothing of large models.
";

/// What is not all there, a script or a claim, stays as it was `written`.
pub fn write(rows: &[Row], claims: &[(&Claim, Vec<Row>)], start: &[(&str, Outcome)], written: &str) -> String {
    let mut page = String::from(HEAD);
    // Writing into a String cannot fail.
    let _ = scripts(&mut page, rows, start, part(written, EVERY).map_or("", |range| &written[range]));
    let mut tried = String::new();
    for claim in CLAIMS {
        match claims.iter().find(|(known, _)| known.name == claim.name) {
            Some((_, rows)) => {
                let _ = self::claim(&mut tried, claim, rows);
            }
            None => tried.push_str(kept(written, claim.title)),
        }
    }
    if !tried.is_empty() {
        page.push_str(CLAIMS_HEAD);
    }
    page + &tried
}

/// What was written of a claim: from the line before its heading to the next heading.
fn kept<'a>(written: &'a str, title: &str) -> &'a str {
    let heading = format!("\n### {title}\n");
    let Some(start) = written.find(&heading) else { return "" };
    let rest = &written[start + heading.len()..];
    let end = ["\n### ", "\n## "].iter().filter_map(|next| rest.find(next)).min().unwrap_or(rest.len());
    &written[start..start + heading.len() + end]
}

/// The line of a script's table.
fn line<'a>(written: &'a str, plan: &Plan) -> Option<&'a str> {
    written.lines().find(|line| line.starts_with(&format!("| [{name}](algorithms/{name}.md) |", name = plan.name)))
}

/// The page with a part in the place of that of the same title, or where there is none before the papers' claims.
pub fn with_part(page: &str, title: &str, part: &str) -> String {
    let range = self::part(page, title).unwrap_or_else(|| {
        let at = page.find(CLAIMS_HEAD).unwrap_or(page.len());
        at..at
    });
    format!("{}{part}{}", &page[..range.start], &page[range.end..])
}

/// Where the part of that title stands on the page: from the line before its heading to that before the next.
pub fn part(page: &str, title: &str) -> Option<std::ops::Range<usize>> {
    let heading = format!("\n## {title}\n");
    let start = page.find(&heading)?;
    let end = page[start + heading.len()..].find("\n## ").map_or(page.len(), |at| start + heading.len() + at);
    Some(start..end)
}

fn scripts(page: &mut String, rows: &[Row], start: &[(&str, Outcome)], written: &str) -> std::fmt::Result {
    writeln!(page, "\n## {EVERY}\n")?;
    writeln!(
        page,
        "| script | task | settings | reward before → after | gain (smallest … largest) | beyond the spread | divergence | ranked | sampled | seconds | peak MB |"
    )?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    let begun = |task: &str| start.iter().find(|(name, _)| *name == task).map(|(_, outcome)| outcome);
    let mut own = Vec::new();
    for plan in SCRIPTS {
        let row = rows.iter().find(|row| row.plan.name == plan.name);
        if let Measured::Own(what) = plan.measured {
            own.push((plan, row, what));
            continue;
        }
        let Some(row) = row else {
            line(written, plan).into_iter().try_for_each(|line| writeln!(page, "{line}"))?;
            continue;
        };
        let Some(start) = begun(plan.task) else { continue };
        let before = measured(start, "reward");
        let after: Vec<f64> = row.outcomes.iter().map(|outcome| measured(outcome, "reward")).collect();
        let gains: Vec<f64> = after.iter().map(|after| after - before).collect();
        let ranked = column(row, |o| measured(o, "ranked"));
        let ranked = match ranked.is_finite() {
            true => format!("{:.3} → {ranked:.3}", measured(start, "ranked")),
            false => "–".to_string(),
        };
        writeln!(
            page,
            "| [{name}](algorithms/{name}.md) | {} | {} | {before:.3} → {} | {} | {} | {:.2} | {ranked} | {} | {:.0} | {:.0} |",
            plan.task,
            settings(plan),
            list(&after, 3),
            spread(&gains),
            beyond(&gains),
            column(row, |o| measured(o, "kl_ref")),
            thousands(column(row, Outcome::sampled)),
            column(row, |o| o.seconds),
            column(row, |o| o.peak),
            name = plan.name,
        )?;
    }
    if own.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\nScripts whose own objective is another one than a policy's reward; the first and last `eval` that they log:\n"
    )?;
    writeln!(
        page,
        "| script | task | settings | what | before (by seed) | after (by seed) | beyond the spread | seconds |"
    )?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for (plan, row, what) in own {
        let Some(row) = row else {
            line(written, plan).into_iter().try_for_each(|line| writeln!(page, "{line}"))?;
            continue;
        };
        let ends: Vec<(f64, f64)> = row.outcomes.iter().filter_map(|o| ends(&o.series("eval"))).collect();
        let (before, after): (Vec<f64>, Vec<f64>) = ends.iter().copied().unzip();
        let gains: Vec<f64> = ends.iter().map(|(before, after)| after - before).collect();
        writeln!(
            page,
            "| [{name}](algorithms/{name}.md) | {} | {} | {what} | {} | {} | {} | {:.0} |",
            row.plan.task,
            settings(row.plan),
            list(&before, 3),
            list(&after, 3),
            beyond(&gains),
            column(row, |o| o.seconds),
            name = row.plan.name,
        )?;
    }
    Ok(())
}

fn claim(page: &mut String, claim: &Claim, rows: &[Row]) -> std::fmt::Result {
    writeln!(page, "\n### {}\n\n{}\n", claim.title, claim.said)?;
    let titles: Vec<&str> = claim.columns.iter().map(|column| column.title).collect();
    writeln!(page, "| run | settings | {} |", titles.join(" | "))?;
    writeln!(page, "| --- | --- |{}", " --- |".repeat(titles.len()))?;
    for row in rows {
        write!(page, "| {} | {} |", row.plan.name, settings(row.plan))?;
        for c in claim.columns {
            let values: Vec<f64> = row.outcomes.iter().map(c.of).collect();
            write!(page, " {} |", list(&values, c.digits))?;
        }
        writeln!(page)?;
    }
    writeln!(page)?;
    for finding in claim.findings {
        writeln!(page, "- {}", verdict(finding, rows))?;
    }
    Ok(())
}

fn settings(plan: &Plan) -> String {
    let sets = match plan.sets {
        [] => "as shipped".to_string(),
        sets => format!("`{}`", sets.join(" ")),
    };
    match plan.teacher {
        Some(teacher) => format!("{sets}, the teacher being {teacher}'s model"),
        None => sets,
    }
}

/// The seeds' mean.
fn column(row: &Row, of: impl Fn(&Outcome) -> f64) -> f64 {
    row.outcomes.iter().map(of).sum::<f64>() / row.outcomes.len() as f64
}

fn ends(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    Some((points.first()?.1, points.last()?.1))
}

fn extremes(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)))
}

fn spread(gains: &[f64]) -> String {
    let (low, high) = extremes(gains);
    format!("{:+.3} ({low:+.3} … {high:+.3})", gains.iter().sum::<f64>() / gains.len() as f64)
}

fn beyond(gains: &[f64]) -> &'static str {
    let (low, high) = extremes(gains);
    if low > high - low { "yes" } else { "no" }
}

pub fn list(values: &[f64], digits: usize) -> String {
    // What a method does not have.
    if values.iter().all(|value| value.is_nan()) {
        return "–".to_string();
    }
    let shown: Vec<String> = values.iter().map(|value| format!("{value:.digits$}")).collect();
    shown.join(" · ")
}

fn thousands(tokens: f64) -> String {
    if tokens > 0.0 { format!("{:.0}k", tokens / 1000.0) } else { "–".to_string() }
}
