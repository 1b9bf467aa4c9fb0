//! Linear maps on a device: products of the weight's type, summed in f32.
//!
//! Owns which types meet. The products are the device's (`gpu::Product`).

use super::elementwise::cast;
use super::sums::{add_bias, bias_gradient};
use crate::error::Result;
use crate::gpu::{Array, DType, Operand, Product, Start};
use crate::kernel::linear::{Addend, Layout, Linear, LinearAdd, Out};
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Sink, Tape, Var};

impl DeviceForm<2> for Linear {
    type Kept = Operands;

    fn device(&self, _: &Tape, [x, w]: [&Var; 2]) -> Result<(Array, Operands)> {
        let (x, kept) = Operands::of(x, w)?;
        let y = multiply(&x, w.array()?, self.layout, self.out.dtype(w.array()?), Start::Zero)?;
        Ok((y, kept))
    }

    fn device_backward(&self, kept: &Operands, dy: &Array, grads: &mut Grads) -> Result<()> {
        kept.backward(self.layout, dy, grads)
    }
}

impl DeviceForm<3> for LinearAdd {
    /// The product's operands, and the addend: of a residual only where its gradient goes.
    type Kept = (Operands, Added);

    fn device(&self, _: &Tape, [x, w, addend]: [&Var; 3]) -> Result<(Array, Self::Kept)> {
        let (x, kept) = Operands::of(x, w)?;
        let (weight, added) = (w.array()?, addend.array()?);
        Ok(match self.addend {
            Addend::Bias(out) => {
                let y = multiply(&x, weight, self.layout, out.dtype(weight), Start::Zero)?;
                add_bias(&y, added)?;
                (y, (kept, Added::Bias(addend.clone())))
            }
            Addend::Residual => {
                let y = multiply(&x, weight, self.layout, added.dtype(), Start::From(added))?;
                (y, (kept, Added::Residual(addend.sink())))
            }
        })
    }

    fn device_backward(&self, (operands, added): &Self::Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        match added {
            Added::Residual(sink) => grads.add_shared(*sink, dy)?,
            Added::Bias(bias) => {
                if let Some(sum) = grads.slot(bias)? {
                    bias_gradient(&sum, dy)?;
                }
            }
        }
        operands.backward(self.layout, dy, grads)
    }
}

impl Out {
    fn dtype(self, weight: &Array) -> DType {
        match self {
            Self::Weight => weight.dtype(),
            Self::F32 => DType::F32,
        }
    }
}

/// What the backward pass needs of an addend.
pub enum Added {
    Bias(Var),
    Residual(Sink),
}

/// x `[N,in]` · W as `layout` says + `start` → `[N,out]`
fn multiply(x: &Array, w: &Array, layout: Layout, dtype: DType, start: Start) -> Result<Array> {
    let (rows, outputs) = (x.dims2()?.0, layout.sizes(w.dims2()?).1);
    let y = x.gpu().empty("a linear map", dtype, &[rows, outputs])?;
    x.gpu().product(Product { a: x.into(), b: matrix(w, layout), out: &y, start })?;
    Ok(y)
}

/// The weight as the matrix `[in,out]` that x is multiplied by.
fn matrix(w: &Array, layout: Layout) -> Operand<'_> {
    match layout {
        Layout::OutIn => Operand::from(w).t(),
        Layout::InOut => w.into(),
    }
}

/// What a product keeps of its operands.
pub struct Operands {
    /// Where the gradient of x goes, and the type of x, which is the gradient's.
    to: (Sink, DType),
    /// x in the weight's type, which the weight's gradient alone reads again.
    x: Option<Array>,
    w: Var,
}

impl Operands {
    /// x in the weight's type, and what is kept.
    fn of(x: &Var, w: &Var) -> Result<(Array, Self)> {
        let to = (x.sink(), x.array()?.dtype());
        let x = cast(x.array()?, w.array()?.dtype())?;
        let kept = Self { to, x: w.needs_grad().then(|| x.clone()), w: w.clone() };
        Ok((x, kept))
    }

    fn backward(&self, layout: Layout, dy: &Array, grads: &mut Grads) -> Result<()> {
        let (gpu, w) = (dy.gpu(), self.w.array()?);
        let dy = cast(dy, w.dtype())?;
        let (to, dtype) = self.to;
        if to.needs_grad() {
            let (inputs, _) = layout.sizes(w.dims2()?);
            let dx = gpu.empty("a gradient", dtype, &[dy.dims2()?.0, inputs])?;
            gpu.product(Product { a: (&dy).into(), b: matrix(w, layout).t(), out: &dx, start: Start::Zero })?;
            grads.add_owned(to, dx)?;
        }
        if let Some(x) = &self.x
            && let Some(dw) = grads.slot(&self.w)?
        {
            let (a, b) = match layout {
                Layout::OutIn => (&dy, x),
                Layout::InOut => (x, &dy),
            };
            gpu.product(Product { a: Operand::from(a).t(), b: b.into(), out: &dw, start: Start::Accumulate })?;
        }
        Ok(())
    }
}
