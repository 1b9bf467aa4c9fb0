//! AdamW as scripts hold it: which models it may change, its hyper-parameters, and what it checks before a step.
//!
//! The update itself is the engine's.

use super::autograd::differentiate;
use super::handle::{ModelHandle, Moments};
use super::interface::Engine;
use super::request::{AdamwOptions, StepRequest};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl AdamwOptions {
    fn check(self) -> Result<Self> {
        let beta = |name: &str, value: f64| at_least(name, value, 0.0, value < 1.0, "in [0, 1)");
        at_least("lr", self.lr, 0.0, self.lr.is_finite(), "0 or more, and finite")?;
        beta("the first of betas", self.betas.0)?;
        beta("the second of betas", self.betas.1)?;
        at_least("eps", self.eps, 0.0, self.eps.is_finite(), "0 or more, and finite")?;
        at_least("weight_decay", self.weight_decay, 0.0, self.weight_decay.is_finite(), "0 or more, and finite")?;
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

/// AdamW over one or several models.
pub struct Optimizer {
    options: AdamwOptions,
    moments: Moments,
}

impl Optimizer {
    /// # Errors
    /// No model, a frozen one, or a hyper-parameter outside its range.
    pub fn adamw(engine: &dyn Engine, models: &[ModelHandle], options: AdamwOptions) -> Result<Self> {
        if models.is_empty() {
            return Err(Error::value("adamw was given no model").hint("adamw(policy, #{ lr: 1e-4 })"));
        }
        if let Some(frozen) = models.iter().find(|m| !m.trainable()) {
            return Err(Error::value(format!("adamw was given the frozen model {}", frozen.name))
                .hint("give it the model that load_model returned, not its frozen copy"));
        }
        Ok(Self { options: options.check()?, moments: engine.moments(models)? })
    }

    /// What steps may change.
    pub fn models(&self) -> &[ModelHandle] {
        &self.moments.models
    }

    /// What it remembers, whose state an engine saves and puts back.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    pub fn options(&self) -> &AdamwOptions {
        &self.options
    }

    /// Goes on with other hyper-parameters.
    ///
    /// # Errors
    /// One outside its range.
    pub fn set_options(&mut self, options: AdamwOptions) -> Result<()> {
        self.options = options.check()?;
        Ok(())
    }

    /// # Errors
    /// A learning rate below 0, or one that is not finite.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.set_options(AdamwOptions { lr, ..self.options })
    }

    /// Differentiates `loss`, clips and updates the models that it reaches, and frees their activations.
    ///
    /// # Errors
    /// What [`differentiate`] refuses, and a loss that reaches a model which this optimizer does not own; nothing is
    /// changed then.
    pub fn step(&mut self, engine: &dyn Engine, loss: &Tensor) -> Result<StepStats> {
        let gradients = differentiate(engine, loss)?;
        let owns = |model: &ModelHandle| self.models().iter().any(|own| own.id == model.id);
        if let Some(other) = gradients.iter().find(|g| !owns(&g.model)) {
            return Err(Error::gradient(format!(
                "the loss reaches the model {}, which this optimizer does not own",
                other.model.name
            ))
            .hint("give both models to one optimizer, adamw([a, b], …), or use a frozen copy: model.frozen()"));
        }
        let request = StepRequest { moments: &self.moments, gradients: &gradients, options: &self.options };
        let grad_norm = engine.step(&request)?;
        Ok(StepStats { loss: loss.item()?, grad_norm })
    }
}
