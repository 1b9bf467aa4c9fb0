//! Frozen models in scripts: judges, rewards by prompt, simulated users.

use super::choices::Answering;
use super::encode::AskedAnew;
use super::model::Frozen;
use crate::data::Batch;
use crate::engine::{OpenRequest, SampleOptions, SampleRequest};
use crate::error::{Error, Kind, Result};
use crate::run::{Session, Stream, device};
use crate::script::lang::native::{Call, Options, Registry, options};
use crate::tensor::Device;

pub fn register(reg: &mut Registry) {
    reg.handle::<Frozen>(|model| model.0.to_string());
    reg.function(
        "load_frozen",
        ["path", "options"],
        |call: &Call, path: String, Options(options): Options<Opening>| open(call.session, &path, options),
    );
    reg.function(
        "generate",
        ["model", "prompts", "options"],
        |call: &Call, model: Frozen, prompts: AskedAnew, Options(options): Options<Answering>| {
            generate(call.session, &model, prompts, options)
        },
    );
}

options! {
    struct Opening {
        /// a tokenizer.json or its folder; else the one beside the file, else the file's own
        tokenizer: Option<String>,
        /// cpu, where GGUF files run
        device: Option<String>,
    }
}

/// A file as `load_frozen` opens it without options.
///
/// # Errors
/// Those of `load_frozen`.
pub(super) fn open_judge(session: &Session, path: &str) -> Result<Frozen> {
    open(session, path, Opening { tokenizer: None, device: None })
}

fn open(session: &Session, path: &str, options: Opening) -> Result<Frozen> {
    let Opening { tokenizer, device: place } = options;
    if let Some(place) = place.map(|name| device::parse(&name)).transpose()?.filter(|place| !place.is_host()) {
        return Err(Error::new(Kind::Device, format!("`load_frozen`: GGUF files run on the CPU, not on {place}"))
            .hint("leave `device` out"));
    }
    let path = session.access().read(path)?;
    let tokenizer = tokenizer.map(|path| session.access().read(&path)).transpose()?;
    let judge = session.engine().open(&OpenRequest::Gguf { path, tokenizer })?;
    session.opened(&judge);
    Ok(Frozen(judge))
}

fn generate(session: &Session, Frozen(model): &Frozen, prompts: AskedAnew, options: Answering) -> Result<Batch> {
    let (prompts, special) = (prompts.0, options.special);
    let options = SampleOptions::from(options);
    let (n, ids, key) = (options.n, prompts.encode(model, special)?, session.key(Stream::Generate));
    let request = SampleRequest { call: "generate", model: model.clone(), prompts: ids, places: None, options, key };
    Batch::from_samples(session.engine().sample(&request)?, &prompts, n, &Device::Cpu)
}
