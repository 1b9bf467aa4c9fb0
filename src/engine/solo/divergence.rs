//! KL(policy ‖ reference) over the whole vocabulary, as a further plane of the policy's forward pass.
//!
//! Owns what the reference adds to a pass: its hidden states at the measured tokens. The policy's pass is shared with
//! the log-probs and entropies of the same rows, and so is its backward pass. Where the policy's activations are held,
//! the reference's hidden states are held beside them: H numbers per measured token, where a layer's activations are
//! some tens of H. Where they are not, both are computed again. Neither model's logits are ever held.

use super::pack::Pack;
use super::rows::check_for;
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::kernel::attention::attention;
use crate::kernel::divergence::Reference;
use crate::kernel::elementwise::gather;
use crate::kernel::logprob::LmHead;
use crate::kernel::tape::{Tape, Var};
use crate::model::decoder::Decoder;
use crate::model::rows::Rows;
use crate::model::{Head, Model};
use std::sync::Arc;

/// The divergence of a pass from one reference at one version of it.
pub(super) struct Divergence {
    pub(super) reference: Arc<Model>,
    version: u64,
    /// `[B,T]`, row-major.
    pub(super) values: Vec<f32>,
}

impl Divergence {
    pub(super) fn new(reference: Arc<Model>, values: Vec<f32>) -> Self {
        Self { version: reference.version(), reference, values }
    }

    /// Whether the reference still has the weights that the values were computed from.
    pub(super) fn current(&self) -> bool {
        self.version == self.reference.version()
    }
}

/// Whether the models' distributions are over the same tokens, and the reference can read the rows.
pub(super) fn check(model: &Model, reference: &Model, rows: &Rows, call: &str) -> Result<()> {
    reference.require_head(Head::Lm, call)?;
    let [own, other] = [model, reference].map(|m| m.vocab_size);
    if own != other {
        return Err(Error::model(format!(
            "{call}: the policy {} has {own} tokens in its vocabulary, the reference {} has {other}",
            model.name, reference.name
        ))
        .hint("the divergence needs one vocabulary: take policy.frozen() or another model of the same tokenizer"));
    }
    if model.place() != reference.place() {
        let [own, other] = [model, reference].map(|m| format!("{} on {}", m.name, m.place()));
        return Err(Error::new(Kind::Device, format!("{call}: the policy is {own}, the reference {other}"))
            .hint("both must be in one place: open them with the same `device`, or take policy.frozen()"));
    }
    check_for(rows, reference)
}

/// What a reference adds to a pass: its hidden states at the measured tokens, and its head.
pub(super) fn hidden(reference: &Model, pack: &Pack, settings: &Settings) -> Result<Reference> {
    let decoder = Decoder::new(reference)?;
    let mut tape = settings.tape(reference.packs(), reference.compute, false);
    let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]| {
        attention(tape, &q, &k, &v, &pack.segments, decoder.heads(layer))
    };
    let hidden = decoder.hidden(&mut tape, pack.ids.clone(), &pack.positions, attend)?;
    let hidden = gather(&mut tape, &hidden, pack.scored.clone())?.value;
    let LmHead { weight, softcap } = decoder.head(&tape);
    Ok(Reference { hidden, head: weight.value, softcap })
}
