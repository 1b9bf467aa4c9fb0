//! What an engine may use, how it computes, and whether it has to stop.

use crate::error::Result;
use crate::gpu::{DType, Place};
use crate::kernel::packs::Packs;
use crate::kernel::tape::{Stop, Tape};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Limits and choices of one program run. None of them changes a result beyond float rounding.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Packed tokens per micro-batch at most (a longer row goes alone).
    pub token_budget: usize,
    /// Bytes of activations and of KV cache that may be held, on a device also at most half of what is free; past it
    /// activations are recomputed and rows decoded in waves.
    pub keep_bytes: u64,
    /// Compute a prompt once for all the answers that follow it.
    pub share_prefixes: bool,
    /// Use the fused kernels where they serve the device; otherwise plain compositions throughout.
    pub fused: bool,
    /// Set from outside to stop as soon as possible.
    pub stop: Arc<AtomicBool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { token_budget: 4096, keep_bytes: 4 << 30, share_prefixes: true, fused: true, stop: Arc::default() }
    }
}

impl Settings {
    /// What serves models at a place.
    pub fn at(place: &Place) -> Self {
        match place {
            Place::Host => Self::default(),
            Place::Gpu(_) => Self { token_budget: 16_384, keep_bytes: u64::MAX, ..Self::default() },
        }
    }

    /// Bytes of activations or of KV cache that may be held at a place which `wanted` more bytes are to be asked of.
    ///
    /// # Errors
    /// A device that has failed.
    pub(super) fn keep(&self, place: &Place, wanted: u64) -> Result<u64> {
        match place {
            Place::Host => Ok(self.keep_bytes),
            Place::Gpu(gpu) => Ok(self.keep_bytes.min(gpu.available()?.saturating_sub(wanted) / 2)),
        }
    }

    /// An `Interrupted` error once `stop` is set.
    pub fn check(&self) -> Result<()> {
        Stop::from(&self.stop).check()
    }

    pub(super) fn tape(&self, packs: Arc<Packs>, compute: DType, recording: bool) -> Tape {
        let tape = if recording { Tape::recording(packs) } else { Tape::forward_only(packs) };
        let tape = tape.computing(compute).stopping((&self.stop).into());
        if self.fused { tape } else { tape.plain() }
    }
}
