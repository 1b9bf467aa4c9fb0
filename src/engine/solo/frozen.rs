//! Frozen models: they answer as a policy samples, and score rows without a gradient.
//!
//! Owns no loop of its own: sampling is `sample`'s, packing `pack`'s.

use super::network::{Network, Sizes};
use super::pack::{Measured, Pack, micro_batches};
use super::rows::{cached, check_rows};
use crate::engine::memory::cache_per_token;
use crate::engine::request::{ForwardRequest, Measure, Plane};
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::kernel::attention::{Heads, attention};
use crate::kernel::elementwise::gather;
use crate::kernel::packs::Packs;
use crate::kernel::rank::rank_of;
use crate::kernel::softmax::{Scored, softmax};
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

/// What a frozen model holds to score `rows` and to sample such ones, by name, in bytes: its weights, in the file's bits,
/// and the sampler's keys and values.
pub(super) fn held(model: &Frozen, rows: &Rows) -> Result<Vec<(&'static str, u64)>> {
    let sizes = model.sizes();
    check_rows(rows, sizes.vocabulary, sizes.context)?;
    let cache = cached(rows) * cache_per_token(model.decoder.trunk());
    let nothing = ["packed", "gradients", "moments", "activations"].map(|name| (name, 0));
    Ok([("weights", model.bytes)].into_iter().chain(nothing).chain([("cache", cache)]).collect())
}

/// What is measured at every completion token under a frozen model, `[B,T]` row-major in nats; cells past a row's end are
/// 0.
///
/// # Errors
/// Anything but log-probs, entropies and ranks; a row without a prompt or longer than the context, a token that the model does
/// not know, logits that are not finite, an interruption.
pub(super) fn measure(model: &Frozen, request: &ForwardRequest, settings: &Settings) -> Result<Plane> {
    let ForwardRequest { rows, temperature, measure, .. } = request;
    let of: fn(&[f32], u32, Scored) -> f32 = match measure {
        Measure::Logprob => |_, _, token| token.logprob(),
        Measure::Entropy => |_, _, token| token.entropy(),
        Measure::Rank => |logits, token, _| rank_of(logits, token as usize) as f32,
        Measure::Value | Measure::Score | Measure::Divergence { .. } => return Err(scores_only(model, measure.name())),
    };
    let (sizes, temperature) = (model.sizes(), *temperature);
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
                let softmax = softmax(z, scale);
                while let Some(((_, &token), &(row, t))) = pairs.next_if(|((at, _), _)| **at as usize == first + i) {
                    cells[row * width + t] = of(z, token, Scored { softmax, z: z[token as usize] * scale });
                }
            }
        }
    }
    if let Some(cell) = cells.iter().position(|v| !v.is_finite()) {
        let row = cell / width;
        return Err(Error::new(
            Kind::NotFinite,
            format!("{}: the logits of {} for row {row} are not finite", measure.name(), model.name),
        ));
    }
    Ok(Plane { values: cells, width, pass: None })
}

/// That `what` is nothing that a GGUF file can be asked for.
fn scores_only(model: &Frozen, what: &str) -> Error {
    Error::model(format!("{what}: {} is a GGUF file, which only answers and scores", model.name))
        .hint("it is asked by sample, generate, logprob, logprob_of and entropy; load_model opens what else there is")
}
