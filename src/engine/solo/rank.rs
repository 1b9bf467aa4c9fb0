//! The ranks of completion tokens, `[B,T]`: a pass forwards, of which nothing is kept.

use super::divergence::hidden;
use super::pack::{Measured, Pack, micro_batches};
use super::rows::check_for;
use crate::engine::settings::Settings;
use crate::error::Result;
use crate::kernel::awake::awake;
use crate::kernel::divergence::Reference;
use crate::kernel::rank::ranks;
use crate::model::Model;
use crate::model::rows::Rows;

/// Row-major; cells past a row's end are 0.
pub(super) fn plane(model: &Model, rows: &Rows, settings: &Settings) -> Result<Vec<f32>> {
    check_for(rows, model)?;
    let (width, share) = (rows.width(), settings.share_prefixes);
    let mut cells = vec![0.0; rows.len() * width];
    for range in micro_batches(rows, settings.token_budget, Measured::States, share) {
        settings.check()?;
        let Some(pack) = Pack::new(rows, range, Measured::States, 1.0, share)? else { continue };
        let found = awake(model.place(), || {
            let Reference { hidden, head, .. } = hidden(model, &pack, settings)?;
            ranks(&settings.tape(model.packs(), model.compute, false), &hidden, &head, &pack.targets)
        })?;
        for ((row, t), rank) in pack.cells.iter().zip(found) {
            cells[row * width + t] = rank as f32;
        }
    }
    Ok(cells)
}
