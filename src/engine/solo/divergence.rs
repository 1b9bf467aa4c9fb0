//! What is measured beside the log-probs and entropies of a policy's forward pass, as further planes of it: divergences from a
//! reference over the whole vocabulary, and the values of a head on the same trunk.
//!
//! Owns what a reference adds to a pass: its hidden states at the measured tokens. The policy's pass is shared with
//! the log-probs and entropies of the same rows, and so is its backward pass. Where the policy's activations are held,
//! the reference's hidden states are held beside them: H numbers per measured token, where a layer's activations are
//! some tens of H. Where they are not, both are computed again. Neither model's logits are ever held.

use super::pack::{Measured, Pack, micro_batches};
use super::rows::check_for;
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::kernel::attention::attention;
use crate::kernel::divergence::{Divergence, Reference};
use crate::kernel::elementwise::gather;
use crate::kernel::logprob::LmHead;
use crate::kernel::tape::{Tape, Var};
use crate::kernel::value::Value;
use crate::model::decoder::Decoder;
use crate::model::rows::Rows;
use crate::model::{Head, Model};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which divergence of a pass, from which reference, and what that reads where it is not the pass's own rows.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) of: Divergence,
    pub(super) reference: Arc<Model>,
    pub(super) under: Option<Arc<Rows>>,
}

impl Asked {
    fn same(&self, other: &Self) -> bool {
        let rows = |asked: &Self| asked.under.as_ref().map(|rows| rows.id());
        (self.of, self.reference.id, rows(self)) == (other.of, other.reference.id, rows(other))
    }
}

/// A further plane of a pass.
#[derive(Clone)]
pub(super) enum Beside {
    Value,
    Divergence(Asked),
}

impl Beside {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value, Self::Value) => true,
            (Self::Divergence(one), Self::Divergence(other)) => one.same(other),
            _ => false,
        }
    }

    /// Of the reference, if there is one; the pass knows its own model's.
    fn version(&self) -> u64 {
        match self {
            Self::Value => 0,
            Self::Divergence(asked) => asked.reference.version(),
        }
    }
}

/// A plane that was asked for, at one version of its reference.
pub(super) struct Found {
    pub(super) asked: Beside,
    version: u64,
    /// `[B,T]`, row-major.
    pub(super) values: Vec<f32>,
}

impl Found {
    pub(super) fn new(asked: Beside, values: Vec<f32>) -> Self {
        Self { version: asked.version(), asked, values }
    }

    /// Whether it is this one, and the reference still has the weights that the values were computed from.
    pub(super) fn answers(&self, asked: &Beside) -> bool {
        self.asked.same(asked) && self.version == asked.version()
    }
}

/// Whether the models' distributions are over the same tokens, and the reference can read the rows.
pub(super) fn check(model: &Model, asked: &Asked, rows: &Rows, call: &str) -> Result<()> {
    let Asked { reference, under, .. } = asked;
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
    let Some(under) = under else { return check_for(rows, reference) };
    let apart = rows.iter().zip(under.iter()).position(|(row, other)| row.completion != other.completion);
    let what = match apart {
        Some(row) => format!("row {row} of `under` has another completion than the batch"),
        None if rows.len() != under.len() => {
            format!("the batch has {} rows, `under` has {}", rows.len(), under.len())
        }
        None => return check_for(under, reference),
    };
    Err(Error::value(format!("{call}: {what}")).hint("the reference reads the same completions: b.under(prompts)"))
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

/// As `hidden`, where the reference reads other rows with the same completions: of each pair of a pack, in `cells`, in order.
pub(super) fn hidden_under(
    reference: &Model,
    rows: &Rows,
    cells: &[(usize, usize)],
    settings: &Settings,
) -> Result<Reference> {
    let (first, last) = cells.iter().fold((usize::MAX, 0), |(a, b), (row, _)| (a.min(*row), b.max(*row)));
    let rows = rows.select(&(first..=last).collect::<Vec<_>>());
    let share = settings.share_prefixes;
    let (mut parts, mut places, mut head) = (Vec::new(), BTreeMap::new(), None);
    for range in micro_batches(&rows, settings.token_budget, Measured::States, share) {
        settings.check()?;
        let Some(pack) = Pack::new(&rows, range, Measured::States, 1.0, share)? else { continue };
        let Reference { hidden, head: weight, softcap } = hidden(reference, &pack, settings)?;
        for ((row, t), at) in pack.cells.iter().zip(&*pack.targets.rows) {
            places.insert((row + first, *t), (parts.len(), *at));
        }
        parts.push(hidden);
        head = Some((weight, softcap));
    }
    let mut begins = Vec::with_capacity(parts.len());
    let mut end = 0;
    for part in &parts {
        begins.push(end);
        end += part.dim(0)? as u32;
    }
    let ids: Arc<[u32]> = cells.iter().map(|cell| places[cell]).map(|(part, at)| begins[part] + at).collect();
    let mut tape = settings.tape(reference.packs(), reference.compute, false);
    let all = tape.constant(Value::stack(&parts)?);
    let (head, softcap) = head.expect("a pack has a pair, and its row is among these");
    Ok(Reference { hidden: gather(&mut tape, &all, ids)?.value, head, softcap })
}
