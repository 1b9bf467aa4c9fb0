//! The small operations of a decoder layer: SwiGLU, GeGLU, GELU, sums, scales, and taking rows (embeddings, positions)
//! or columns (the parts of a joint projection).

use super::host;
use super::op::{Operation, Tangent, given};
use super::simd::{exp, normal, simd};
use super::tape::{Grads, Sink, Tape, Var};
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
    tape.apply(f, [gate, up])
}

impl Operation<2> for Gate {
    /// gate and up
    type Saved = [Var; 2];

    fn host(&self, _: &Tape, [gate, up]: [&Var; 2]) -> Result<(Tensor, [Var; 2])> {
        let y = {
            let (g, u) = (host::read(gate.tensor()?)?, host::read(up.tensor()?)?);
            host::make_rows(g.len(), 1, |at, y| {
                let (g, u) = (&g[at..at + y.len()], &u[at..at + y.len()]);
                match *self {
                    Self::Silu => silu_times(g, u, y),
                    Self::Gelu(form) => gelu_times(g, u, form, y),
                }
            })
        };
        Ok((host::tensor(y, gate.value.dims())?, [gate.clone(), up.clone()]))
    }

    fn backward(&self, [gate, up]: &[Var; 2], dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let (dg, du) = self.slopes([gate, up], dy)?;
        grads.add_owned(gate, host::tensor(dg, gate.value.dims())?)?;
        grads.add_owned(up, host::tensor(du, gate.value.dims())?)
    }

    fn plain(&self, [gate, up]: &[Tensor; 2]) -> Result<Tensor> {
        let gate = match self {
            Self::Silu => gate.silu()?,
            Self::Gelu(form) => form.plain(std::array::from_ref(gate))?,
        };
        Ok((gate * up)?)
    }
}

impl Gate {
    /// dy·up·f′(gate) and dy·f(gate).
    fn slopes(&self, [gate, up]: [&Var; 2], dy: &Tensor) -> Result<(Vec<f32>, Vec<f32>)> {
        let (g, u, dy) = (host::read(gate.tensor()?)?, host::read(up.tensor()?)?, host::read(dy)?);
        Ok(host::make_rows2(g.len(), 1, |at, dg, du| {
            let end = at + dg.len();
            let (g, u, dy) = (&g[at..end], &u[at..end], &dy[at..end]);
            match *self {
                Self::Silu => silu_times_backward(g, u, dy, dg, du),
                Self::Gelu(form) => gelu_times_backward(g, u, form, dy, dg, du),
            }
        }))
    }
}

impl Tangent<2> for Gate {
    fn tangent(&self, _: &Tape, inputs: [&Var; 2], [dg, du]: [Option<&Tensor>; 2], _: &[Var; 2]) -> Result<Tensor> {
        let by_gate = dg.map(|dg| Ok::<_, Error>(self.slopes(inputs, dg)?.0)).transpose()?;
        let by_up = du.map(|du| Ok::<_, Error>(self.slopes(inputs, du)?.1)).transpose()?;
        let sum = match (by_gate, by_up) {
            (Some(mut sum), Some(more)) => {
                host::for_rows(&mut sum, 1, |at, block| {
                    block.iter_mut().zip(&more[at..]).for_each(|(s, x)| *s += x);
                });
                sum
            }
            (one, other) => one.or(other).unwrap_or_default(),
        };
        host::tensor(sum, inputs[0].value.dims())
    }
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
    tape.apply(form, [x])
}

impl Operation<1> for Gelu {
    type Saved = Var;

    fn host(&self, _: &Tape, [x]: [&Var; 1]) -> Result<(Tensor, Var)> {
        let y = {
            let x = host::read(x.tensor()?)?;
            host::make_rows(x.len(), 1, |at, y| gelu_forward(&x[at..at + y.len()], *self, y))
        };
        Ok((host::tensor(y, x.value.dims())?, x.clone()))
    }

    fn backward(&self, x: &Var, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        grads.add_owned(x, self.slope(x, dy)?)
    }

