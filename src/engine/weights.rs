//! Weights as values: sums of gradients, Fisher products, steps along one, snapshots, averages and mixes of models.
//!
//! Owns what is checked before an engine is asked, which needs no weights.

use super::handle::{Gradient, ModelHandle};
use super::interface::Engine;
use super::request::{FisherRequest, Stateful};
use super::state::State;
use crate::error::{Error, Result};
use crate::model::Head;
use crate::model::rows::Rows;
use std::rc::Rc;
use std::sync::Arc;

impl Gradient {
    /// c·g
    ///
    /// # Errors
    /// A number that is not finite; a product that is not.
    pub fn times(&self, c: f64, engine: &dyn Engine) -> Result<Self> {
        engine.combine(&[(factor("a gradient was multiplied by", c)?, self.clone())])
    }

    /// g + c·h
    ///
    /// # Errors
    /// Gradients of different models; a sum that is not finite.
    pub fn plus(&self, c: f64, h: &Self, engine: &dyn Engine) -> Result<Self> {
        self.check_same(h)?;
        engine.combine(&[(1.0, self.clone()), (factor("a gradient was multiplied by", c)?, h.clone())])
    }

    /// Whether both are over the same parameters.
    pub(super) fn check_same(&self, other: &Self) -> Result<()> {
        if self.model.id == other.model.id {
            return Ok(());
        }
        let [own, others] = [self, other].map(|g| (&g.model.name, g.model.id));
        let hint = "gradients are added, compared and multiplied by a Fisher matrix where they are of one model";
        Err(Error::gradient(match own.0 == others.0 {
            true => format!("the gradients are of different models: two that were both opened as {}", own.0),
            false => format!("the gradients are of different models: {} and {}", own.0, others.0),
        })
        .hint(hint))
    }

    /// Whether it is a direction among the parameters of `model`.
    ///
    /// # Errors
    /// It is of another model.
    pub fn check_of(&self, model: &ModelHandle, call: &str) -> Result<()> {
        if self.model.id == model.id {
            return Ok(());
        }
        let (own, other) = (&self.model.name, &model.name);
        Err(Error::gradient(format!("{call}: the gradient is of another model than this one ({own}, {other})")).hint(
            "a gradient is a direction among one model's parameters: take gradient(loss, model) of this very model",
        ))
    }
}

/// A number that may scale weights.
fn factor(what: &str, c: f64) -> Result<f64> {
    if (c as f32).is_finite() {
        return Ok(c);
    }
    Err(Error::value(format!("{what} {c}, expected a finite number of f32")))
}

/// θ ← θ + c·g; raises the version of the model.
///
/// # Errors
/// A gradient of another model, a frozen model, a number that is not finite.
pub fn shift(engine: &dyn Engine, model: &ModelHandle, g: &Gradient, c: f64) -> Result<()> {
    g.check_of(model, "shift")?;
    engine.shift(g, factor("shift: the weights were to move by", c)?)
}

/// The numbers of a model at one moment, to be put back.
#[derive(Clone)]
pub struct Snapshot {
    pub model: ModelHandle,
    pub state: Rc<State>,
}

impl Snapshot {
    /// # Errors
    /// A model of which nothing can change; numbers that cannot be read.
    pub fn of(engine: &dyn Engine, model: &ModelHandle) -> Result<Self> {
        let state = engine.state(Stateful::Model(model))?;
        if state.tensors.is_empty() {
            return Err(Error::model(format!("snapshot: nothing of the model {} can change", model.name))
                .hint("a frozen model that shares its weights stays as it is"));
        }
        Ok(Self { model: model.clone(), state: Rc::new(state) })
    }

    /// Puts the numbers back into the model that they were of, bit for bit; raises its version.
    ///
    /// # Errors
    /// Another model.
    pub fn restore(&self, engine: &dyn Engine, model: &ModelHandle) -> Result<()> {
        if self.model.id != model.id {
            let (own, other) = (&self.model.name, &model.name);
            return Err(Error::value(format!(
                "restore: the snapshot is of another model than this one ({own}, {other})"
            ))
            .hint("a snapshot is put back into the model that it was taken of"));
        }
        engine.restore(Stateful::Model(model), &self.state)
    }
}

/// ref ← (1 − share)·ref + share·policy; raises the version of `reference`.
///
/// # Errors
/// A share outside of [0, 1]; what [`Engine::mix`] refuses.
pub fn mix(engine: &dyn Engine, reference: &ModelHandle, policy: &ModelHandle, share: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::value(format!("mix: the policy's share must be in [0, 1], found {share}"))
            .hint("ref.mix(policy, 0.01) sets ref to 0.99·ref + 0.01·policy"));
    }
    engine.mix(reference, share, policy)
}

/// Σ wᵢ·mᵢ as a new model.
///
/// # Errors
/// No model, not one weight for each, weights that are not finite; what [`Engine::average`] refuses.
pub fn average(engine: &dyn Engine, models: &[ModelHandle], weights: &[f64]) -> Result<ModelHandle> {
    let example = "average([a, b], [0.5, 0.5])";
    if models.is_empty() {
        return Err(Error::value("average was given no model").hint(example));
    }
    if models.len() != weights.len() {
        let (models, weights) = (models.len(), weights.len());
        return Err(Error::value(format!("average was given {models} models and {weights} weights")).hint(example));
    }
    let pair = |(model, w): (&ModelHandle, &f64)| Ok((factor("average: a weight is", *w)?, model.clone()));
    engine.average(&models.iter().zip(weights).map(pair).collect::<Result<Vec<_>>>()?)
}

/// The Fisher matrix of some rows, never made: products with it are.
#[derive(Clone)]
pub struct Fisher(Rc<FisherRequest>);

impl Fisher {
    /// F = the mean over masked tokens; `mask` `[B,T]`, row-major, may weigh.
    ///
    /// # Errors
    /// A model of which nothing is trained or that has no language-model head; a mask without tokens, or with numbers that
    /// no weights are.
    pub fn new(model: &ModelHandle, rows: &Arc<Rows>, temperature: f64, mask: &[f64]) -> Result<Self> {
        model.require_head(Head::Lm, "fisher")?;
        if !model.trainable() {
            return Err(Error::gradient(format!("fisher: no parameter of the model {} is trained", model.name))
                .hint("a Fisher matrix is over the trained parameters: give the model that load_model returned"));
        }
        let width = rows.width();
        let inside = |i: usize| i % width < rows[i / width].completion.len();
        let cells: Vec<f64> = mask.iter().enumerate().map(|(i, w)| if inside(i) { *w } else { 0.0 }).collect();
        if let Some(i) = cells.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            let what = format!("fisher: the mask holds {} at row {}, token {}", cells[i], i / width, i % width);
            return Err(Error::value(what).hint("a mask is 1 where a token counts and 0 where it does not"));
        }
        let total: f64 = cells.iter().sum();
        if total == 0.0 {
            return Err(Error::value("fisher: no token is in the mask, so there is nothing to take a mean over"));
        }
        let weights = cells.into_iter().map(|w| (w / total) as f32).collect();
        Ok(Self(Rc::new(FisherRequest { model: model.clone(), rows: rows.clone(), temperature, weights })))
    }

    /// F·g at the weights of now.
    ///
    /// # Errors
    /// A gradient of another model; what [`Engine::fisher`] refuses.
    pub fn times(&self, g: &Gradient, engine: &dyn Engine) -> Result<Gradient> {
        g.check_of(&self.0.model, "fisher")?;
        engine.fisher(&self.0, g)
    }

    pub fn request(&self) -> &FisherRequest {
        &self.0
    }
}
