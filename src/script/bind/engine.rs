//! Sampling, scoring and optimizing in scripts.

use super::choices::{ANSWERS, CHOICES, sample_options};
use super::convert::{Answer, at, float};
use super::encode::read_prompts;
use crate::data::{Batch, ResetPrompts};
use crate::engine::{self, AdamwOptions, ForwardRequest, Gradient, Measure, ModelHandle, SampleOptions, SampleRequest};
use crate::error::{Error, Kind, Result};
use crate::model::Head;
use crate::run::{Session, Stream};
use crate::script::options::{Options, describe};
use crate::script::registry::{Doc, Registry};
use crate::tensor::Tensor;
use rhai::{Array, Dynamic, FLOAT, INT, Map, Module, NativeCallContext};
use std::cell::RefCell;
use std::rc::Rc;

/// An optimizer in a script: copies of the variable are the same optimizer.
type Optimizer = Rc<RefCell<engine::Optimizer>>;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Optimizer>("Optimizer");
    reg.global().set_custom_type::<Gradient>("Gradient");
    for name in ["to_string", "to_debug"] {
        let show = |opt: &mut Optimizer| -> Answer<String> {
            Ok(format!("Optimizer(adamw, lr {})", opt.borrow().options().lr))
        };
        reg.global().set_native_fn(name, show);
        let run = session.clone();
        let show =
            move |g: &mut Gradient| -> Answer<String> { Ok(format!("Gradient(norm {:.4})", g.norm(run.engine())?)) };
        reg.global().set_native_fn(name, show);
    }
    sampling(reg, session);
    scoring(reg, session);
    diverging(reg, session);
    measuring(reg, session);
    holding(reg, session);
    optimizing(reg, session);
    gradients(reg, session);
}

fn sampling(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "sample(model: Model, prompts: Prompts | array, options?: map) -> Batch",
        "Samples n answers to each prompt; the rows of one prompt are adjacent.",
    )
    .param("model", "Model", "trainable or frozen")
    .param(
        "prompts",
        "Prompts | array",
        "P prompts: from a task, or texts, or arrays of messages #{ role, content } for the chat template (an \
         assistant's message that stands last is continued), or maps #{ prompt, … } of either whose other keys become \
         columns; or states of rows, from reset",
    )
    .params(&CHOICES)
    .params(&ANSWERS)
    .errors(
        "An option outside its range, an unknown option, no prompts, a prompt without tokens or without room for \
         max_tokens in the model's context, messages without a chat template or that it refuses, a model whose logits \
         are not finite.",
    )
    .source("columns set: mask, old_logprob (full softmax at the temperature, nats), length, finished, text, prompt")
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = sample(model, [\"1+2=\", \"3+4=\"], #{ n: 3, max_tokens: 5 });\n\
         assert_eq(b.rows, 6);\n\
         assert_eq(b.prompt[2], \"1+2=\");\n\
         assert_eq(b.old_logprob.shape, b.mask.shape);\n\
         let b = sample(model, [[#{ role: \"user\", content: \"1+2=\" }]], #{ max_tokens: 5 });\n\
         assert_eq(b.prompt[0][0].content, \"1+2=\");",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn("sample", move |model: ModelHandle, prompts: Dynamic| -> Answer<Batch> {
            Ok(sample(&plain, &model, prompts, Dynamic::UNIT)?)
        });
        m.set_native_fn("sample", move |model: ModelHandle, prompts: Dynamic, options: Map| -> Answer<Batch> {
            Ok(sample(&session, &model, prompts, options.into())?)
        });
    });
}

fn sample(session: &Session, model: &ModelHandle, prompts: Dynamic, options: Dynamic) -> Result<Batch> {
    if let Some(states) = prompts.read_lock::<ResetPrompts>() {
        let (options, _) = sample_options("sample", options)?;
        let tokenizer = model.require_tokenizer("sample")?;
        let samples = session.sample(&ask(session, model, states.encode(model)?, &options))?;
        return states.batch(samples, options.n, tokenizer, &model.device);
    }
    let prompts = read_prompts("sample", prompts)?;
    let (options, special) = sample_options("sample", options)?;
    model.require_tokenizer("sample")?;
    let samples = session.sample(&ask(session, model, prompts.encode(model, special)?, &options))?;
    Batch::from_samples(samples, &prompts, options.n, &model.device)
}

fn ask(session: &Session, model: &ModelHandle, prompts: Vec<Vec<u32>>, options: &SampleOptions) -> SampleRequest {
    let (model, options, key) = (model.clone(), options.clone(), session.key(Stream::Sample));
    SampleRequest { call: "sample", model, prompts, places: None, options, key }
}

