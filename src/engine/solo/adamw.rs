//! AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101): decoupled weight decay on every parameter, gradients clipped
//! by their joint norm, f32 moments that can be saved. Its rule for one parameter is `kernel::adamw`'s.

use super::leaf;
use super::update::{ModelGrads, differentiate};
use crate::error::{Error, Result};
use crate::kernel::adamw::{Rule, Update};
use crate::kernel::dot::dot;
use crate::kernel::form::Routine;
use crate::model::Model;
use crate::tensor::Tensor;
use candle_core::Tensor as Data;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hyper-parameters, with their defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwOptions {
    pub lr: f64,
    pub betas: (f64, f64),
    pub eps: f64,
    /// Per step and unit of lr, on every parameter.
    pub weight_decay: f64,
    /// Largest joint norm of all gradients; larger ones are scaled down to it.
    pub max_norm: f64,
}

impl Default for AdamwOptions {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, max_norm: 1.0 }
    }
}

impl AdamwOptions {
    fn check(self) -> Result<Self> {
        let beta = |name: &str, value: f64| at_least(name, value, 0.0, value < 1.0, "in [0, 1)");
        at_least("lr", self.lr, 0.0, true, "0 or more")?;
        beta("the first of betas", self.betas.0)?;
        beta("the second of betas", self.betas.1)?;
        at_least("eps", self.eps, 0.0, true, "0 or more")?;
        at_least("weight_decay", self.weight_decay, 0.0, true, "0 or more")?;
        at_least("max_norm", self.max_norm, 0.0, self.max_norm > 0.0, "above 0")?;
        Ok(self)
    }
}

fn at_least(name: &str, value: f64, least: f64, also: bool, range: &str) -> Result<()> {
    if value >= least && also && !value.is_nan() {
        return Ok(());
    }
    Err(Error::value(format!("adamw: {name} must be {range}, found {value}")))
}

/// What a step reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    pub loss: f64,
    /// The joint norm before clipping.
    pub grad_norm: f64,
}

/// The optimizer of one or several models.
pub struct Adamw {
    models: Vec<Arc<Model>>,
    pub options: AdamwOptions,
    /// First and second moments by (model's place, parameter's name), made at the first update.
    moments: BTreeMap<(usize, String), [Data; 2]>,
    /// Updates of each model so far: what the bias correction counts.
    steps: Vec<u64>,
}

/// Everything an optimizer remembers, to be saved and put back.
#[derive(Debug, Clone)]
pub struct AdamwState {
    pub steps: Vec<u64>,
    /// First and second moments by (model's place, parameter's name).
    pub moments: BTreeMap<(usize, String), [Vec<f32>; 2]>,
}

impl Adamw {
    /// # Errors
    /// No model, a frozen one, or a hyper-parameter outside its range.
    pub fn new(models: Vec<Arc<Model>>, options: AdamwOptions) -> Result<Self> {
        if models.is_empty() {
            return Err(Error::value("adamw was given no model").hint("adamw(policy, #{ lr: 1e-4 })"));
        }
        if let Some(frozen) = models.iter().find(|m| !m.trainable()) {
            return Err(Error::value(format!("adamw was given the frozen model {}", frozen.name))
                .hint("give it the model that load_model returned, not its frozen copy"));
        }
        let steps = vec![0; models.len()];
        Ok(Self { models, options: options.check()?, moments: BTreeMap::new(), steps })
    }

    /// What steps may change.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// # Errors
    /// A learning rate below 0 or NaN.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.options = AdamwOptions { lr, ..self.options }.check()?;
        Ok(())
    }

    /// Differentiates `loss`, clips and updates the models that it reaches, and frees their activations.
    ///
    /// # Errors
    /// What `differentiate` refuses, and a loss that reaches a model which this optimizer does not own; nothing is
    /// changed then.
    pub fn step(&mut self, loss: &Tensor) -> Result<StepStats> {
        let grads = differentiate(loss)?;
        let places = grads.iter().map(|m| self.place(m)).collect::<Result<Vec<_>>>()?;
        let mut sum = 0.0;
        for m in &grads {
            for i in 0..m.model.parameters().count() {
                sum += m.grads.get(i).map(|grad| dot(grad, grad)).transpose()?.unwrap_or(0.0);
            }
        }
        let norm = sum.sqrt();
        let scale = (self.options.max_norm / (norm + 1e-6)).min(1.0);
        for (m, place) in grads.iter().zip(places) {
            self.update(place, m, scale)?;
        }
        Ok(StepStats { loss: loss.item()?, grad_norm: norm })
    }

    fn place(&self, m: &ModelGrads) -> Result<usize> {
        self.models.iter().position(|own| own.id() == m.model.id()).ok_or_else(|| {
            Error::gradient(format!("the loss reaches the model {}, which this optimizer does not own", m.model.name))
                .hint("give both models to one optimizer, adamw([a, b], …), or use a frozen copy: model.frozen()")
        })
    }

    fn update(&mut self, place: usize, m: &ModelGrads, scale: f64) -> Result<()> {
        self.steps[place] += 1;
        let rule = rule(&self.options, self.steps[place], scale);
        for (i, (name, parameter)) in m.model.parameters().enumerate() {
            let Some(grad) = m.grads.get(i) else { continue };
            let key = (place, name.to_string());
            if !self.moments.contains_key(&key) {
                self.moments.insert(key.clone(), [parameter.zeros_like()?.detach(), parameter.zeros_like()?.detach()]);
            }
            let [first, second] = &self.moments[&key];
            Update { rule: &rule, parameter: &parameter.detach(), grad, first, second }.run()?;
        }
        m.model.bump_version();
        leaf::release(&m.model);
        Ok(())
    }

    /// The state, to be saved.
    pub fn state(&self) -> Result<AdamwState> {
        let mut moments = BTreeMap::new();
        for (key, [first, second]) in &self.moments {
            let plain = |t: &Data| -> Result<Vec<f32>> { Ok(t.flatten_all()?.to_vec1()?) };
            moments.insert(key.clone(), [plain(first)?, plain(second)?]);
        }
        Ok(AdamwState { steps: self.steps.clone(), moments })
    }

    /// Goes on from a saved state of an optimizer of the same models.
    ///
    /// # Errors
    /// Moments of other parameters than these models have.
    pub fn restore(&mut self, state: &AdamwState) -> Result<()> {
        if state.steps.len() != self.models.len() {
            let (found, own) = (state.steps.len(), self.models.len());
            return Err(Error::value(format!(
                "the optimizer state is of {found} models, but this optimizer owns {own}"
            )));
        }
        let mut moments = BTreeMap::new();
        for ((place, name), saved) in &state.moments {
            let parameter = self.models[*place].parameter(name)?;
            let load = |values: &Vec<f32>| Data::from_slice(values, parameter.dims(), parameter.device());
            moments.insert((*place, name.clone()), [load(&saved[0])?, load(&saved[1])?]);
        }
        (self.steps, self.moments) = (state.steps.clone(), moments);
        Ok(())
    }
}

/// What this step does to every parameter.
fn rule(o: &AdamwOptions, step: u64, scale: f64) -> Rule {
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    Rule {
        beta1: o.betas.0 as f32,
        beta2: o.betas.1 as f32,
        rate: (o.lr / correction(o.betas.0)) as f32,
        root: correction(o.betas.1).sqrt() as f32,
        eps: o.eps as f32,
        keep: (1.0 - o.lr * o.weight_decay) as f32,
        scale: scale as f32,
    }
}
