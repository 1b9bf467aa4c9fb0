//! Sums of the cells that a mask selects, as one operation: no product is stored, forward or backward.
//!
//! Owns the sums; what they are divided by is `rl::mask`'s.

use crate::error::Result;
use crate::tensor::blocks::make;
use crate::tensor::cells::{Cells, Numbers};
use crate::tensor::lanes::{Lanes, Source, values};
use crate::tensor::reduce::SUM;
use crate::tensor::simd::simd;
use crate::tensor::value::common_dtype;
use crate::tensor::{DType, Tensor, tape};
use std::borrow::Cow;

/// What is summed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Each row by itself: `[B,1]`.
    Rows,
    /// All cells: `[]`.
    Batch,
}

/// Σ x·m over the cells in which the mask `m` is not 0; both `[B,T]`. No gradient flows into the mask, and what stands
/// in the other cells changes nothing.
pub(crate) fn sum(x: &Tensor, mask: &Tensor, over: Over) -> Result<Tensor> {
    let (rows, width) = mask.matrix("sum")?;
    let (lanes, dims) = match over {
        Over::Rows => (Lanes { outer: rows, n: width, inner: 1 }, vec![rows, 1]),
        Over::Batch => (Lanes { outer: 1, n: rows * width, inner: 1 }, vec![]),
    };
    let dtype = common_dtype(&[x, mask]);
    let mask_cells = Cells::of(mask.data())?;
    let cells = Cells::of(x.data())?;
    let sums = {
        let (held, mask) = (cells.read(), mask_cells.read());
        let source = Masked { x: held.numbers(), mask: mask.numbers(), narrow: dtype == DType::F32 };
        values(&SUM, lanes, 1, source)
    };
    let out = Tensor::from_host(sums, &dims, dtype, x.device())?;
    Ok(tape::record(out, &[x], |_, _| {
        move |upstream: Vec<f64>| {
            let held = mask_cells.read();
            let mask = held.numbers();
            Ok(vec![make(mask.len(), |start, strip, [room]: &mut [_; 1]| {
                let mask = mask.strip(start, strip.len(), room);
                let mut done = 0;
                while done < strip.len() {
                    let lane = (start + done) / lanes.n;
                    let end = strip.len().min((lane + 1) * lanes.n - start);
                    share(upstream[lane], &mask[done..end], &mut strip[done..end]);
                    done = end;
                }
            })])
        }
    }))
}

simd! {
    /// The gradient of cells under their mask. Zero upstream stays zero.
    fn share(g: f64, mask: &[f64], grad: &mut [f64]) {
        for (grad, &m) in grad.iter_mut().zip(mask) {
            *grad = if m == 0.0 || g == 0.0 { 0.0 } else { g * m };
        }
    }
}

/// Cells times their mask, 0 where that is 0, rounded as a tensor of them would be.
#[derive(Clone, Copy)]
struct Masked<'a> {
    x: Numbers<'a>,
    mask: Numbers<'a>,
    narrow: bool,
}

impl Source for Masked<'_> {
    fn tile<const K: usize>(self, lanes: Lanes, first: usize, to: &mut Vec<[f64; K]>) {
        let mut mask: Vec<[f64; K]> = Vec::new();
        self.x.tile(lanes, first, to);
        self.mask.tile(lanes, first, &mut mask);
        apply(to.as_flattened_mut(), mask.as_flattened(), self.narrow);
    }

    fn wide<'a>(self) -> Cow<'a, [f64]>
    where
        Self: 'a,
    {
        make(self.x.len(), |start, strip, [room]: &mut [_; 1]| {
            let mask = self.mask.strip(start, strip.len(), room);
            self.x.load(start, strip);
            apply(strip, mask, self.narrow);
        })
        .into()
    }
}

simd! {
    fn apply(x: &mut [f64], mask: &[f64], narrow: bool) {
        for (x, &m) in x.iter_mut().zip(mask) {
            let product = if m == 0.0 { 0.0 } else { *x * m };
            *x = if narrow { f64::from(product as f32) } else { product };
        }
    }
}