/// One measurement of a batch's rows.
fn measure(
    ctx: &NativeCallContext,
    session: &Session,
    model: ModelHandle,
    b: &Batch,
    measure: Measure,
) -> Result<Tensor> {
    let rows = b.require_rows(measure.name())?.clone();
    // Values and scores do not depend on it: those of any batch share one pass.
    let temperature = if measure.head() == Head::Lm { b.temperature() } else { 1.0 };
    let request = ForwardRequest { model, rows, temperature, measure };
    engine::measure(session.engine(), &request, &site(ctx))
}

fn scoring(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "logprob(model: Model, b: Batch) -> Tensor",
        "The log-probability of every completion token, [B,T] in nats; differentiable where the model is trainable.",
    )
    .param("model", "Model", "the policy, or a frozen reference")
    .param("b", "Batch", "sampled or encoded rows; the temperature is the one recorded in the batch")
    .errors(
        "A batch without tokens, a row longer than the model's context, rows that another tokenizer made, tokens that \
         the model does not know.",
    )
    .source("cells past a row's end are 0; differentiating it after a step of its model is an error")
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = sample(model, [\"1+2=\"], #{ n: 2, max_tokens: 4 });\n\
         assert_close(token_mean(exp(logprob(model, b) - b.old_logprob), b.mask), 1.0);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("logprob", move |ctx: NativeCallContext, model: ModelHandle, b: Batch| -> Answer<Tensor> {
            Ok(measure(&ctx, &run, model, &b, Measure::Logprob)?)
        });
    });
    let doc = Doc::new(
        "entropy(model: Model, b: Batch) -> Tensor",
        "The entropy of the model's distribution at every completion token, [B,T] in nats; differentiable like logprob.",
    )
    .param("model", "Model", "the policy, or a frozen reference")
    .param("b", "Batch", "as for logprob; both share one forward and one backward pass")
    .errors("As logprob.")
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = encode(model, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         let h = token_mean(entropy(model, b), b.mask);\n\
         assert(h.item() > 0.0);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("entropy", move |ctx: NativeCallContext, model: ModelHandle, b: Batch| -> Answer<Tensor> {
            Ok(measure(&ctx, &run, model, &b, Measure::Entropy)?)
        });
    });
}

fn diverging(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "kl::full(policy: Model, ref: Model, b: Batch) -> Tensor",
        "KL(policy ‖ ref) at every completion token, exact over the vocabulary, [B,T] in nats; differentiable in the policy.",
    )
    .param("policy", "Model", "trainable or frozen")
    .param("ref", "Model", "the reference, with a vocabulary of the same size; constant, even where it is trainable")
    .param("b", "Batch", "sampled or encoded rows; both distributions are at the temperature recorded in the batch")
    .errors(
        "Vocabularies of different sizes, a model without a language-model head; otherwise as logprob. Differentiating \
         it after a step of either model.",
    )
    .source(
        "Σ_v π(v)·(log π(v) - log ref(v)); shares the policy's forward and backward pass with logprob and entropy of the \
         same batch; cells past a row's end are 0",
    )
    .example(
        "let policy = load_model(\"tiny\");\nlet base = policy.frozen();\n\
         let b = encode(policy, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         assert_eq(token_mean(kl::full(policy, base, b), b.mask).item(), 0.0);\n\
         adamw(policy, #{ lr: 1e-3 }).step(-token_mean(logprob(policy, b), b.mask));\n\
         let apart = token_mean(kl::full(policy, base, b), b.mask);\n\
         assert(apart.item() > 0.0);\n\
         assert(gradient(apart, policy).norm() > 0.0);",
    );
    let run = session.clone();
    reg.add_to("kl", doc, |m| {
        m.set_native_fn(
            "full",
            move |ctx: NativeCallContext, policy: ModelHandle, reference: ModelHandle, b: Batch| -> Answer<Tensor> {
                measure(&ctx, &run, policy, &b, Measure::Kl { reference }).map_err(|e| at(&ctx, e))
            },
        );
    });
}

