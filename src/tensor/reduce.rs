//! Reductions over all cells or along an axis, and softmax, cumulative sums and sorting along an axis.
//!
//! Sums run in f64. Masked reductions over a batch are `rl::mask`'s: the ones here refuse per-token tensors, whose
//! padding would count.

use crate::error::{Error, Result};
use crate::tensor::lanes::{LaneOp, along, over_all};
use crate::tensor::{Tensor, shape};

static SUM: LaneOp =
    LaneOp { value: |x, out| out[0] = x.iter().sum(), slope: |g, _, grad| grad.fill(g[0]), reduces: true };
static MEAN: LaneOp = LaneOp {
    value: |x, out| out[0] = mean_of(x),
    slope: |g, _, grad| grad.fill(g[0] / grad.len() as f64),
    reduces: true,
};
static VARIANCE: LaneOp = LaneOp {
    value: |x, out| out[0] = variance_of(x),
    slope: |g, x, grad| {
        let (mean, n) = (mean_of(x), x.len() as f64);
        grad.iter_mut().zip(x).for_each(|(d, v)| *d = g[0] * 2.0 * (v - mean) / n);
    },
    reduces: true,
};
static STD: LaneOp = LaneOp {
    value: |x, out| out[0] = variance_of(x).sqrt(),
    // Where all values are equal the derivative does not exist; 0 is the choice that lets training go on.
    slope: |g, x, grad| {
        let (mean, n, std) = (mean_of(x), x.len() as f64, variance_of(x).sqrt());
        grad.iter_mut().zip(x).for_each(|(d, v)| *d = if std == 0.0 { 0.0 } else { g[0] * (v - mean) / (n * std) });
    },
    reduces: true,
};
static LARGEST: LaneOp = LaneOp {
    value: |x, out| out[0] = x.iter().copied().fold(f64::NEG_INFINITY, |a, b| if a > b || a.is_nan() { a } else { b }),
    slope: |g, x, grad| share_extreme(g[0], x, |a, b| a >= b, grad),
    reduces: true,
};
static SMALLEST: LaneOp = LaneOp {
    value: |x, out| out[0] = x.iter().copied().fold(f64::INFINITY, |a, b| if a < b || a.is_nan() { a } else { b }),
    slope: |g, x, grad| share_extreme(g[0], x, |a, b| a <= b, grad),
    reduces: true,
};
static SOFTMAX: LaneOp = LaneOp {
    value: |x, out| {
        log_softmax_into(x, out);
        out.iter_mut().for_each(|v| *v = v.exp());
    },
    slope: |g, x, grad| {
        // y ∘ (g − g·y), with y taken again from x: the stored one was rounded.
        let mut y = vec![0.0; x.len()];
        log_softmax_into(x, &mut y);
        y.iter_mut().for_each(|v| *v = v.exp());
        let dot: f64 = g.iter().zip(&y).filter(|(g, _)| **g != 0.0).map(|(g, y)| g * y).sum();
        for i in 0..x.len() {
            grad[i] = y[i] * (g[i] - dot);
        }
    },
    reduces: false,
};
static LOG_SOFTMAX: LaneOp = LaneOp {
    value: log_softmax_into,
    slope: |g, x, grad| {
        let total: f64 = g.iter().sum();
        log_softmax_into(x, grad);
        grad.iter_mut().zip(g).for_each(|(d, g)| *d = g - d.exp() * total);
    },
    reduces: false,
};
static CUMSUM: LaneOp = LaneOp {
    value: |x, out| {
        let mut sum = 0.0;
        out.iter_mut().zip(x).for_each(|(o, v)| {
            sum += v;
            *o = sum;
        });
    },
    slope: |g, _, grad| {
        let mut sum = 0.0;
        grad.iter_mut().zip(g).rev().for_each(|(d, g)| {
            sum += g;
            *d = sum;
        });
    },
    reduces: false,
};

