//! What a step costs: seconds by what the engine does in them, tokens, the learning rate, answers that were cut off.
//!
//! An engine around the session's own that looks at the clock on the way, so that whatever asks the engine is measured.
//! Owns no numbers of the script and writes nothing.

use crate::engine::{
    Engine, FisherRequest, ForwardRequest, Gradient, MixtureRequest, ModelHandle, Moments, OpenRequest, Pass, Plane,
    SampleRequest, Samples, Settings, State, Stateful, StepRequest, Upstream,
};
use crate::error::Result;
use crate::files::Location;
use crate::model::SaveDtype;
use crate::model::rows::Rows;
use crate::run::exact;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// What a step has cost so far, as a checkpoint keeps it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spent {
    #[serde(with = "exact")]
    sample: f64,
    #[serde(with = "exact")]
    score: f64,
    #[serde(with = "exact")]
    update: f64,
    /// Sampled in those seconds.
    tokens: u64,
    /// Answers of the policy, and those of them that were cut off.
    answers: u64,
    cut: u64,
    #[serde(with = "exact::optional")]
    lr: Option<f64>,
}

/// A forward pass with a way back, and the seconds that it took. It is not kept alive.
type Walked = (Weak<dyn Any + Send + Sync>, f64);

/// What the step under way has cost.
#[derive(Default)]
pub struct Meter {
    spent: RefCell<Spent>,
    /// Passes that no gradient has been taken through yet.
    ahead: RefCell<Vec<Walked>>,
    /// The model that the optimizer is of whose learning rate it is.
    steps_first: Cell<Option<u64>>,
    /// What happens now is not the step's.
    apart: Cell<bool>,
}

impl Meter {
    /// Does what is not the step's: an evaluation.
    pub fn apart<T>(&self, what: impl FnOnce() -> T) -> T {
        let before = self.apart.replace(true);
        let done = what();
        self.apart.set(before);
        done
    }

    /// Counts answers of the policy, of which so many ended by themselves.
    pub fn answered(&self, answers: usize, finished: usize) {
        self.add(|spent| {
            spent.answers += answers as u64;
            spent.cut += answers.saturating_sub(finished) as u64;
        });
    }

    /// What has been spent so far. A pass that no gradient is taken through was there to be looked at.
    pub fn spent(&self) -> Spent {
        let mut spent = self.spent.borrow().clone();
        spent.score += self.ahead.borrow().iter().map(|(_, seconds)| seconds).sum::<f64>();
        spent
    }

    /// Goes on as at a checkpoint.
    pub fn restore(&self, spent: Spent) {
        self.ahead.borrow_mut().clear();
        self.steps_first.set(None);
        self.spent.replace(spent);
    }

    /// The numbers of the step that is over, by their names in the table; the next one begins.
    pub fn close(&self) -> Vec<(&'static str, f64)> {
        let spent = self.spent();
        self.restore(Spent::default());
        let Spent { sample, score, update, tokens, answers, cut, lr } = spent;
        let seconds = |x: f64| (x > 0.0).then(|| (x * 1e4).round() / 1e4);
        let numbers = [
            ("lr", lr),
            ("truncated", (answers > 0).then(|| cut as f64 / answers as f64)),
            ("seconds/sample", seconds(sample)),
            ("seconds/score", seconds(score)),
            ("seconds/update", seconds(update)),
            ("tokens_per_second", (tokens > 0 && sample > 0.0).then(|| (tokens as f64 / sample).round())),
        ];
        numbers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Adds to the step what is the step's.
    fn add(&self, add: impl FnOnce(&mut Spent)) {
        if !self.apart.get() {
            add(&mut self.spent.borrow_mut());
        }
    }

    fn passed(&self, pass: Option<&Pass>, seconds: f64) {
        match pass {
            Some(pass) if !self.apart.get() => self.ahead.borrow_mut().push((Arc::downgrade(&pass.0), seconds)),
            _ => self.add(|spent| spent.score += seconds),
        }
    }

    /// A gradient was taken through these passes in so many seconds.
    fn walked(&self, upstream: &[Upstream], seconds: f64) {
        let mut ahead = self.ahead.borrow_mut();
        let of_these = |(pass, _): &mut Walked| upstream.iter().any(|u| pass.ptr_eq(&Arc::downgrade(&u.pass.0)));
        let forward: f64 = ahead.extract_if(.., of_these).map(|(_, seconds)| seconds).sum();
        self.add(|spent| spent.update += forward + seconds);
    }

    fn stepped(&self, request: &StepRequest, seconds: f64) {
        let id = request.moments.models.first().map(|model| model.id);
        self.add(|spent| {
            spent.update += seconds;
            if spent.lr.is_none() || self.steps_first.get() == id {
                spent.lr = Some(request.options.lr);
                self.steps_first.set(id);
            }
        });
    }
}

/// The engine that a session hands out.
pub struct Metered {
    inner: Rc<dyn Engine>,
    meter: Rc<Meter>,
}

impl Metered {
    pub fn new(inner: Rc<dyn Engine>, meter: Rc<Meter>) -> Self {
        Self { inner, meter }
    }
}

/// What `ask` says, and the seconds that it took.
fn timed<T>(ask: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let begun = Instant::now();
    let said = ask()?;
    Ok((said, begun.elapsed().as_secs_f64()))
}

impl Engine for Metered {
    fn sample(&self, request: &SampleRequest) -> Result<Samples> {
        let (samples, seconds) = timed(|| self.inner.sample(request))?;
        self.meter.add(|spent| {
            spent.sample += seconds;
            spent.tokens += samples.tokens();
        });
        Ok(samples)
    }