fn measuring(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "value(model: Model, b: Batch) -> Tensor",
        "The value of the state before every completion token, [B,T]; differentiable where the model is trainable.",
    )
    .param("model", "Model", "loaded with the head `value`")
    .param("b", "Batch", "sampled or encoded rows")
    .errors("A model without a value head; otherwise as logprob.")
    .source("column t is what is expected before token t is chosen; cells past a row's end are 0")
    .example(
        "let critic = load_model(\"tiny\", #{ head: \"value\" });\n\
         let b = encode(critic, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         let opt = adamw(critic, #{ lr: 1e-5 });\n\
         let first = opt.step(token_mean(square(value(critic, b) - 1), b.mask)).loss;\n\
         assert(token_mean(square(value(critic, b) - 1), b.mask).item() < first);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("value", move |ctx: NativeCallContext, model: ModelHandle, b: Batch| -> Answer<Tensor> {
            Ok(measure(&ctx, &run, model, &b, Measure::Value)?)
        });
    });
    let doc = Doc::new(
        "score(model: Model, b: Batch) -> Tensor",
        "The score of every row, read at its last token, [B,1]; differentiable where the model is trainable.",
    )
    .param("model", "Model", "loaded with the head `score`, or a sequence-classification model of one label")
    .param("b", "Batch", "sampled or encoded rows; the end token counts where the row has one")
    .errors("A model without a score head; otherwise as logprob.")
    .example(
        "let judge = load_model(\"tiny\", #{ head: \"score\" });\n\
         let b = encode(judge, [#{ prompt: \"1+2=\", completion: \"3\" }, #{ prompt: \"1+2=\", completion: \"4\" }]);\n\
         assert_eq(score(judge, b).shape, [2, 1]);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("score", move |ctx: NativeCallContext, model: ModelHandle, b: Batch| -> Answer<Tensor> {
            Ok(measure(&ctx, &run, model, &b, Measure::Score)?)
        });
    });
}

fn holding(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "memory(model: Model, b: Batch) -> map",
        "Bytes that a step on this batch holds: #{ weights, packed, gradients, moments, activations }.",
    )
    .param("model", "Model", "trainable or frozen; a frozen one holds weights only")
    .param("b", "Batch", "sampled or encoded rows")
    .errors("A batch without tokens, or rows that the model cannot take.")
    .source("told from the configuration and the rows; `packed`: copies of the weights in the order that products read them")
    .example(
        "let all = load_model(\"tiny\");\nlet lora = load_model(\"tiny\", #{ lora: #{ rank: 2 } });\n\
         let b = encode(all, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         assert(memory(lora, b).gradients < memory(all, b).gradients / 10);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("memory", move |model: ModelHandle, b: Batch| -> Answer<Map> {
            let held = run.engine().memory(&model, b.require_rows("memory")?)?;
            Ok(held.into_iter().map(|(name, bytes)| (name.into(), (bytes as INT).into())).collect())
        });
    });
}

/// The place of a call, for errors that send the reader back to it.
fn site(ctx: &NativeCallContext) -> String {
    let line = ctx.call_position().line().map_or("?".into(), |line| line.to_string());
    match ctx.call_source() {
        Some(source) => format!("{source}:{line}"),
        None => format!("line {line}"),
    }
}

fn optimizing(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "adamw(models: Model | array, options?: map) -> Optimizer",
        "AdamW over one model or several: gradients clipped by their joint norm, weight decay decoupled and on every parameter.",
    )
    .param("models", "Model | array of Model", "what steps may change")
    .param("lr", "float", "learning rate; 1e-3 unless given; `opt.lr = x` changes it")
    .param("betas", "array of two float", "decay of the two moments; [0.9, 0.999] unless given")
    .param("eps", "float", "1e-8 unless given")
    .param("weight_decay", "float", "per step and unit of lr; 0 unless given")
    .param("max_norm", "float", "largest joint norm of the gradients; 1.0 unless given")
    .errors("A frozen model, no model, a number outside its range, an unknown option.")
    .source("Loshchilov & Hutter 2017, arXiv:1711.05101")
    .example(
        "let model = load_model(\"tiny\");\n\
         let opt = adamw(model, #{ lr: 1e-4, weight_decay: 0.01 });\n\
         opt.lr = opt.lr / 2;\n\
         assert_close(opt.lr, 5e-5);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        let plain = run.clone();
        m.set_native_fn("adamw", move |models: Dynamic| -> Answer<Optimizer> {
            Ok(adamw(&plain, models, Dynamic::UNIT)?)
        });
        let run = run.clone();
        m.set_native_fn("adamw", move |models: Dynamic, options: Map| -> Answer<Optimizer> {
            Ok(adamw(&run, models, options.into())?)
        });
        rate(m);
    });
    let doc = Doc::named(
        "step",
        "opt.step(loss: Tensor) -> map",
        "Differentiates the loss, clips, updates; returns #{ loss, grad_norm }, the norm before clipping.",
    )
    .param("loss", "[]", "one number, computed from logprob, entropy, value or score of models that this optimizer owns")
    .errors(
        "A loss that is NaN or infinite, that depends on no model, on weights older than the last step, or on a \
         trainable model that this optimizer does not own; a gradient that is missing or not finite. Nothing changes then.",
    )
    .example(
        "let model = load_model(\"tiny\");\n\
         let opt = adamw(model, #{ lr: 1e-3 });\n\
         let b = encode(model, [#{ prompt: \"1+2=\", completion: \"7\" }]);\n\
         let before = opt.step(-token_mean(logprob(model, b), b.mask)).loss;\n\
         let after = opt.step(-token_mean(logprob(model, b), b.mask)).loss;\n\
         assert(after < before);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("step", move |opt: &mut Optimizer, loss: Tensor| -> Answer<Map> {
            let stats = opt.borrow_mut().step(run.engine(), &loss).map_err(|e| explain(e, &run))?;
            if let Some(open) = run.run() {
                opt.borrow().models().iter().for_each(|model| open.remember(model));
            }
            Ok(Map::from([("loss".into(), stats.loss.into()), ("grad_norm".into(), stats.grad_norm.into())]))
        });
    });
}

