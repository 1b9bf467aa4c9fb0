//! Sampling, scoring and optimizing in scripts.

use super::choices::Answering;
use super::encode::{AnyPrompts, Asked};
use super::likelihood;
use super::mixture::{self, Mixture};
use super::model::AnyModel;
use crate::data::Batch;
use crate::engine::{
    self, AdamwOptions, Divergence, ForwardRequest, Gradient, Measure, ModelHandle, SampleOptions, SampleRequest,
};
use crate::error::{Error, Kind, Result};
use crate::model::Head;
use crate::run::{Session, Stream};
use crate::script::lang::native::{
    Call, FromScript, Handle, IntoScript, Number, OptionValue, Options, Place, Registry, Typed, number, options,
};
use crate::script::lang::value::describe;
use crate::tensor::Device;
use crate::tensor::Tensor;
use rhai::{Array, Dynamic, Map};
use std::cell::RefCell;
use std::rc::Rc;

/// An optimizer in a script: copies of the variable are the same optimizer.
type Optimizer = Rc<RefCell<engine::Optimizer>>;

impl Handle for Optimizer {
    const NAME: &'static str = "Optimizer";
    const RECEIVER: &'static str = "opt";
}

impl Handle for Gradient {
    const NAME: &'static str = "Gradient";
    const RECEIVER: &'static str = "g";
}

pub fn register(reg: &mut Registry) {
    reg.handle::<Optimizer>(|opt| format!("Optimizer(adamw, lr {})", opt.borrow().options().lr));
    reg.handle_in_session::<Gradient>(|session, g| match g.norm(session.engine()) {
        Ok(norm) => format!("Gradient(norm {norm:.4})"),
        Err(_) => "Gradient".into(),
    });
    reg.function(
        "sample",
        ["model", "prompts", "options"],
        |call: &Call, AnyModel(model): AnyModel, prompts: Asked, Options(options): Options<Answering>| {
            sample(call.session, &model, &prompts.0, options)
        },
    );
    reg.form(
        ["model", "prompts", "options"],
        |call: &Call, model: Mixture, prompts: Asked, Options(options): Options<Answering>| {
            mixture::sample(call.session, &model, &prompts.0, options)
        },
    );
    mixture::register(reg);
    measuring(reg);
    optimizing(reg);
    gradients(reg);
}

fn sample(session: &Session, model: &ModelHandle, prompts: &AnyPrompts, options: Answering) -> Result<Batch> {
    let special = options.special;
    let options = SampleOptions::from(options);
    let tokenizer = model.require_tokenizer("sample")?;
    let ids = match prompts {
        AnyPrompts::Fresh(prompts) => {
            prompts.measure_origin(model, options.max_tokens, special)?;
            prompts.encode(model, special)?
        }
        AnyPrompts::Reset(states) => states.encode(model)?,
    };
    let (n, key) = (options.n, session.key(Stream::Sample));
    let request = SampleRequest { call: "sample", model: model.clone(), prompts: ids, places: None, options, key };
    let samples = session.sample(&request)?;
    match prompts {
        AnyPrompts::Fresh(prompts) => Batch::from_samples(samples, prompts, n, &Device::Cpu),
        AnyPrompts::Reset(states) => states.batch(samples, n, tokenizer, &Device::Cpu),
    }
}

/// One measurement of a batch's rows.
fn measure(call: &Call<'_>, model: ModelHandle, b: &Batch, measure: Measure) -> Result<Tensor> {
    let rows = b.require_rows(measure.name())?.clone();
    // Values and scores do not depend on it: those of any batch share one pass, or that of the log-probs.
    let temperature = if model.head.has(Head::Lm) { b.temperature() } else { 1.0 };
    let request = ForwardRequest { model, rows, temperature, measure };
    engine::measure(call.session.engine(), &request, &call.site())
}

fn measuring(reg: &mut Registry) {
    reg.function("logprob", ["model", "b"], |call: &Call, AnyModel(model): AnyModel, b: Batch| {
        measure(call, model, &b, Measure::Logprob)
    });
    likelihood::register(reg);
    reg.function("entropy", ["model", "b"], |call: &Call, AnyModel(model): AnyModel, b: Batch| {
        measure(call, model, &b, Measure::Entropy)
    });
    divergences(reg);
    reg.function("rank", ["model", "b"], |call: &Call, AnyModel(model): AnyModel, b: Batch| {
        measure(call, model, &b, Measure::Rank)
    });
    reg.function("value", ["model", "b"], |call: &Call, model: ModelHandle, b: Batch| {
        measure(call, model, &b, Measure::Value)
    });
    reg.function("score", ["model", "b"], |call: &Call, model: ModelHandle, b: Batch| {
        measure(call, model, &b, Measure::Score)
    });
    reg.function("memory", ["model", "b"], |call: &Call, AnyModel(model): AnyModel, b: Batch| memory(call, &model, &b));
}

options! {
    struct Reading {
        /// b.under(prompts): the reference reads the same completions after those prompts
        under: Option<Batch>,
    }
}

fn divergences(reg: &mut Registry) {
    for (name, of) in [("kl::full", Divergence::Full), ("kl::forward", Divergence::Forward)] {
        reg.function(
            name,
            ["policy", "ref", "b", "options"],
            move |call: &Call, policy: ModelHandle, reference: ModelHandle, b: Batch, options: Options<Reading>| {
                diverge(call, of, [policy, reference], &b, options)
            },
        );
    }
    reg.function(
        "kl::jsd",
        ["policy", "ref", "b", "beta", "options"],
        |call: &Call,
         policy: ModelHandle,
         reference: ModelHandle,
         b: Batch,
         beta: Number,
         options: Options<Reading>| {
            if !(0.0..=1.0).contains(&beta.0) {
                return Err(Error::value(format!("kl::jsd: beta must be in [0, 1], found {}", beta.0))
                    .hint("0 is kl::forward(policy, ref, b), 1 is kl::full(policy, ref, b)"));
            }
            diverge(call, Divergence::jsd(beta.0), [policy, reference], &b, options)
        },
    );
}

