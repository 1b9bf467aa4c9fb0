//! Blocks of columns on a device: the parts of a joint projection.

use super::launch::over_rows;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Arg, Array, Kernel};
use crate::kernel::elementwise::Columns;
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};

impl Columns {
    /// As kernels take them.
    fn args(&self) -> Result<[Arg<'static>; 4]> {
        let Self { start, stride, width, count } = *self;
        let large = |_| Error::new(Kind::Internal, format!("{self:?} counts more columns than a kernel can"));
        let [start, stride, width, count] = [start, stride, width, count].map(|x| u32::try_from(x).map_err(large));
        Ok([start?.into(), stride?.into(), width?.into(), count?.into()])
    }
}

impl DeviceForm<1> for Columns {
    type Kept = Var;

    fn device(&self, _: &Tape, [xv]: [&Var; 1]) -> Result<(Array, Var)> {
        let x = xv.array()?;
        let ((rows, width), taken) = (x.dims2()?, self.count * self.width);
        let y = x.gpu().empty("columns", x.dtype(), &[rows, taken])?;
        let kernel = Kernel::typed("columns", "columns_forward", &[("X", x.dtype()), ("Y", x.dtype())]);
        let [start, stride, each, count] = self.args()?;
        let args = [x.into(), (&y).into(), width.into(), start, stride, each, count];
        over_rows(x.gpu(), &kernel, [rows, taken], &args)?;
        Ok((y, xv.clone()))
    }

    /// Into one gradient of x, to which its other columns add theirs.
    fn device_backward(&self, xv: &Var, dy: &Array, grads: &mut Grads) -> Result<()> {
        let Some(sum) = grads.slot(xv)? else { return Ok(()) };
        let (rows, width) = sum.dims2()?;
        let kernel = Kernel::typed("columns", "columns_backward", &[("X", sum.dtype()), ("Y", dy.dtype())]);
        let [start, stride, each, count] = self.args()?;
        let args = [(&sum).into(), dy.into(), width.into(), start, stride, each, count];
        over_rows(sum.gpu(), &kernel, [rows, self.count * self.width], &args)
    }
}
