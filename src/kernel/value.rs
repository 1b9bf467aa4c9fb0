//! A value of the model's computation, wherever its numbers lie.
//!
//! Owns the sum of the two kinds and what holds for both; forms of operations take one kind apart.

use super::host::{self, Host};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Array, DType, Place};
use candle_core::{Device, Tensor};
use half::bf16;
use std::ops::Deref;

/// Numbers in the host's memory or in a device's.
#[derive(Debug, Clone)]
pub enum Value {
    Host(Tensor),
    Device(Array),
}

/// The numbers of a value.
pub enum Numbers<'a> {
    Held(Host<'a>),
    Copied(Vec<f32>),
}

impl Deref for Numbers<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match self {
            Self::Held(numbers) => numbers,
            Self::Copied(numbers) => numbers,
        }
    }
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Self {
        Self::Host(t)
    }
}

impl From<Array> for Value {
    fn from(a: Array) -> Self {
        Self::Device(a)
    }
}

impl From<&Tensor> for Value {
    fn from(t: &Tensor) -> Self {
        Self::Host(t.clone())
    }
}

impl From<&Self> for Value {
    fn from(v: &Self) -> Self {
        v.clone()
    }
}

impl From<&Array> for Value {
    fn from(a: &Array) -> Self {
        Self::Device(a.clone())
    }
}

impl Value {
    /// The tensor of a value that lies on the host.
    ///
    /// # Errors
    /// A value of a device: the wrong form was chosen.
    pub fn host(&self) -> Result<&Tensor> {
        match self {
            Self::Host(t) => Ok(t),
            Self::Device(a) => Err(Error::new(Kind::Internal, format!("{a:?} lies on a device, not on the host"))),
        }
    }

    /// The array of a value that lies on a device.
    ///
    /// # Errors
    /// A value of the host: the wrong form was chosen.
    pub fn array(&self) -> Result<&Array> {
        match self {
            Self::Device(a) => Ok(a),
            Self::Host(t) => {
                Err(Error::new(Kind::Internal, format!("{:?} lies on the host, not on a device", t.dims())))
            }
        }
    }

    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Host(t) => t.dims(),
            Self::Device(a) => a.dims(),
        }
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and columns of a matrix.
    ///
    /// # Errors
    /// A value of another number of dimensions.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self {
            Self::Host(t) => Ok(t.dims2()?),
            Self::Device(a) => a.dims2(),
        }
    }

    /// The size of one dimension.
    ///
    /// # Errors
    /// A value of fewer dimensions.
    pub fn dim(&self, i: usize) -> Result<usize> {
        let dims = self.dims();
        dims.get(i).copied().ok_or_else(|| Error::new(Kind::Internal, format!("no dimension {i} of {dims:?}")))
    }

    /// The numbers, row-major, as f32, read where they lie if they are so; a device is waited for.
    ///
    /// # Errors
    /// A device that has failed.
    pub fn numbers(&self) -> Result<Numbers<'_>> {
        match self {
            Self::Host(t) if t.dtype() == candle_core::DType::F32 && t.is_contiguous() => {
                Ok(Numbers::Held(host::read(t)?))
            }
            _ => Ok(Numbers::Copied(self.to_vec()?)),
        }
    }

    /// The numbers, row-major, as f32; a device is waited for.
    ///
    /// # Errors
    /// A device that has failed.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        Ok(Self::all_to_vec(&[self])?.swap_remove(0))
    }

    /// As `to_vec`, of several values; a device is waited for once.
    ///
    /// # Errors
    /// A device that has failed; values of several devices.
    pub fn all_to_vec(values: &[&Self]) -> Result<Vec<Vec<f32>>> {
        let arrays: Vec<&Array> = values.iter().filter_map(|v| v.array().ok()).collect();
        let mut read = read(&arrays)?.into_iter();
        let numbers = |v: &&Self| match v {
            Self::Host(t) => Ok(t.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?),
            Self::Device(_) => Ok(read.next().expect("one for each array")),
        };
        values.iter().map(numbers).collect()
    }

    /// These numbers at a place, in f32; `what` they are for is told where memory runs out.
    ///
    /// # Errors
    /// Too little memory.
    pub fn at(place: &Place, what: &'static str, numbers: &[f32], dims: &[usize]) -> Result<Self> {
        Ok(match place {
            Place::Host => Tensor::from_slice(numbers, dims, &Device::Cpu)?.into(),
            Place::Gpu(gpu) => gpu.upload(what, numbers, dims)?.into(),
        })
    }

    /// Matrices of one width on top of each other.
    ///
    /// # Errors
    /// No matrix, or matrices that differ in width, type or place.
    pub fn stack(parts: &[Self]) -> Result<Self> {
        let Some(Self::Device(first)) = parts.first() else {
            let tensors = parts.iter().map(Self::host).collect::<Result<Vec<_>>>()?;
            return Ok(Tensor::cat(&tensors, 0)?.into());
        };
        let (mut rows, width) = (0, first.dims2()?.1);
        for part in parts {
            rows += part.dims2()?.0;
        }
        let all = first.gpu().empty("parts of a matrix", first.dtype(), &[rows, width])?;
        let mut from = 0;
        for part in parts {
            let count = part.dims2()?.0;
            first.gpu().copy(&all.rows(from, count)?, part.array()?)?;
            from += count;
        }
        Ok(all.into())
    }

    /// Zeros of the same shape, type and place.
    ///
    /// # Errors
    /// Too little memory.
    pub fn zeros_like(&self) -> Result<Self> {
        Ok(match self {
            Self::Host(t) => Self::Host(t.zeros_like()?),
            Self::Device(a) => Self::Device(a.gpu().zeros("zeros", a.dtype(), a.dims())?),
        })
    }
}

/// Arrays of f32 or of bf16, all of one type, as f32.
fn read(arrays: &[&Array]) -> Result<Vec<Vec<f32>>> {
    let Some(first) = arrays.first() else { return Ok(Vec::new()) };
    match first.dtype() {
        DType::Bf16 => {
            let read = first.gpu().read_all::<bf16>(arrays)?;
            Ok(read.into_iter().map(|numbers| numbers.into_iter().map(f32::from).collect()).collect())
        }
        _ => first.gpu().read_all(arrays),
    }
}
