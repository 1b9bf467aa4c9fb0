//! Weights as values: a step along a gradient, a mix of two models in place, an average of several.
//!
//! Owns which models have weights that can be taken together. Whose versions count as changed is told to the model here;
//! what was computed from the old ones is the engine's to drop.

use super::Model;
use super::parameter::Parameter;
use crate::error::{Error, Kind, Result};
use crate::kernel::gradients::ParameterGrads;
use crate::kernel::value::Value;
use candle_core::{Device, Tensor};
use std::sync::Arc;

impl Model {
    /// θ ← θ + by·g over the trained parameters; raises the version.
    ///
    /// # Errors
    /// A device that has failed.
    pub fn shift(&self, g: &ParameterGrads, by: f64) -> Result<()> {
        for (i, p) in self.parameters.iter().enumerate() {
            if let Some(x) = g.get(i) {
                p.blend(1.0, x, by)?;
            }
        }
        self.bump_version();
        Ok(())
    }

    /// (1 − share)·self + share·other in place, of which the other counts with its adapter merged; raises the version.
    ///
    /// # Errors
    /// Models of different weights or places, weights here that others share, an adapter here. Nothing is changed then.
    pub fn mix(&self, share: f64, other: &Self) -> Result<()> {
        self.check_mix(other)?;
        let adapter = other.adapter.as_ref();
        let adapted = adapter.map(|adapter| (adapter, other.adapted(adapter)));
        for (p, more) in self.whole().iter().zip(other.whole()) {
            let merged = adapted.as_ref().and_then(|(adapter, maps)| Some((*adapter, maps.get(&more.name)?)));
            let x = match merged {
                Some((adapter, linear)) => {
                    let numbers: Vec<f32> = other.merged(more, adapter, linear)?.flatten_all()?.to_vec1()?;
                    Value::at(self.place(), "merged weights", &numbers, more.value.dims())?
                }
                None => more.wide()?,
            };
            p.blend(1.0 - share, &x, share)?;
        }
        self.bump_version();
        Ok(())
    }

    fn check_mix(&self, other: &Self) -> Result<()> {
        let whole = "a reference that takes in a policy with an adapter: let ref = policy.merge().frozen(), then ref.mix(policy, a)";
        if self.id == other.id {
            return Err(Error::value(format!("the model {} was to be mixed with itself", self.name))
                .hint("ref.mix(policy, 0.01) moves ref a little towards policy"));
        }
        if self.adapter.is_some() {
            return Err(Error::model(format!("the model {} has an adapter, whose factors cannot be mixed", self.name))
                .hint(whole));
        }
        self.check_alike("mix", other)?;
        if self.place() != other.place() {
            let [own, others] = [self, other].map(|m| format!("{} on {}", m.name, m.place()));
            return Err(Error::new(Kind::Device, format!("mix: {own}, {others}"))
                .hint("both must be in one place: open them with the same `device`"));
        }
        match (0..self.whole().len()).find(|&i| !self.changes(i)) {
            Some(i) => {
                let name = &self.parameters[i].name;
                Err(Error::model(format!("the model {} shares its weights with others, like `{name}`", self.name))
                    .hint(whole))
            }
            None => Ok(()),
        }
    }

    /// Whether both have weights of the same names and shapes, adapters aside.
    fn check_alike(&self, call: &str, other: &Self) -> Result<()> {
        let refuse = |what: String| {
            Err(Error::shape(format!("{call}: {} and {} have different weights: {what}", self.name, other.name))
                .hint("weights are taken together one by one: the models must be of one architecture and size"))
        };
        let (own, others) = (self.whole(), other.whole());
        for (p, q) in own.iter().zip(others) {
            if p.name != q.name {
                return refuse(format!("`{}` stands where the other has `{}`", p.name, q.name));
            }
            if p.value.dims() != q.value.dims() {
                return refuse(format!(
                    "`{}` is {:?} in one and {:?} in the other",
                    p.name,
                    p.value.dims(),
                    q.value.dims()
                ));
            }
        }
        if own.len() != others.len() {
            return refuse(format!("there are {} and {} of them", own.len(), others.len()));
        }
        if self.config.score_shift != other.config.score_shift {
            return refuse("one adds another number to its scores".into());
        }
        Ok(())
    }

    /// Σ wᵢ·θᵢ as a model of its own, in the place of the first and otherwise like it, ready to be trained as a whole.
    ///
    /// # Errors
    /// Models of different weights, or with adapters.
    pub fn average(models: &[(f64, Arc<Self>)]) -> Result<Arc<Self>> {
        let Some((_, first)) = models.first() else {
            return Err(Error::value("average was given no model"));
        };
        let adapted = |(_, model): &&(f64, Arc<Self>)| model.adapter.is_some();
        if let Some((_, model)) = models.iter().find(adapted) {
            return Err(Error::model(format!("average: {} has an adapter, whose factors have no average", model.name))
                .hint("take whole models: average([a.merge(), b.merge()], [0.5, 0.5])"));
        }
        models.iter().try_for_each(|(_, model)| first.check_alike("average", model))?;
        let average = |(i, p): (usize, &Parameter)| {
            let mut sum = vec![0.0; p.value.len()];
            for (weight, model) in models {
                let numbers = model.parameters[i].numbers()?;
                sum.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += weight * f64::from(x));
            }
            let sum = sum.into_iter().map(|x| x as f32).collect();
            Parameter::trained(p.name.clone(), &Tensor::from_vec::<_, f32>(sum, p.value.dims(), &Device::Cpu)?)
        };
        let parameters = first.parameters.iter().enumerate().map(average).collect::<Result<_>>()?;
        Ok(Arc::new(first.parts(parameters, None).build()?))
    }
}
