//! Fisher products: a forward pass that carries a direction along, then its backward pass, micro-batch by micro-batch.
//!
//! Owns the order of micro-batches; what becomes of a direction in an operation is the operation's (`kernel::op::Tangent`),
//! what becomes of it at the head is `kernel::fisher`'s. Nothing is kept between two products: weights may change.

use super::forward::Count;
use super::gradient::ModelGrads;
use super::pack::{Measured, Pack, micro_batches};
use super::rows::check_for;
use crate::engine::request::FisherRequest;
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::gpu::Place;
use crate::kernel::attention::attention;
use crate::kernel::awake::awake;
use crate::kernel::elementwise::gather;
use crate::kernel::fisher::pull;
use crate::kernel::gradients::ParameterGrads;
use crate::kernel::tape::{Direction, Tape, Var};
use crate::model::decoder::Decoder;
use crate::model::{Head, Model};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// F·v
pub(super) fn product(
    model: &Arc<Model>,
    request: &FisherRequest,
    v: &ModelGrads,
    settings: &Settings,
    count: &Count,
) -> Result<ModelGrads> {
    model.require_head(Head::Lm, "fisher")?;
    check_for(&request.rows, model)?;
    if let Place::Gpu(_) = model.place() {
        return Err(Error::new(Kind::Device, format!("fisher: the model {} is on {}", model.name, model.place()))
            .hint("Fisher products are computed on the CPU: load_model(name, #{ device: \"cpu\" })"));
    }
    let mut grads = ParameterGrads::default();
    awake(model.place(), || through(model, request, &v.grads.direction(), settings, count, &mut grads))?;
    ModelGrads::checked(model.clone(), grads)
}

fn through(
    model: &Model,
    request: &FisherRequest,
    direction: &Arc<Direction>,
    settings: &Settings,
    count: &Count,
    grads: &mut ParameterGrads,
) -> Result<()> {
    let FisherRequest { rows, temperature, weights, .. } = request;
    let share = settings.share_prefixes;
    let width = rows.width();
    let decoder = Decoder::new(model)?;
    for range in micro_batches(rows, settings.token_budget, Measured::States, share) {
        settings.check()?;
        let Some(pack) = Pack::new(rows, range, Measured::States, *temperature, share)? else { continue };
        let weights: Vec<f32> = pack.cells.iter().map(|(row, t)| weights[row * width + t]).collect();
        if weights.iter().all(|weight| *weight == 0.0) {
            continue;
        }
        count.recording.fetch_add(1, Ordering::Relaxed);
        let mut tape = settings.tape(model.packs(), model.compute, true).along(direction.clone());
        let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]| {
            attention(tape, &q, &k, &v, &pack.segments, decoder.heads(layer))
        };
        let hidden = decoder.hidden(&mut tape, pack.ids.clone(), &pack.positions, attend)?;
        let scored = gather(&mut tape, &hidden, pack.scored.clone())?;
        pull(&tape, &scored, &decoder.head(&tape), &pack.targets, &weights, grads)?;
    }
    Ok(())
}
