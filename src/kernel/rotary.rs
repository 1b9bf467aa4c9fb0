//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), the two-halves form of Llama and Qwen.

use super::host;
use super::op::{Operation, Tangent, given};
use super::simd::simd;
use super::tape::{Grads, Sink, Tape, Var};
use crate::error::Result;
use crate::gpu::{Array, Gpu};
use candle_core::{D, Tensor};
use std::sync::{Arc, OnceLock};

/// How the frequencies are stretched for contexts longer than those of pretraining.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    None,
    /// Every frequency divided by `factor` (position interpolation, Chen et al. 2023, arXiv:2306.15595).
    Linear {
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, those between blended. Which is which is
    /// told by how often a wave fits into `original_max_positions`: less than `low_freq_factor` or more than
    /// `high_freq_factor` times.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_positions: f64,
    },
    /// LongRoPE's (Ding et al. 2024, arXiv:2402.13753): each frequency divided by a factor of its own, `[dims/2]`, and
    /// the rotated numbers multiplied by `magnitude`.
    Factors {
        factors: Vec<f64>,
        magnitude: f32,
    },
}

impl Scaling {
    /// Whether each frequency has a factor of its own.
    pub fn by_factors(&self) -> bool {
        matches!(self, Self::Factors { .. })
    }

    /// What rotated numbers are multiplied by.
    pub fn magnitude(&self) -> f32 {
        if let Self::Factors { magnitude, .. } = self { *magnitude } else { 1.0 }
    }
}

/// Radians per position of each pair of rotated numbers, `[⌈dims/2⌉]`: theta^(-2i/dims), then `scaling`. An odd `dims`
/// (a share of an odd head) counts in the exponent, and one dimension more is rotated, as in the reference.
/// In f32 and in the reference's order of operations, so that they agree to its rounding.
pub fn frequencies(dims: usize, theta: f64, scaling: &Scaling) -> Vec<f32> {
    let base = |i: usize| 1.0 / (theta as f32).powf(2.0 * i as f32 / dims as f32);
    (0..dims.div_ceil(2)).map(|i| scaled(i, base(i), scaling)).collect()
}

fn scaled(i: usize, frequency: f32, scaling: &Scaling) -> f32 {
    match *scaling {
        Scaling::None => frequency,
        Scaling::Factors { ref factors, .. } => frequency / factors[i] as f32,
        Scaling::Linear { factor } => frequency / factor as f32,
        Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let wave = 1.0 / frequency * std::f32::consts::TAU; // positions per turn
            if wave > (original_max_positions / low_freq_factor) as f32 {
                return frequency / factor as f32;
            }
            if wave < (original_max_positions / high_freq_factor) as f32 {
                return frequency;
            }
            let turns = 1.0 / wave * original_max_positions as f32;
            let kept = (turns - low_freq_factor as f32) / (high_freq_factor - low_freq_factor) as f32;
            (1.0 - kept) * frequency / factor as f32 + kept * frequency
        }
    }
}

/// Angles per token: cos and sin, each `[N, dims/2]`, made once for a pass and shared by its layers.
#[derive(Clone)]
pub struct Angles {
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    half: usize,
    /// cos and sin on the device that asked first.
    uploaded: Arc<OnceLock<[Array; 2]>>,
}

impl Angles {
    /// For tokens at `positions`; `frequencies` `[dims/2]` turn the first `dims` numbers of each head, which then are
    /// multiplied by `magnitude`.
    pub fn new(positions: &[u32], frequencies: &[f32], magnitude: f32) -> Self {
        let angle = |f: fn(f32) -> f32| {
            positions.iter().flat_map(|&p| frequencies.iter().map(move |w| f(p as f32 * w) * magnitude)).collect()
        };
        Self { cos: angle(f32::cos), sin: angle(f32::sin), half: frequencies.len(), uploaded: Arc::default() }
    }

    fn inverse(&self) -> Self {
        Self { sin: self.sin.iter().map(|s| -s).collect(), uploaded: Arc::default(), ..self.clone() }
    }

    /// How many pairs of numbers of a head turn.
    pub(super) fn half(&self) -> usize {
        self.half
    }

