//! Reading and changing the numbers of CPU tensors as slices, and cutting elementwise work over threads.
//!
//! Owns no arithmetic.

use super::awake::{each_block, each_pair, map_each};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// Elements that one task of an elementwise loop handles: small enough for the second-level cache.
const CHUNK: usize = 16 * 1024;

/// The numbers of a contiguous f32 CPU tensor, read in place.
pub struct Host<'a> {
    guard: candle_core::StorageRef<'a>,
    start: usize,
    len: usize,
}

impl Deref for Host<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.start..self.start + self.len],
            _ => unreachable!("`read` checked the device and type"),
        }
    }
}

/// The numbers of `t`, which must be a contiguous f32 CPU tensor.
pub fn read(t: &Tensor) -> Result<Host<'_>> {
    let (guard, layout) = t.storage_and_layout();
    let (start, end) = range(layout)?;
    if !matches!(&*guard, Storage::Cpu(CpuStorage::F32(_))) {
        return Err(Error::new(crate::Kind::Internal, "a fused kernel was given a tensor that is not f32 on the CPU"));
    }
    Ok(Host { guard, start, len: end - start })
}

/// Changes the numbers of `t` in place. Nobody may hold `read(t)` meanwhile.
pub fn write(t: &Tensor, change: impl FnMut(&mut [f32])) -> Result<()> {
    struct Change<F>(RefCell<F>);
    impl<F: FnMut(&mut [f32])> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "host-write"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let (start, end) = range(layout).map_err(candle_core::Error::wrap)?;
            match storage {
                CpuStorage::F32(data) => (self.0.borrow_mut())(&mut data[start..end]),
                other => candle_core::bail!(
                    "expected f32 numbers, found {:?}",
                    candle_core::backend::BackendStorage::dtype(other)
                ),
            }
            Ok(())
        }
    }
    Ok(t.inplace_op1(&Change(RefCell::new(change)))?)
}

fn range(layout: &Layout) -> Result<(usize, usize)> {
    layout
        .contiguous_offsets()
        .ok_or_else(|| Error::new(crate::Kind::Internal, "a fused kernel was given a tensor that is not contiguous"))
}

/// A CPU tensor of these numbers.
pub fn tensor(data: Vec<f32>, dims: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(data, dims, &Device::Cpu)?)
}

/// Changes `width`-wide rows in blocks on every thread: `f(first_row, block)`.
pub fn for_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows = rows_per_block(width);
    if out.len() <= CHUNK {
        return f(0, out);
    }
    each_block(out, rows * width, |i, block| f(i * rows, block));
}

fn rows_per_block(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// Makes `[rows, width]` numbers block by block. Each block is cleared just before `f(first_row, block)` fills it, by
/// the same thread, so that new memory is touched once.
pub fn make_rows(rows: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut data = Vec::with_capacity(rows * width);
    for_rows(&mut data.spare_capacity_mut()[..rows * width], width, |first, block| f(first, cleared(block)));
    // SAFETY: the blocks cover `rows * width` numbers, and each was cleared.
    unsafe { data.set_len(rows * width) };
    data
}

/// As `make_rows`, for two results of the same shape.
pub fn make_rows2(rows: usize, width: usize, f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync) -> (Vec<f32>, Vec<f32>) {
    let n = rows * width;
    let (mut a, mut b) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let size = (rows_per_block(width) * width).max(1);
    let pair = |i: usize, a: &mut [_], b: &mut [_]| f(i * rows_per_block(width), cleared(a), cleared(b));
    each_pair((&mut a.spare_capacity_mut()[..n], size), (&mut b.spare_capacity_mut()[..n], size), pair);
    // SAFETY: the blocks cover n numbers of each, and each was cleared.
    unsafe {
        a.set_len(n);
        b.set_len(n);
    }
    (a, b)
}

/// Makes numbers in parts of the given sizes, on every thread: `f(part, numbers)`.
pub fn make_parts(sizes: &[usize], f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let n = sizes.iter().sum();
    let mut data = Vec::with_capacity(n);
    let mut rest = &mut data.spare_capacity_mut()[..n];
    let mut parts = Vec::with_capacity(sizes.len());
    for &size in sizes {
        let (part, after) = rest.split_at_mut(size);
        parts.push(part);
        rest = after;
    }
    each_block(&mut parts, 1, |i, part| f(i, cleared(part[0])));
    // SAFETY: the parts cover n numbers, and each was cleared.
    unsafe { data.set_len(n) };
    data
}

fn cleared(block: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    block.fill(MaybeUninit::new(0.0));
    // SAFETY: every number was just written, and `MaybeUninit<f32>` has the layout of `f32`.
    unsafe { &mut *(std::ptr::from_mut(block) as *mut [f32]) }
}

/// Sums a per-row contribution over `rows` rows into `into` (`[width]`): blocks of a fixed number of rows, added in
/// order, so that the thread count does not change the bits.
pub fn sum_rows(into: &mut [f32], rows: usize, f: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) {
    const ROWS: usize = 256;
    let part = |i: usize| {
        let mut sum = vec![0.0; into.len()];
        f(i * ROWS..rows.min((i + 1) * ROWS), &mut sum);
        sum
    };
    for part in map_each(rows.div_ceil(ROWS), part) {
        for (x, y) in into.iter_mut().zip(part) {
            *x += y;
        }
    }
}
