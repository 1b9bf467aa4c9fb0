//! AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101): decoupled weight decay on every parameter, gradients clipped
//! by their joint norm, f32 moments that can be saved. Its rule for one parameter is `kernel::adamw`'s.

use super::gradient::ModelGrads;
use crate::engine::request::AdamwOptions;
use crate::engine::state::State;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Array, DType, Place};
use crate::kernel::adamw::{Rule, Update};
use crate::kernel::awake::awake;
use crate::kernel::device::adamw::Step;
use crate::kernel::form::Routine;
use crate::kernel::value::Value;
use crate::model::{Arena, Model};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// What AdamW remembers of some models: the inside of a `Moments` handle.
pub struct Adamw {
    models: Vec<Arc<Model>>,
    /// First and second moments by (model's place, parameter's name), made at the first update.
    moments: BTreeMap<(usize, String), [Value; 2]>,
    /// Of models on a device, by their place: the arrays that these moments lie in.
    arenas: BTreeMap<usize, [Array; 2]>,
    /// Updates of each model so far: what the bias correction counts.
    steps: Vec<u64>,
}

const MOMENTS: [&str; 2] = ["first", "second"];

impl Adamw {
    pub(super) fn new(models: Vec<Arc<Model>>) -> Self {
        Self { steps: vec![0; models.len()], models, moments: BTreeMap::new(), arenas: BTreeMap::new() }
    }

    /// Clips the gradients jointly and updates their models; returns the norm before.
    pub(super) fn step(&mut self, grads: &[&ModelGrads], options: &AdamwOptions) -> Result<f64> {
        let places = grads.iter().map(|m| self.place(m)).collect::<Result<Vec<_>>>()?;
        let mut sum = 0.0;
        for m in grads {
            m.squares.values().for_each(|square| sum += square);
        }
        let norm = sum.sqrt();
        let scale = (options.max_norm / (norm + 1e-6)).min(1.0);
        for (m, place) in grads.iter().zip(places) {
            self.steps[place] += 1;
            let rule = rule(options, self.steps[place], scale);
            self.update(place, m, &rule)?;
        }
        Ok(norm)
    }

    fn place(&self, m: &ModelGrads) -> Result<usize> {
        self.models.iter().position(|own| own.id == m.model.id).ok_or_else(|| {
            Error::new(
                Kind::Internal,
                format!("a step of the model {}, which the optimizer does not own", m.model.name),
            )
        })
    }

    fn update(&mut self, place: usize, m: &ModelGrads, rule: &Rule) -> Result<()> {
        match (m.model.arena(), m.grads.arena()) {
            (Some(weights), Some(grad)) => self.update_arena(place, weights, grad, rule)?,
            _ => awake(m.model.place(), || self.update_each(place, m, rule))?,
        }
        m.model.bump_version();
        Ok(())
    }

    /// All parameters of a model on a device at once.
    fn update_arena(&mut self, place: usize, weights: &Arena, grad: &Array, rule: &Rule) -> Result<()> {
        if let Entry::Vacant(room) = self.arenas.entry(place) {
            let made = ArenaMoments::new(&self.models[place], weights)?;
            room.insert(made.all);
            self.moments.extend(made.each.into_iter().map(|(name, each)| ((place, name), each)));
        }
        let [first, second] = &self.arenas[&place];
        Step { rule, parameters: &weights.master, grad, first, second, copy: weights.working.as_ref() }.run()
    }

    fn update_each(&mut self, place: usize, m: &ModelGrads, rule: &Rule) -> Result<()> {
        for (i, (name, parameter)) in m.model.parameters().enumerate() {
            let Some(grad) = m.grads.get(i) else { continue };
            let key = (place, name.to_string());
            if !self.moments.contains_key(&key) {
                self.moments.insert(key.clone(), [parameter.zeros_like()?, parameter.zeros_like()?]);
            }
            let [first, second] = &self.moments[&key];
            Update { rule, parameter, grad, first, second }.run()?;
        }
        Ok(())
    }

    /// The state, to be saved.
    pub(super) fn state(&self) -> Result<State> {
        let named = self.moments.iter().flat_map(|((place, name), moments)| {
            let name = move |moment| format!("{place}/{moment}/{name}");
            MOMENTS.iter().map(name).zip(moments)
        });
        let (names, values): (Vec<String>, Vec<&Value>) = named.unzip();
        let tensors = names.into_iter().zip(Value::all_to_vec(&values)?).collect();
        Ok(State { steps: self.steps.clone(), tensors })
    }

    /// Goes on from a saved state of an optimizer of the same models.
    ///
    /// # Errors
    /// A state of another number of models, or of other parameters than these have. Nothing is changed then.
    pub(super) fn restore(&mut self, state: &State) -> Result<()> {
        if state.steps.len() != self.models.len() {
            let (found, own) = (state.steps.len(), self.models.len());
            return Err(Error::value(format!(
                "the optimizer state is of {found} models, but this optimizer owns {own}"
            )));
        }
        let mut moments: BTreeMap<(usize, String), [Value; 2]> = BTreeMap::new();
        let mut arenas: BTreeMap<usize, [Array; 2]> = BTreeMap::new();
        for key in state.tensors.keys().filter(|key| key.contains("/first/")) {
            let (place, name) = key.split_once("/first/").expect("the filter looked for it");
            let place = place.parse().ok().filter(|&place: &usize| place < self.models.len());
            let place = place.ok_or_else(|| Error::value(format!("the optimizer state holds no model at `{key}`")))?;
            let parameter = self.models[place].parameter(name)?;
            let stored = |moment: &str| state.tensor(&format!("{place}/{moment}/{name}"), parameter.len());
            let values = [stored(MOMENTS[0])?, stored(MOMENTS[1])?];
            let Some(weights) = self.models[place].arena() else {
                let load = |values| Value::at(&Place::Host, "moments", values, parameter.dims());
                moments.insert((place, name.to_string()), [load(values[0])?, load(values[1])?]);
                continue;
            };
            if let Entry::Vacant(room) = arenas.entry(place) {
                let made = ArenaMoments::new(&self.models[place], weights)?;
                room.insert(made.all);
                moments.extend(made.each.into_iter().map(|(name, each)| ((place, name), each)));
            }
            let views = moments.get(&(place, name.to_string()));
            let views = views.ok_or_else(|| {
                Error::value(format!("the optimizer state has moments of `{name}`, which is not trained"))
            })?;
            for (view, values) in views.iter().zip(values) {
                view.array()?.gpu().write(view.array()?, values)?;
            }
        }
        (self.steps, self.moments, self.arenas) = (state.steps.clone(), moments, arenas);
        Ok(())
    }
}

/// Moments of a model's weights on a device, zero at first.
struct ArenaMoments {
    /// First and second, of all weights.
    all: [Array; 2],
    /// Each weight's by its name, within them.
    each: Vec<(String, [Value; 2])>,
}

impl ArenaMoments {
    fn new(model: &Model, weights: &Arena) -> Result<Self> {
        let zeros = || weights.master.gpu().zeros("moments", DType::F32, weights.master.dims());
        let all = [zeros()?, zeros()?];
        let mut each = Vec::new();
        for (i, (name, parameter)) in model.parameters().enumerate() {
            let Some(&at) = weights.layout.offsets.get(&i) else { continue };
            let view = |all: &Array| -> Result<Value> { Ok(all.view(at, parameter.dims())?.into()) };
            each.push((name.to_string(), [view(&all[0])?, view(&all[1])?]));
        }
        Ok(Self { all, each })
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
