//! RMSNorm and LayerNorm on a device: each keeps what it found of every row, and the weights' gradients are sums over
//! rows.

use super::launch::over_rows;
use super::sums::{add_column_sums, bias_gradient};
use crate::error::Result;
use crate::gpu::{Array, DType, Kernel};
use crate::kernel::layer_norm::LayerNorm;
use crate::kernel::op::DeviceForm;
use crate::kernel::rms_norm::Rms;
use crate::kernel::tape::{Grads, Tape, Var};

impl DeviceForm<2> for Rms {
    /// x, w, and 1/√(mean(x²) + eps) of each row
    type Kept = (Var, Var, Array);

    fn device(&self, tape: &Tape, [xv, wv]: [&Var; 2]) -> Result<(Array, Self::Kept)> {
        let (x, w) = (xv.array()?, wv.array()?);
        let (gpu, width) = (x.gpu(), w.len());
        let rows = x.len() / width;
        let y = gpu.empty("a norm's value", tape.compute(), x.dims())?;
        let inverse = gpu.empty("a norm's rows", DType::F32, &[rows])?;
        let (eps, kernel) = (self.eps as f32, kernel("rms_norm", "rms_norm_forward", x, &y));
        let args = [x.into(), w.into(), (&y).into(), (&inverse).into(), width.into(), eps.into(), self.offset.into()];
        over_rows(gpu, &kernel, [rows, width], &args)?;
        Ok((y, (xv.clone(), wv.clone(), inverse)))
    }

    fn device_backward(&self, (xv, wv, inverse): &Self::Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        let (x, w) = (xv.array()?, wv.array()?);
        let (gpu, width) = (x.gpu(), w.len());
        let rows = inverse.len();
        if let Some(dw) = grads.slot(wv)? {
            let kernel = kernel("rms_norm", "rms_norm_weight", x, dy);
            add_column_sums(&kernel, &dw, rows, &[x.into(), inverse.into(), dy.into()])?;
        }
        if !xv.needs_grad() {
            return Ok(());
        }
        let dx = gpu.empty("a gradient", x.dtype(), x.dims())?;
        let kernel = kernel("rms_norm", "rms_norm_backward", x, dy);
        let args = [x.into(), w.into(), inverse.into(), dy.into(), (&dx).into(), width.into(), self.offset.into()];
        over_rows(gpu, &kernel, [rows, width], &args)?;
        grads.add_owned(xv, dx)
    }
}

impl DeviceForm<3> for LayerNorm {
    /// x, w and b, and the mean and 1/√(variance + eps) of each row
    type Kept = ([Var; 3], [Array; 2]);

    fn device(&self, tape: &Tape, inputs: [&Var; 3]) -> Result<(Array, Self::Kept)> {
        let [x, w, b] = [inputs[0].array()?, inputs[1].array()?, inputs[2].array()?];
        let (gpu, (rows, width)) = (x.gpu(), x.dims2()?);
        let y = gpu.empty("a norm's value", tape.compute(), x.dims())?;
        let [mean, inverse] = [(); 2].map(|()| gpu.empty("a norm's rows", DType::F32, &[rows]));
        let (mean, inverse) = (mean?, inverse?);
        let (eps, kernel) = (self.eps as f32, kernel("layer_norm", "layer_norm_forward", x, &y));
        let found = [(&mean).into(), (&inverse).into()];
        let args = [x.into(), w.into(), b.into(), (&y).into(), found[0], found[1], width.into(), eps.into()];
        over_rows(gpu, &kernel, [rows, width], &args)?;
        Ok((y, (inputs.map(Var::clone), [mean, inverse])))
    }

    fn device_backward(&self, kept: &Self::Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        let ([xv, wv, bv], [mean, inverse]) = kept;
        let (x, w) = (xv.array()?, wv.array()?);
        let (gpu, (rows, width)) = (x.gpu(), x.dims2()?);
        if let Some(dw) = grads.slot(wv)? {
            let kernel = kernel("layer_norm", "layer_norm_weight", x, dy);
            add_column_sums(&kernel, &dw, rows, &[x.into(), mean.into(), inverse.into(), dy.into()])?;
        }
        if let Some(db) = grads.slot(bv)? {
            bias_gradient(&db, dy)?;
        }
        if !xv.needs_grad() {
            return Ok(());
        }
        let dx = gpu.empty("a gradient", x.dtype(), x.dims())?;
        let kernel = kernel("layer_norm", "layer_norm_backward", x, dy);
        let args = [x.into(), w.into(), mean.into(), inverse.into(), dy.into(), (&dx).into(), width.into()];
        over_rows(gpu, &kernel, [rows, width], &args)?;
        grads.add_owned(xv, dx)
    }
}

/// A norm's kernel for x, and for y or its gradient.
fn kernel(file: &'static str, function: &'static str, x: &Array, y: &Array) -> Kernel {
    Kernel::typed(file, function, &[("X", x.dtype()), ("Y", y.dtype())])
}
