//! Models in scripts: loading, freezing, saving.

use super::convert::Answer;
use crate::engine::{ModelHandle, OpenRequest};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Adaptation, Head, LoraOptions, OpenOptions, SaveDtype};
use crate::run::device;
use crate::run::{Session, Stream};
use crate::script::options::Options;
use crate::script::registry::{Doc, Registry};
use crate::tensor::rng::Key;
use rhai::{Dynamic, Map};
use std::path::Path;
use std::rc::Rc;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<ModelHandle>("Model");
    load(reg, session);
    handles(reg, session);
}

fn load(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "load_model(name: string, options?: map) -> Model",
        "Opens a built-in model, a folder in the Hugging Face layout or a model of the Hugging Face hub, ready to be trained.",
    )
    .param(
        "name",
        "string",
        "a built-in model (`rhopo list` shows them), a folder with config.json, model.safetensors and tokenizer.json \
         (or an adapter's folder, which names its model), or a hub id: owner/name, owner/name@revision",
    )
    .param("lora", "map", "train a new adapter only, #{ rank, alpha, targets }: 16, 32 and [\"all-linear\"] unless given; targets are names of linear maps, like \"q_proj\"")
    .param("adapter", "string", "a folder with an adapter in PEFT's layout, to be trained on")
    .param("head", "string", "`value` (a number per token) or `score` (a number per row) in place of the language-model head; the stored one, or a new one")
    .param("random", "bool", "random weights instead of the stored ones; false unless given")
    .param("device", "string", "cpu, cuda or cuda:N; the run's device unless given")
    .param("dtype", "string", "the type the weights are trained in; f32, the only one")
    .errors(
        "A name that is none of these; an architecture or feature that is not supported; a tensor that is missing, \
         unexpected, cut short, of another shape or not finite; a tokenizer with more tokens than the embedding; an \
         adapter of another model; a rank, alpha or target that does not fit.",
    )
    .source("what is not stored (a new adapter, a new head, random weights) follows the run's seed")
    .example(
        "let policy = load_model(\"tiny\");\nassert_eq(policy.name, \"tiny\");\nassert(policy.parameters > 900_000);\n\
         let lora = load_model(\"tiny\", #{ lora: #{ rank: 4, targets: [\"q_proj\", \"v_proj\"] } });\n\
         assert(lora.trained < 40_000 && lora.parameters > policy.parameters);\n\
         let critic = load_model(\"tiny\", #{ head: \"value\" });\n\
         let b = encode(policy, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         assert_eq(value(critic, b).shape, b.mask.shape);",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn("load_model", move |name: &str| -> Answer<ModelHandle> {
            Ok(open(&plain, name, Dynamic::UNIT)?)
        });
        m.set_native_fn("load_model", move |name: &str, options: Map| -> Answer<ModelHandle> {
            Ok(open(&session, name, options.into())?)
        });
    });
}

fn open(session: &Session, name: &str, options: Dynamic) -> Result<ModelHandle> {
    let mut o = Options::new("load_model", options)?;
    let random = o.bool("random")?.unwrap_or(false);
    let place = o.string("device")?;
    let dtype = o.string("dtype")?;
    let head = o.string("head")?.map(|head| read_head(&head)).transpose()?;
    let adaptation = match (o.map("lora")?, o.string("adapter")?) {
        (None, None) => Adaptation::None,
        (Some(lora), None) => Adaptation::New(lora_options(lora)?),
        (None, Some(dir)) => Adaptation::Stored(dir.into()),
        (Some(_), Some(_)) => {
            return Err(Error::value(
                "`load_model`: `lora` starts a new adapter and `adapter` reads one: give one of them",
            ));
        }
    };
    o.finish()?;
    if let Some(name) = dtype {
        SaveDtype::parse(&name)?.check_trainable()?;
    }
    let place = place.map_or(Ok(session.device()), |name| device::parse(&name))?;
    if files::exists(Path::new(name)) {
        session.access().read(Path::new(name))?;
    }
    if let Adaptation::Stored(dir) = &adaptation {
        session.access().read(dir)?;
    }
    // A call that draws nothing takes no key, so that others keep theirs.
    let draws = random || head.is_some() || matches!(adaptation, Adaptation::New(_));
    let key = if draws { session.key(Stream::Init) } else { Key::new(session.seed()) };
    let options = OpenOptions { random, head, adaptation, key };
    let model = session.engine().open(&OpenRequest::Stored { name: name.into(), options, device: place })?;
    for note in &model.notes {
        session.reporter().note(&format!("{name}: {note}"));
    }
    Ok(model)
}

fn read_head(name: &str) -> Result<Head> {
    match name {
        "value" => Ok(Head::Value),
        "score" => Ok(Head::Score),
        other => Err(Error::unknown("head", other, &["value", "score"])),
    }
}

fn lora_options(map: Map) -> Result<LoraOptions> {
    let mut o = Options::new("load_model: lora", map)?;
    let base = LoraOptions::default();
    let options = LoraOptions {
        rank: o.count("rank")?.unwrap_or(base.rank),
        alpha: o.float("alpha")?.unwrap_or(base.alpha),
        targets: o.strings("targets")?.unwrap_or(base.targets),
    };
    o.finish()?;
    Ok(options)
}

