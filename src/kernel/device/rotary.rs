//! Rotary position embedding on a device.

use super::launch::over_rows;
use crate::error::Result;
use crate::gpu::{Array, Kernel};
use crate::kernel::op::DeviceForm;
use crate::kernel::rotary::Rotary;
use crate::kernel::tape::{Grads, Sink, Tape, Var};

/// Which way numbers are turned.
#[derive(Clone, Copy)]
enum Way {
    Forth,
    Back,
}

impl Rotary {
    fn turn_array(&self, x: &Array, way: Way) -> Result<Array> {
        let (gpu, (rows, width)) = (x.gpu(), x.dims2()?);
        let [cos, sin] = self.angles.on(gpu)?;
        let half = self.angles.half() as u32;
        let way: f32 = match way {
            Way::Forth => 1.0,
            Way::Back => -1.0,
        };
        let y = gpu.empty("rotated heads", x.dtype(), x.dims())?;
        let kernel = Kernel::typed("rotary", "rotary", &[("X", x.dtype())]);
        let size = self.head_dim as u32;
        let args =
            [x.into(), (&cos).into(), (&sin).into(), (&y).into(), width.into(), size.into(), half.into(), way.into()];
        over_rows(gpu, &kernel, [rows, width], &args)?;
        Ok(y)
    }
}

impl DeviceForm<1> for Rotary {
    type Kept = Sink;

    fn device(&self, _: &Tape, [x]: [&Var; 1]) -> Result<(Array, Sink)> {
        Ok((self.turn_array(x.array()?, Way::Forth)?, x.sink()))
    }

    /// A rotation's transpose is the rotation back; a magnitude is its own.
    fn device_backward(&self, x: &Sink, dy: &Array, grads: &mut Grads) -> Result<()> {
        grads.add_owned(*x, self.turn_array(dy, Way::Back)?)
    }
}
