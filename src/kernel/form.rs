//! The one decision of this crate about where numbers are computed: which form of a computation serves its values.
//!
//! Owns that decision, and the routines that need no tape. Nobody else asks where a tensor lies.

use super::value::Value;
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use candle_core::DType;

/// The forms in which everything in `kernel/` is written.
pub(super) enum Form {
    /// Fused loops over f32 in the host's memory.
    Host,
    /// Kernels over arrays in a device's memory.
    Device,
    /// Candle's operations, in any float type.
    Plain,
}

impl Form {
    /// The one that serves these values; the plain composition where that is asked for.
    ///
    /// # Errors
    /// Values of which some lie on the host and some on a device, or on several devices.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a Value>, plain: bool) -> Result<Self> {
        let (mut fused, mut host, mut device): (bool, bool, Option<&Gpu>) = (!plain, false, None);
        for value in values {
            match value {
                Value::Host(t) => (host, fused) = (true, fused && t.device().is_cpu() && t.dtype() == DType::F32),
                Value::Device(a) if device.is_some_and(|gpu| gpu != a.gpu()) => {
                    return Err(Error::new(Kind::Internal, "an operation over values of two devices"));
                }
                Value::Device(a) => device = Some(a.gpu()),
            }
        }
        match (host, device.is_some()) {
            (true, true) => Err(Error::new(Kind::Internal, "an operation over values of the host and of a device")),
            (false, true) => Ok(Self::Device),
            _ if fused => Ok(Self::Host),
            _ => Ok(Self::Plain),
        }
    }
}

/// A computation that nothing is differentiated through: a sum of gradients, an optimizer's update, the cache that
/// decoding attends over. It has the forms that an operation has (`op::Operation`), and the same decision chooses.
pub trait Routine: Sized {
    type Out;

    /// What decides by where it lies.
    fn values(&self) -> impl IntoIterator<Item = &Value>;

    /// For f32 in the host's memory.
    ///
    /// # Errors
    /// The routine's own.
    fn host(self) -> Result<Self::Out>;

    /// For arrays in a device's memory.
    ///
    /// # Errors
    /// The routine's own; a device that has failed.
    fn device(self) -> Result<Self::Out>;

    /// In candle's operations, in any float type.
    ///
    /// # Errors
    /// The routine's own.
    fn plain(self) -> Result<Self::Out>;

    /// Runs the form that serves the values. `Tape::run` does so as its tape runs operations.
    ///
    /// # Errors
    /// The routine's own.
    fn run(self) -> Result<Self::Out> {
        run(self, false)
    }
}

pub(super) fn run<R: Routine>(routine: R, plain: bool) -> Result<R::Out> {
    match Form::of(routine.values(), plain)? {
        Form::Host => routine.host(),
        Form::Device => routine.device(),
        Form::Plain => routine.plain(),
    }
}
