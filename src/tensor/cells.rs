//! Reading the numbers of a tensor where they are, as f64.
//!
//! Owns no arithmetic. A tensor that is not row major in the host's memory is copied once; every other is borrowed.

use crate::error::Result;
use crate::tensor::blocks::make;
use crate::tensor::simd::simd;
use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor as Data};
use std::borrow::Cow;
use std::ops::Range;

/// f32 or f64 numbers, row major in the host's memory.
pub(crate) struct Cells(Data);

impl Cells {
    pub fn of(data: &Data) -> Result<Self> {
        let data = if data.device().is_cpu() { data.clone() } else { data.to_device(&Device::Cpu)? };
        let known = matches!(data.dtype(), DType::F32 | DType::F64);
        Ok(Self(if known { data } else { data.to_dtype(DType::F32)? }.contiguous()?))
    }

    pub fn read(&self) -> Held<'_> {
        let (guard, layout) = self.0.storage_and_layout();
        let start = layout.start_offset();
        Held { guard, range: start..start + self.0.elem_count() }
    }
}

/// Keeps the numbers where they are while somebody reads them.
pub(crate) struct Held<'a> {
    guard: StorageRef<'a>,
    range: Range<usize>,
}

impl Held<'_> {
    pub fn numbers(&self) -> Numbers<'_> {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(data)) => Numbers::F32(&data[self.range.clone()]),
            Storage::Cpu(CpuStorage::F64(data)) => Numbers::F64(&data[self.range.clone()]),
            _ => unreachable!("`Cells::of` made f32 or f64 on the host"),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl<'a> Numbers<'a> {
    pub fn len(self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F64(x) => x.len(),
        }
    }

    #[inline(always)]
    pub fn at(self, i: usize) -> f64 {
        match self {
            Self::F32(x) => f64::from(x[i]),
            Self::F64(x) => x[i],
        }
    }

    /// The cells from `start` on, as many as `to` has.
    pub fn load(self, start: usize, to: &mut [f64]) {
        match self {
            Self::F32(x) => widen(&x[start..start + to.len()], to),
            Self::F64(x) => to.copy_from_slice(&x[start..start + to.len()]),
        }
    }

    /// `n` cells from `start` on: in place where they are f64, else in `scratch`.
    pub fn strip<'s>(self, start: usize, n: usize, scratch: &'s mut [f64]) -> &'s [f64]
    where
        'a: 's,
    {
        match self {
            Self::F32(x) => {
                widen(&x[start..start + n], &mut scratch[..n]);
                &scratch[..n]
            }
            Self::F64(x) => &x[start..start + n],
        }
    }

    /// All of them as f64.
    pub fn wide(self) -> Cow<'a, [f64]> {
        match self {
            Self::F32(x) => Cow::Owned(make(x.len(), |start, strip, _: &mut [_; 0]| self.load(start, strip))),
            Self::F64(x) => Cow::Borrowed(x),
        }
    }
}

simd! {
    fn widen(from: &[f32], to: &mut [f64]) {
        to.iter_mut().zip(from).for_each(|(to, x)| *to = f64::from(*x));
    }
}