fn handles(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::named(
        "frozen",
        "model.frozen() -> Model",
        "A copy of the model as it is now: it never changes and has no gradient.",
    )
    .example(
        "let policy = load_model(\"tiny\");\nlet base = policy.frozen();\nassert(policy.trainable && !base.trainable);",
    );
    reg.add(doc, |m| {
        let session = session.clone();
        m.set_native_fn("frozen", move |model: &mut ModelHandle| -> Answer<ModelHandle> {
            Ok(session.engine().frozen(model)?)
        });
    });
    let doc = Doc::named(
        "reference",
        "model.reference() -> Model",
        "The model with its adapter switched off: the same weights, no second copy in memory, no gradient.",
    )
    .errors("A model without an adapter.")
    .example(
        "let policy = load_model(\"tiny\", #{ lora: #{ rank: 4 } });\nlet base = policy.reference();\n\
         let b = encode(policy, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
         assert_close(logprob(policy, b), logprob(base, b).to_array());   // a new adapter changes nothing",
    );
    reg.add(doc, |m| {
        let session = session.clone();
        m.set_native_fn("reference", move |model: &mut ModelHandle| -> Answer<ModelHandle> {
            Ok(session.engine().reference(model)?)
        });
    });
    let doc = Doc::named(
        "merge",
        "model.merge() -> Model",
        "A model of its own with the adapter's change added to the weights; all of it is trained.",
    )
    .errors("A model without an adapter.")
    .example(
        "let policy = load_model(\"tiny\", #{ lora: #{ rank: 4 } });\nlet whole = policy.merge();\n\
         assert_eq(whole.trained, whole.parameters);",
    );
    reg.add(doc, |m| {
        let session = session.clone();
        m.set_native_fn("merge", move |model: &mut ModelHandle| -> Answer<ModelHandle> {
            Ok(session.engine().merge(model)?)
        });
    });
    let doc = Doc::named(
        "save",
        "model.save(dir: string, options?: map)",
        "Writes a folder that transformers opens; of a model with an adapter, the adapter as PEFT opens it.",
    )
    .param("dir", "string", "the folder; made if it is not there, its model files replaced")
    .param("dtype", "string", "f32, f16 or bf16; f32 unless given")
    .errors("A folder that cannot be written; an unknown type.")
    .example(
        "let run = open_run(#{});\nlet policy = load_model(\"tiny\");\n\
         policy.save(run.dir + \"/half\", #{ dtype: \"f16\" });\n\
         assert_eq(load_model(run.dir + \"/half\").parameters, policy.parameters);",
    );
    reg.add(doc, |m| {
        let (plain, session) = (session.clone(), session.clone());
        m.set_native_fn("save", move |model: &mut ModelHandle, dir: &str| -> Answer<()> {
            Ok(save(&plain, model, dir, Map::new())?)
        });
        m.set_native_fn("save", move |model: &mut ModelHandle, dir: &str, options: Map| -> Answer<()> {
            Ok(save(&session, model, dir, options)?)
        });
    });
    let doc =
        Doc::named("name", "model.name -> string", "The built-in name or the folder that the model was loaded from.")
            .example("assert_eq(load_model(\"tiny\").name, \"tiny\");");
    reg.add(doc, |m| {
        m.set_getter_fn("name", |model: &mut ModelHandle| -> Answer<String> { Ok(model.name.clone()) });
    });
    let doc = Doc::named("parameters", "model.parameters -> int", "How many numbers the model's parameters hold.")
        .example("assert_eq(load_model(\"tiny\").parameters, 999_040);");
    reg.add(doc, |m| {
        m.set_getter_fn("parameters", |model: &mut ModelHandle| -> Answer<i64> { Ok(model.size as i64) });
    });
    let doc = Doc::named("trained", "model.trained -> int", "How many of these numbers are trained.")
        .example("assert_eq(load_model(\"tiny\").frozen().trained, 0);");
    reg.add(doc, |m| {
        m.set_getter_fn("trained", |model: &mut ModelHandle| -> Answer<i64> { Ok(model.trained as i64) });
    });
    let doc =
        Doc::named("trainable", "model.trainable -> bool", "Whether the model has gradients; a frozen copy has not.")
            .example("assert(load_model(\"tiny\").trainable);");
    reg.add(doc, |m| {
        m.set_getter_fn("trainable", |model: &mut ModelHandle| -> Answer<bool> { Ok(model.trainable()) });
    });
    for name in ["to_string", "to_debug"] {
        reg.global().set_native_fn(name, |model: &mut ModelHandle| -> Answer<String> { Ok(model.to_string()) });
    }
}

fn save(session: &Session, model: &ModelHandle, dir: &str, options: Map) -> Result<()> {
    session.access().write(Path::new(dir))?;
    let mut options = Options::new("save", options)?;
    let dtype = options.string("dtype")?;
    options.finish()?;
    session.engine().save(model, Path::new(dir), dtype.map_or(Ok(SaveDtype::F32), |name| SaveDtype::parse(&name))?)
}
