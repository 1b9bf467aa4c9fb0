//! `rhopo bench`: tokens per second for sampling, log-probs and the update.

use crate::engine::{self, Settings};
use crate::error::{Error, Result};
use crate::run::bench::{Bench, SHAPES, Timing};
use crate::run::device;
use crate::script::lang::loader::Loader;
use crate::ui::limits::threads;
use crate::ui::out;
use crate::ui::terminal::report;
use std::process::ExitCode;
use std::time::Duration;

/// Options of `rhopo bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// A shape of work: uniform, ragged, tldr or vocab
    #[arg(default_value = "uniform")]
    pub shape: String,
    /// Steps timed, after two that are not
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: u16,
    /// Threads to compute with [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
}

pub fn bench(args: &BenchArgs) -> ExitCode {
    match measure(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e.into(), &Loader::default());
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &BenchArgs) -> Result<()> {
    let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
    let shape = SHAPES.iter().find(|shape| shape.name == args.shape);
    let shape = shape.ok_or_else(|| Error::unknown("shape", &args.shape, &names))?;
    threads(args.threads)?;
    let mut bench = Bench::new(*shape, &device::parse(&args.device)?, engine::local(Settings::default()))?;
    out::line(&format!("{}: {}, one GRPO step with reference log-probs", shape.name, shape.about));
    for _ in 0..2 {
        bench.step()?;
    }
    let timings = (0..args.steps).map(|_| bench.step()).collect::<Result<Vec<_>>>()?;
    let part = |name: &str, of: fn(&Timing) -> Duration| {
        let mut seconds: Vec<f64> = timings.iter().map(|t| of(t).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        let mut rates: Vec<f64> = timings.iter().map(|t| t.tokens as f64 / of(t).as_secs_f64()).collect();
        rates.sort_by(f64::total_cmp);
        let (least, most) = (seconds[0], seconds[seconds.len() - 1]);
        let rate = rates[rates.len() / 2];
        out::line(&format!("{name:<10} {median:>8.3} s   ({least:.3} to {most:.3})  {rate:>9.0} tokens/s"));
    };
    part("sample", |t| t.sample);
    part("reference", |t| t.reference);
    part("update", |t| t.update);
    part("step", Timing::step);
    Ok(())
}