    /// Written out: candle's own `gelu` differentiates with constants of six digits.
    fn plain(&self, [x]: &[Tensor; 1]) -> Result<Tensor> {
        let rise = match self {
            Self::Exact => (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?,
            Self::Tanh => {
                let slope = ((x.sqr()? * CUBIC)? + 1.0)?;
                (x * slope)?.affine(std::f64::consts::FRAC_2_PI.sqrt(), 0.0)?.tanh()?
            }
        };
        Ok((x * (rise + 1.0)?)?.affine(0.5, 0.0)?)
    }
}

impl Gelu {
    /// dy times the derivative at x.
    fn slope(self, xv: &Var, dy: &Tensor) -> Result<Tensor> {
        let (dy, x) = (host::read(dy)?, host::read(xv.tensor()?)?);
        let dx = host::make_rows(x.len(), 1, |at, dx| {
            let end = at + dx.len();
            gelu_backward(&x[at..end], self, &dy[at..end], dx);
        });
        host::tensor(dx, xv.value.dims())
    }
}

impl Tangent<1> for Gelu {
    fn tangent(&self, _: &Tape, [x]: [&Var; 1], [dx]: [Option<&Tensor>; 1], _: &Var) -> Result<Tensor> {
        self.slope(x, given(dx))
    }
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
    tape.apply(Scale(s), [x])
}

#[derive(Clone)]
pub(super) struct Scale(pub(super) f32);

impl Scale {
    fn times(&self, x: &Tensor) -> Result<Tensor> {
        let data = host::read(x)?;
        let y = host::make_rows(data.len(), 1, |at, y| {
            y.iter_mut().zip(&data[at..]).for_each(|(y, x)| *y = self.0 * x);
        });
        host::tensor(y, x.dims())
    }
}

impl Operation<1> for Scale {
    type Saved = Sink;

    fn host(&self, _: &Tape, [x]: [&Var; 1]) -> Result<(Tensor, Sink)> {
        Ok((self.times(x.tensor()?)?, x.sink()))
    }

    fn backward(&self, x: &Sink, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        grads.add_owned(*x, self.times(dy)?)
    }

    fn plain(&self, [x]: &[Tensor; 1]) -> Result<Tensor> {
        Ok((x * f64::from(self.0))?)
    }
}

impl Tangent<1> for Scale {
    fn tangent(&self, _: &Tape, _: [&Var; 1], [dx]: [Option<&Tensor>; 1], _: &Sink) -> Result<Tensor> {
        self.times(given(dx))
    }
}

/// x + y of the same shape.
pub fn add(tape: &mut Tape, x: &Var, y: &Var) -> Result<Var> {
    tape.apply(Add, [x, y])
}

#[derive(Clone)]
pub(super) struct Add;

impl Operation<2> for Add {
    type Saved = [Sink; 2];

    fn host(&self, _: &Tape, [x, y]: [&Var; 2]) -> Result<(Tensor, [Sink; 2])> {
        Ok((sum(x.tensor()?, y.tensor()?)?, [x.sink(), y.sink()]))
    }

    fn backward(&self, [x, y]: &[Sink; 2], dy: &Tensor, grads: &mut Grads) -> Result<()> {
        grads.add_shared(*x, dy)?;
        grads.add_shared(*y, dy)
    }

    fn plain(&self, [x, y]: &[Tensor; 2]) -> Result<Tensor> {
        Ok((x + y)?)
    }
}

fn sum(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (a, b) = (host::read(x)?, host::read(y)?);
    let sum = host::make_rows(a.len(), 1, |at, block| {
        let end = at + block.len();
        block.iter_mut().zip(&a[at..end]).zip(&b[at..end]).for_each(|((s, a), b)| *s = a + b);
    });
    host::tensor(sum, x.dims())
}

impl Tangent<2> for Add {
    fn tangent(&self, _: &Tape, _: [&Var; 2], tangents: [Option<&Tensor>; 2], _: &[Sink; 2]) -> Result<Tensor> {
        match tangents {
            [Some(x), Some(y)] => sum(x, y),
            [one, other] => Ok(given(one.or(other)).clone()),
        }
    }
}

/// Rows `ids` of `table` `[V,H]` → `[N,H]`: token embeddings, or the positions whose next token is scored.
pub fn gather(tape: &mut Tape, table: &Var, ids: Arc<[u32]>) -> Result<Var> {
    tape.apply(Gather { ids }, [table])
}

#[derive(Clone)]
pub(super) struct Gather {
    pub(super) ids: Arc<[u32]>,
}

impl Operation<1> for Gather {
    type Saved = Var;

