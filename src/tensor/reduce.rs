//! Reductions over all cells or along an axis, and softmax, cumulative sums and sorting along an axis.
//!
//! Sums run in f64. Masked reductions over a batch are `rl::mask`'s: the ones here refuse per-token tensors, whose
//! padding would count.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::blocks::{BLOCK, each_block, sum};
use crate::tensor::cells::Numbers;
use crate::tensor::lanes::{Lane, LaneOp, Lanes, along, lane_op, over_all, values};
use crate::tensor::shape::{self, MAX_RANK};
use rayon::prelude::*;
use std::cmp::Ordering;

struct Sum;
impl Lane for Sum {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = false;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        out[0] = total(x);
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], _: &[[f64; K]], grad: &mut [[f64; K]]) {
        fill(grad, |_| g[0]);
    }
}

struct Mean;
impl Lane for Mean {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = false;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        out[0] = mean_of(x);
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], _: &[[f64; K]], grad: &mut [[f64; K]]) {
        let share = g[0].map(|g| g / grad.len() as f64);
        fill(grad, |_| share);
    }
}

struct Variance;
impl Lane for Variance {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        out[0] = variance_of(x);
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        let (mean, n) = (mean_of(x), x.len() as f64);
        fill(grad, |i| each(|k| g[0][k] * 2.0 * (x[i][k] - mean[k]) / n));
    }
}

struct Std;
impl Lane for Std {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        out[0] = variance_of(x).map(f64::sqrt);
    }

    /// Where all values are equal the derivative does not exist; 0 is the choice that lets training go on.
    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        let (mean, n, std) = (mean_of(x), x.len() as f64, variance_of(x).map(f64::sqrt));
        let slope = |i: usize, k: usize| g[0][k] * (x[i][k] - mean[k]) / (n * std[k]);
        fill(grad, |i| each(|k| if std[k] == 0.0 { 0.0 } else { slope(i, k) }));
    }
}

/// NaN wherever one is.
struct Largest;
impl Lane for Largest {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        out[0] = fold(x, f64::NEG_INFINITY, |a, b| if a > b || a.is_nan() { a } else { b });
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        share_extreme(g[0], x, fold(x, f64::NEG_INFINITY, |a, b| if a >= b { a } else { b }), grad);
    }
}

/// NaN wherever one is.
struct Smallest;
impl Lane for Smallest {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        out[0] = fold(x, f64::INFINITY, |a, b| if a < b || a.is_nan() { a } else { b });
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        share_extreme(g[0], x, fold(x, f64::INFINITY, |a, b| if a <= b { a } else { b }), grad);
    }
}

struct Softmax;
impl Lane for Softmax {
    const REDUCES: bool = false;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        log_softmax_into(x, out);
        change(out, |_, v| v.map(f64::exp));
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        // y ∘ (g − g·y), with y taken again from x: the stored one was rounded.
        Self::value(x, grad);
        let dot: [f64; K] = sum(x.len(), |i| each(|k| if g[i][k] == 0.0 { 0.0 } else { g[i][k] * grad[i][k] }));
        change(grad, |i, y| each(|k| y[k] * (g[i][k] - dot[k])));
    }
}

struct LogSoftmax;
impl Lane for LogSoftmax {
    const REDUCES: bool = false;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        log_softmax_into(x, out);
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        let total = total(g);
        log_softmax_into(x, grad);
        change(grad, |i, y| each(|k| g[i][k] - y[k].exp() * total[k]));
    }
}

/// One chain, however long the lane.
struct Cumsum;
impl Lane for Cumsum {
    const REDUCES: bool = false;
    const SLOPE_READS: bool = false;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        let mut sum = [0.0; K];
        out.iter_mut().zip(x).for_each(|(out, x)| {
            sum = each(|k| sum[k] + x[k]);
            *out = sum;
        });
    }

    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], _: &[[f64; K]], grad: &mut [[f64; K]]) {
        let mut sum = [0.0; K];
        grad.iter_mut().zip(g).rev().for_each(|(grad, g)| {
            sum = each(|k| sum[k] + g[k]);
            *grad = sum;
        });
    }
}

