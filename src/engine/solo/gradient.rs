//! From the gradients of planes to parameter gradients, exactly, for any micro-batch size; checks on the way.
//!
//! Owns the order of passes and the checks; `adamw` owns the update.

use super::forward::Forward;
use crate::engine::handle::inside;
use crate::engine::request::Upstream;
use crate::engine::state::State;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::kernel::awake::awake;
use crate::kernel::gradients::ParameterGrads;
use crate::kernel::value::Value;
use crate::model::{Head, Model};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gradients of one model's parameters.
pub struct ModelGrads {
    pub model: Arc<Model>,
    pub grads: ParameterGrads,
    /// Σ g² of each trained parameter, by its index.
    pub(super) squares: BTreeMap<usize, f64>,
}

/// A plane of a forward pass: the inside of a `Pass` handle.
pub(super) struct PlaneOf {
    pub(super) forward: Arc<Forward>,
    pub(super) plane: usize,
}

/// Carries the gradients of planes through their passes, in the order in which the passes are first met.
pub(super) fn backward(upstream: &[Upstream]) -> Result<Vec<ModelGrads>> {
    let mut passes: Vec<Reached> = Vec::new();
    for Upstream { pass, values } in upstream {
        let PlaneOf { forward, plane } = inside(&pass.0)?;
        let at = passes.iter().position(|p| Arc::ptr_eq(&p.forward, forward)).unwrap_or_else(|| {
            passes.push(Reached { forward: forward.clone(), planes: Vec::new() });
            passes.len() - 1
        });
        let planes = &mut passes[at].planes;
        planes.resize(planes.len().max(plane + 1), None);
        match &mut planes[*plane] {
            slot @ None => *slot = Some(values.clone()),
            Some(sum) => sum.iter_mut().zip(values).for_each(|(s, g)| *s += g),
        }
    }
    let mut models: Vec<(Arc<Model>, ParameterGrads)> = Vec::new();
    for pass in passes {
        let model = &pass.forward.model;
        let at = match models.iter().position(|(own, _)| own.id == model.id) {
            Some(at) => at,
            None => {
                let grads = model.arena().map_or_else(|| Ok(ParameterGrads::default()), |arena| arena.gradients())?;
                models.push((model.clone(), grads));
                models.len() - 1
            }
        };
        let grads = &mut models[at].1;
        awake(model.place(), || pass.forward.backward(&pass.planes, grads))?;
    }
    models.into_iter().map(|(model, grads)| ModelGrads::checked(model, grads)).collect()
}

/// A forward pass that is reached, with the upstream gradients of its planes.
struct Reached {
    forward: Arc<Forward>,
    planes: Vec<Option<Vec<f32>>>,
}

impl ModelGrads {
    /// Every trainable parameter must have got a gradient, and a finite one. Of two heads on one trunk a loss may leave one
    /// alone: its gradient is zero.
    pub(super) fn checked(model: Arc<Model>, mut grads: ParameterGrads) -> Result<Self> {
        if model.config.head == Head::LmValue {
            let heads = model.config.head_parameters();
            let trained = model.parameters().enumerate().filter(|(i, _)| model.trains(*i));
            for (i, (_, parameter)) in trained.filter(|(_, (name, _))| heads.iter().any(|(head, _)| head == name)) {
                if grads.get(i).is_none() {
                    grads.set(i, model.place(), &vec![0.0; parameter.len()], parameter.dims())?;
                }
            }
        }
        let squares = grads.dot(&grads)?;
        check_complete(&model, &squares)?;
        Ok(Self { model, grads, squares })
    }

    /// Σ cᵢ·gᵢ
    pub(super) fn combined(terms: &[(f64, &Self)]) -> Result<Self> {
        let Some((_, first)) = terms.first() else {
            return Err(Error::new(ErrorKind::Internal, "a sum of no gradients"));
        };
        let grads: Vec<(f64, &ParameterGrads)> = terms.iter().map(|(by, g)| (*by, &g.grads)).collect();
        Self::finite(first.model.clone(), ParameterGrads::combined(&grads)?, "a sum of gradients")
    }

    /// The numbers of a gradient's state.
    pub(super) fn of_state(model: &Arc<Model>, state: &State) -> Result<Self> {
        let mut grads = model.arena().map_or_else(|| Ok(ParameterGrads::default()), |arena| arena.gradients())?;
        let trained = || model.parameters().enumerate().filter(|(i, _)| model.trains(*i));
        if let Some(name) = state.tensors.keys().find(|name| !trained().any(|(_, (own, _))| own == *name)) {
            let names: Vec<&str> = trained().map(|(_, (name, _))| name).collect();
            return Err(Error::unknown("trained parameter", name, &names));
        }
        for (i, (name, parameter)) in trained() {
            grads.set(i, model.place(), state.tensor(name, parameter.len())?, parameter.dims())?;
        }
        Self::finite(model.clone(), grads, "a stored gradient")
    }

    pub(super) fn state(&self) -> Result<State> {
        let held = self.model.parameters().enumerate().filter_map(|(i, (name, _))| Some((name, self.grads.get(i)?)));
        let (names, values): (Vec<&str>, Vec<&Value>) = held.unzip();
        let tensors = names.into_iter().map(str::to_string).zip(Value::all_to_vec(&values)?).collect();
        Ok(State { steps: Vec::new(), tensors })
    }

    fn finite(model: Arc<Model>, grads: ParameterGrads, what: &str) -> Result<Self> {
        let squares = grads.dot(&grads)?;
        if squares.values().all(|square| square.is_finite()) {
            return Ok(Self { model, grads, squares });
        }
        Err(Error::new(ErrorKind::NotFinite, format!("{what} of {} is not finite", model.name))
            .hint("its numbers have left f32: look at g.norm() of what it was made of"))
    }

    /// Σ g·h over all parameters.
    pub(super) fn dot(&self, other: &Self) -> Result<f64> {
        Ok(self.grads.dot(&other.grads)?.values().sum())
    }
}

fn check_complete(model: &Model, squares: &BTreeMap<usize, f64>) -> Result<()> {
    let mut missing = Vec::new();
    let mut broken = Vec::new();
    for (i, (name, _)) in model.parameters().enumerate().filter(|(i, _)| model.trains(*i)) {
        match squares.get(&i) {
            None => missing.push(name),
            Some(square) if !square.is_finite() => broken.push(name),
            Some(_) => {}
        }
    }
    let report = |names: &[&str], what: &str, hint: &str| {
        let shown = names.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 4 { format!(" and {} more", names.len() - 4) } else { String::new() };
        Error::new(ErrorKind::NotFinite, format!("{what} parameters of {}: {shown}{more}", model.name))
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
