//! Operations that have no form for a device yet: they are refused by name.

use super::missing;
use crate::error::Result;
use crate::gpu::Array;
use crate::kernel::op::DeviceForm;
use crate::kernel::tape::{Grads, Tape, Var};
use crate::kernel::{attention, divergence, linear, logprob};

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
    linear::Linear, 2, "linear maps";
    linear::LinearAdd, 3, "linear maps";
    attention::Attention, 3, "attention";
    logprob::LinearLogprob, 2, "log-probs";
    divergence::LinearKl, 4, "divergences";
}
