//! Frozen models in scripts: judges, rewards by prompt, simulated users.

use super::choices::{ANSWERS, CHOICES, sample_options};
use super::convert::Answer;
use super::encode::read_prompts;
use crate::data::Batch;
use crate::engine::{self, ForwardRequest, Measure, ModelHandle, OpenRequest, SampleRequest};
use crate::error::Result;
use crate::run::device;
use crate::run::{Session, Stream};
use crate::script::options::Options;
use crate::script::registry::{Doc, Registry};
use crate::tensor::Tensor;
use rhai::{Dynamic, Map};
use std::path::Path;
use std::rc::Rc;

/// A model that only answers and scores; a type of its own, so that scripts cannot train it.
#[derive(Clone)]
pub struct Frozen(pub ModelHandle);

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Frozen>("Frozen");
    for name in ["to_string", "to_debug"] {
        reg.global().set_native_fn(name, |model: &mut Frozen| -> Answer<String> { Ok(model.0.to_string()) });
    }
    load(reg, session);
    answers(reg, session);
    scores(reg, session);
}

fn load(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "load_frozen(path: string, options?: map) -> Frozen",
        "Opens a GGUF file as a judge, a reward or a simulated user: it answers and scores, and is never trained.",
    )
    .param("path", "string", "a GGUF file of the architecture llama, qwen2 or qwen3, or a folder that holds one")
    .param("tokenizer", "string", "a tokenizer.json or its folder; else the one beside the file, else the file's own")
    .param("device", "string", "cpu, cuda or cuda:N; the run's device unless given")
    .errors(
        "A file that is no GGUF file or is cut short; an architecture, feature or format that is not supported; a \
         missing key or tensor; a tokenizer that cannot be made from the metadata, or that belongs to another model.",
    )
    .source("weights stay quantised; activations are f32, and are rounded to 8 bits in products with quantised weights")
    .example(
        "let judge = ();\n\
         try { judge = load_frozen(\"judge.gguf\"); } catch (e) { assert(e.to_string().contains(\"judge.gguf\")); }\n\
         // let verdicts = generate(judge, [\"Is 12 + 30 = 42? Answer yes or no:\"], #{ max_tokens: 4, greedy: true });\n\
         assert(judge == ());",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn("load_frozen", move |path: &str| -> Answer<Frozen> { Ok(open(&plain, path, Dynamic::UNIT)?) });
        m.set_native_fn("load_frozen", move |path: &str, options: Map| -> Answer<Frozen> {
            Ok(open(&session, path, options.into())?)
        });
    });
}

fn open(session: &Session, path: &str, options: Dynamic) -> Result<Frozen> {
    let mut options = Options::new("load_frozen", options)?;
    let tokenizer = options.string("tokenizer")?;
    let place = options.string("device")?;
    options.finish()?;
    let place = place.map_or(Ok(session.device()), |name| device::parse(&name))?;
    for path in std::iter::once(path).chain(tokenizer.as_deref()) {
        session.access().read(Path::new(path))?;
    }
    let (path, tokenizer) = (path.into(), tokenizer.map(Into::into));
    Ok(Frozen(session.engine().open(&OpenRequest::Gguf { path, tokenizer, device: place })?))
}

fn answers(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "generate(model: Frozen, prompts: Prompts | array, options?: map) -> Batch",
        "A frozen model's answers to prompts, as `sample` gives a policy's: n adjacent rows for each prompt.",
    )
    .param("model", "Frozen", "from load_frozen")
    .param("prompts", "Prompts | array", "as for `sample`: texts, dialogues (rendered by the file's chat template), or maps; a judge's are made from answers")
    .params(&CHOICES)
    .params(&ANSWERS)
    .errors("As `sample`.")
    .source("random numbers are of a stream of their own: asking a judge never changes what a policy samples")
    .example(
        "fn verdict(judge, question, answer) {\n\
         \x20   let asked = generate(judge, [`${question}\\nAnswer: ${answer}\\nCorrect (yes or no):`], #{ max_tokens: 4, greedy: true });\n\
         \x20   asked.text[0].contains(\"yes\")\n\
         }\n\
         try { verdict(load_frozen(\"judge.gguf\"), \"12 + 30?\", \"42\"); } catch (e) { assert(e.to_string().len() > 0); }",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn("generate", move |model: Frozen, prompts: Dynamic| -> Answer<Batch> {
            Ok(generate(&plain, &model, prompts, Dynamic::UNIT)?)
        });
        m.set_native_fn("generate", move |model: Frozen, prompts: Dynamic, options: Map| -> Answer<Batch> {
            Ok(generate(&session, &model, prompts, options.into())?)
        });
    });
}

fn generate(session: &Session, Frozen(model): &Frozen, prompts: Dynamic, options: Dynamic) -> Result<Batch> {
    let prompts = read_prompts("generate", prompts)?;
    let (options, special) = sample_options("generate", options)?;
    let (n, ids, key) = (options.n, prompts.encode(model, special)?, session.key(Stream::Generate));
    let request = SampleRequest { call: "generate", model: model.clone(), prompts: ids, places: None, options, key };
    Batch::from_samples(session.engine().sample(&request)?, &prompts, n, &model.device)
}

fn scores(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "logprob (frozen)",
        "logprob(model: Frozen, b: Batch) -> Tensor",
        "The log-probability of every completion token under a frozen model, [B,T] in nats, without a gradient.",
    )
    .param("model", "Frozen", "from load_frozen")
    .param("b", "Batch", "rows in the frozen model's own tokens; the temperature is the one recorded in the batch")
    .errors("A batch without tokens, a row longer than the model's context, tokens outside its vocabulary.")
    .source("cells past a row's end are 0")
    .example(
        "let b = encode_ids([[5], [6, 7]], [[1, 2], [3]]);\n\
         try { logprob(load_frozen(\"reference.gguf\"), b); } catch (e) { assert(e.to_string().len() > 0); }",
    );
    let run = session.clone();
    reg.add(doc, |m| {
        m.set_native_fn("logprob", move |model: Frozen, b: Batch| -> Answer<Tensor> {
            let (rows, temperature) = (b.require_rows("logprob")?.clone(), b.temperature());
            let request = ForwardRequest { model: model.0, rows, temperature, measure: Measure::Logprob };
            Ok(engine::measure(run.engine(), &request, "")?)
        });
    });
}
