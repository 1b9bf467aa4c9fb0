//! `rhopo bench`: seconds and tokens per second for sampling, log-probs and the update, beside what the machine allows.

use crate::engine::{self, Settings};
use crate::error::Result;
use crate::run::bench::{Bench, Phase, SHAPES, Timing};
use crate::run::device;
use crate::run::machine::Machine;
use crate::script::lang::loader::Loader;
use crate::ui::limits::{thread_count, threads};
use crate::ui::out;
use crate::ui::terminal::report;
use clap::builder::{PossibleValue, PossibleValuesParser};
use std::process::ExitCode;

/// Options of `rhopo bench`.
///
/// For each phase, the floor is the shortest time that this machine allows: the longer of its multiply-adds at peak rate
/// and its bytes at the rate of memory. The percentage is the share of that limit which was reached, and the last word
/// says which of the two matters most. Tokens per second count the tokens of answers. docs/performance.md explains more.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// Workload to time
    #[arg(default_value = "uniform", value_parser = shapes())]
    pub shape: String,
    /// Number of steps to time, after two to warm up
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: u16,
    /// Number of threads [default: one per core]
    #[arg(long, value_parser = thread_count)]
    pub threads: Option<u16>,
    /// Device for the model: auto (a GPU if there is one), cpu, cuda, cuda:N
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
    out::line(&format!("{}, a GRPO step with reference log-probs: {}", shape.name, shape.about));
    let before = place.is_host().then(Machine::measure);
    out::line(&match &before {
        Some(machine) => limits(machine),
        None => "limits     for those of a GPU, see `rhopo gpu check ceilings`".to_string(),
    });
    let mut bench = Bench::new(*shape, &place, engine::local(Settings::at(&place)))?;
    for _ in 0..2 {
        bench.step()?;
    }
    let timings = (0..args.steps).map(|_| bench.step()).collect::<Result<Vec<_>>>()?;
    let machine = before.map(|before| {
        let after = Machine::measure();
        let best = before.or_better(after);
        if !before.is_close_to(&after) {
            out::line(&limits(&best));
            out::line(
                "           the higher of two measurements that differ: another program is running, so shares are too low",
            );
        }
        best
    });
    let tokens = median(timings.iter().map(|t| t.tokens as f64));
    out::line(&format!("tokens     {tokens:>8} of answers in each step"));
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
    let threads = format!("{threads} thread{}", if *threads == 1 { "" } else { "s" });
    format!(
        "limits     {operations:.1} GFLOP/s of f32 multiply-adds, {reading:.1} GB/s of reading ({threads}, {instructions})"
    )
}

/// A phase of all steps, with the answer tokens of each: median seconds, what they lie between, tokens per second; then
/// the shortest time that the machine allows, which share of its limits was reached, and the limit that counts most.
fn line(name: &str, phases: &[(Phase, usize)], machine: Option<&Machine>) -> String {
    let seconds = || phases.iter().map(|(phase, _)| phase.elapsed.as_secs_f64());
    let rate = median(phases.iter().map(|(phase, tokens)| *tokens as f64 / phase.elapsed.as_secs_f64()));
    let (middle, least, most) = (median(seconds()), seconds().fold(f64::MAX, f64::min), seconds().fold(0.0, f64::max));
    let between = format!("({least:.3} to {most:.3})");
    let floor = machine.map_or_else(String::new, |machine| {
        let floor = median(phases.iter().map(|(phase, _)| phase.floor(machine)));
        let limit = phases[0].0.limit(machine);
        format!("  floor {floor:>8.3} s  {:>3.0} %  {limit}", 100.0 * floor / middle)
    });
    format!("{name:<10} {middle:>8.3} s   {between:<18} {rate:>7.0} tokens/s{floor}")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
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
            "update        4.000 s   (2.500 to 5.000)         2 tokens/s  floor    1.500 s   38 %  multiply-adds"
        );
        // Of an even number of steps the share belongs to the printed median as well.
        assert!(line("update", &phases[..2], Some(&machine)).contains("3.250 s"));
        assert!(line("update", &phases[..2], Some(&machine)).contains(" 46 %"));
        assert!(line("update", &phases, None).ends_with("tokens/s"));
        assert_eq!(
            limits(&machine),
            "limits     3.0 GFLOP/s of f32 multiply-adds, 10.0 GB/s of reading (2 threads, avx2)"
        );
    }
}
