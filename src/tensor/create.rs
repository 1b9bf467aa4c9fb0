//! Constants made from numbers, shapes and random keys.

use crate::budget::memory;
use crate::error::{Error, Result};
use crate::tensor::cells::Cells;
use crate::tensor::rng::Key;
use crate::tensor::{DType, Device, Tensor, shape};

impl Tensor {
    /// Every cell is `value`. f32.
    pub fn full(dims: &[usize], value: f64, device: &Device) -> Result<Tensor> {
        count(dims)?;
        Self::made(dims, DType::F32, device, |_, strip, _: &mut [_; 0]| strip.fill(value))
    }

    /// Standard normal numbers: cell `i` is draw `i` of `key`.
    pub fn randn(dims: &[usize], key: Key, device: &Device) -> Result<Tensor> {
        draw(dims, device, |i| key.normal(i))
    }

    /// Uniform numbers in [0, 1): cell `i` is draw `i` of `key`.
    pub fn rand(dims: &[usize], key: Key, device: &Device) -> Result<Tensor> {
        // 24 bits: rounding a draw just below 1 to f32 would give 1.
        draw(dims, device, |i| (key.bits(i) >> 40) as f64 / (1u64 << 24) as f64)
    }

    /// `0, 1, …, n-1` of shape `[1,n]`, which broadcasts over rows.
    pub fn arange(n: usize, device: &Device) -> Result<Tensor> {
        Self::from_host((0..count(&[1, n])?).map(|i| i as f64).collect(), &[1, n], DType::F32, device)
    }

    /// The same values in another type; gradients pass through.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        count(self.dims())?;
        let cells = Cells::of(self.data())?;
        let held = cells.read();
        let copy = |start: usize, strip: &mut [f64], _: &mut [_; 0]| held.numbers().load(start, strip);
        let out = Self::made(self.dims(), dtype, self.device(), copy)?.with_tokens(self.is_tokens());
        Ok(crate::tensor::tape::record(out, &[self], |_, _| |upstream| Ok(vec![upstream])))
    }
}

/// Cell `i` is `number(i)`. f32.
fn draw(dims: &[usize], device: &Device, number: impl Fn(u64) -> f64 + Sync) -> Result<Tensor> {
    count(dims)?;
    Tensor::made(dims, DType::F32, device, |start, strip, _: &mut [_; 0]| {
        strip.iter_mut().enumerate().for_each(|(i, cell)| *cell = number((start + i) as u64));
    })
}

/// How many numbers a shape holds, if that is a sensible amount of memory. An axis without cells counts as one: walks
/// over the others would never end.
pub(crate) fn count(dims: &[usize]) -> Result<usize> {
    const LIMIT: usize = 1 << 26;
    // A cell is computed in f64 and kept in f32.
    const BYTES: u64 = 12;
    let extent = dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1))).filter(|n| *n <= LIMIT);
    let extent = extent.ok_or_else(|| {
        Error::value(format!("a tensor of shape {} is too large: at most 2^26 numbers", shape::show(dims)))
    })?;
    memory::room(extent as u64 * BYTES)?;
    Ok(if dims.contains(&0) { 0 } else { extent })
}
