//! Models of this process measured, sampled and stepped through the engine's trait.

use rhopo::engine::{
    AdamwOptions, Divergence, Engine, ForwardRequest, Gradient, Measure, ModelHandle, Optimizer, SampleOptions,
    SampleRequest, Samples, Settings, Solo, State, Stateful, StepStats, measure,
};
use rhopo::error::Result;
use rhopo::model::Model;
use rhopo::model::rows::Rows;
use rhopo::tensor::Tensor;
use rhopo::tensor::rng::Key;
use std::sync::Arc;

/// The engine of this process with default settings.
pub fn solo() -> Solo {
    Solo::new(Settings::default())
}

/// One measurement at temperature 1, asked for at `test:1`.
pub fn measured(engine: &Solo, model: impl Into<ModelHandle>, rows: &Arc<Rows>, what: Measure) -> Result<Tensor> {
    measured_at(engine, model, rows, 1.0, what)
}

pub fn measured_at(
    engine: &Solo,
    model: impl Into<ModelHandle>,
    rows: &Arc<Rows>,
    temperature: f64,
    measure: Measure,
) -> Result<Tensor> {
    let (model, rows) = (model.into(), rows.clone());
    self::measure(engine, &ForwardRequest { model, rows, temperature, measure }, "test:1")
}

/// KL(model ‖ reference).
pub fn kl_full(reference: ModelHandle) -> Measure {
    Measure::Divergence { of: Divergence::Full, reference, under: None }
}

pub fn logprob(model: &Arc<Model>, rows: &Arc<Rows>, engine: &Solo) -> Tensor {
    measured(engine, model, rows, Measure::Logprob).unwrap()
}

pub fn sample(
    engine: &Solo,
    model: impl Into<ModelHandle>,
    prompts: &[Vec<u32>],
    options: &SampleOptions,
    key: Key,
) -> Result<Samples> {
    let (model, prompts, options) = (model.into(), prompts.to_vec(), options.clone());
    engine.sample(&SampleRequest { call: "sample", model, prompts, places: None, options, key })
}

pub fn differentiate(loss: &Tensor) -> Result<Vec<Gradient>> {
    rhopo::engine::differentiate(&solo(), loss)
}

/// The numbers of one gradient, parameter by parameter, where it has any.
pub fn numbers_of(gradient: &Gradient) -> Vec<Option<Vec<f64>>> {
    let grads = Solo::gradients(gradient).unwrap();
    let numbers = |v: &rhopo::kernel::value::Value| v.to_vec().unwrap().into_iter().map(f64::from).collect();
    (0..grads.model.parameters().count()).map(|i| grads.grads.get(i).map(numbers)).collect()
}

/// An optimizer with its engine.
pub struct Adamw {
    engine: Solo,
    optimizer: Optimizer,
}

impl Adamw {
    pub fn new(models: Vec<Arc<Model>>, options: AdamwOptions) -> Result<Self> {
        let (engine, models) = (solo(), models.into_iter().map(ModelHandle::from).collect::<Vec<_>>());
        Ok(Self { optimizer: Optimizer::adamw(&engine, &models, options)?, engine })
    }

    pub fn step(&mut self, loss: &Tensor) -> Result<StepStats> {
        self.optimizer.step(&self.engine, loss)
    }

    pub fn state(&self) -> State {
        self.engine.state(Stateful::Optimizer(self.optimizer.moments())).unwrap()
    }

    pub fn restore(&self, state: &State) -> Result<()> {
        self.engine.restore(Stateful::Optimizer(self.optimizer.moments()), state)
    }
}
