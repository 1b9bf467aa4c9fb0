//! `rhopo bench`: seconds and tokens per second for sampling, log-probs and the update, beside what the machine allows.

use crate::engine::{self, Settings};
use crate::error::Result;
use crate::run::bench::{Bench, Phase, SHAPES, Timing};
use crate::run::device;
use crate::run::machine::Machine;
use crate::script::lang::loader::Loader;
use crate::ui::limits::threads;
use crate::ui::out;
use crate::ui::terminal::report;
use clap::builder::{PossibleValue, PossibleValuesParser};
use std::process::ExitCode;

/// Options of `rhopo bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// A shape of work
    #[arg(default_value = "uniform", value_parser = shapes())]
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

fn shapes() -> PossibleValuesParser {
    SHAPES.map(|shape| PossibleValue::new(shape.name).help(shape.about)).into()
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
    let shape = SHAPES.iter().find(|shape| shape.name == args.shape).expect("one of the possible values");
    threads(args.threads)?;
    let place = device::parse(&args.device)?;
    let before = place.is_host().then(Machine::measure);
    let mut bench = Bench::new(*shape, &place, engine::local(Settings::at(&place)))?;
    out::line(&format!("{}: {}, one GRPO step with reference log-probs", shape.name, shape.about));
    for _ in 0..2 {
        bench.step()?;
    }
    let timings = (0..args.steps).map(|_| bench.step()).collect::<Result<Vec<_>>>()?;
    // Another program may have been busy during one of the two.
    let machine = before.map(|before| before.or_better(Machine::measure()));
    out::line(&match &machine {
        Some(machine) => limits(machine),
        None => "limits     those of a GPU are measured by `rhopo gpu check ceilings`".to_string(),
    });
    let tokens = median(timings.iter().map(|t| t.tokens as f64));
    out::line(&format!("tokens     {tokens:>8} of answers in a step"));
    let part = |name: &str, of: fn(&Timing) -> Phase| {
        let phases: Vec<(Phase, usize)> = timings.iter().map(|t| (of(t), t.tokens)).collect();
        out::line(&line(name, &phases, machine.as_ref()));
    };
    part("sample", |t| t.sample.clone());
    part("reference", |t| t.reference.clone());
    part("update", |t| t.update.clone());
    part("step", Timing::step);
    Ok(())
}

fn limits(machine: &Machine) -> String {
    let Machine { operations, reading, threads, instructions } = machine;
    let (operations, reading) = (operations / 1e9, reading / 1e9);
    format!(
        "limits     {operations:.1} GFLOP/s of f32 multiply-adds, {reading:.1} GB/s of reading ({threads} threads, {instructions})"
    )
}

/// A phase of all steps, with the answer tokens of each: median seconds, what they lie between, tokens per second; then
/// the shortest time that the machine allows, and which share of its limits was reached.
fn line(name: &str, phases: &[(Phase, usize)], machine: Option<&Machine>) -> String {
    let mut seconds: Vec<f64> = phases.iter().map(|(phase, _)| phase.elapsed.as_secs_f64()).collect();
    let rate = median(phases.iter().map(|(phase, tokens)| *tokens as f64 / phase.elapsed.as_secs_f64()));
    seconds.sort_by(f64::total_cmp);
    let (middle, least, most) = (seconds[seconds.len() / 2], seconds[0], seconds[seconds.len() - 1]);
    let floor = machine.map_or_else(String::new, |machine| {
        let floor = median(phases.iter().map(|(phase, _)| phase.floor(machine)));
        let share = median(phases.iter().map(|(phase, _)| phase.floor(machine) / phase.elapsed.as_secs_f64()));
        format!("  floor {floor:>8.3} s  {:>3.0} %", 100.0 * share)
    });
    format!("{name:<10} {middle:>8.3} s   ({least:.3} to {most:.3})  {rate:>9.0} tokens/s{floor}")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::bench::Work;
    use std::time::Duration;

    #[test]
    fn a_line_ends_with_the_floor_and_its_share() {
        let phase = |seconds| Phase {
            elapsed: Duration::from_secs_f64(seconds),
            work: vec![Work { operations: 3e9, bytes: 1e9 }, Work { operations: 0.0, bytes: 5e9 }],
        };
        let phases = [4.0, 2.5, 5.0].map(|seconds| (phase(seconds), 10));
        let machine = Machine { operations: 3e9, reading: 1e10, threads: 2, instructions: "avx2" };
        assert_eq!(
            line("update", &phases, Some(&machine)),
            "update        4.000 s   (2.500 to 5.000)          2 tokens/s  floor    1.500 s   38 %"
        );
        assert!(line("update", &phases, None).ends_with("tokens/s"));
        assert_eq!(
            limits(&machine),
            "limits     3.0 GFLOP/s of f32 multiply-adds, 10.0 GB/s of reading (2 threads, avx2)"
        );
    }
}
