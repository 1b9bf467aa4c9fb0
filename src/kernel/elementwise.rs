//! The small operations of a decoder layer: SwiGLU, GeGLU, GELU, sums, scales, and taking rows (embeddings, positions)
//! or columns (the parts of a joint projection).

use super::host;
use super::simd::{exp, normal, simd};
use super::tape::{Tape, Var, plain_backward};
use crate::error::{Error, Kind, Result};
use candle_core::Tensor;
use std::f32::consts::FRAC_2_PI;
use std::sync::Arc;

/// The function of the gate in a gated linear unit (Shazeer 2020, arXiv:2002.05202).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// SwiGLU.
    Silu,
    /// GeGLU.
    Gelu(Gelu),
}

/// f(gate) · up, both `[N,I]`.
pub fn gated(tape: &mut Tape, gate: &Var, up: &Var, f: Gate) -> Result<Var> {
    let fused = tape.fused(&gate.value);
    let y = if fused { gated_fused(&gate.value, &up.value, f)? } else { gated_plain(&gate.value, &up.value, f)? };
    let (g, u) = (gate.clone(), up.clone());
    Ok(tape.push(y, &[gate, up], move |dy, grads| {
        let [dg, du] = match fused {
            true => gated_backward(&g.value, &u.value, dy, f)?,
            false => plain_backward([&g.value, &u.value], dy, |[g, u]| gated_plain(g, u, f))?,
        };
        grads.add_owned(&g, dg)?;
        grads.add_owned(&u, du)
    }))
}

/// The plain composition.
pub fn gated_plain(gate: &Tensor, up: &Tensor, f: Gate) -> Result<Tensor> {
    let gate = match f {
        Gate::Silu => gate.silu()?,
        Gate::Gelu(form) => gelu_plain(gate, form)?,
    };
    Ok((gate * up)?)
}

fn gated_fused(gate: &Tensor, up: &Tensor, f: Gate) -> Result<Tensor> {
    let (g, u) = (host::read(gate)?, host::read(up)?);
    let y = host::make_rows(g.len(), 1, |at, y| {
        let (g, u) = (&g[at..at + y.len()], &u[at..at + y.len()]);
        match f {
            Gate::Silu => silu_times(g, u, y),
            Gate::Gelu(form) => gelu_times(g, u, form, y),
        }
    });
    host::tensor(y, gate.dims())
}

fn gated_backward(gate: &Tensor, up: &Tensor, dy: &Tensor, f: Gate) -> Result<[Tensor; 2]> {
    let dy = dy.contiguous()?;
    let (g, u, dy) = (host::read(gate)?, host::read(up)?, host::read(&dy)?);
    let (dg, du) = host::make_rows2(g.len(), 1, |at, dg, du| {
        let end = at + dg.len();
        let (g, u, dy) = (&g[at..end], &u[at..end], &dy[at..end]);
        match f {
            Gate::Silu => silu_times_backward(g, u, dy, dg, du),
            Gate::Gelu(form) => gelu_times_backward(g, u, form, dy, dg, du),
        }
    });
    Ok([host::tensor(dg, gate.dims())?, host::tensor(du, gate.dims())?])
}

simd! {
    fn silu_times(g: &[f32], u: &[f32], y: &mut [f32]) {
        for ((y, g), u) in y.iter_mut().zip(g).zip(u) {
            *y = g / (1.0 + exp(-g)) * u;
        }
    }
}

simd! {
    fn silu_times_backward(g: &[f32], u: &[f32], dy: &[f32], dg: &mut [f32], du: &mut [f32]) {
        for ((((g, u), dy), dg), du) in g.iter().zip(u).zip(dy).zip(dg).zip(du) {
            let s = 1.0 / (1.0 + exp(-g));
            *du = dy * g * s;
            *dg = dy * u * s * (1.0 + g * (1.0 - s));
        }
    }
}

/// Which form of GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// x·Φ(x): `gelu`.
    Exact,
    /// ½x·(1 + tanh(√(2/π)·(x + 0.044715·x³))): `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`.
    Tanh,
}

const CUBIC: f64 = 0.044715;

/// GELU of each number of x.
pub fn gelu(tape: &mut Tape, x: &Var, form: Gelu) -> Result<Var> {
    let xv = x.clone();
    if !tape.fused(&x.value) {
        return Ok(tape.push(gelu_plain(&x.value, form)?, &[x], move |dy, grads| {
            let [dx] = plain_backward([&xv.value], dy, |[x]| gelu_plain(x, form))?;
            grads.add_owned(&xv, dx)
        }));
    }
    let y = {
        let x = host::read(&x.value)?;
        host::make_rows(x.len(), 1, |at, y| gelu_forward(&x[at..at + y.len()], form, y))
    };
    Ok(tape.push(host::tensor(y, x.value.dims())?, &[x], move |dy, grads| {
        let dy = dy.contiguous()?;
        let (dy, x) = (host::read(&dy)?, host::read(&xv.value)?);
        let dx = host::make_rows(x.len(), 1, |at, dx| {
            let end = at + dx.len();
            gelu_backward(&x[at..end], form, &dy[at..end], dx);
        });
        grads.add_owned(&xv, host::tensor(dx, xv.value.dims())?)
    }))
}

