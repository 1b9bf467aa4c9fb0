//! Frozen models: they answer as a policy samples, and score rows without a gradient.
//!
//! Owns no loop of its own: sampling is `sample`'s, packing `pack`'s.

use super::network::{Network, Sizes};
use super::pack::{Measured, Pack, micro_batches};
use super::rows::check_rows;
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::kernel::attention::{Heads, attention};
use crate::kernel::elementwise::gather;
use crate::kernel::packs::Packs;
use crate::kernel::softmax::softmax;
use crate::kernel::tape::{Tape, Var};
use crate::kernel::value::Value;
use crate::model::Tokenizer;
use crate::model::decoder::Attend;
use crate::model::gguf::Frozen;
use crate::model::rows::Rows;
use std::sync::Arc;

/// Logits held at a time when scoring.
const LOGITS: usize = 16 << 20;

impl Network for Frozen {
    fn sizes(&self) -> Sizes {
        Sizes { layers: self.decoder.trunk().blocks.len(), context: self.context, vocabulary: self.vocab_size }
    }

    fn heads(&self, layer: usize) -> Heads {
        self.decoder.heads(layer)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.info.tokenizer.as_deref()
    }

    fn ends(&self) -> &[u32] {
        &self.eos
    }

    /// Nothing is packed on the way: its weights are kept as products read them.
    fn packs(&self) -> Arc<Packs> {
        Packs::new(0)
    }

    fn hidden(&self, tape: &mut Tape, ids: Arc<[u32]>, positions: &[u32], attend: &mut Attend) -> Result<Var> {
        self.decoder.hidden(tape, ids, positions, attend)
    }

    fn logits(&self, tape: &mut Tape, hidden: &Value) -> Result<Value> {
        let hidden = tape.constant(hidden.clone());
        Ok(self.decoder.logits(tape, &hidden)?.value)
    }
}

/// What a frozen model holds to score `rows`, by name, in bytes: its weights, in the file's bits.
pub(super) fn held(model: &Frozen, rows: &Rows) -> Result<Vec<(&'static str, u64)>> {
    let sizes = model.sizes();
    check_rows(rows, sizes.vocabulary, sizes.context)?;
    Ok(vec![("weights", model.bytes), ("packed", 0), ("gradients", 0), ("moments", 0), ("activations", 0)])
}

/// log π(token) of every completion token under a frozen model, `[B,T]` row-major in nats; cells past a row's end are 0.
///
/// # Errors
/// A row without a prompt or longer than the context, a token that the model does not know, logits that are not finite,
/// an interruption.
pub(super) fn logprob(model: &Frozen, rows: &Rows, temperature: f64, settings: &Settings) -> Result<Vec<f32>> {
    let sizes = model.sizes();
    check_rows(rows, sizes.vocabulary, sizes.context)?;
    let (width, scale) = (rows.width(), (1.0 / temperature) as f32);
    let mut cells = vec![0.0; rows.len() * width];
    for range in micro_batches(rows, settings.token_budget, Measured::States, settings.share_prefixes) {
        settings.check()?;
        let Some(pack) = Pack::new(rows, range, Measured::States, temperature, settings.share_prefixes)? else {
            continue;
        };
        let mut tape = settings.tape(model.packs(), model.compute(), false);
        let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]| {
            attention(tape, &q, &k, &v, &pack.segments, model.heads(layer))
        };
        let hidden = model.hidden(&mut tape, pack.ids.clone(), &pack.positions, attend)?;
        let mut pairs = pack.targets.rows.iter().zip(&*pack.targets.tokens).zip(&pack.cells).peekable();
        for (part, scored) in pack.scored.chunks((LOGITS / sizes.vocabulary).max(1)).enumerate() {
            settings.check()?;
            let hidden = gather(&mut tape, &hidden, scored.into())?.value;
            let logits = model.logits(&mut tape, &hidden)?.to_vec()?;
            let first = part * (LOGITS / sizes.vocabulary).max(1);
            for (i, z) in logits.chunks_exact(sizes.vocabulary).enumerate() {
                let lse = softmax(z, scale).lse;
                while let Some(((_, &token), &(row, t))) = pairs.next_if(|((at, _), _)| **at as usize == first + i) {
                    cells[row * width + t] = z[token as usize] * scale - lse;
                }
            }
        }
    }
    if let Some(cell) = cells.iter().position(|v| !v.is_finite()) {
        let row = cell / width;
        return Err(Error::new(
            Kind::NotFinite,
            format!("logprob: the logits of {} for row {row} are not finite", model.name),
        ));
    }
    Ok(cells)
}