struct Argsort;
impl Lane for Argsort {
    const REDUCES: bool = false;
    const SLOPE_READS: bool = false;

    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        for k in 0..K {
            let order = ascending(x.iter().map(|x| x[k]).collect());
            out.iter_mut().zip(order).for_each(|(out, i)| out[k] = f64::from(i));
        }
    }

    fn slope<const K: usize>(_: &[[f64; K]], _: &[[f64; K]], grad: &mut [[f64; K]]) {
        grad.fill([0.0; K]);
    }
}

pub(crate) static SUM: LaneOp = lane_op!(Sum);
static MEAN: LaneOp = lane_op!(Mean);
static VARIANCE: LaneOp = lane_op!(Variance);
static STD: LaneOp = lane_op!(Std);
static LARGEST: LaneOp = lane_op!(Largest);
static SMALLEST: LaneOp = lane_op!(Smallest);
static SOFTMAX: LaneOp = lane_op!(Softmax);
static LOG_SOFTMAX: LaneOp = lane_op!(LogSoftmax);
static CUMSUM: LaneOp = lane_op!(Cumsum);
static ARGSORT: LaneOp = lane_op!(Argsort);

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

    pub(super) fn reduce(&self, op: &'static LaneOp, name: &str, axis: Option<i64>) -> Result<Tensor> {
        self.countable(name)?;
        match axis {
            Some(axis) => along(op, name, self, axis),
            None => over_all(op, self),
        }
    }
}

impl Tensor {
    /// Whether every cell counts, and there is one.
    pub(super) fn countable(&self, name: &str) -> Result<()> {
        match self.is_empty() {
            _ if self.is_tokens() => Err(per_token(name, self.dims())),
            true => Err(Error::value(format!("`{name}` of an empty tensor of shape {}", shape::show(self.dims())))),
            false => Ok(()),
        }
    }
}

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

/// `all`, with the cells of a result of shape `out`, summed over the axes along which an input of shape `dims` was
/// stretched.
pub(crate) fn sum_stretched(mut all: Vec<f64>, dims: &[usize], mut out: [usize; MAX_RANK]) -> Vec<f64> {
    let dims = shape::padded(dims);
    let mut end = MAX_RANK;
    while end > 0 {
        // Neighbouring axes are one lane, so that their cells are added in the array's order.
        let is_summed = |a: &usize| dims[*a] == 1;
        let start = (0..end).rev().take_while(is_summed).last().unwrap_or(end);
        let n: usize = out[start..end].iter().product();
        if n != 1 {
            let lanes = Lanes { outer: out[..start].iter().product(), n, inner: out[end..].iter().product() };
            all = values(&SUM, lanes, 1, Numbers::F64(&all));
            out[start..end].fill(1);
        }
        end = start.min(end - 1);
    }
    all
}

fn total<const K: usize>(x: &[[f64; K]]) -> [f64; K] {
    sum(x.len(), |i| x[i])
}

#[inline(always)]
fn mean_of<const K: usize>(x: &[[f64; K]]) -> [f64; K] {
    total(x).map(|sum| sum / x.len() as f64)
}

#[inline(always)]
fn variance_of<const K: usize>(x: &[[f64; K]]) -> [f64; K] {
    // Relative to the first value, so that equal values have variance 0 exactly.
    let (n, first) = (x.len() as f64, x[0]);
    let mean: [f64; K] = sum(x.len(), |i| each(|k| x[i][k] - first[k])).map(|sum: f64| sum / n);
    let square = |d: f64| d * d;
    sum(x.len(), |i| each(|k| square(x[i][k] - first[k] - mean[k]))).map(|sum: f64| sum / n)
}