    fn sample_mixture(&self, request: &MixtureRequest) -> Result<Samples> {
        let (samples, seconds) = timed(|| self.inner.sample_mixture(request))?;
        self.meter.add(|spent| {
            spent.sample += seconds;
            spent.tokens += samples.tokens();
        });
        Ok(samples)
    }

    fn forward(&self, request: &ForwardRequest) -> Result<Plane> {
        let (plane, seconds) = timed(|| self.inner.forward(request))?;
        self.meter.passed(plane.pass.as_ref(), seconds);
        Ok(plane)
    }

    fn backward(&self, upstream: &[Upstream]) -> Result<Vec<Gradient>> {
        let (gradients, seconds) = timed(|| self.inner.backward(upstream))?;
        self.meter.walked(upstream, seconds);
        Ok(gradients)
    }

    fn step(&self, request: &StepRequest) -> Result<f64> {
        let (norm, seconds) = timed(|| self.inner.step(request))?;
        self.meter.stepped(request, seconds);
        Ok(norm)
    }

    fn fisher(&self, request: &FisherRequest, v: &Gradient) -> Result<Gradient> {
        let (product, seconds) = timed(|| self.inner.fisher(request, v))?;
        self.meter.add(|spent| spent.update += seconds);
        Ok(product)
    }

    fn settings(&self) -> &Settings {
        self.inner.settings()
    }

    fn open(&self, request: &OpenRequest) -> Result<ModelHandle> {
        self.inner.open(request)
    }

    fn frozen(&self, model: &ModelHandle) -> Result<ModelHandle> {
        self.inner.frozen(model)
    }

    fn reference(&self, model: &ModelHandle) -> Result<ModelHandle> {
        self.inner.reference(model)
    }

    fn merge(&self, model: &ModelHandle) -> Result<ModelHandle> {
        self.inner.merge(model)
    }

    fn shifted(&self, model: &ModelHandle, by: f64) -> Result<ModelHandle> {
        self.inner.shifted(model, by)
    }

    fn save(&self, model: &ModelHandle, dir: &Location, dtype: SaveDtype) -> Result<()> {
        self.inner.save(model, dir, dtype)
    }

    fn dot(&self, g: &Gradient, h: &Gradient) -> Result<f64> {
        self.inner.dot(g, h)
    }

    fn combine(&self, terms: &[(f64, Gradient)]) -> Result<Gradient> {
        self.inner.combine(terms)
    }

    fn gradient(&self, model: &ModelHandle, state: &State) -> Result<Gradient> {
        self.inner.gradient(model, state)
    }

    fn shift(&self, g: &Gradient, c: f64) -> Result<()> {
        self.inner.shift(g, c)
    }

    fn average(&self, models: &[(f64, ModelHandle)]) -> Result<ModelHandle> {
        self.inner.average(models)
    }

    fn mix(&self, into: &ModelHandle, share: f64, other: &ModelHandle) -> Result<()> {
        self.inner.mix(into, share, other)
    }

    fn moments(&self, models: &[ModelHandle]) -> Result<Moments> {
        self.inner.moments(models)
    }

    fn state(&self, of: Stateful) -> Result<State> {
        self.inner.state(of)
    }

    fn restore(&self, of: Stateful, state: &State) -> Result<()> {
        self.inner.restore(of, state)
    }

    fn memory(&self, model: &ModelHandle, rows: &Rows) -> Result<Vec<(&'static str, u64)>> {
        self.inner.memory(model, rows)
    }
}