/// The plain composition. (Written out: candle's own `gelu` differentiates with constants of six digits.)
pub fn gelu_plain(x: &Tensor, form: Gelu) -> Result<Tensor> {
    let rise = match form {
        Gelu::Exact => (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?,
        Gelu::Tanh => {
            let slope = ((x.sqr()? * CUBIC)? + 1.0)?;
            (x * slope)?.affine(std::f64::consts::FRAC_2_PI.sqrt(), 0.0)?.tanh()?
        }
    };
    Ok((x * (rise + 1.0)?)?.affine(0.5, 0.0)?)
}

simd! {
    fn gelu_forward(x: &[f32], form: Gelu, y: &mut [f32]) {
        match form {
            Gelu::Exact => x.iter().zip(y).for_each(|(&x, y)| *y = x * normal(x).0),
            Gelu::Tanh => x.iter().zip(y).for_each(|(&x, y)| *y = x * rise(x)),
        }
    }
}

simd! {
    fn gelu_backward(x: &[f32], form: Gelu, dy: &[f32], dx: &mut [f32]) {
        match form {
            Gelu::Exact => {
                for ((&x, dy), dx) in x.iter().zip(dy).zip(dx) {
                    let (below, density) = normal(x);
                    *dx = dy * (below + x * density);
                }
            }
            Gelu::Tanh => {
                for ((&x, dy), dx) in x.iter().zip(dy).zip(dx) {
                    *dx = dy * tanh_slope(x, rise(x));
                }
            }
        }
    }
}

simd! {
    fn gelu_times(g: &[f32], u: &[f32], form: Gelu, y: &mut [f32]) {
        let all = y.iter_mut().zip(g).zip(u);
        match form {
            Gelu::Exact => all.for_each(|((y, &g), u)| *y = g * normal(g).0 * u),
            Gelu::Tanh => all.for_each(|((y, &g), u)| *y = g * rise(g) * u),
        }
    }
}

simd! {
    fn gelu_times_backward(g: &[f32], u: &[f32], form: Gelu, dy: &[f32], dg: &mut [f32], du: &mut [f32]) {
        for ((((&g, u), dy), dg), du) in g.iter().zip(u).zip(dy).zip(dg).zip(du) {
            let (value, slope) = match form {
                Gelu::Exact => {
                    let (below, density) = normal(g);
                    (g * below, below + g * density)
                }
                Gelu::Tanh => {
                    let s = rise(g);
                    (g * s, tanh_slope(g, s))
                }
            };
            *du = dy * value;
            *dg = dy * u * slope;
        }
    }
}

/// ½(1 + tanh u) of the tanh form: the logistic function of 2u, without cancellation where it is small.
#[inline(always)]
fn rise(x: f32) -> f32 {
    1.0 / (1.0 + exp(-2.0 * FRAC_2_PI.sqrt() * x * (1.0 + CUBIC as f32 * x * x)))
}

/// The derivative of x·s, s = `rise(x)`.
#[inline(always)]
fn tanh_slope(x: f32, s: f32) -> f32 {
    let slope = 2.0 * FRAC_2_PI.sqrt();
    s + x * s * (1.0 - s) * slope * (1.0 + 3.0 * CUBIC as f32 * x * x)
}

/// s·x.
pub fn scale(tape: &mut Tape, x: &Var, s: f32) -> Result<Var> {
    let fused = tape.fused(&x.value);
    let times = move |x: &Tensor| -> Result<Tensor> {
        if !fused {
            return Ok((x * f64::from(s))?);
        }
        let data = host::read(x)?;
        let y = host::make_rows(data.len(), 1, |at, y| {
            y.iter_mut().zip(&data[at..]).for_each(|(y, x)| *y = s * x);
        });
        host::tensor(y, x.dims())
    };
    let to = x.sink();
    Ok(tape.push(times(&x.value)?, &[x], move |dy, grads| grads.add_owned(to, times(&dy.contiguous()?)?)))
}

/// x + y of the same shape.
pub fn add(tape: &mut Tape, x: &Var, y: &Var) -> Result<Var> {
    let sum = if tape.fused(&x.value) {
        let (a, b) = (host::read(&x.value)?, host::read(&y.value)?);
        let sum = host::make_rows(a.len(), 1, |at, block| {
            let end = at + block.len();
            block.iter_mut().zip(&a[at..end]).zip(&b[at..end]).for_each(|((s, a), b)| *s = a + b);
        });
        host::tensor(sum, x.value.dims())?
    } else {
        (&x.value + &y.value)?
    };
    let (to_x, to_y) = (x.sink(), y.sink());
    Ok(tape.push(sum, &[x, y], move |dy, grads| {
        grads.add_shared(to_x, dy)?;
        grads.add_shared(to_y, dy)
    }))
}

/// Rows `ids` of `table` `[V,H]` → `[N,H]`: token embeddings, or the positions whose next token is scored.
pub fn gather(tape: &mut Tape, table: &Var, ids: Arc<[u32]>) -> Result<Var> {
    let (_, width) = table.value.dims2()?;
    if !tape.fused(&table.value) {
        let index = Tensor::new(&ids[..], table.value.device())?;
        let rows = table.value.index_select(&index, 0)?;
        let t = table.clone();
        return Ok(tape.push(rows, &[table], move |dy, grads| {
            let grad = t.value.zeros_like()?.index_add(&index, &dy.contiguous()?, 0)?;
            grads.add_owned(&t, grad)
        }));
    }
    let rows = {
        let data = host::read(&table.value)?;
        host::make_rows(ids.len(), width, |first, block| {
            for (row, &id) in block.chunks_exact_mut(width).zip(&ids[first..]) {
                row.copy_from_slice(&data[id as usize * width..][..width]);
            }
        })
    };
    let t = table.clone();
    Ok(tape.push(host::tensor(rows, &[ids.len(), width])?, &[table], move |dy, grads| {
        let dy = dy.contiguous()?;
        let dy = host::read(&dy)?;
        // In row order on one thread: ids repeat, and the order of additions must not depend on threads.
        grads.accumulate(&t, |sum| {
            for (row, &id) in dy.chunks_exact(width).zip(ids.iter()) {
                let sum = &mut sum[id as usize * width..][..width];
                sum.iter_mut().zip(row).for_each(|(s, g)| *s += g);
            }
        })
    }))
}

/// Blocks of columns: block i of `count` is the columns `start + i·stride ..` of that, `width` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    pub start: usize,
    pub stride: usize,
    pub width: usize,
    pub count: usize,
}

