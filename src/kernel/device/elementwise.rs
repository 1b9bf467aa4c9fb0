//! Operations on each number by itself: GELU and gated units, scales, sums, soft caps, casts.

use super::launch::over_numbers;
use super::sums::add;
use crate::error::Result;
use crate::gpu::{Array, DType, Kernel};
use crate::kernel::elementwise::{Add, Gate, Gelu, Scale};
use crate::kernel::op::DeviceForm;
use crate::kernel::softcap::Softcap;
use crate::kernel::tape::{Grads, Sink, Tape, Var};

/// x in another type; x itself where that is its own.
pub(in crate::kernel) fn cast(x: &Array, to: DType) -> Result<Array> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    let y = x.gpu().empty("a cast", to, x.dims())?;
    let kernel = Kernel::typed("cast", "cast", &[("X", x.dtype()), ("Y", to)]);
    over_numbers(x.gpu(), &kernel, x.len(), &[x.into(), (&y).into(), x.len().into()])?;
    Ok(y)
}

/// Room for a value or a gradient of the shape and type of x.
fn like(x: &Array) -> Result<Array> {
    x.gpu().empty("an activation", x.dtype(), x.dims())
}

fn kernel(file: &'static str, function: &'static str, x: &Array) -> Kernel {
    Kernel::typed(file, function, &[("X", x.dtype())])
}

impl DeviceForm<2> for Gate {
    /// gate and up
    type Kept = [Var; 2];

    fn device(&self, _: &Tape, [gate, up]: [&Var; 2]) -> Result<(Array, [Var; 2])> {
        let (g, u) = (gate.array()?, up.array()?);
        let function = match self {
            Self::Silu => "gated_silu_forward",
            Self::Gelu(Gelu::Exact) => "gated_gelu_forward",
            Self::Gelu(Gelu::Tanh) => "gated_gelu_tanh_forward",
        };
        let y = like(g)?;
        let args = [g.into(), u.into(), (&y).into(), g.len().into()];
        over_numbers(g.gpu(), &kernel("gated", function, g), g.len(), &args)?;
        Ok((y, [gate.clone(), up.clone()]))
    }

    fn device_backward(&self, [gate, up]: &[Var; 2], dy: &Array, grads: &mut Grads) -> Result<()> {
        let (g, u) = (gate.array()?, up.array()?);
        let function = match self {
            Self::Silu => "gated_silu_backward",
            Self::Gelu(Gelu::Exact) => "gated_gelu_backward",
            Self::Gelu(Gelu::Tanh) => "gated_gelu_tanh_backward",
        };
        let (dg, du) = (like(g)?, like(g)?);
        let args = [g.into(), u.into(), dy.into(), (&dg).into(), (&du).into(), g.len().into()];
        over_numbers(g.gpu(), &kernel("gated", function, g), g.len(), &args)?;
        grads.add_owned(gate, dg)?;
        grads.add_owned(up, du)
    }
}

impl DeviceForm<1> for Gelu {
    type Kept = Var;

    fn device(&self, _: &Tape, [xv]: [&Var; 1]) -> Result<(Array, Var)> {
        let (x, function) = match self {
            Self::Exact => (xv.array()?, "gelu_forward"),
            Self::Tanh => (xv.array()?, "gelu_tanh_forward"),
        };
        let y = like(x)?;
        over_numbers(x.gpu(), &kernel("gelu", function, x), x.len(), &[x.into(), (&y).into(), x.len().into()])?;
        Ok((y, xv.clone()))
    }

    fn device_backward(&self, xv: &Var, dy: &Array, grads: &mut Grads) -> Result<()> {
        let (x, function) = match self {
            Self::Exact => (xv.array()?, "gelu_backward"),
            Self::Tanh => (xv.array()?, "gelu_tanh_backward"),
        };
        let dx = like(x)?;
        let args = [x.into(), dy.into(), (&dx).into(), x.len().into()];
        over_numbers(x.gpu(), &kernel("gelu", function, x), x.len(), &args)?;
        grads.add_owned(xv, dx)
    }
}

/// by·x
pub(in crate::kernel) fn scaled(x: &Array, by: f32) -> Result<Array> {
    let y = like(x)?;
    let args = [x.into(), (&y).into(), x.len().into(), by.into()];
    over_numbers(x.gpu(), &kernel("scale", "scale", x), x.len(), &args)?;
    Ok(y)
}

impl DeviceForm<1> for Scale {
    type Kept = Sink;

    fn device(&self, _: &Tape, [x]: [&Var; 1]) -> Result<(Array, Sink)> {
        Ok((scaled(x.array()?, self.0)?, x.sink()))
    }

    fn device_backward(&self, x: &Sink, dy: &Array, grads: &mut Grads) -> Result<()> {
        grads.add_owned(*x, scaled(dy, self.0)?)
    }
}

impl DeviceForm<2> for Add {
    /// Where the gradients go, and the type of the second.
    type Kept = ([Sink; 2], DType);

    fn device(&self, _: &Tape, [x, y]: [&Var; 2]) -> Result<(Array, Self::Kept)> {
        Ok((add(x.array()?, y.array()?)?, ([x.sink(), y.sink()], y.array()?.dtype())))
    }

    fn device_backward(&self, ([x, y], second): &Self::Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        grads.add_shared(*x, dy)?;
        if y.needs_grad() { grads.add_shared(*y, cast(dy, *second)?) } else { Ok(()) }
    }
}

impl DeviceForm<1> for Softcap {
    /// Where the gradient of x goes, and the capped numbers.
    type Kept = (Sink, Array);

    fn device(&self, _: &Tape, [xv]: [&Var; 1]) -> Result<(Array, Self::Kept)> {
        let x = xv.array()?;
        let y = like(x)?;
        let args = [x.into(), (&y).into(), x.len().into(), self.by.into()];
        over_numbers(x.gpu(), &kernel("softcap", "softcap_forward", x), x.len(), &args)?;
        Ok((y.clone(), (xv.sink(), y)))
    }

    fn device_backward(&self, (to, y): &Self::Kept, dy: &Array, grads: &mut Grads) -> Result<()> {
        let dx = like(y)?;
        let args = [y.into(), dy.into(), (&dx).into(), y.len().into(), self.by.into()];
        over_numbers(y.gpu(), &kernel("softcap", "softcap_backward", y), y.len(), &args)?;
        grads.add_owned(*to, dx)
    }
}
