//! The small operations of a decoder layer: SwiGLU, the residual sum, and gathering rows (embeddings, positions).

use super::host;
use super::simd::{exp, simd};
use super::tape::{Tape, Var, plain_backward};
use crate::error::Result;
use candle_core::Tensor;
use std::sync::Arc;

/// silu(gate) · up (Shazeer 2020, arXiv:2002.05202), both `[N,I]`.
pub fn swiglu(tape: &mut Tape, gate: &Var, up: &Var) -> Result<Var> {
    let fused = tape.fused(&gate.value);
    let y = if fused { swiglu_fused(&gate.value, &up.value)? } else { swiglu_plain(&gate.value, &up.value)? };
    let (g, u) = (gate.clone(), up.clone());
    Ok(tape.push(y, &[gate, up], move |dy, grads| {
        let (dg, du) = if fused {
            swiglu_backward(&g.value, &u.value, dy)?
        } else {
            let [dg, du] = plain_backward([&g.value, &u.value], dy, |[g, u]| swiglu_plain(g, u))?;
            (dg, du)
        };
        grads.add_owned(&g, dg)?;
        grads.add_owned(&u, du)
    }))
}

/// The plain composition.
pub fn swiglu_plain(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok((gate.silu()? * up)?)
}

fn swiglu_fused(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (g, u) = (host::read(gate)?, host::read(up)?);
    let y = host::make_rows(g.len(), 1, |at, y| silu_times(&g[at..at + y.len()], &u[at..at + y.len()], y));
    host::tensor(y, gate.dims())
}

fn swiglu_backward(gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let dy = dy.contiguous()?;
    let (g, u, dy) = (host::read(gate)?, host::read(up)?, host::read(&dy)?);
    let (dg, du) = host::make_rows2(g.len(), 1, |at, dg, du| {
        let end = at + dg.len();
        silu_times_backward(&g[at..end], &u[at..end], &dy[at..end], dg, du);
    });
    Ok((host::tensor(dg, gate.dims())?, host::tensor(du, gate.dims())?))
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
    let (xv, yv) = (x.clone(), y.clone());
    Ok(tape.push(sum, &[x, y], move |dy, grads| {
        grads.add_shared(&xv, dy)?;
        grads.add_shared(&yv, dy)
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