impl Columns {
    /// Where each block begins.
    fn starts(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |i| self.start + i * self.stride)
    }

    fn check(&self, width: usize) -> Result<()> {
        if self.width > 0 && self.starts().all(|from| from + self.width <= width) {
            return Ok(());
        }
        Err(Error::new(Kind::Internal, format!("{self:?} of a matrix with {width} columns")))
    }
}

/// The columns `part` of x `[N,W]` side by side → `[N, count·width]`.
pub fn columns(tape: &mut Tape, x: &Var, part: Columns) -> Result<Var> {
    let (n, width) = x.value.dims2()?;
    part.check(width)?;
    let xv = x.clone();
    if !tape.fused(&x.value) {
        return Ok(tape.push(columns_plain(&x.value, part)?, &[x], move |dy, grads| {
            let [dx] = plain_backward([&xv.value], dy, |[x]| columns_plain(x, part))?;
            grads.add_owned(&xv, dx)
        }));
    }
    let taken = part.count * part.width;
    let y = {
        let x = host::read(&x.value)?;
        host::make_rows(n, taken, |first, block| {
            for (y, x) in block.chunks_exact_mut(taken).zip(x[first * width..].chunks_exact(width)) {
                for (y, from) in y.chunks_exact_mut(part.width).zip(part.starts()) {
                    y.copy_from_slice(&x[from..from + part.width]);
                }
            }
        })
    };
    Ok(tape.push(host::tensor(y, &[n, taken])?, &[x], move |dy, grads| {
        let dy = dy.contiguous()?;
        let dy = host::read(&dy)?;
        // Into one gradient of x, to which its other columns add theirs.
        grads.accumulate(&xv, |sum| {
            host::for_rows(sum, width, |first, block| {
                for (sum, dy) in block.chunks_exact_mut(width).zip(dy[first * taken..].chunks_exact(taken)) {
                    for (dy, from) in dy.chunks_exact(part.width).zip(part.starts()) {
                        sum[from..from + part.width].iter_mut().zip(dy).for_each(|(s, g)| *s += g);
                    }
                }
            });
        })
    }))
}

/// The plain composition.
pub fn columns_plain(x: &Tensor, part: Columns) -> Result<Tensor> {
    let blocks: Vec<Tensor> =
        part.starts().map(|from| x.narrow(1, from, part.width)).collect::<candle_core::Result<_>>()?;
    Ok(Tensor::cat(&blocks, 1)?)
}
