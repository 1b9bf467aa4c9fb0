//! A look at what was sampled: a table of a few rows, and what all of them tell: entropy, and the spread of rewards.

use crate::data::{Batch, Column, Content};
use crate::error::Result;
use crate::rl::mask::token_mean;
use crate::run::report::Table;
use crate::run::samples::{self, Kept};
use crate::run::{Run, Session, StepLoop};

/// How many tables `show` prints over a loop, the first and the last step's apart.
const TABLES: u64 = 8;

/// Columns shown where the batch has them, after the completion.
const NUMBERS: [&str; 3] = ["reward", "length", "finished"];

impl Run {
    /// Shows `k` rows of `batch` every few steps. At every step they go into `samples.jsonl`, and the spread of the batch's
    /// rewards and its entropy join the metrics unless the script logs its own: -E[log p] over the sampled tokens, an
    /// unbiased estimate in nats per token.
    ///
    /// # Errors
    /// Numbers that cannot be read, a file that cannot be written.
    pub fn show(&self, session: &Session, batch: &Batch, k: usize) -> Result<()> {
        if self.number("reward_std").is_none() && per_row(batch, "reward") {
            self.log("reward_std", spread(&batch.tensor("reward")?.to_vec()?));
        }
        if self.number("entropy").is_none()
            && let Some(entropy) = entropy(batch)?
        {
            self.log("entropy", entropy);
        }
        let shown = spread_over(batch, k);
        if is_shown(session.step_loop()) {
            session.reporter().table(&table(batch, session.step(), &shown)?);
        }
        match session.launched().samples {
            Kept::None => Ok(()),
            Kept::Shown => self.keep_samples(&samples::lines(batch, session.step(), &shown)?),
            Kept::All => {
                let all: Vec<usize> = (0..batch.len()).collect();
                self.keep_samples(&samples::lines(batch, session.step(), &all)?)
            }
        }
    }
}

/// Whether the samples of this step are worth a table: those of the first and the last, and of some in between.
fn is_shown(steps: &StepLoop) -> bool {
    let Some(plan) = steps.plan() else { return true };
    let (step, every) = (steps.step(), ((plan.last - plan.first + 1) / TABLES).max(1));
    step == plan.first || step == plan.last || (step - plan.first + 1).is_multiple_of(every)
}

fn entropy(batch: &Batch) -> Result<Option<f64>> {
    if !["old_logprob", "mask"].iter().all(|name| batch.names().contains(name)) {
        return Ok(None);
    }
    let mean = token_mean(&batch.tensor("old_logprob")?.detach(), &batch.tensor("mask")?)?;
    Ok(Some(-mean.item()?))
}

/// The standard deviation, biased.
fn spread(x: &[f64]) -> f64 {
    let n = x.len().max(1) as f64;
    let mean = x.iter().sum::<f64>() / n;
    (x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt()
}

/// `k` rows, spread over the batch so that they come from different prompts.
fn spread_over(batch: &Batch, k: usize) -> Vec<usize> {
    let k = k.min(batch.len());
    (0..k).map(|i| i * batch.len() / k).collect()
}

fn table(batch: &Batch, step: u64, chosen: &[usize]) -> Result<Table> {
    let texts: Vec<&str> = ["prompt", "text"].into_iter().filter(|name| batch.names().contains(name)).collect();
    let numbers: Vec<&str> = NUMBERS.into_iter().filter(|name| per_row(batch, name)).collect();
    let mut rows = Vec::with_capacity(chosen.len());
    for &row in chosen {
        let mut cells = Vec::new();
        for name in &texts {
            cells.push(text(batch, name, row)?);
        }
        for name in &numbers {
            cells.push(number(batch.tensor(name)?.to_vec()?[row]));
        }
        rows.push(cells);
    }
    let head = texts.iter().chain(&numbers).map(|name| name.replace("text", "completion")).collect();
    Ok(Table { title: format!("samples of step {step}"), head, rows })
}

fn per_row(batch: &Batch, name: &str) -> bool {
    matches!(batch.get(name), Ok(Column::Tensor(tensor)) if tensor.len() == batch.len())
}

fn text(batch: &Batch, name: &str, row: usize) -> Result<String> {
    Ok(match batch.list(name)?.get(row) {
        Some(value) => Content::shown(value).into_owned(),
        None => String::new(),
    })
}

fn number(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{x:.3}") }
}