#[inline(always)]
fn log_softmax_into<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
    let top: [f64; K] = fold(x, f64::NEG_INFINITY, f64::max);
    let total: [f64; K] = sum(x.len(), |i| each(|k| (x[i][k] - top[k]).exp())).map(f64::ln);
    fill(out, |i| each(|k| x[i][k] - top[k] - total[k]));
}

#[inline(always)]
fn share_extreme<const K: usize>(g: [f64; K], x: &[[f64; K]], best: [f64; K], grad: &mut [[f64; K]]) {
    let ties: [f64; K] = sum(x.len(), |i| each(|k| f64::from(u8::from(x[i][k] == best[k]))));
    fill(grad, |i| each(|k| if x[i][k] == best[k] { g[k] / ties[k] } else { 0.0 }));
}

/// A number for each of the lanes beside each other.
#[inline(always)]
pub(super) fn each<const K: usize>(f: impl Fn(usize) -> f64) -> [f64; K] {
    std::array::from_fn(f)
}

#[inline(always)]
pub(super) fn fill<const K: usize>(cells: &mut [[f64; K]], f: impl Fn(usize) -> [f64; K] + Sync) {
    change(cells, |i, _| f(i));
}

/// `f(i, cell i)` for every cell of the lanes: a long one on all cores.
#[inline(always)]
fn change<const K: usize>(cells: &mut [[f64; K]], f: impl Fn(usize, [f64; K]) -> [f64; K] + Sync) {
    if cells.len() <= BLOCK {
        return cells.iter_mut().enumerate().for_each(|(i, cell)| *cell = f(i, *cell));
    }
    each_block(cells, |start, block| block.iter_mut().enumerate().for_each(|(i, cell)| *cell = f(start + i, *cell)));
}

/// The cells of each lane folded by `pick`, which may be cut anywhere: a long lane on all cores.
#[inline(always)]
pub(super) fn fold<const K: usize>(x: &[[f64; K]], from: f64, pick: impl Fn(f64, f64) -> f64 + Sync) -> [f64; K] {
    if x.len() <= BLOCK {
        return x.iter().fold([from; K], |best, x| each(|k| pick(best[k], x[k])));
    }
    let of_block = |block: &[[f64; K]]| block.iter().fold([from; K], |best, x| each(|k| pick(best[k], x[k])));
    let parts: Vec<[f64; K]> = x.par_chunks(BLOCK).map(of_block).collect();
    parts.iter().fold([from; K], |best, x| each(|k| pick(best[k], x[k])))
}

/// The positions that sort `x`: equal values keep their order, NaN comes last.
fn ascending(x: Vec<f64>) -> Vec<u32> {
    let narrow = x.iter().all(|v| f64::from(*v as f32) == *v || v.is_nan());
    if !narrow {
        let mut order: Vec<u32> = (0..x.len() as u32).collect();
        let key = |i: u32| x[i as usize];
        order.sort_by(|&a, &b| {
            key(a).is_nan().cmp(&key(b).is_nan()).then(key(a).partial_cmp(&key(b)).unwrap_or(Ordering::Equal))
        });
        return order;
    }
    // The number's order as an integer, and behind it the position, which makes every key another one.
    let mut keys: Vec<u64> = x.iter().enumerate().map(|(i, v)| u64::from(rank(*v as f32)) << 32 | i as u64).collect();
    if keys.len() > BLOCK {
        keys.par_sort_unstable();
    } else {
        keys.sort_unstable();
    }
    keys.into_iter().map(|key| key as u32).collect()
}

/// Grows as `x` does; NaN is above all.
fn rank(x: f32) -> u32 {
    const SIGN: u32 = 1 << 31;
    match (x + 0.0).to_bits() {
        _ if x.is_nan() => u32::MAX,
        bits if bits & SIGN == 0 => bits | SIGN,
        bits => !bits,
    }
}
