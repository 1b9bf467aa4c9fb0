//! Matrix products on a device.

use super::array::{Array, DType};
use super::backend::{RawOperand, RawProduct};
use super::device::Gpu;
use crate::error::{Error, Kind, Result};

/// A matrix of a product, as it is stored or transposed.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    array: &'a Array,
    transposed: bool,
}

impl<'a> From<&'a Array> for Operand<'a> {
    fn from(array: &'a Array) -> Self {
        Self { array, transposed: false }
    }
}

impl<'a> Operand<'a> {
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as the product reads them.
    fn sizes(&self) -> Result<(usize, usize)> {
        let (rows, columns) = self.array.dims2()?;
        Ok(if self.transposed { (columns, rows) } else { (rows, columns) })
    }

    fn raw(&self) -> Result<RawOperand> {
        let (rows, columns) = self.array.dims2()?;
        let Self { array, transposed } = *self;
        Ok(RawOperand { span: array.span(), dtype: array.dtype(), rows, columns, transposed })
    }
}

/// What the sums of a product start from.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// The numbers that are there.
    Accumulate,
    /// Numbers of the result's type and shape.
    From(&'a Array),
}

/// out `[M,N]` = a `[M,K]` · b `[K,N]`, both operands f32 or both bf16, sums in f32, the result f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    pub a: Operand<'a>,
    pub b: Operand<'a>,
    pub out: &'a Array,
    pub start: Start<'a>,
}

impl Product<'_> {
    pub(super) fn raw(&self) -> Result<RawProduct> {
        let ((m, k), (k2, n), out) = (self.a.sizes()?, self.b.sizes()?, self.out.dims2()?);
        let (a, b, result) = (self.a.array.dtype(), self.b.array.dtype(), self.out.dtype());
        let floats = [DType::F32, DType::Bf16];
        let start = match self.start {
            Start::Zero => None,
            Start::Accumulate => Some(self.out),
            Start::From(from) => Some(from),
        };
        let fits = start.is_none_or(|s| s.dims2().is_ok_and(|dims| dims == out) && s.dtype() == result);
        if k != k2 || out != (m, n) || a != b || !floats.contains(&a) || !floats.contains(&result) || !fits {
            return Err(Error::new(Kind::Internal, format!("no product {self:?}")));
        }
        let (a, b, out) = (self.a.raw()?, self.b.raw()?, Operand::from(self.out).raw()?);
        Ok(RawProduct { a, b, out, start: start.map(Array::span) })
    }
}

impl Gpu {
    /// Queues a matrix product.
    ///
    /// # Errors
    /// Shapes or types that do not fit; a device that has failed.
    pub fn product(&self, product: Product) -> Result<()> {
        let raw = product.raw()?;
        let start = if let Start::From(array) = product.start { Some(array) } else { None };
        self.check_own([product.a.array, product.b.array, product.out].into_iter().chain(start))?;
        if raw.out.span.bytes == 0 {
            return Ok(());
        }
        self.multiply(&raw)
    }
}
