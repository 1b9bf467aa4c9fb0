//! Matrix products of script tensors. Not the model's: those are fused and live in `kernel`.

use crate::error::{Error, Result};
use crate::tensor::blocks::{BLOCK, make_chunks};
use crate::tensor::cells::Cells;
use crate::tensor::create::count;
use crate::tensor::lanes::transposed;
use crate::tensor::simd::simd;
use crate::tensor::value::{common_device, common_dtype};
use crate::tensor::{Tensor, shape, tape};
use rayon::prelude::*;

/// Some seconds on one core.
const MOST_PRODUCTS: u64 = 1 << 33;

impl Tensor {
    /// `[m,k]` by `[k,n]` gives `[m,n]`; with a leading axis on both, one product per entry of it.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let (batch, m, k, n, dims) = match (self.dims(), other.dims()) {
            (&[m, k], &[l, n]) if k == l => (1, m, k, n, vec![m, n]),
            (&[b, m, k], &[c, l, n]) if b == c && k == l => (b, m, k, n, vec![b, m, n]),
            (a, b) => {
                return Err(Error::shape(format!(
                    "`matmul` cannot multiply shapes {} and {}",
                    shape::show(a),
                    shape::show(b)
                ))
                .hint("it takes [m,k] and [k,n], or [b,m,k] and [b,k,n]"));
            }
        };
        let products = [batch, m, k, n].iter().try_fold(1u64, |all, d| all.checked_mul(*d as u64));
        if products.is_none_or(|products| products > MOST_PRODUCTS) {
            let (a, b) = (shape::show(self.dims()), shape::show(other.dims()));
            return Err(Error::value(format!("`matmul` of shapes {a} and {b} is too large for a script's tensors"))
                .hint("at most 2^33 multiply-adds, like [2048,2048] by [2048,2048]"));
        }
        count(&dims)?;
        let shape = Product { batch, m, k, n };
        let (a, b) = (Cells::of(self.data())?, Cells::of(other.data())?);
        let values = shape.of(&a.read().numbers().wide(), &b.read().numbers().wide());
        let inputs = [self, other];
        let out = Tensor::from_host(values, &dims, common_dtype(&inputs), &common_device(&inputs))?;
        Ok(tape::record(out, &inputs, |_, wanted| {
            move |upstream: Vec<f64>| {
                let (a, b) = (a.read(), b.read());
                let (a, b) = (a.numbers().wide(), b.numbers().wide());
                Ok(vec![
                    if wanted[0] { shape.left_gradient(&upstream, &b) } else { Vec::new() },
                    if wanted[1] { shape.right_gradient(&a, &upstream) } else { Vec::new() },
                ])
            }
        }))
    }
}

/// Products of `[m,k]` and `[k,n]`, one for every entry of `batch`.
#[derive(Clone, Copy)]
struct Product {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
}

/// Rows and columns that are computed together.
const ROWS: usize = 4;
const COLUMNS: usize = 16;
/// Below this many products there is nothing to pack for.
const SMALL: usize = 1 << 15;

impl Product {
    /// Every cell is one chain of products and sums over k, in f64.
    fn of(self, a: &[f64], b: &[f64]) -> Vec<f64> {
        let Self { batch, m, k, n } = self;
        if batch * m * k * n <= SMALL {
            return self.row_by_row(a, b, add_scaled);
        }
        let entry = |i: usize| {
            let panels = packed(&b[i * k * n..(i + 1) * k * n], k, n);
            let a = &a[i * m * k..(i + 1) * m * k];
            // Rows of a task: enough to read the packed panels rarely, few enough for every core.
            const TASK: usize = 4 * ROWS;
            make_chunks(m * n, TASK * n, m * n * k, |task, out: &mut [f64]| {
                let rows = out.len() / n;
                let a = &a[task * TASK * k..(task * TASK + rows) * k];
                for (column, panel) in (0..n).step_by(COLUMNS).zip(panels.chunks_exact(k)) {
                    for row in (0..rows).step_by(ROWS) {
                        let width = COLUMNS.min(n - column);
                        let height = ROWS.min(rows - row);
                        // Rows that are not there are computed as the last one again.
                        let lines = std::array::from_fn(|r| &a[(row + r.min(height - 1)) * k..][..k]);
                        let mut tile = [[0.0; COLUMNS]; ROWS];
                        multiply(lines, panel, &mut tile);
                        for (r, line) in tile[..height].iter().enumerate() {
                            out[(row + r) * n + column..][..width].copy_from_slice(&line[..width]);
                        }
                    }
                }
            })
        };
        if batch == 1 { entry(0) } else { (0..batch).flat_map(entry).collect() }
    }

