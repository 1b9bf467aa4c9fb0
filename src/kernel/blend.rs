//! y ← keep·y + by·x in place: what sums of gradients, steps along one and mixes of two models' weights are made of.

use super::device::elementwise::{cast, scaled};
use super::device::sums::add_into;
use super::form::Routine;
use super::host;
use super::simd::simd;
use super::value::Value;
use crate::error::Result;
use crate::gpu::Array;
use rayon::prelude::*;

/// Changes `into` in place; `x` has its shape. On a device both are f32.
pub struct Blend<'a> {
    pub into: &'a Value,
    pub keep: f64,
    pub x: &'a Value,
    pub by: f64,
}

impl Routine for Blend<'_> {
    type Out = ();

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        [self.into, self.x]
    }

    /// In f64, rounded once.
    fn host(self) -> Result<()> {
        const CHUNK: usize = 16 * 1024;
        let Self { into, keep, x, by } = self;
        let x = x.host()?.contiguous()?;
        let x = host::read(&x)?;
        host::write(into.host()?, |y| {
            y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| blend(y, keep, x, by));
        })
    }

    fn device(self) -> Result<()> {
        let Self { into, keep, x, by } = self;
        let (into, x) = (into.array()?, scaled(x.array()?, by as f32)?);
        if keep != 1.0 {
            into.gpu().copy(into, &scaled(into, keep as f32)?)?;
        }
        add_into(into, &x)
    }

    fn plain(self) -> Result<()> {
        let Self { into, keep, x, by } = self;
        let into = into.host()?;
        let sum = ((into * keep)? + (x.host()? * by)?)?;
        Ok(into.slice_set(&sum.contiguous()?, 0, 0)?)
    }
}

simd! {
    fn blend(y: &mut [f32], keep: f64, x: &[f32], by: f64) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = (keep * f64::from(*y) + by * f64::from(*x)) as f32);
    }
}

/// The numbers of an array in another type, into one that is there.
///
/// # Errors
/// Arrays of different lengths; a device that has failed.
pub fn copy_as(to: &Array, from: &Array) -> Result<()> {
    to.gpu().copy(to, &cast(from, to.dtype())?)
}
