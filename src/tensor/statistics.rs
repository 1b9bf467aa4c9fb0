//! Products, logarithms of sums of exponentials, sorting and quantiles: all cells, or lane by lane along an axis.

use crate::error::{Error, Result};
use crate::tensor::lanes::{Lane, LaneOp, lane_op};
use crate::tensor::reduce::{each, fill, fold};
use crate::tensor::{DType, Tensor, blocks, ops};

struct Prod;
impl Lane for Prod {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        out[0] = fold(x, 1.0, |a, b| a * b);
    }

    /// The product of the others, not the whole divided by the cell: a cell may be 0.
    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        let mut before = g[0];
        grad.iter_mut().zip(x).for_each(|(grad, x)| {
            *grad = before;
            before = each(|k| before[k] * x[k]);
        });
        let mut behind = [1.0; K];
        grad.iter_mut().zip(x).rev().for_each(|(grad, x)| {
            *grad = each(|k| grad[k] * behind[k]);
            behind = each(|k| behind[k] * x[k]);
        });
    }
}

struct LogSumExp;
impl Lane for LogSumExp {
    const REDUCES: bool = true;
    const SLOPE_READS: bool = true;

    #[inline(always)]
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]) {
        let top: [f64; K] = fold(x, f64::NEG_INFINITY, |a, b| if a > b || a.is_nan() { a } else { b });
        let total: [f64; K] = blocks::sum(x.len(), |i| each(|k| (x[i][k] - top[k]).exp()));
        // Where the largest is infinite so is the result, and the differences are no numbers.
        out[0] = each(|k| if top[k].is_infinite() { top[k] } else { top[k] + total[k].ln() });
    }

    /// The softmax; 0 throughout a lane whose result is infinite.
    #[inline(always)]
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]) {
        let mut all = [[0.0; K]];
        Self::value(x, &mut all);
        let share = |i: usize, k: usize| g[0][k] * (x[i][k] - all[0][k]).exp();
        fill(grad, |i| each(|k| if all[0][k].is_infinite() { 0.0 } else { share(i, k) }));
    }
}

static PROD: LaneOp = lane_op!(Prod);
static LOG_SUM_EXP: LaneOp = lane_op!(LogSumExp);

impl Tensor {
    /// The product of all cells, `[]`; along an axis, which stays with length 1.
    pub fn prod(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&PROD, "prod", axis)
    }

    /// `log Σ exp`, without overflow; along an axis, which stays with length 1.
    pub fn logsumexp(&self, axis: Option<i64>) -> Result<Tensor> {
        self.reduce(&LOG_SUM_EXP, "logsumexp", axis)
    }

    /// The cells of each lane in ascending order, NaN last; the gradient goes back to where a cell came from.
    pub fn sort(&self, axis: i64) -> Result<Tensor> {
        self.gather(&self.argsort(axis)?, axis)
    }

    /// The value below which a share `q` of the cells lies, `[]`, between two of them in proportion (Hyndman and Fan's
    /// type 7); along an axis, which stays with length 1.
    pub fn quantile(&self, q: f64, axis: Option<i64>) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&q) {
            return Err(Error::value(format!("`quantile`: q must be from 0 to 1, found {q}")));
        }
        self.countable("quantile")?;
        let Some(axis) = axis else {
            return self.reshape(&[-1])?.quantile(q, Some(0))?.reshape(&[]);
        };
        let sorted = self.sort(axis)?;
        let at = crate::tensor::shape::axis("quantile", self.dims(), axis)?;
        let mut dims = self.dims().to_vec();
        let place = q * (dims[at] - 1) as f64;
        dims[at] = 1;
        let cells = |place: f64| sorted.gather(&Tensor::full(&dims, place, self.device())?, axis);
        let (low, high) = (cells(place.floor())?, cells(place.ceil())?);
        // What lies beyond a cell that is met exactly must not count, infinite as it may be.
        match place.fract() {
            0.0 => Ok(low),
            part => ops::ADD.on(&low, &ops::MUL.on(&ops::SUB.on(&high, &low)?, &self.number(part)?)?),
        }
    }
}

