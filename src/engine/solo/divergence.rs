//! KL(policy ‖ reference) over the whole vocabulary, as a further leaf of the policy's forward pass.
//!
//! Owns what the reference adds to a pass: its hidden states at the measured tokens. The policy's pass is shared with
//! the log-probs and entropies of the same rows, and so is its backward pass. Where the policy's activations are held,
//! the reference's hidden states are held beside them: H numbers per measured token, where a layer's activations are
//! some tens of H. Where they are not, both are computed again. Neither model's logits are ever held.

use super::leaf::{Forward, Kind, Leaf, Pass, check_for, locked};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::kernel::attention::attention;
use crate::kernel::divergence::{Reference, linear_kl};
use crate::kernel::elementwise::gather;
use crate::kernel::logprob::LmHead;
use crate::kernel::tape::{Tape, Var};
use crate::model::decoder::Decoder;
use crate::model::rows::Rows;
use crate::model::{Head, Model};
use crate::tensor::Tensor;
use candle_core::Tensor as Data;
use std::sync::Arc;

/// The divergence of a pass from one reference at one version of it.
pub(super) struct Divergence {
    pub(super) reference: Arc<Model>,
    version: u64,
    /// `[B,T]`, row-major.
    pub(super) values: Vec<f32>,
}

impl Divergence {
    /// Whether the reference still has the weights that the values were computed from.
    pub(super) fn current(&self) -> bool {
        self.version == self.reference.version()
    }
}

/// KL(model ‖ reference) at every completion token, `[B,T]` in nats, exact over the vocabulary; cells past a row's end
/// are 0. Differentiable in `model` where it is trainable; `reference` counts as constant, trainable or not.
///
/// # Errors
/// A model without language-model head; vocabularies of different sizes; rows that one of the models cannot take.
pub fn kl_full(
    model: &Arc<Model>,
    reference: &Arc<Model>,
    rows: &Arc<Rows>,
    temperature: f64,
    settings: &Settings,
    site: &str,
) -> Result<Tensor> {
    const CALL: &str = "kl::full";
    model.require_head(Head::Lm, CALL)?;
    reference.require_head(Head::Lm, CALL)?;
    let [own, other] = [model, reference].map(|m| m.config.vocab_size);
    if own != other {
        return Err(Error::model(format!(
            "{CALL}: the policy {} has {own} tokens in its vocabulary, the reference {} has {other}",
            model.name, reference.name
        ))
        .hint("the divergence needs one vocabulary: take policy.frozen() or another model of the same tokenizer"));
    }
    check_for(rows, reference)?;
    let forward = Forward::of(model, rows, temperature, settings)?;
    let index = forward.diverge(reference)?;
    let values = locked(&forward.divergences)[index].values.clone();
    let values = Data::from_vec(values, (rows.len(), forward.width), model.device())?;
    let tensor = match model.trainable() {
        true => Tensor::source(values, Arc::new(Leaf { forward, kind: Kind::Divergence(index), site: site.into() })),
        false => Tensor::new(values),
    };
    Ok(tensor.with_tokens(rows.width() > 1))
}

impl Forward {
    /// The place of the divergence from `reference` among this pass's; computed where it is not there yet.
    fn diverge(&self, reference: &Arc<Model>) -> Result<usize> {
        let mut divergences = locked(&self.divergences);
        let same = |d: &Divergence| d.reference.id() == reference.id() && d.current();
        if let Some(found) = divergences.iter().position(same) {
            return Ok(found);
        }
        let mut values = vec![0.0; self.rows.len() * self.width];
        let mut passes = locked(&self.passes);
        let mut outs = Vec::with_capacity(self.micro.len());
        for (i, range) in self.micro.iter().enumerate() {
            self.settings.check()?;
            let mut again;
            let held = passes.get_mut(i).and_then(Option::as_mut);
            let kept = held.is_some();
            let pass = match held {
                Some(pass) => pass,
                None => match self.pack(range.clone())? {
                    Some(pack) => {
                        again = self.pass(Arc::new(pack), false)?;
                        &mut again
                    }
                    None => {
                        outs.push(None);
                        continue;
                    }
                },
            };
            let out = self.diverge_pass(pass, reference)?;
            let found = out.value.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            for ((row, t), value) in pass.pack.cells.iter().zip(found) {
                values[row * self.width + t] = value;
            }
            outs.push(kept.then_some(out));
        }
        // Only now: a pass that was interrupted half-way leaves no entry behind.
        for (pass, out) in passes.iter_mut().zip(outs) {
            if let (Some(pass), Some(out)) = (pass, out) {
                pass.divergences.push(out);
            }
        }
        divergences.push(Divergence { reference: reference.clone(), version: reference.version(), values });
        Ok(divergences.len() - 1)
    }

    /// The divergence `[P,1]` of a pass's pairs, on the pass's own tape.
    pub(super) fn diverge_pass(&self, pass: &mut Pass, reference: &Model) -> Result<Var> {
        let pack = pass.pack.clone();
        let decoder = Decoder::new(reference)?;
        let mut tape = self.settings.tape(reference.packs(), false);
        let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]| {
            attention(tape, &q, &k, &v, &pack.segments, decoder.heads(layer))
        };
        let hidden = decoder.hidden(&mut tape, pack.ids.clone(), &pack.positions, attend)?;
        let hidden = gather(&mut tape, &hidden, pack.scored.clone())?.value;
        let LmHead { weight, softcap } = decoder.head(&tape);
        let reference = Reference { hidden, head: weight.value, softcap };
        let head = Decoder::new(&self.model)?.head(&pass.tape);
        linear_kl(&mut pass.tape, &pass.scored, &head, &reference, &pack.targets)
    }
}
