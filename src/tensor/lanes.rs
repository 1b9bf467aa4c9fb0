//! Operations along one axis, or over all cells: one driver for values and gradients.
//!
//! Owns no operation; those are in `reduce`.

use crate::error::Result;
use crate::tensor::create::count;
use crate::tensor::value::read;
use crate::tensor::{Tensor, shape, tape};

/// What one lane (the cells along the axis) becomes.
pub(crate) struct LaneOp {
    /// Fills `out` (one cell, or as many as the lane) from `x`.
    pub value: fn(x: &[f64], out: &mut [f64]),
    /// Fills `grad` from upstream `g` and `x`; called only if some `g` is not zero.
    pub slope: LaneSlope,
    /// Whether a lane becomes one cell.
    pub reduces: bool,
}

pub(crate) type LaneSlope = fn(g: &[f64], x: &[f64], grad: &mut [f64]);

/// How a row-major array splits into lanes: cell `i` of a lane stands at `outer·n·inner + i·inner + k`.
#[derive(Clone, Copy)]
struct Lanes {
    outer: usize,
    n: usize,
    inner: usize,
}

impl Lanes {
    fn start(self, lane: usize, n: usize) -> usize {
        (lane / self.inner) * n * self.inner + lane % self.inner
    }

    fn load(self, lane: usize, n: usize, from: &[f64], to: &mut [f64]) {
        let start = self.start(lane, n);
        for i in 0..n {
            to[i] = from[start + i * self.inner];
        }
    }

    fn store(self, lane: usize, n: usize, from: &[f64], to: &mut [f64]) {
        let start = self.start(lane, n);
        for i in 0..n {
            to[start + i * self.inner] = from[i];
        }
    }
}

/// Applies `op` along `axis`, which stays as an axis of length 1 where the op reduces.
pub(crate) fn along(op: &'static LaneOp, name: &str, x: &Tensor, axis: i64) -> Result<Tensor> {
    let at = shape::axis(name, x.dims(), axis)?;
    let dims = x.dims();
    let lanes = Lanes { outer: dims[..at].iter().product(), n: dims[at], inner: dims[at + 1..].iter().product() };
    let mut out = dims.to_vec();
    if op.reduces {
        out[at] = 1;
    }
    run(op, x, lanes, &out)
}

/// Applies `op` to all cells at once: a reduction gives one number of shape `[]`.
pub(crate) fn over_all(op: &'static LaneOp, x: &Tensor) -> Result<Tensor> {
    run(op, x, Lanes { outer: 1, n: x.len(), inner: 1 }, if op.reduces { &[] } else { x.dims() })
}

fn run(op: &'static LaneOp, x: &Tensor, lanes: Lanes, dims: &[usize]) -> Result<Tensor> {
    let cells = x.to_vec()?;
    let m = if op.reduces { 1 } else { lanes.n };
    let mut values = vec![0.0; count(dims)?];
    let (mut lane_x, mut lane_y) = (vec![0.0; lanes.n], vec![0.0; m]);
    for lane in 0..lanes.outer * lanes.inner {
        lanes.load(lane, lanes.n, &cells, &mut lane_x);
        (op.value)(&lane_x, &mut lane_y);
        lanes.store(lane, m, &lane_y, &mut values);
    }
    let result = Tensor::from_host(values, dims, x.dtype(), x.device())?.with_tokens(x.is_tokens() && !op.reduces);
    Ok(tape::record(result, &[x], |_, _| {
        let x = x.data().clone();
        move |upstream: &[f64]| {
            let cells = read(&x)?;
            let mut grad = vec![0.0; cells.len()];
            let (mut lane_x, mut lane_grad) = (vec![0.0; lanes.n], vec![0.0; lanes.n]);
            let mut lane_g = vec![0.0; m];
            for lane in 0..lanes.outer * lanes.inner {
                lanes.load(lane, m, upstream, &mut lane_g);
                if lane_g.iter().all(|g| *g == 0.0) {
                    continue;
                }
                lanes.load(lane, lanes.n, &cells, &mut lane_x);
                (op.slope)(&lane_g, &lane_x, &mut lane_grad);
                lanes.store(lane, lanes.n, &lane_grad, &mut grad);
            }
            Ok(vec![grad])
        }
    }))
}