fn diverge(
    call: &Call<'_>,
    of: Divergence,
    [policy, reference]: [ModelHandle; 2],
    b: &Batch,
    Options(Reading { under }): Options<Reading>,
) -> Result<Tensor> {
    let under = under.map(|b| b.require_rows(call.function).cloned()).transpose()?;
    measure(call, policy, b, Measure::Divergence { of, reference, under })
}

/// Bytes by what holds them.
fn memory(call: &Call<'_>, model: &ModelHandle, b: &Batch) -> Result<Map> {
    let held = call.session.engine().memory(model, b.require_rows("memory")?)?;
    Ok(held.into_iter().map(|(name, bytes)| (name.into(), (bytes as usize).write())).collect())
}

fn optimizing(reg: &mut Registry) {
    reg.function(
        "adamw",
        ["models", "options"],
        |call: &Call, models: Models, Options(options): Options<Adam>| -> Result<Optimizer> {
            Ok(Rc::new(RefCell::new(engine::Optimizer::adamw(call.session.engine(), &models.0, options.into())?)))
        },
    );
    reg.property("lr", |opt: &mut Optimizer| opt.borrow().options().lr);
    reg.setter("lr", |opt: &mut Optimizer, lr: Number| opt.borrow_mut().set_lr(lr.0));
    reg.function("step", ["loss"], |call: &Call, opt: &mut Optimizer, loss: Tensor| -> Result<Map> {
        let stats = opt.borrow_mut().step(call.session.engine(), &loss).map_err(|e| explain(e, call.session))?;
        if let Some(open) = call.session.run() {
            opt.borrow().models().iter().for_each(|model| open.remember(model));
        }
        Ok(Map::from([("loss".into(), stats.loss.into()), ("grad_norm".into(), stats.grad_norm.into())]))
    });
}

/// What a step may change.
struct Models(Vec<ModelHandle>);

impl Typed for Models {
    const TYPE: &'static str = "Model | array";
}

impl FromScript for Models {
    fn read(value: Dynamic, _: Place<'_>) -> Result<Self> {
        match value.try_cast_result::<Array>() {
            Ok(models) => models.into_iter().map(model).collect::<Result<_>>().map(Self),
            Err(value) => Ok(Self(vec![model(value)?])),
        }
    }
}

fn model(value: Dynamic) -> Result<ModelHandle> {
    value.try_cast_result().map_err(|value| {
        Error::value(format!("adamw: expected a model or an array of models, found {}", describe(&value)))
            .hint("adamw(policy, #{ lr: 1e-4 })")
    })
}

options! {
    struct Adam {
        /// learning rate; `opt.lr = x` changes it
        lr: f64 = AdamwOptions::default().lr,
        /// decay of the two moments
        betas: Betas = Betas(AdamwOptions::default().betas),
        /// keeps the division by the second moment finite
        eps: f64 = AdamwOptions::default().eps,
        /// per step and unit of lr
        weight_decay: f64 = AdamwOptions::default().weight_decay,
        /// largest joint norm of the gradients
        max_norm: f64 = AdamwOptions::default().max_norm,
    }
}

impl From<Adam> for AdamwOptions {
    fn from(Adam { lr, betas, eps, weight_decay, max_norm }: Adam) -> Self {
        Self { lr, betas: betas.0, eps, weight_decay, max_norm }
    }
}

/// Of the first moment and of the second.
#[derive(Debug, Clone, Copy)]
struct Betas((f64, f64));

impl OptionValue for Betas {
    const TYPE: &'static str = "array of two float";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let numbers = value.as_array_ref().ok().and_then(|list| list.iter().map(number).collect::<Option<Vec<_>>>());
        match numbers.as_deref() {
            Some(&[a, b]) => Ok(Self((a, b))),
            Some(other) => {
                let (function, name, found) = (place.function, place.name, other.len());
                Err(Error::value(format!("`{function}`: option `{name}` must be two numbers, found {found}")))
            }
            None => Err(place.refused("an array of two numbers", &value)),
        }
    }

    fn written(&self) -> String {
        format!("[{}, {}]", self.0.0, self.0.1)
    }
}

/// Says at which step a loss stopped being finite, and which column was the first to hold such a number.
fn explain(e: Error, session: &Session) -> Error {
    if e.kind != Kind::NotFinite {
        return e;
    }
    let what = format!("{} at step {}", e.what, session.step());
    if let Some(hint) = e.hint {
        return Error::new(e.kind, what).hint(hint);
    }
    match session.suspect() {
        Some(suspect) => Error::new(e.kind, what).hint(format!(
            "the column `{}` was the first to hold {} (row {}, set at step {})",
            suspect.column, suspect.value, suspect.row, suspect.step
        )),
        None => Error::new(e.kind, what)
            .hint("every column is finite, so the loss itself made it: look for 0/0, log(0) or exp of a large number"),
    }
}

fn gradients(reg: &mut Registry) {
    reg.function("gradient", ["loss", "model"], |call: &Call, loss: Tensor, model: ModelHandle| {
        engine::gradient(call.session.engine(), &loss, &model)
    });
    reg.function("norm", [], |call: &Call, g: &mut Gradient| g.norm(call.session.engine()));
    reg.function("dot", ["h"], |call: &Call, g: &mut Gradient, h: Gradient| g.dot(&h, call.session.engine()));
    reg.function("cos", ["h"], |call: &Call, g: &mut Gradient, h: Gradient| g.cos(&h, call.session.engine()));
}
