//! Linear → Fisher product: the gradient of the logits that a direction comes to, F·dz = p∘(dz − Σ p·dz) with
//! p = softmax(z/temperature), and from there ∂h and ∂W, without ever holding more than a chunk of the `[U,V]` logits.
//!
//! z = h·Wᵀ, soft-capped where the head asks, and dz = dh·Wᵀ + h·dWᵀ behind the cap, for the tangents that h and W carry.
//! Owns the pass's end alone: tangents come here through the operations (`op::Tangent`), and gradients go back by them.

use super::awake::each_pair;
use super::gemm::Packed;
use super::host;
use super::logprob::{Chunk, LmHead, Logits, Pull, ROWS, Targets};
use super::simd::{exp, max, simd, sums_by};
use super::softcap::uncap;
use super::tape::{Grads, ParameterGrads, Tape, Var};
use crate::error::{Error, Kind, Result};

/// Adds Σ wᵢ·Jᵢᵀ·F·Jᵢ·v to `parameters`: over the pairs of `targets` at rows of h `[U,H]`, each with its weight `[P]`; v is
/// the direction of the tape. Tokens do not matter.
///
/// # Errors
/// An h without a tangent: no trained parameter is before it. An interruption.
pub fn pull(
    tape: &Tape,
    h: &Var,
    head: &LmHead,
    targets: &Targets,
    weights: &[f32],
    parameters: &mut ParameterGrads,
) -> Result<()> {
    let mut rows = vec![0.0; h.value.dim(0)?];
    targets.rows.iter().zip(weights).for_each(|(&row, weight)| rows[row as usize] += weight);
    let end = End { h, head, rows, scale: (1.0 / targets.temperature) as f32 };
    tape.backward_by(|grads| end.pull(grads), parameters)
}

struct End<'a> {
    h: &'a Var,
    head: &'a LmHead,
    /// The weight of each row, over its pairs.
    rows: Vec<f32>,
    /// 1 / temperature
    scale: f32,
}

/// What the softmax of a row comes to.
#[derive(Clone, Copy)]
struct Softmax {
    lse: f32,
    /// Σ p·dz
    mean: f32,
}

/// One under way: the largest z so far, Σ exp(z − top) and Σ exp(z − top)·dz.
#[derive(Clone, Copy)]
struct Running {
    top: f32,
    sums: [f32; 2],
}

/// z and dz of a chunk, row-major.
#[derive(Default)]
struct Moving {
    z: Vec<f32>,
    dz: Vec<f32>,
}

impl End<'_> {
    fn pull(&self, grads: &mut Grads) -> Result<()> {
        let Self { h, head, rows, scale } = self;
        let weight = &head.weight;
        let moved = |v: &Var| v.tangent().map(|t| t.host().cloned()).transpose();
        let missing = || Error::new(Kind::Internal, "hidden states without a tangent have no Fisher product");
        let (dh, dw) = (moved(h)?.ok_or_else(missing)?, moved(weight)?);
        let (numbers, dh) = (host::read(h.tensor()?)?, host::read(&dh)?);
        let (w, dw) = (host::read(weight.tensor()?)?, dw.as_ref().map(host::read).transpose()?);
        let tape = grads.tape();
        let of_h = Logits::new(tape, &numbers, (weight, &w), head.softcap)?;
        let of_dh = Logits::new(tape, &dh, (weight, &w), None)?;
        let of_dw = dw.as_ref().map(|dw| Logits::of(&numbers, dw, of_h.width()));
        let mut running = vec![Running { top: f32::NEG_INFINITY, sums: [0.0; 2] }; rows.len()];
        let [mut one, mut two, mut three] = [const { Packed::scratch() }; 3];
        let mut moving = Moving::default();
        let mut found: Vec<Softmax> = Vec::new();
        let mut pull = Pull::new(h, weight)?;
        let whole = of_h.is_one_chunk(rows.len());
        // Once for what the softmaxes come to, and again for the gradients; logits that are one chunk are made once.
        for last in [false, true] {
            for columns in of_h.columns() {
                let block = of_h.block(columns.clone(), &mut one);
                let of_dh = of_dh.block(columns.clone(), &mut two);
                let of_dw = of_dw.as_ref().map(|of_dw| of_dw.block(columns.clone(), &mut three));
                let n = columns.len();
                if last {
                    pull.turn(&block);
                }
                let mut more = of_dw.iter().flat_map(|block| block.chunks());
                for (chunk, moved) in block.chunks().zip(of_dh.chunks()) {
                    grads.tape().stop().check()?;
                    let more = more.next();
                    if !(last && whole) {
                        moving.fill(&chunk, &moved, more.as_ref());
                    }
                    let Moving { z, dz } = &mut moving;
                    let own = chunk.rows.clone();
                    if !last {
                        each_pair((&mut running[own], ROWS), (z, ROWS * n), |i, running, z| {
                            let dz = dz[i * ROWS * n..].chunks_exact(n);
                            for ((running, z), dz) in running.iter_mut().zip(z.chunks_exact(n)).zip(dz) {
                                absorb(z, dz, *scale, running);
                            }
                        });
                        continue;
                    }
                    let capped = chunk.capped(z);
                    each_pair((z, ROWS * n), (dz, ROWS * n), |i, z, dz| {
                        let at = own.start + i * ROWS;
                        for ((z, dz), at) in z.chunks_exact_mut(n).zip(dz.chunks_exact(n)).zip(at..) {
                            match rows[at] {
                                0.0 => z.fill(0.0),
                                weight => product(z, dz, *scale, found[at], weight * scale),
                            }
                        }
                    });
                    chunk.uncap(z, &capped);
                    pull.add(&chunk, z, grads)?;
                }
            }
            found = running.iter().map(|running| running.finish()).collect();
        }
        pull.finish(grads)
    }
}

impl Moving {
    /// The logits of a chunk and where they move: of h along dh, and along dW where the head is trained.
    fn fill(&mut self, chunk: &Chunk, along_h: &Chunk, along_w: Option<&Chunk>) {
        let Self { z, dz } = self;
        chunk.logits(z);
        along_h.logits(dz);
        if let Some(along_w) = along_w {
            along_w.add_logits(dz);
        }
        if let Some(by) = chunk.softcap() {
            host::for_rows(dz, 1, |at, block| uncap(block, &z[at..at + block.len()], by));
        }
    }
}

impl Running {
    fn finish(&self) -> Softmax {
        let [sum, mean] = self.sums;
        Softmax { lse: self.top + sum.ln(), mean: mean / sum }
    }
}

simd! {
    fn absorb(z: &[f32], dz: &[f32], scale: f32, row: &mut Running) {
        let n = z.len();
        let dz = &dz[..n];
        let top = (max(z) * scale).max(row.top);
        let sums = sums_by(n, |i| {
            let (e, d) = (exp(z[i] * scale - top), dz[i] * scale);
            [e, e * d]
        });
        let carry = if row.sums[0] == 0.0 { 0.0 } else { exp(row.top - top) };
        let old = row.sums;
        *row = Running { top, sums: [old[0] * carry + sums[0], old[1] * carry + sums[1]] };
    }
}

simd! {
    /// p·(dz − Σ p·dz)·by over a row of logits, in place of z.
    fn product(z: &mut [f32], dz: &[f32], scale: f32, softmax: Softmax, by: f32) {
        for (z, dz) in z.iter_mut().zip(dz) {
            *z = exp(*z * scale - softmax.lse) * (dz * scale - softmax.mean) * by;
        }
    }
}
