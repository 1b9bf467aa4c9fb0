//! Σ a·b of two tensors, in f64: what gradient norms and the angles between gradients are made of.

use super::device::dot::Parts;
use super::form::Routine;
use super::host;
use super::value::Value;
use crate::error::Result;
use candle_core::DType;
use rayon::prelude::*;

/// Σ a·b over all numbers of two tensors of one shape.
///
/// # Errors
/// Tensors of different devices.
pub fn dot(a: &Value, b: &Value) -> Result<f64> {
    Dot { a, b }.run()
}

struct Dot<'a> {
    a: &'a Value,
    b: &'a Value,
}

impl Routine for Dot<'_> {
    type Out = f64;

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        [self.a, self.b]
    }

    fn host(self) -> Result<f64> {
        const BLOCK: usize = 4096;
        let (a, b) = (host::read(self.a.host()?)?, host::read(self.b.host()?)?);
        let part = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        // Collected, then summed in order: the same bits for any number of threads.
        let parts: Vec<f64> = a.par_chunks(BLOCK).zip(b.par_chunks(BLOCK)).map(part).collect();
        Ok(parts.into_iter().sum())
    }

    fn device(self) -> Result<f64> {
        let (a, b) = (self.a.array()?, self.b.array()?);
        let sums = Parts::new(a.gpu(), std::slice::from_ref(&(0..a.len())))?.dot(a, b)?;
        Ok(sums.into_iter().sum())
    }

    fn plain(self) -> Result<f64> {
        Ok((self.a.host()? * self.b.host()?)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?)
    }
}
