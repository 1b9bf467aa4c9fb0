//! The engine of this process: packing, sampling, deferred log-probs and their backward pass, the update.
//!
//! Owns the models' weights and the passes under way, behind the handles that it gives out.

mod adamw;
mod cache;
mod choose;
mod divergence;
mod ends;
mod fisher;
mod forward;
mod frozen;
mod gradient;
mod mixture;
mod network;
pub mod pack;
mod rank;
mod room;
mod rows;
mod sample;

use super::handle::{Gradient, Held, HeldModel, ModelHandle, Moments, Pass, inside};
use super::interface::Engine;
use super::request::{
    FisherRequest, ForwardRequest, Measure, MixtureRequest, OpenRequest, Plane, SampleRequest, Samples, Stateful,
    StepRequest, Upstream,
};
use super::settings::Settings;
use super::state::State;
use crate::budget::memory;
use crate::error::{Error, Kind, Result};
use crate::files::Location;
use crate::model::decoder::Decoder;
use crate::model::gguf::Frozen;
use crate::model::rows::Rows;
use crate::model::{Head, Model, ModelInfo, SaveDtype};
use adamw::Adamw;
use divergence::{Asked, Beside};
use forward::{BESIDE, Count, ENTROPY, LOGPROB, Passes, locked};
use gradient::{ModelGrads, PlaneOf};
use mixture::Mixed;
use network::{Network, Own};
use sample::Voice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Runs models in this process.
pub struct Solo {
    settings: Arc<Settings>,
    passes: Passes,
}

impl HeldModel for Model {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn version(&self) -> u64 {
        Self::version(self)
    }
}

impl HeldModel for Frozen {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn version(&self) -> u64 {
        0
    }
}

impl Solo {
    pub fn new(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        Self { passes: Passes::new(settings.clone()), settings }
    }

    /// The weights behind a handle, for what looks inside: tests.
    ///
    /// # Errors
    /// A GGUF file's, or a handle of another engine.
    pub fn model(handle: &ModelHandle) -> Result<Arc<Model>> {
        handle.held().downcast().map_err(|_| match &handle.format {
            Some(_) => Error::model(format!("{} is a GGUF file, which only answers and scores", handle.name))
                .hint("models that are trained, copied or saved are opened by load_model"),
            None => Error::new(Kind::Internal, "a handle of another engine was given to this one"),
        })
    }

    /// The gradients behind a handle, for what looks inside: tests.
    ///
    /// # Errors
    /// A handle of another engine.
    pub fn gradients(gradient: &Gradient) -> Result<&ModelGrads> {
        inside(&gradient.held)
    }

    /// How many micro-batches were run since the engine was made, for what looks inside: tests. For values alone, and for
    /// a backward pass.
    pub fn runs(&self) -> [u64; 2] {
        let Count { values, recording } = &*self.passes.count;
        [values, recording].map(|count| count.load(Ordering::Relaxed))
    }

    fn measure(&self, model: &Arc<Model>, request: &ForwardRequest) -> Result<Plane> {
        let ForwardRequest { rows, temperature, measure, .. } = request;
        model.require_head(measure.head(), measure.name())?;
        let asked = match measure {
            Measure::Divergence { of, reference, under } => {
                let asked = Asked { of: *of, reference: Self::model(reference)?, under: under.clone() };
                divergence::check(model, &asked, rows, measure.name())?;
                Some(Beside::Divergence(asked))
            }
            Measure::Value if model.config.head == Head::LmValue => Some(Beside::Value),
            Measure::Rank => {
                let values = rank::plane(model, rows, &self.settings)?;
                return Ok(Plane { values, width: rows.width(), pass: None });
            }
            _ => None,
        };
        let forward = self.passes.of(model, rows, *temperature)?;
        let (plane, values) = match (measure, asked) {
            (_, Some(asked)) => {
                let index = forward.also(asked)?;
                (BESIDE + index, forward.beside(index))
            }
            (Measure::Entropy, _) => (ENTROPY, forward.plane(ENTROPY)),
            (Measure::Score, _) => {
                let shift = model.config.score_shift as f32;
                (LOGPROB, forward.plane(LOGPROB).into_iter().map(|score| score + shift).collect())
            }
            _ => (LOGPROB, forward.plane(LOGPROB)),
        };
        let width = forward.width;
        let pass = model.trainable().then(|| Pass(Arc::new(PlaneOf { forward, plane })));
        Ok(Plane { values, width, pass })
    }
}

/// What scripts hold of gradients.
fn handle(grads: ModelGrads) -> Gradient {
    Gradient { model: grads.model.clone().into(), held: Arc::new(grads) }
}