/// Whole numbers from `low` up to `high`, without it: cell `i` is draw `i` of `key`.
///
/// # Errors
/// No number lies between, or some that f32 does not hold.
pub fn randint(
    dims: &[usize],
    bounds: std::ops::Range<i64>,
    key: crate::tensor::rng::Key,
    device: &crate::tensor::Device,
) -> Result<Tensor> {
    let count = bounds_of(&bounds)?;
    let n = crate::tensor::count(dims)? as u64;
    let cells = (0..n).map(|i| (bounds.start + key.below(i, count) as i64) as f64).collect();
    Tensor::from_host(cells, dims, DType::F32, device)
}

/// How many numbers there are from `low` up to `high`.
fn bounds_of(bounds: &std::ops::Range<i64>) -> Result<u64> {
    /// Whole numbers beyond it have gaps in f32.
    const LARGEST: i64 = 1 << 24;
    let (low, high) = (bounds.start, bounds.end);
    if low >= high {
        return Err(Error::value(format!("`randint`: there is no whole number from {low} up to {high}"))
            .hint("the upper bound is not drawn: randint([n], 0, 10) gives 0 to 9"));
    }
    if low < -LARGEST || high > LARGEST + 1 {
        return Err(Error::value(format!("`randint`: bounds from -{LARGEST} to {LARGEST}, found {low} and {high}")));
    }
    Ok(low.abs_diff(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;
    use crate::tensor::gradient_tests::{check, random};
    use crate::tensor::rng::Key;
    use std::slice::from_ref;

    fn of(values: &[f64], dims: &[usize]) -> Tensor {
        Tensor::from_vec_f64(values.to_vec(), dims, &Device::Cpu).expect("as many numbers as the shape holds")
    }

    #[test]
    fn gradients_are_those_of_small_differences() {
        for (dims, axis) in
            [(&[3, 4][..], Some(1)), (&[3, 4], Some(0)), (&[9, 40], Some(-1)), (&[5], None), (&[2, 3], None)]
        {
            let x = random(dims, Key::new(7), -1.5, 1.5);
            check("prod", &|t| t[0].prod(axis), &[random(dims, Key::new(8), 0.5, 1.5)]);
            check("logsumexp", &|t| t[0].logsumexp(axis), from_ref(&x));
            check("sort", &|t| t[0].sort(axis.unwrap_or(-1)), from_ref(&x));
            for q in [0.0, 0.3, 0.5, 1.0] {
                check("quantile", &|t| t[0].quantile(q, axis), from_ref(&x));
            }
        }
    }

    #[test]
    fn a_product_with_zeros_has_a_gradient() {
        let x = of(&[2.0, 0.0, 3.0, 0.0, 0.0, 5.0], &[2, 3]).with_grad();
        let loss = x.prod(Some(1)).and_then(|y| y.sum(None)).expect("a number");
        let gradients = crate::tensor::tape::backward(&loss).expect("a graph");
        assert_eq!(gradients.of(&x).expect("of x").to_vec().expect("read"), [0.0, 6.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn sums_of_exponentials_do_not_overflow() {
        let values = |x: &[f64]| of(x, &[1, x.len()]).logsumexp(Some(1)).and_then(|y| y.item()).expect("a number");
        assert_eq!(values(&[1000.0, 1000.0]), 1000.0 + 2f64.ln());
        assert_eq!(values(&[f64::NEG_INFINITY, f64::NEG_INFINITY]), f64::NEG_INFINITY);
        assert_eq!(values(&[f64::INFINITY, 0.0]), f64::INFINITY);
        assert!(values(&[f64::NAN, 0.0]).is_nan());
    }

    /// Against NumPy: `np.quantile([1, 2, 4, 8], q)`.
    #[test]
    fn quantiles_are_numpys() {
        let x = of(&[4.0, 1.0, 8.0, 2.0], &[4, 1]);
        for (q, expected) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            let found = x.quantile(q, None).and_then(|y| y.item()).expect("a number");
            assert!((found - expected).abs() < 1e-12, "{q}: {found}");
        }
        x.quantile(1.5, None).expect_err("beyond 1");
    }

    #[test]
    fn whole_numbers_are_drawn_evenly_between_the_bounds() {
        let x = randint(&[6000], -1..2, Key::new(3), &Device::Cpu).and_then(|x| x.to_vec()).expect("drawn");
        for value in [-1.0, 0.0, 1.0] {
            let found = x.iter().filter(|x| **x == value).count();
            assert!((1850..2150).contains(&found), "{value}: {found}");
        }
        randint(&[1], 2..2, Key::new(3), &Device::Cpu).expect_err("nothing between");
    }
}
