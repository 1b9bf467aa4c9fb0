//! Elementwise operations of one, two or three tensors: one driver for values, broadcasting and gradients.
//!
//! Owns no operation; the catalogue is in `ops`.

use crate::error::Result;
use crate::tensor::create::count;
use crate::tensor::shape::{self, MAX_RANK};
use crate::tensor::value::{common_device, common_dtype, read};
use crate::tensor::{Tensor, tape};
use candle_core::Tensor as Data;

/// An elementwise operation of `N` tensors: its value at one cell and what it passes back.
pub struct Op<const N: usize> {
    /// As scripts call it.
    pub name: &'static str,
    pub value: fn([f64; N]) -> f64,
    /// `(upstream, inputs, output)` to one gradient per input; called only where upstream is not zero.
    /// `None` where the derivative is zero everywhere: the result has no graph.
    pub slope: Option<Slope<N>>,
}

pub type Slope<const N: usize> = fn(f64, [f64; N], f64) -> [f64; N];

impl Op<1> {
    pub fn on(&'static self, x: &Tensor) -> Result<Tensor> {
        apply(self, [x])
    }
}

impl Op<2> {
    pub fn on(&'static self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        apply(self, [a, b])
    }
}

impl Op<3> {
    pub fn on(&'static self, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
        apply(self, [a, b, c])
    }
}

/// The cells of a broadcast result and where each comes from.
#[derive(Clone, Copy)]
struct Walk<const N: usize> {
    out: [usize; MAX_RANK],
    strides: [[usize; MAX_RANK]; N],
}

impl<const N: usize> Walk<N> {
    /// Calls `visit(cell, [cell of each input])` in row-major order.
    fn each(&self, mut visit: impl FnMut(usize, [usize; N])) {
        let mut cell = 0;
        for i in 0..self.out[0] {
            for j in 0..self.out[1] {
                let start: [usize; N] = std::array::from_fn(|n| i * self.strides[n][0] + j * self.strides[n][1]);
                for k in 0..self.out[2] {
                    visit(cell, std::array::from_fn(|n| start[n] + k * self.strides[n][2]));
                    cell += 1;
                }
            }
        }
    }
}

fn apply<const N: usize>(op: &'static Op<N>, inputs: [&Tensor; N]) -> Result<Tensor> {
    let dims = shape::broadcast(op.name, &inputs.map(Tensor::dims))?;
    let out = shape::padded(&dims);
    let walk = Walk { out, strides: inputs.map(|t| shape::strides(t.dims(), &out)) };
    let mut values = Vec::with_capacity(count(&dims)?);
    let cells = inputs.iter().map(|t| t.to_vec()).collect::<Result<Vec<_>>>()?;
    walk.each(|_, at| values.push((op.value)(std::array::from_fn(|n| cells[n][at[n]]))));

    let tokens = inputs.iter().any(|t| t.is_tokens()) && dims.len() == 2;
    let result = Tensor::from_host(values, &dims, common_dtype(&inputs), &common_device(&inputs))?.with_tokens(tokens);
    let Some(slope) = op.slope else {
        return Ok(result);
    };
    Ok(tape::record(result, &inputs, |result, wanted| {
        let saved = inputs.map(|t| t.data().clone());
        let result = result.data().clone();
        move |upstream: &[f64]| backward(&walk, slope, &saved, &result, &wanted, upstream)
    }))
}

fn backward<const N: usize>(
    walk: &Walk<N>,
    slope: Slope<N>,
    inputs: &[Data; N],
    result: &Data,
    wanted: &[bool],
    upstream: &[f64],
) -> Result<Vec<Vec<f64>>> {
    let cells = inputs.iter().map(read).collect::<Result<Vec<_>>>()?;
    let values = read(result)?;
    let mut parts: Vec<Vec<f64>> =
        (0..N).map(|n| if wanted[n] { vec![0.0; cells[n].len()] } else { Vec::new() }).collect();
    walk.each(|cell, at| {
        if upstream[cell] == 0.0 {
            return;
        }
        let local = slope(upstream[cell], std::array::from_fn(|n| cells[n][at[n]]), values[cell]);
        for n in 0..N {
            if wanted[n] {
                parts[n][at[n]] += local[n];
            }
        }
    });
    Ok(parts)
}