impl Tensor {
    /// The sum of all cells, `[]`; along an axis, which stays with length 1.
    pub fn sum(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&SUM, "sum", axis)
    }

    pub fn mean(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&MEAN, "mean", axis)
    }

    /// Biased: Σ(x − mean)²/n.
    pub fn variance(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&VARIANCE, "variance", axis)
    }

    /// Biased: the root of `variance`.
    pub fn std(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&STD, "std", axis)
    }

    /// The largest cell; the gradient is shared evenly among equal ones.
    pub fn largest(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&LARGEST, "max", axis)
    }

    pub fn smallest(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&SMALLEST, "min", axis)
    }

    pub fn softmax(&self, axis: i64) -> Result<Tensor> {
        along(&SOFTMAX, "softmax", self, axis)
    }

    pub fn log_softmax(&self, axis: i64) -> Result<Tensor> {
        along(&LOG_SOFTMAX, "log_softmax", self, axis)
    }

    pub fn cumsum(&self, axis: i64) -> Result<Tensor> {
        along(&CUMSUM, "cumsum", self, axis)
    }

    /// The positions that sort each lane in ascending order (equal values keep their order, NaN comes last). No graph.
    pub fn argsort(&self, axis: i64) -> Result<Tensor> {
        along(&ARGSORT, "argsort", &self.detach(), axis)
    }

    /// Sums along the last axis without asking whether the cells are tokens; for masked reductions.
    pub(crate) fn sum_last(&self) -> Result<Tensor> {
        along(&SUM, "sum", self, -1)
    }

    /// Sums everything without asking whether the cells are tokens; for masked reductions.
    pub(crate) fn sum_cells(&self) -> Result<Tensor> {
        over_all(&SUM, self)
    }

    fn reduce(&self, op: &'static LaneOp, name: &str, axis: Option<i64>) -> Result<Tensor> {
        if self.is_tokens() {
            return Err(per_token(name, self.dims()));
        }
        if self.is_empty() {
            return Err(Error::value(format!("`{name}` of an empty tensor of shape {}", shape::show(self.dims()))));
        }
        match axis {
            Some(axis) => along(op, name, self, axis),
            None => over_all(op, self),
        }
    }
}

static ARGSORT: LaneOp = LaneOp {
    value: |x, out| {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| {
            x[a].is_nan().cmp(&x[b].is_nan()).then(x[a].partial_cmp(&x[b]).unwrap_or(std::cmp::Ordering::Equal))
        });
        out.iter_mut().zip(order).for_each(|(o, i)| *o = i as f64);
    },
    slope: |_, _, grad| grad.fill(0.0),
    reduces: false,
};

fn per_token(name: &str, dims: &[usize]) -> Error {
    let error =
        Error::shape(format!("`{name}` of per-token values of shape {}: padding would count", shape::show(dims)));
    let hint = match name {
        "mean" => "name the aggregation and the mask: token_mean(x, mask), or seq_mean(x, mask) per answer first",
        "sum" => "name the aggregation and the mask: seq_sum(x, mask) per row, token_mean(x, mask) over tokens",
        _ => "reduce to one number per row first: seq_sum(x, mask), seq_avg(x, mask); or token_mean(x, mask)",
    };
    error.hint(hint)
}

fn mean_of(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn variance_of(x: &[f64]) -> f64 {
    // Relative to the first value, so that equal values have variance 0 exactly.
    let mean = x.iter().map(|v| v - x[0]).sum::<f64>() / x.len() as f64;
    x.iter().map(|v| (v - x[0] - mean).powi(2)).sum::<f64>() / x.len() as f64
}

fn log_softmax_into(x: &[f64], out: &mut [f64]) {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = x.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
    out.iter_mut().zip(x).for_each(|(o, v)| *o = v - top - total);
}

fn share_extreme(g: f64, x: &[f64], beats: fn(f64, f64) -> bool, grad: &mut [f64]) {
    let best = x.iter().copied().reduce(|a, b| if beats(a, b) { a } else { b }).unwrap_or(f64::NAN);
    let ties = x.iter().filter(|v| **v == best).count() as f64;
    grad.iter_mut().zip(x).for_each(|(d, v)| *d = if *v == best { g / ties } else { 0.0 });
}
