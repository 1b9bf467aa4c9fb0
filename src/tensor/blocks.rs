//! Work on many cells: on all cores where there are many, in blocks whose borders depend on sizes alone.
//!
//! A result of one block stays on its thread and costs nothing more. Sums are chains within a block, and the blocks'
//! sums are added in order, so that the number of threads changes no bit.

use crate::tensor::cells::Numbers;
use crate::tensor::simd::simd;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Cells that one task computes, and that one chain of a sum adds.
pub(crate) const BLOCK: usize = 1 << 14;

/// Cells that are computed at a time in f64: what a strip of three inputs takes stays in the first-level cache.
pub(crate) const STRIP: usize = 256;

/// Room for a strip of every input.
pub(crate) type Scratch<const N: usize> = [[f64; STRIP]; N];

/// What a tensor holds: computed in f64, rounded once.
pub(crate) trait Cell: Copy + Default + Send + Sync + 'static {
    fn narrow(x: f64) -> Self;
    fn store(from: &[f64], to: &mut [Self]);
    /// The cells of `from` from `start` on, as many as `to` has.
    fn copy(from: Numbers, start: usize, to: &mut [Self]);
}

impl Cell for f32 {
    fn narrow(x: f64) -> Self {
        x as f32
    }

    fn store(from: &[f64], to: &mut [Self]) {
        simd! {
            fn round(from: &[f64], to: &mut [f32]) {
                to.iter_mut().zip(from).for_each(|(to, x)| *to = *x as f32);
            }
        }
        round(from, to);
    }

    fn copy(from: Numbers, start: usize, to: &mut [Self]) {
        match from {
            Numbers::F32(x) => to.copy_from_slice(&x[start..start + to.len()]),
            Numbers::F64(x) => Self::store(&x[start..start + to.len()], to),
        }
    }
}

impl Cell for f64 {
    fn narrow(x: f64) -> Self {
        x
    }

    fn store(from: &[f64], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn copy(from: Numbers, start: usize, to: &mut [Self]) {
        from.load(start, to);
    }
}

/// `n` numbers in chunks of `size`, on all cores where that is much `work` (cells read or written): `fill(chunk, numbers)`
/// gets them cleared, by the thread that fills them, so that new memory is touched once.
pub(crate) fn make_chunks<T: Cell>(
    n: usize,
    size: usize,
    work: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) -> Vec<T> {
    let mut cells = Vec::with_capacity(n);
    let chunk = |(i, chunk): (usize, &mut [MaybeUninit<T>])| fill(i, cleared(chunk));
    let room = &mut cells.spare_capacity_mut()[..n];
    if work <= BLOCK {
        room.chunks_mut(size.max(1)).enumerate().for_each(chunk);
    } else {
        room.par_chunks_mut(size.max(1)).enumerate().for_each(chunk);
    }
    // SAFETY: the chunks cover all `n` numbers, and each was cleared.
    unsafe { cells.set_len(n) };
    cells
}

fn cleared<T: Cell>(cells: &mut [MaybeUninit<T>]) -> &mut [T] {
    cells.fill(MaybeUninit::new(T::default()));
    // SAFETY: every number was just written, and `MaybeUninit<T>` has the layout of `T`.
    unsafe { &mut *(std::ptr::from_mut(cells) as *mut [T]) }
}

/// `n` numbers, strip by strip: `fill(start, strip, scratch)` computes the cells from `start` on, all of them: a strip
/// comes with what the one before it left.
pub(crate) fn make<T: Cell, const N: usize>(
    n: usize,
    fill: impl Fn(usize, &mut [f64], &mut Scratch<N>) + Sync,
) -> Vec<T> {
    make_chunks(n, BLOCK, n, |block, cells: &mut [T]| {
        let (mut scratch, mut strip) = ([[0.0; STRIP]; N], [0.0; STRIP]);
        for (i, cells) in cells.chunks_mut(STRIP).enumerate() {
            let strip = &mut strip[..cells.len()];
            fill(block * BLOCK + i * STRIP, strip, &mut scratch);
            T::store(strip, cells);
        }
    })
}

/// Changes cells in blocks: `change(first cell, cells)`.
pub(crate) fn each_block<T: Send>(cells: &mut [T], change: impl Fn(usize, &mut [T]) + Sync) {
    if cells.len() <= BLOCK {
        return change(0, cells);
    }
    cells.par_chunks_mut(BLOCK).enumerate().for_each(|(i, block)| change(i * BLOCK, block));
}

/// Σ at(i) over `0..n`, of `K` lanes beside each other: a chain where one block holds all, else the sum of the blocks'.
#[inline(always)]
pub(crate) fn sum<const K: usize>(n: usize, at: impl Fn(usize) -> [f64; K] + Sync) -> [f64; K] {
    if n <= BLOCK { chain(0..n, &at) } else { sum_of_blocks(n, &at) }
}

fn sum_of_blocks<const K: usize>(n: usize, at: &(impl Fn(usize) -> [f64; K] + Sync)) -> [f64; K] {
    // Four chains at a time: an addition need not wait for the one before it.
    const CHAINS: usize = 4;
    let starts: Vec<usize> = (0..n).step_by(CHAINS * BLOCK).collect();
    let of_chains = |&start: &usize| -> Vec<[f64; K]> {
        if n - start < CHAINS * BLOCK {
            return (start..n).step_by(BLOCK).map(|i| chain(i..n.min(i + BLOCK), at)).collect();
        }
        let mut sums = [[-0.0; K]; CHAINS];
        for i in start..start + BLOCK {
            for (c, sum) in sums.iter_mut().enumerate() {
                add(sum, at(i + c * BLOCK));
            }
        }
        sums.to_vec()
    };
    let parts: Vec<Vec<[f64; K]>> = starts.par_iter().map(of_chains).collect();
    let parts = parts.concat();
    chain(0..parts.len(), &|i| parts[i])
}

/// From −0, as Rust's own sums: it is the number that changes no other.
#[inline(always)]
fn chain<const K: usize>(range: std::ops::Range<usize>, at: &impl Fn(usize) -> [f64; K]) -> [f64; K] {
    let mut sum = [-0.0; K];
    for i in range {
        add(&mut sum, at(i));
    }
    sum
}

#[inline(always)]
fn add<const K: usize>(sum: &mut [f64; K], x: [f64; K]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}