    /// cos and sin on a device, each `[N, dims/2]`: uploaded once, and shared by the layers of a pass.
    pub(super) fn on(&self, gpu: &Gpu) -> Result<[Array; 2]> {
        if let Some(found) = self.uploaded.get().filter(|[cos, _]| cos.gpu() == gpu) {
            return Ok(found.clone());
        }
        let upload = |table: &[f32]| gpu.upload("rotary angles", table, &[table.len()]);
        let arrays = [upload(&self.cos)?, upload(&self.sin)?];
        // Lost where another thread, or another device, was first: its own serve this call.
        let _ = self.uploaded.set(arrays.clone());
        Ok(arrays)
    }
}

/// Rotates every head of x `[N, heads*head_dim]`; dimensions past the rotated ones pass through.
pub fn rotary(tape: &mut Tape, x: &Var, angles: &Angles, head_dim: usize) -> Result<Var> {
    tape.apply(Rotary { angles: angles.clone(), head_dim }, [x])
}

#[derive(Clone)]
pub(super) struct Rotary {
    pub(super) angles: Angles,
    pub(super) head_dim: usize,
}

impl Operation<1> for Rotary {
    type Saved = Sink;

    fn host(&self, _: &Tape, [x]: [&Var; 1]) -> Result<(Tensor, Sink)> {
        Ok((turn(x.tensor()?, &self.angles, self.head_dim)?, x.sink()))
    }

    /// A rotation's transpose is the rotation back; a magnitude is its own.
    fn backward(&self, x: &Sink, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        grads.add_owned(*x, turn(dy, &self.angles.inverse(), self.head_dim)?)
    }

    fn plain(&self, [x]: &[Tensor; 1]) -> Result<Tensor> {
        let Self { angles, head_dim } = self;
        let (n, width) = x.dims2()?;
        let half = angles.half;
        let table = |t: &Arc<[f32]>| -> Result<Tensor> {
            Ok(Tensor::from_slice(t, (n, 1, half), x.device())?.to_dtype(x.dtype())?)
        };
        let (cos, sin) = (table(&angles.cos)?, table(&angles.sin)?);
        let heads = x.reshape((n, width / head_dim, *head_dim))?;
        let (a, b) = (heads.narrow(D::Minus1, 0, half)?, heads.narrow(D::Minus1, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let rest = heads.narrow(D::Minus1, 2 * half, head_dim - 2 * half)?;
        let parts = if 2 * half == *head_dim { vec![first, second] } else { vec![first, second, rest] };
        Ok(Tensor::cat(&parts, D::Minus1)?.reshape((n, width))?)
    }
}

impl Tangent<1> for Rotary {
    fn tangent(&self, _: &Tape, _: [&Var; 1], [dx]: [Option<&Tensor>; 1], _: &Sink) -> Result<Tensor> {
        turn(given(dx), &self.angles, self.head_dim)
    }
}

fn turn(x: &Tensor, angles: &Angles, head_dim: usize) -> Result<Tensor> {
    let (n, width) = x.dims2()?;
    let data = host::read(x)?;
    let y = host::make_rows(n, width, |first, block| {
        for (i, y) in block.chunks_exact_mut(width).enumerate() {
            let row = first + i;
            let at = row * angles.half..(row + 1) * angles.half;
            turn_row(&data[row * width..(row + 1) * width], &angles.cos[at.clone()], &angles.sin[at], head_dim, y);
        }
    });
    host::tensor(y, &[n, width])
}

simd! {
    fn turn_row(x: &[f32], cos: &[f32], sin: &[f32], head_dim: usize, y: &mut [f32]) {
        let half = cos.len();
        for (x, y) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)) {
            let ((a, rest), (ya, yrest)) = (x.split_at(half), y.split_at_mut(half));
            let ((b, rest), (yb, yrest)) = (rest.split_at(half), yrest.split_at_mut(half));
            for i in 0..half {
                ya[i] = a[i] * cos[i] - b[i] * sin[i];
                yb[i] = b[i] * cos[i] + a[i] * sin[i];
            }
            yrest.copy_from_slice(rest);
        }
    }
}