/// A model as decoding sees it.
enum Decoding<'a> {
    Own(Box<Own<'a>>),
    Frozen(&'a Frozen),
}

impl<'a> Decoding<'a> {
    fn of(held: &'a Held) -> Result<Self> {
        if let Some(frozen) = held.downcast_ref::<Frozen>() {
            return Ok(Self::Frozen(frozen));
        }
        let model: &Model = inside(held)?;
        Ok(Self::Own(Box::new(Own { model, decoder: Decoder::new(model)? })))
    }

    fn network(&self) -> &dyn Network {
        match self {
            Self::Own(own) => &**own,
            Self::Frozen(frozen) => *frozen,
        }
    }
}

impl Engine for Solo {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn open(&self, request: &OpenRequest) -> Result<ModelHandle> {
        Ok(match request {
            OpenRequest::Stored { name, options, place } => Arc::new(Model::open(name, options, place)?).into(),
            OpenRequest::Gguf { path, tokenizer } => Arc::new(Frozen::open(path, tokenizer.as_ref())?).into(),
            OpenRequest::Random { config, key, place } => {
                Arc::new(Model::random((**config).clone(), None, *key, place)?).into()
            }
        })
    }

    fn frozen(&self, model: &ModelHandle) -> Result<ModelHandle> {
        Ok(Self::model(model)?.frozen()?.into())
    }

    fn reference(&self, model: &ModelHandle) -> Result<ModelHandle> {
        Ok(Self::model(model)?.reference()?.into())
    }

    fn merge(&self, model: &ModelHandle) -> Result<ModelHandle> {
        Ok(Self::model(model)?.merge()?.into())
    }

    fn shifted(&self, model: &ModelHandle, by: f64) -> Result<ModelHandle> {
        Ok(Self::model(model)?.shifted(by)?.into())
    }

    fn save(&self, model: &ModelHandle, dir: &Location, dtype: SaveDtype) -> Result<()> {
        Self::model(model)?.save(dir, dtype)
    }

    fn sample(&self, request: &SampleRequest) -> Result<Samples> {
        request.model.require_head(Head::Lm, request.call)?;
        let held = request.model.held();
        let decoding = Decoding::of(&held)?;
        sample::sample(&[Voice::new(decoding.network(), &request.prompts)], None, request, &self.settings)
    }

    fn sample_mixture(&self, request: &MixtureRequest) -> Result<Samples> {
        let models = request.members.iter().map(|member| &member.model);
        models.clone().try_for_each(|model| model.require_head(Head::Lm, "mixture"))?;
        let held: Vec<Held> = models.map(ModelHandle::held).collect();
        let members = held.iter().map(Decoding::of).collect::<Result<Vec<_>>>()?;
        let networks: Vec<&dyn Network> = members.iter().map(Decoding::network).collect();
        mixture::check(&networks, &request.members)?;
        let voices = networks.iter().zip(&request.members);
        let voices: Vec<Voice> = voices.map(|(network, member)| Voice::new(*network, &member.prompts)).collect();
        sample::sample(&voices, Some(&Mixed::of(request)), &request.sample, &self.settings)
    }

    fn forward(&self, request: &ForwardRequest) -> Result<Plane> {
        let held = request.model.held();
        match held.downcast_ref::<Frozen>() {
            Some(frozen) => frozen::measure(frozen, request, &self.settings),
            None => self.measure(&Self::model(&request.model)?, request),
        }
    }

    fn backward(&self, upstream: &[Upstream]) -> Result<Vec<Gradient>> {
        Ok(gradient::backward(upstream)?.into_iter().map(handle).collect())
    }

    fn dot(&self, g: &Gradient, h: &Gradient) -> Result<f64> {
        Self::gradients(g)?.dot(Self::gradients(h)?)
    }

    fn fisher(&self, request: &FisherRequest, v: &Gradient) -> Result<Gradient> {
        let model = Self::model(&request.model)?;
        room::for_vector(&model)?;
        let (settings, count) = (&self.settings, &self.passes.count);
        Ok(handle(fisher::product(&model, request, Self::gradients(v)?, settings, count)?))
    }

    fn combine(&self, terms: &[(f64, Gradient)]) -> Result<Gradient> {
        let own = terms.iter().map(|(by, g)| Ok((*by, Self::gradients(g)?))).collect::<Result<Vec<_>>>()?;
        own.first().map_or(Ok(()), |(_, g)| room::for_vector(&g.model))?;
        Ok(handle(ModelGrads::combined(&own)?))
    }

    fn gradient(&self, model: &ModelHandle, state: &State) -> Result<Gradient> {
        let model = Self::model(model)?;
        room::for_vector(&model)?;
        Ok(handle(ModelGrads::of_state(&model, state)?))
    }

    fn shift(&self, g: &Gradient, c: f64) -> Result<()> {
        let ModelGrads { model, grads, .. } = Self::gradients(g)?;
        model.shift(grads, c)?;
        self.passes.release(model);
        Ok(())
    }

    fn average(&self, models: &[(f64, ModelHandle)]) -> Result<ModelHandle> {
        let own = models.iter().map(|(by, model)| Ok((*by, Self::model(model)?))).collect::<Result<Vec<_>>>()?;
        own.first().map_or(Ok(()), |(_, first)| memory::room(size_of::<f32>() as u64 * first.size as u64))?;
        Ok(Model::average(&own)?.into())
    }

    fn mix(&self, into: &ModelHandle, share: f64, other: &ModelHandle) -> Result<()> {
        let into = Self::model(into)?;
        into.mix(share, &*Self::model(other)?)?;
        self.passes.release(&into);
        Ok(())
    }

    fn moments(&self, models: &[ModelHandle]) -> Result<Moments> {
        let own = models.iter().map(Self::model).collect::<Result<_>>()?;
        Ok(Moments { models: models.to_vec(), held: Arc::new(Mutex::new(Adamw::new(own))) })
    }

    fn step(&self, request: &StepRequest) -> Result<f64> {
        let grads = request.gradients.iter().map(Self::gradients).collect::<Result<Vec<_>>>()?;
        let adamw: &Mutex<Adamw> = inside(&request.moments.held)?;
        let norm = locked(adamw).step(&grads, request.options)?;
        grads.iter().for_each(|m| self.passes.release(&m.model));
        Ok(norm)
    }

    fn state(&self, of: Stateful) -> Result<State> {
        match of {
            Stateful::Optimizer(moments) => locked(inside::<Mutex<Adamw>>(&moments.held)?).state(),
            Stateful::Gradient(g) => Self::gradients(g)?.state(),
            Stateful::Model(handle) => {
                let model = Self::model(handle)?;
                let changing = model.parameters().enumerate().filter(|(i, _)| model.changes(*i));
                let read = |(i, (name, _)): (usize, (&str, _))| Ok((name.to_string(), model.numbers(i)?));
                Ok(State { steps: Vec::new(), tensors: changing.map(read).collect::<Result<_>>()? })
            }
            Stateful::Copy { copy, of } => {
                let (copy, of) = (Self::model(copy)?, Self::model(of)?);
                if copy.config.score_shift != of.config.score_shift {
                    return Err(Error::value("the copy adds another number to its scores"));
                }
                let trained = of.parameters().enumerate().filter(|(i, _)| of.trains(*i)).map(|(_, (name, _))| name);
                let read = |name: &str| {
                    let place = copy.parameters().position(|(own, _)| own == name);
                    let place = place.ok_or_else(|| Error::value(format!("the copy has no parameter `{name}`")))?;
                    Ok((name.to_string(), copy.numbers(place)?))
                };
                Ok(State { steps: Vec::new(), tensors: trained.map(read).collect::<Result<_>>()? })
            }
        }
    }

    fn restore(&self, of: Stateful, state: &State) -> Result<()> {
        match of {
            Stateful::Copy { copy, .. } => Err(Error::value(format!("{copy:?} never changes"))),
            Stateful::Gradient(_) => Err(Error::value("a gradient never changes")),
            Stateful::Optimizer(moments) => locked(inside::<Mutex<Adamw>>(&moments.held)?).restore(state),
            Stateful::Model(handle) => {
                let model = Self::model(handle)?;
                let changing = || model.parameters().enumerate().filter(|(i, _)| model.changes(*i));
                for (_, (name, parameter)) in changing() {
                    state.tensor(name, parameter.len())?;
                }
                if let Some(name) = state.tensors.keys().find(|name| !changing().any(|(_, (own, _))| own == *name)) {
                    let names: Vec<&str> = changing().map(|(_, (name, _))| name).collect();
                    return Err(Error::unknown("trained parameter", name, &names));
                }
                for (i, (name, _)) in changing() {
                    model.write(i, &state.tensors[name])?;
                }
                model.bump_version();
                self.passes.release(&model);
                Ok(())
            }
        }
    }

    fn memory(&self, model: &ModelHandle, rows: &Rows) -> Result<Vec<(&'static str, u64)>> {
        match model.held().downcast_ref::<Frozen>() {
            Some(frozen) => frozen::held(frozen, rows),
            None => room::held(&*Self::model(model)?, rows, &self.settings),
        }
    }
}
