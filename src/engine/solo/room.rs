//! The memory of activations: how many a pass keeps, and what `memory(model, b)` states of a step.
//!
//! Owns the bytes alone; `forward` runs micro-batches and holds what fits.

use super::pack::{Measured, Pack, micro_batches};
use super::rows::{cached, check_for};
use crate::budget::memory;
use crate::engine::memory::Memory;
use crate::engine::settings::Settings;
use crate::error::Result;
use crate::gpu::Place;
use crate::model::rows::Rows;
use crate::model::{Config, Head, Model};

/// What is left of the bytes for activations.
pub(super) struct Room {
    left: u64,
    per_token: u64,
}

impl Room {
    /// What `model` has under these settings; a frozen one keeps nothing.
    pub(super) fn of(model: &Model, settings: &Settings) -> Result<Self> {
        let left = if model.trainable() { most_kept(model, settings)? } else { 0 };
        Ok(Self { left, per_token: Memory::of(model).activations_per_token })
    }

    /// Whether the activations of a micro-batch still fit; if so they take their part.
    pub(super) fn take(&mut self, pack: &Pack) -> bool {
        let left = self.left.checked_sub(pack.ids.len() as u64 * self.per_token).filter(|_| self.left > 0);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// Bytes of activations that a pass keeps at most. On a device they leave room for what a step makes: gradients, and the
/// first step the moments.
fn most_kept(model: &Model, settings: &Settings) -> Result<u64> {
    let Memory { gradients, moments, .. } = Memory::of(model);
    settings.keep(model.place(), gradients + if model.version() == 0 { moments } else { 0 })
}

/// What a step of `model` over `rows` holds, by name, in bytes; a frozen model has no gradients, moments, activations.
pub(super) fn held(model: &Model, rows: &Rows, settings: &Settings) -> Result<Vec<(&'static str, u64)>> {
    check_for(rows, model)?;
    let (memory, measured, most) = (Memory::of(model), measured(&model.config), most_kept(model, settings)?);
    let mut activations = 0;
    for range in micro_batches(rows, settings.token_budget, measured, settings.share_prefixes) {
        let Some(pack) = Pack::new(rows, range, measured, 1.0, settings.share_prefixes)? else { continue };
        let bytes = pack.ids.len() as u64 * memory.activations_per_token;
        // What does not fit is computed again, a micro-batch at a time.
        let fits = activations + bytes <= most;
        activations = if fits { activations + bytes } else { activations.max(bytes) };
    }
    let Memory { weights, packed, gradients, moments, cache_per_token, .. } = memory;
    let sampled = if model.config.head.has(Head::Lm) { cached(rows) } else { 0 };
    Ok(vec![
        ("weights", weights),
        ("packed", packed),
        ("gradients", gradients),
        ("moments", moments),
        ("activations", activations),
        ("cache", sampled * cache_per_token),
    ])
}

/// At which states a model of this head is measured.
pub(super) fn measured(config: &Config) -> Measured {
    match config.head {
        Head::Lm | Head::Value | Head::LmValue => Measured::States,
        Head::Score => Measured::Last(config.unscored),
    }
}

/// That the host has memory for a vector over the trained parameters of a model there.
pub(super) fn for_vector(model: &Model) -> Result<()> {
    match model.place() {
        Place::Host => memory::room(size_of::<f32>() as u64 * model.trained as u64),
        Place::Gpu(_) => Ok(()),
    }
}
