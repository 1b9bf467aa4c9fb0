//! The one decision of this crate about where numbers are computed: which form of a computation serves its values.
//!
//! Owns that decision, and the routines that need no tape. Nobody else asks where a tensor lies.

use crate::error::Result;
use candle_core::{DType, Tensor};

/// The forms in which everything in `kernel/` is written.
pub(super) enum Form {
    /// Fused loops over f32 in the host's memory.
    Host,
    /// Candle's operations, on any device and in any float type.
    Plain,
}

impl Form {
    /// The one that serves these values; the plain composition where that is asked for.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a Tensor>, plain: bool) -> Self {
        if !plain && values.into_iter().all(is_host) { Self::Host } else { Self::Plain }
    }
}

/// Whether these are f32 numbers in the host's memory, which `host::read` and `host::write` reach.
fn is_host(t: &Tensor) -> bool {
    t.device().is_cpu() && t.dtype() == DType::F32
}

/// A computation that nothing is differentiated through: a sum of gradients, an optimizer's update, the cache that
/// decoding attends over. It has the forms that an operation has (`op::Operation`), and the same decision chooses.
pub trait Routine: Sized {
    type Out;

    /// What decides by where it lies.
    fn values(&self) -> impl IntoIterator<Item = &Tensor>;

    /// For f32 in the host's memory.
    ///
    /// # Errors
    /// The routine's own.
    fn host(self) -> Result<Self::Out>;

    /// In candle's operations, on any device and in any float type.
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
    match Form::of(routine.values(), plain) {
        Form::Host => routine.host(),
        Form::Plain => routine.plain(),
    }
}