fn adamw(session: &Session, models: Dynamic, options: Dynamic) -> Result<Optimizer> {
    let models = match models.clone().try_cast::<Array>() {
        Some(models) => models.into_iter().map(model).collect::<Result<Vec<_>>>()?,
        None => vec![model(models)?],
    };
    let mut o = Options::new("adamw", options)?;
    let base = AdamwOptions::default();
    let betas = match o.floats("betas")?.as_deref() {
        None => base.betas,
        Some(&[a, b]) => (a, b),
        Some(other) => return Err(Error::value(format!("adamw: betas must be two numbers, found {}", other.len()))),
    };
    let options = AdamwOptions {
        lr: o.float("lr")?.unwrap_or(base.lr),
        betas,
        eps: o.float("eps")?.unwrap_or(base.eps),
        weight_decay: o.float("weight_decay")?.unwrap_or(base.weight_decay),
        max_norm: o.float("max_norm")?.unwrap_or(base.max_norm),
    };
    o.finish()?;
    Ok(Rc::new(RefCell::new(engine::Optimizer::adamw(session.engine(), &models, options)?)))
}

fn model(value: Dynamic) -> Result<ModelHandle> {
    let found = describe(&value);
    value.try_cast().ok_or_else(|| {
        Error::value(format!("adamw: expected a model or an array of models, found {found}"))
            .hint("adamw(policy, #{ lr: 1e-4 })")
    })
}

fn rate(m: &mut Module) {
    m.set_getter_fn("lr", |opt: &mut Optimizer| -> Answer<FLOAT> { Ok(opt.borrow().options().lr) });
    m.set_setter_fn("lr", |opt: &mut Optimizer, lr: Dynamic| -> Answer<()> {
        let lr = float("opt.lr", "the learning rate", &lr)?;
        Ok(opt.borrow_mut().set_lr(lr)?)
    });
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

fn gradients(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "gradient(loss: Tensor, model: Model) -> Gradient",
        "∂loss/∂parameters of a model, to look at; changes nothing, so that a step may follow.",
    )
    .param("loss", "[]", "one number, computed from logprob or entropy of the model")
    .param("model", "Model", "trainable")
    .errors("As opt.step, and a loss that does not depend on this model.")
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = encode(model, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         let logp = logprob(model, b);\n\
         let g = gradient(-token_mean(logp, b.mask), model);\n\
         let h = gradient(-seq_mean(logp, b.mask), model);\n\
         assert_close(g.cos(h), 1.0);\n\
         assert_close(g.dot(g), g.norm() * g.norm());",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("gradient", move |loss: Tensor, model: ModelHandle| -> Answer<Gradient> {
            Ok(engine::gradient(run.engine(), &loss, &model)?)
        });
    });
    let doc = Doc::named("norm", "g.norm() -> float", "The length of a gradient over all parameters.").example(
        "let model = load_model(\"tiny\");\n\
         let b = encode(model, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         assert(gradient(token_mean(logprob(model, b), b.mask), model).norm() > 0.0);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("norm", move |g: &mut Gradient| -> Answer<FLOAT> { Ok(g.norm(run.engine())?) });
    });
    let doc = Doc::named("dot", "g.dot(h: Gradient) -> float", "The inner product of two gradients of one model.")
        .param("h", "Gradient", "of the same model")
        .errors("Gradients of different models.")
        .example(
            "let model = load_model(\"tiny\");\n\
             let b = encode(model, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
             let g = gradient(token_mean(logprob(model, b), b.mask), model);\n\
             assert(g.dot(g) > 0.0);",
        );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("dot", move |g: &mut Gradient, h: Gradient| -> Answer<FLOAT> { Ok(g.dot(&h, run.engine())?) });
    });
    let doc = Doc::named(
        "cos",
        "g.cos(h: Gradient) -> float",
        "The cosine of the angle between two gradients of one model; 0 where one of them is zero.",
    )
    .param("h", "Gradient", "of the same model")
    .errors("Gradients of different models.")
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = encode(model, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         let logp = logprob(model, b);\n\
         let g = gradient(token_mean(logp, b.mask), model);\n\
         assert_close(g.cos(gradient(-2 * token_mean(logp, b.mask), model)), -1.0);",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("cos", move |g: &mut Gradient, h: Gradient| -> Answer<FLOAT> { Ok(g.cos(&h, run.engine())?) });
    });
}
