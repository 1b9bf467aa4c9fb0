//! `rhopo gpu bench`: a training step of a model of real size, with random weights.

use crate::error::{Error, Result};
use crate::gpu::check::matrix_rate;
use crate::run::device;
use crate::run::gpu_bench::{SIZES, Timing, TrainingBench};
use crate::ui::out;

/// Options of `rhopo gpu bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// Size of the model, a Qwen2: tiny, 0.5B or 1.5B parameters
    #[arg(long, default_value = "0.5B")]
    pub size: String,
    /// Number of steps to time, after one to warm up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: u16,
    /// Device to time: cuda, cuda:N
    #[arg(long, default_value = "cuda")]
    pub device: String,
}

/// Prints medians of a step's parts, the rate of its operations, and the most memory it held.
///
/// # Errors
/// A size or device that there is not; a device that fails, or has too little memory.
pub(super) fn bench(args: &BenchArgs) -> Result<()> {
    let names: Vec<&str> = SIZES.iter().map(|size| size.name).collect();
    let size = SIZES.iter().find(|size| size.name == args.size);
    let size = size.ok_or_else(|| Error::unknown("size", &args.size, &names))?;
    let place = device::parse(&args.device)?;
    let bench = TrainingBench::new(size, &place)?;
    let gpu = bench.gpu();
    let peak = matrix_rate(gpu)?;
    let [rows, prompt, answer] = size.rows();
    out::line(&format!(
        "{}: {:.1} M parameters in bf16 on {place}, {}; {rows} rows of {prompt} shared and {answer} tokens, {} computed",
        size.name,
        bench.parameters() as f64 / 1e6,
        gpu.facts().name,
        size.tokens()
    ));
    bench.step()?;
    let timings = (0..args.steps).map(|_| bench.step()).collect::<Result<Vec<_>>>()?;
    let forward = size.operations(bench.parameters());
    let part = |name: &str, passes: f64, of: fn(&Timing) -> f64| {
        let mut seconds: Vec<f64> = timings.iter().map(of).collect();
        seconds.sort_by(f64::total_cmp);
        let (least, median, most) = (seconds[0], seconds[seconds.len() / 2], seconds[seconds.len() - 1]);
        let (tokens, rate) = (size.tokens() as f64 / median, passes * forward / median / 1e12);
        out::line(&format!(
            "{name:<7} {median:>9.3} s ({least:.3} to {most:.3})  {tokens:>10.0} tokens/s  {rate:>7.1} TFLOP/s, \
             {:.1} % of the {peak:.1} of a large product",
            100.0 * rate / peak
        ));
    };
    part("score", 1.0, |t| t.score);
    // A forward pass, a backward pass, which is two, and the optimizer.
    part("update", 3.0, |t| t.update);
    out::line(&format!("memory  {:>9.2} GiB at most", bench.most() as f64 / f64::from(1 << 30)));
    Ok(())
}