    /// As `of`, with sums in the same order: `add(x, from, to)` adds x times a row of b to a row of the result.
    fn row_by_row(self, a: &[f64], b: &[f64], add: impl Fn(f64, &[f64], &mut [f64]) + Sync) -> Vec<f64> {
        let Self { batch, m, k, n } = self;
        make_chunks(batch * m * n, n, batch * m * n * k, |row, out: &mut [f64]| {
            let b = &b[row / m * k * n..][..k * n];
            for (j, x) in a[row * k..(row + 1) * k].iter().enumerate() {
                add(*x, &b[j * n..(j + 1) * n], out);
            }
        })
    }

    /// Upstream g `[m,n]` times bᵀ. Where g is zero so is what it adds, whatever stands in b.
    fn left_gradient(self, g: &[f64], b: &[f64]) -> Vec<f64> {
        let Self { batch, m, k, n } = self;
        let product = Self { batch, m, k: n, n: k };
        let b = transposed(b, batch, k, n);
        if finite(&b) {
            return product.of(g, &b);
        }
        product.row_by_row(g, &b, |g, from, to| {
            if g != 0.0 {
                add_scaled(g, from, to);
            }
        })
    }

    /// aᵀ times upstream g `[m,n]`, in which zero stays zero.
    fn right_gradient(self, a: &[f64], g: &[f64]) -> Vec<f64> {
        let Self { batch, m, k, n } = self;
        let product = Self { batch, m: k, k: m, n };
        let a = transposed(a, batch, m, k);
        if finite(&a) {
            return product.of(&a, g);
        }
        product.row_by_row(&a, g, |x, from, to| {
            to.iter_mut().zip(from).filter(|(_, g)| **g != 0.0).for_each(|(to, g)| *to += x * g);
        })
    }
}

fn finite(x: &[f64]) -> bool {
    x.par_chunks(BLOCK).all(|block| block.iter().all(|x| x.is_finite()))
}

/// `[k,n]` in panels of as many columns as are computed together, the last one filled up with zeros.
fn packed(b: &[f64], k: usize, n: usize) -> Vec<[f64; COLUMNS]> {
    let mut panels = vec![[0.0; COLUMNS]; n.div_ceil(COLUMNS) * k];
    panels.par_chunks_exact_mut(k).enumerate().for_each(|(i, panel)| {
        let column = i * COLUMNS;
        let width = COLUMNS.min(n - column);
        for (line, b) in panel.iter_mut().zip(b.chunks_exact(n)) {
            line[..width].copy_from_slice(&b[column..column + width]);
        }
    });
    panels
}

simd! {
    fn multiply(a: [&[f64]; ROWS], b: &[[f64; COLUMNS]], out: &mut [[f64; COLUMNS]; ROWS]) {
        let a = a.map(|a| &a[..b.len()]);
        let mut sums = [[0.0; COLUMNS]; ROWS];
        for (j, b) in b.iter().enumerate() {
            for (sums, a) in sums.iter_mut().zip(a) {
                let x = a[j];
                sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += x * b);
            }
        }
        *out = sums;
    }
}

simd! {
    fn add_scaled(x: f64, from: &[f64], to: &mut [f64]) {
        to.iter_mut().zip(from).for_each(|(t, f)| *t += x * f);
    }
}
