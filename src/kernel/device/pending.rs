//! Operations that have no form for a device yet: they are refused by name.

use super::missing;
use crate::error::Result;
use crate::gpu::Array;
use crate::kernel::attention;
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};

macro_rules! pending {
    ($($operation:ty, $inputs:literal, $name:literal;)*) => {$(
        impl DeviceForm<$inputs> for $operation {
            type Kept = ();

            fn device(&self, _: &Tape, _: [&Var; $inputs]) -> Result<(Array, ())> {
                Err(missing($name))
            }

            fn device_backward(&self, (): &(), _: &Array, _: &mut Grads) -> Result<()> {
                Err(missing($name))
            }
        }
    )*};
}

pending! {
    attention::Attention, 3, "attention";
}
