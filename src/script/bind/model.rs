//! Models in scripts: loading, freezing, saving.

use super::convert::Answer;
use crate::error::Result;
use crate::model::{Model, SaveDtype};
use crate::run::device;
use crate::run::{Session, Stream};
use crate::script::options::Options;
use crate::script::registry::{Doc, Registry};
use rhai::{Dynamic, Map};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<Arc<Model>>("Model");
    load(reg, session);
    handles(reg);
}

fn load(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "load_model(name: string, options?: map) -> Model",
        "Opens a built-in model or a folder in the Hugging Face layout, ready to be trained.",
    )
    .param("name", "string", "a built-in model (`rhopo list` shows them) or a folder with config.json, model.safetensors and tokenizer.json")
    .param("random", "bool", "random weights instead of the trained ones; they follow the run's seed; false unless given")
    .param("device", "string", "cpu, cuda or cuda:N; the run's device unless given")
    .param("dtype", "string", "the type the weights are trained in; f32, the only one")
    .errors(
        "A name that is neither; an architecture or feature that is not supported; a tensor that is missing, \
         unexpected, cut short, of another shape or not finite; a tokenizer with more tokens than the embedding.",
    )
    .example(
        "let policy = load_model(\"tiny\", #{ random: true });\nassert_eq(policy.name, \"tiny\");\nassert(policy.parameters > 900_000);",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn("load_model", move |name: &str| -> Answer<Arc<Model>> {
            Ok(open(&plain, name, Dynamic::UNIT)?)
        });
        m.set_native_fn("load_model", move |name: &str, options: Map| -> Answer<Arc<Model>> {
            Ok(open(&session, name, options.into())?)
        });
    });
}

fn open(session: &Session, name: &str, options: Dynamic) -> Result<Arc<Model>> {
    let mut options = Options::new("load_model", options)?;
    let random = options.bool("random")?.unwrap_or(false);
    let place = options.string("device")?;
    let dtype = options.string("dtype")?;
    options.finish()?;
    if let Some(name) = dtype {
        SaveDtype::parse(&name)?.check_trainable()?;
    }
    let place = place.map_or(Ok(session.device()), |name| device::parse(&name))?;
    let key = random.then(|| session.key(Stream::Init));
    Ok(Arc::new(Model::open(name, key, &place)?))
}

fn handles(reg: &mut Registry) {
    let doc = Doc::named(
        "frozen",
        "model.frozen() -> Model",
        "A copy of the model as it is now: it never changes and has no gradient.",
    )
    .example(
        "let policy = load_model(\"tiny\", #{ random: true });\nlet base = policy.frozen();\nassert(policy.trainable && !base.trainable);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("frozen", |model: &mut Arc<Model>| -> Answer<Arc<Model>> { Ok(model.frozen()?) });
    });
    let doc = Doc::named(
        "save",
        "model.save(dir: string, options?: map)",
        "Writes the model as a folder in the Hugging Face layout, which transformers opens.",
    )
    .param("dir", "string", "the folder; made if it is not there, its model files replaced")
    .param("dtype", "string", "f32, f16 or bf16; f32 unless given")
    .errors("A folder that cannot be written; an unknown type.")
    .example(
        "let policy = load_model(\"tiny\", #{ random: true });\n\
         // policy.save(\"out/model\", #{ dtype: \"f16\" });\n\
         assert(policy.trainable);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("save", |model: &mut Arc<Model>, dir: &str| -> Answer<()> {
            Ok(model.save(Path::new(dir), SaveDtype::F32)?)
        });
        m.set_native_fn("save", |model: &mut Arc<Model>, dir: &str, options: Map| -> Answer<()> {
            Ok(save(model, dir, options)?)
        });
    });
    let doc =
        Doc::named("name", "model.name -> string", "The built-in name or the folder that the model was loaded from.")
            .example("assert_eq(load_model(\"tiny\", #{ random: true }).name, \"tiny\");");
    reg.add(doc, |m| {
        m.set_getter_fn("name", |model: &mut Arc<Model>| -> Answer<String> { Ok(model.name.clone()) });
    });
    let doc = Doc::named("parameters", "model.parameters -> int", "How many numbers the model's parameters hold.")
        .example("assert_eq(load_model(\"tiny\", #{ random: true }).parameters, 999_040);");
    reg.add(doc, |m| {
        m.set_getter_fn("parameters", |model: &mut Arc<Model>| -> Answer<i64> {
            Ok(model.config.parameter_count() as i64)
        });
    });
    let doc =
        Doc::named("trainable", "model.trainable -> bool", "Whether the model has gradients; a frozen copy has not.")
            .example("assert(load_model(\"tiny\", #{ random: true }).trainable);");
    reg.add(doc, |m| {
        m.set_getter_fn("trainable", |model: &mut Arc<Model>| -> Answer<bool> { Ok(model.trainable()) });
    });
    for name in ["to_string", "to_debug"] {
        reg.global().set_native_fn(name, |model: &mut Arc<Model>| -> Answer<String> { Ok(model.to_string()) });
    }
}

fn save(model: &Model, dir: &str, options: Map) -> Result<()> {
    let mut options = Options::new("save", options)?;
    let dtype = options.string("dtype")?;
    options.finish()?;
    model.save(Path::new(dir), dtype.map_or(Ok(SaveDtype::F32), |name| SaveDtype::parse(&name))?)
}
