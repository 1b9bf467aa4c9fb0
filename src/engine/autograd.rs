//! From what an engine measures to tensors that scripts compute with, and from their loss back to gradients.
//!
//! A leaf stands where a plane enters a script's graph. Owns the checks that need no weights: a loss is one finite number
//! and reaches a model whose weights are still those that it was computed from.

use super::handle::{Gradient, ModelHandle, Pass};
use super::interface::Engine;
use super::request::{ForwardRequest, Measure, Upstream};
use crate::error::{Error, Kind, Result};
use crate::tensor::{Tensor, tape};
use candle_core::{DType, Tensor as Data};
use std::sync::Arc;

/// One leaf of a script's graph; the origin that `tape::Gradients::sources` hands back.
struct Leaf {
    /// The model and, of a divergence, the reference, at their versions.
    models: Vec<(ModelHandle, u64)>,
    /// The script's function.
    call: &'static str,
    /// The place in the script that asked for it, for errors: `grpo.rhai:57`.
    site: String,
    /// Whether all its values are numbers.
    finite: bool,
    pass: Pass,
}

/// What the request measures, `[B,T]` or `[B,1]`; cells past a row's end are 0. Differentiable where the model is
/// trained. `site` is the place in the script, for errors.
///
/// # Errors
/// Those of [`Engine::forward`].
pub fn measure(engine: &dyn Engine, request: &ForwardRequest, site: &str) -> Result<Tensor> {
    let ForwardRequest { model, rows, measure, .. } = request;
    let plane = engine.forward(request)?;
    let finite = plane.values.iter().all(|x| x.is_finite());
    let values = Data::from_vec(plane.values, (rows.len(), plane.width), &candle_core::Device::Cpu)?;
    let tensor = match plane.pass {
        None => Tensor::new(values),
        Some(pass) => {
            let reference = match measure {
                Measure::Divergence { reference, .. } => Some(reference),
                _ => None,
            };
            let models = [Some(model), reference].into_iter().flatten().map(|m| (m.clone(), m.version())).collect();
            let (call, site) = (measure.name(), site.to_string());
            Tensor::source(values, Arc::new(Leaf { models, call, site, finite, pass }))
        }
    };
    Ok(tensor.with_tokens(plane.width > 1))
}

/// Differentiates `loss` down to its leaves and through their models, in order of creation: a gradient for each model
/// that it reaches. Changes nothing.
///
/// # Errors
/// A loss that is not one finite number, that reaches no leaf, or whose leaf is older than its model's weights.
pub fn differentiate(engine: &dyn Engine, loss: &Tensor) -> Result<Vec<Gradient>> {
    let sources = tape::backward(loss)?.sources();
    let leaves: Vec<(&Leaf, &Data)> =
        sources.iter().filter_map(|(origin, grad)| Some((origin.downcast_ref::<Leaf>()?, grad))).collect();
    let value = loss.item()?;
    if !value.is_finite() {
        let error = Error::new(Kind::NotFinite, format!("the loss is {value}"));
        return Err(match leaves.iter().find(|(leaf, _)| !leaf.finite) {
            Some((leaf, _)) => error.hint(format!(
                "{} at {} is not finite: the weights have diverged; lower lr or max_norm, or load the model again",
                leaf.call, leaf.site
            )),
            None => error,
        });
    }
    if leaves.is_empty() {
        return Err(Error::gradient("the loss does not depend on any model").hint(
            "compute it from logprob(policy, b) of a trainable model; frozen models and columns have no gradient",
        ));
    }
    let upstream = |(leaf, grad): &(&Leaf, &Data)| {
        leaf.check_current()?;
        let values = grad.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Upstream { pass: leaf.pass.clone(), values })
    };
    engine.backward(&leaves.iter().map(upstream).collect::<Result<Vec<_>>>()?)
}

impl Leaf {
    fn check_current(&self) -> Result<()> {
        let Self { call, site, .. } = self;
        match self.models.iter().position(|(model, version)| model.version() != *version) {
            None => Ok(()),
            Some(0) => Err(Error::gradient(format!(
                "the {call} computed at {site} is older than the model's weights, which have changed since"
            ))
            .hint(format!("compute {call} again after each change (its values may still be used: x.detach())"))),
            Some(_) => Err(Error::gradient(format!(
                "the {call} computed at {site} is older than its reference's weights, which have changed since"
            ))
            .hint(format!(
                "compute {call} again after ref.mix, or take a reference that does not change: policy.frozen()"
            ))),
        }
    }
}

/// ∂loss/∂parameters of `model`. Changes nothing: a step may follow.
///
/// # Errors
/// As [`differentiate`], and a loss that does not depend on this model.
pub fn gradient(engine: &dyn Engine, loss: &Tensor, model: &ModelHandle) -> Result<Gradient> {
    differentiate(engine, loss)?.into_iter().find(|g| g.model.id == model.id).ok_or_else(|| {
        Error::gradient(format!("the loss does not depend on the model {}", model.name))
            .hint("it must be computed from logprob(model, b) of this very model")
    })
}

impl Gradient {
    /// √Σ g² over all parameters.
    ///
    /// # Errors
    /// Those of [`Engine::dot`].
    pub fn norm(&self, engine: &dyn Engine) -> Result<f64> {
        Ok(self.dot(self, engine)?.sqrt())
    }

    /// Σ g·h.
    ///
    /// # Errors
    /// Gradients of different models.
    pub fn dot(&self, other: &Self, engine: &dyn Engine) -> Result<f64> {
        self.check_same(other)?;
        engine.dot(self, other)
    }

    /// The cosine of the angle between two gradients; 0 where one of them is zero.
    ///
    /// # Errors
    /// Gradients of different models.
    pub fn cos(&self, other: &Self, engine: &dyn Engine) -> Result<f64> {
        let scale = self.norm(engine)? * other.norm(engine)?;
        Ok(if scale == 0.0 { 0.0 } else { self.dot(other, engine)? / scale })
    }
}
