//! Arrays in a device's memory: contiguous, row-major, of one type, shared when cloned.
//!
//! Owns shapes, views and lifetimes. Numbers are moved by `Gpu`.

use super::backend::Address;
use super::device::Gpu;
use crate::error::{Error, Kind, Result};
use half::bf16;
use std::sync::Arc;

/// The types of numbers that arrays hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DType {
    F32,
    Bf16,
    U32,
    U64,
    F64,
}

impl DType {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }

    /// What scripts and the command line call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::F64 => "f64",
        }
    }

    /// What kernels call it.
    pub fn c_name(self) -> &'static str {
        match self {
            Self::F32 => "float",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::F64 => "double",
        }
    }
}

/// A number that can be moved between the host and a device.
pub trait Number: Copy + Default + Send + Sync + 'static {
    const DTYPE: DType;
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;
}

impl Number for bf16 {
    const DTYPE: DType = DType::Bf16;
}

impl Number for u32 {
    const DTYPE: DType = DType::U32;
}

impl Number for u64 {
    const DTYPE: DType = DType::U64;
}

impl Number for f64 {
    const DTYPE: DType = DType::F64;
}

/// Memory of a device, given back when the last array in it goes.
pub(super) struct Buffer {
    pub(super) gpu: Gpu,
    pub(super) address: Address,
    pub(super) bytes: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gpu.free(self.address, self.bytes);
    }
}

/// Numbers of one type in a device's memory, in row-major order. A clone is the same memory.
#[derive(Clone)]
pub struct Array {
    buffer: Arc<Buffer>,
    /// In numbers from the start of the buffer.
    offset: usize,
    dims: Vec<usize>,
    dtype: DType,
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array {:?} {:?}", self.dims, self.dtype)
    }
}

impl Array {
    pub(super) fn new(buffer: Buffer, dims: &[usize], dtype: DType) -> Self {
        Self { buffer: Arc::new(buffer), offset: 0, dims: dims.to_vec(), dtype }
    }

    pub fn gpu(&self) -> &Gpu {
        &self.buffer.gpu
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// Rows and columns of a matrix.
    ///
    /// # Errors
    /// An array of another number of dimensions.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self.dims[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(Error::new(Kind::Internal, format!("{self:?} is not a matrix"))),
        }
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// A shape of another number of numbers.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        match dims.iter().product::<usize>() == self.len() {
            true => self.view(0, dims),
            false => Err(Error::new(Kind::Internal, format!("{self:?} cannot have the shape {dims:?}"))),
        }
    }

    /// The numbers from number `from` on, in a shape of their own; the memory is shared.
    ///
    /// # Errors
    /// A view that reaches past the end.
    pub fn view(&self, from: usize, dims: &[usize]) -> Result<Self> {
        let count = dims.iter().product::<usize>();
        if from + count > self.len() {
            return Err(Error::new(Kind::Internal, format!("no view {dims:?} from {from} of {self:?}")));
        }
        Ok(Self { buffer: self.buffer.clone(), offset: self.offset + from, dims: dims.to_vec(), dtype: self.dtype })
    }

    /// Rows `from ..` of a matrix, `count` of them; the memory is shared.
    ///
    /// # Errors
    /// Rows past the end.
    pub fn rows(&self, from: usize, count: usize) -> Result<Self> {
        let (_, columns) = self.dims2()?;
        self.view(from * columns, &[count, columns])
    }

    pub(super) fn address(&self) -> Address {
        self.buffer.address
    }

    /// Bytes from the start of its memory.
    pub(super) fn byte_offset(&self) -> usize {
        self.offset * self.dtype.size()
    }
}
