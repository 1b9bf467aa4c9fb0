//! x · W + b (or + rows) for a W in few bits, as a routine of the decoder: the same bits as with the unpacked W.
//!
//! Owns no loop: the product is `gemm.rs`'s.

use super::matrix::Matrix;
use crate::error::{Error, Kind, Result};
use crate::kernel::form::Routine;
use crate::kernel::gemm::{Mat, Start, product_quantised};
use crate::kernel::host;
use crate::kernel::value::Value;
use candle_core::Tensor;

/// What is added to a product: its sums start from it.
#[derive(Clone, Copy)]
pub enum Addend<'a> {
    None,
    /// `[out]`, to every row.
    Bias(&'a Tensor),
    /// `[N,out]`
    Rows(&'a Value),
}

/// x `[N,in]` · W `[in,out]` + addend → `[N,out]`. W gets no gradient and carries none.
pub struct Product<'a> {
    pub x: &'a Value,
    pub weight: &'a Matrix,
    pub addend: Addend<'a>,
}

impl Routine for Product<'_> {
    type Out = Tensor;

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        [self.x]
    }

    fn host(self) -> Result<Tensor> {
        let Self { x, weight, addend } = self;
        let (m, n) = (x.dim(0)?, weight.cols());
        let x = host::read(x.host()?)?;
        let x = Mat::new(&x, m, weight.rows());
        let y = match addend {
            Addend::None => product_quantised(x, weight, Start::Zero),
            Addend::Bias(bias) => product_quantised(x, weight, Start::Bias(&host::read(bias)?)),
            Addend::Rows(rows) => product_quantised(x, weight, Start::Rows(&host::read(rows.host()?)?)),
        };
        host::tensor(y, &[m, n])
    }

    fn device(self) -> Result<Tensor> {
        Err(Error::new(Kind::Internal, "a quantised weight was given a value on a device"))
    }

    fn plain(self) -> Result<Tensor> {
        let Self { x, weight, addend } = self;
        let y = x.host()?.matmul(&weight.unpacked()?.t()?)?;
        Ok(match addend {
            Addend::None => y,
            Addend::Bias(bias) => y.broadcast_add(bias)?,
            Addend::Rows(rows) => (y + rows.host()?)?,
        })
    }
}
