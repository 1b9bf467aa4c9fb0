//! Matrix products of script tensors. Not the model's: those are fused and live in `kernel`.

use crate::error::{Error, Result};
use crate::tensor::create::count;
use crate::tensor::value::{common_device, common_dtype, read};
use crate::tensor::{Tensor, shape, tape};

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
            return Err(Error::value(format!("`matmul` of shapes {a} and {b} is too large for a script's tensors")));
        }
        let mut values = vec![0.0; count(&dims)?];
        let (a, b) = (self.to_vec()?, other.to_vec()?);
        for (row, out) in values.chunks_exact_mut(n.max(1)).enumerate() {
            let rows_of_b = &b[row / m * k * n..];
            for (j, x) in a[row * k..(row + 1) * k].iter().enumerate() {
                add_scaled(*x, &rows_of_b[j * n..(j + 1) * n], out);
            }
        }
        let inputs = [self, other];
        let out = Tensor::from_host(values, &dims, common_dtype(&inputs), &common_device(&inputs))?;
        Ok(tape::record(out, &inputs, |_, wanted| {
            let saved = inputs.map(|t| t.data().clone());
            move |upstream: &[f64]| {
                let (a, b) = (read(&saved[0])?, read(&saved[1])?);
                let mut parts = vec![
                    if wanted[0] { vec![0.0; a.len()] } else { Vec::new() },
                    if wanted[1] { vec![0.0; b.len()] } else { Vec::new() },
                ];
                for (cell, &g) in upstream.iter().enumerate().filter(|(_, g)| **g != 0.0) {
                    let (row, column) = (cell / n, cell % n);
                    let (left, right) = (row * k, row / m * k * n + column);
                    for j in 0..k {
                        if wanted[0] {
                            parts[0][left + j] += g * b[right + j * n];
                        }
                        if wanted[1] {
                            parts[1][right + j * n] += g * a[left + j];
                        }
                    }
                }
                Ok(parts)
            }
        }))
    }
}

fn add_scaled(x: f64, from: &[f64], to: &mut [f64]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += x * f);
}