    fn host(&self, _: &Tape, [table]: [&Var; 1]) -> Result<(Tensor, Var)> {
        Ok((self.taken(table.tensor()?)?, table.clone()))
    }

    fn backward(&self, table: &Var, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let (_, width) = table.value.dims2()?;
        let dy = host::read(dy)?;
        // In row order on one thread: ids repeat, and the order of additions must not depend on threads.
        grads.accumulate(table, |sum| {
            for (row, &id) in dy.chunks_exact(width).zip(self.ids.iter()) {
                let sum = &mut sum[id as usize * width..][..width];
                sum.iter_mut().zip(row).for_each(|(s, g)| *s += g);
            }
        })
    }

    fn plain(&self, [table]: &[Tensor; 1]) -> Result<Tensor> {
        Ok(table.index_select(&Tensor::new(&self.ids[..], table.device())?, 0)?)
    }
}

impl Gather {
    fn taken(&self, table: &Tensor) -> Result<Tensor> {
        let (_, width) = table.dims2()?;
        let data = host::read(table)?;
        let rows = host::make_rows(self.ids.len(), width, |first, block| {
            for (row, &id) in block.chunks_exact_mut(width).zip(&self.ids[first..]) {
                row.copy_from_slice(&data[id as usize * width..][..width]);
            }
        });
        host::tensor(rows, &[self.ids.len(), width])
    }
}

impl Tangent<1> for Gather {
    fn tangent(&self, _: &Tape, _: [&Var; 1], [table]: [Option<&Tensor>; 1], _: &Var) -> Result<Tensor> {
        self.taken(given(table))
    }
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
    part.check(x.value.dim(1)?)?;
    tape.apply(part, [x])
}

impl Operation<1> for Columns {
    type Saved = Var;

    fn host(&self, _: &Tape, [x]: [&Var; 1]) -> Result<(Tensor, Var)> {
        Ok((self.taken(x.tensor()?)?, x.clone()))
    }

    fn backward(&self, x: &Var, dy: &Tensor, grads: &mut Grads) -> Result<()> {
        let (width, taken) = (x.value.dim(1)?, self.count * self.width);
        let dy = host::read(dy)?;
        // Into one gradient of x, to which its other columns add theirs.
        grads.accumulate(x, |sum| {
            host::for_rows(sum, width, |first, block| {
                for (sum, dy) in block.chunks_exact_mut(width).zip(dy[first * taken..].chunks_exact(taken)) {
                    for (dy, from) in dy.chunks_exact(self.width).zip(self.starts()) {
                        sum[from..from + self.width].iter_mut().zip(dy).for_each(|(s, g)| *s += g);
                    }
                }
            });
        })
    }

    fn plain(&self, [x]: &[Tensor; 1]) -> Result<Tensor> {
        let blocks: Vec<Tensor> =
            self.starts().map(|from| x.narrow(1, from, self.width)).collect::<candle_core::Result<_>>()?;
        Ok(Tensor::cat(&blocks, 1)?)
    }
}

impl Columns {
    fn taken(&self, x: &Tensor) -> Result<Tensor> {
        let (n, width) = x.dims2()?;
        let (taken, x) = (self.count * self.width, host::read(x)?);
        let y = host::make_rows(n, taken, |first, block| {
            for (y, x) in block.chunks_exact_mut(taken).zip(x[first * width..].chunks_exact(width)) {
                for (y, from) in y.chunks_exact_mut(self.width).zip(self.starts()) {
                    y.copy_from_slice(&x[from..from + self.width]);
                }
            }
        });
        host::tensor(y, &[n, taken])
    }
}

impl Tangent<1> for Columns {
    fn tangent(&self, _: &Tape, _: [&Var; 1], [dx]: [Option<&Tensor>; 1], _: &Var) -> Result<Tensor> {
        self.taken(given(dx))
    }
}
