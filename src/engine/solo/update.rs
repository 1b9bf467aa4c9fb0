//! From a loss to parameter gradients, exactly, for any micro-batch size; checks on the way; `gradient` handles.
//!
//! Owns the order of passes and the checks; `adamw` owns the update itself.

use super::leaf::{self, Forward, Leaf};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::kernel::dot::dot;
use crate::kernel::tape::ParameterGrads;
use crate::model::Model;
use crate::tensor::{Tensor, tape};
use candle_core::Tensor as Data;
use std::sync::Arc;

/// Gradients of one model's parameters.
pub struct ModelGrads {
    pub model: Arc<Model>,
    pub grads: ParameterGrads,
}

/// Differentiates `loss` down to the leaves of the engine and through their models, in order of creation.
///
/// # Errors
/// A loss that is not one finite number, that reaches no leaf, or whose leaf is older than its model's weights.
pub fn differentiate(loss: &Tensor) -> Result<Vec<ModelGrads>> {
    let sources = tape::backward(loss)?.sources();
    let value = loss.item()?;
    if !value.is_finite() {
        let error = Error::new(ErrorKind::NotFinite, format!("the loss is {value}"));
        let broken = sources.iter().filter_map(|(origin, _)| origin.downcast_ref::<Leaf>()).find(|leaf| !leaf.finite());
        return Err(match broken {
            Some(leaf) => error.hint(format!(
                "{} at {} is not finite: the weights have diverged; lower lr or max_norm, or load the model again",
                leaf.kind.name(),
                leaf.site
            )),
            None => error,
        });
    }
    let mut passes: Vec<Reached> = Vec::new();
    for (origin, grad) in &sources {
        let Some(leaf) = origin.downcast_ref::<Leaf>() else { continue };
        check_current(leaf)?;
        let at = passes.iter().position(|p| Arc::ptr_eq(&p.forward, &leaf.forward)).unwrap_or_else(|| {
            passes.push(Reached { forward: leaf.forward.clone(), planes: Vec::new() });
            passes.len() - 1
        });
        let (planes, plane) = (&mut passes[at].planes, leaf.kind.plane());
        planes.resize(planes.len().max(plane + 1), None);
        let slot = &mut planes[plane];
        let grad = leaf::upstream(grad)?;
        match slot {
            None => *slot = Some(grad),
            Some(sum) => sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g),
        }
    }
    if passes.is_empty() {
        return Err(Error::gradient("the loss does not depend on any model").hint(
            "compute it from logprob(policy, b) of a trainable model; frozen models and columns have no gradient",
        ));
    }
    let mut models: Vec<ModelGrads> = Vec::new();
    for pass in passes {
        let model = &pass.forward.model;
        let at = models.iter().position(|m| m.model.id() == model.id()).unwrap_or_else(|| {
            models.push(ModelGrads { model: model.clone(), grads: ParameterGrads::default() });
            models.len() - 1
        });
        pass.forward.backward(&pass.planes, &mut models[at].grads)?;
    }
    models.iter().try_for_each(check_complete)?;
    Ok(models)
}

/// A forward pass that the loss reaches, with the upstream gradients of its leaves (by `Kind::plane`).
struct Reached {
    forward: Arc<Forward>,
    planes: Vec<Option<Vec<f32>>>,
}

fn check_current(leaf: &Leaf) -> Result<()> {
    if leaf.current() {
        return Ok(());
    }
    let call = leaf.kind.name();
    if leaf.forward.current() {
        return Err(Error::gradient(format!(
            "the {call} computed at {} is older than its reference's weights: a step has changed them since",
            leaf.site
        ))
        .hint("take a reference that is not trained: policy.frozen()"));
    }
    Err(Error::gradient(format!(
        "the {call} computed at {} is older than the model's weights: a step has changed them since",
        leaf.site
    ))
    .hint(format!("compute {call} again after each opt.step (its values may still be used: x.detach())")))
}

/// Every trainable parameter must have got a gradient, and a finite one.
fn check_complete(m: &ModelGrads) -> Result<()> {
    let mut missing = Vec::new();
    let mut broken = Vec::new();
    for (i, (name, _)) in m.model.parameters().enumerate().filter(|(i, _)| m.model.trains(*i)) {
        match m.grads.get(i) {
            None => missing.push(name),
            Some(grad) if !dot(grad, grad)?.is_finite() => broken.push(name),
            Some(_) => {}
        }
    }
    let report = |names: &[&str], what: &str, hint: &str| {
        let shown = names.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 4 { format!(" and {} more", names.len() - 4) } else { String::new() };
        Error::new(ErrorKind::NotFinite, format!("{what} parameters of {}: {shown}{more}", m.model.name))
            .hint(hint.to_string())
    };
    if !missing.is_empty() {
        return Err(report(
            &missing,
            "no gradient reached",
            "no scored token is left in the batch: is every completion empty?",
        ));
    }
    if !broken.is_empty() {
        let hint = "the loss is finite but its gradient is not: look for 0/0, log(0), sqrt(0) or overflow in the loss";
        return Err(report(&broken, "the gradient is not finite for", hint));
    }
    Ok(())
}

/// The gradient of a loss with respect to one model's parameters, to look at.
#[derive(Clone)]
pub struct Gradient {
    parameters: Arc<Vec<Data>>,
    model: u64,
}

/// ∂loss/∂parameters of `model`. Changes nothing: a step may follow.
pub fn gradient(loss: &Tensor, model: &Arc<Model>) -> Result<Gradient> {
    let found = differentiate(loss)?.into_iter().find(|m| m.model.id() == model.id()).ok_or_else(|| {
        Error::gradient(format!("the loss does not depend on the model {}", model.name))
            .hint("it must be computed from logprob(model, b) of this very model")
    })?;
    let parameters = (0..model.parameters().count()).filter_map(|i| found.grads.get(i).cloned()).collect();
    Ok(Gradient { parameters: Arc::new(parameters), model: model.id() })
}

impl Gradient {
    /// √Σ g² over all parameters.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.dot(self)?.sqrt())
    }

    /// Σ g·h.
    ///
    /// # Errors
    /// Gradients of different models.
    pub fn dot(&self, other: &Self) -> Result<f64> {
        if self.model != other.model {
            return Err(Error::gradient("the gradients are of different models").hint("compare gradients of one model"));
        }
        self.parameters.iter().zip(other.parameters.iter()).map(|(a, b)| dot(a, b)).sum()
    }

    /// The cosine of the angle between two gradients; 0 where one of them is zero.
    pub fn cos(&self, other: &Self) -> Result<f64> {
        let scale = self.norm()? * other.norm()?;
        Ok(if scale == 0.0 { 0.0 } else { self.dot(other)? / scale })
    }
}
