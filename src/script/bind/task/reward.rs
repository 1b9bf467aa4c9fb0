//! What gives the reward in a task's place: a Rhai file, a model with a score head, a model that judges, a program.

use super::super::batch::read_column;
use super::super::caller::Caller;
use super::super::frozen;
use crate::data::max_length::MaxLength;
use crate::data::task::composed::Reward;
use crate::data::task::grader::Grader;
use crate::data::{Batch, Column, Content, Demo, encode};
use crate::engine::{self, ForwardRequest, Measure, ModelHandle, OpenRequest};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Adaptation, Head, OpenOptions};
use crate::run::Session;
use crate::script::lang::functions::{CallStack, FileFunctions};
use crate::script::lang::loader::Loader;
use crate::script::lang::native::{Call, Fallible};
use crate::tensor::Tensor;
use crate::tensor::rng::Key;
use rhai::{Array, Dynamic};
use std::path::Path;

const PROGRAM: &str = "exec:";

/// What a reward is asked of.
pub enum RewardSource {
    /// A function of a file, with what it is given beside the batch.
    Function {
        functions: FileFunctions,
        name: &'static str,
        more: Array,
    },
    /// A model with a score head.
    Model(ModelHandle),
    Program(Grader),
}

impl RewardSource {
    /// What `--set reward=…` means.
    ///
    /// # Errors
    /// Something that gives no reward; a file, model or program that cannot be used.
    pub fn open(call: &Call<'_>, loader: &Loader, calls: &CallStack, text: &str) -> Fallible<Self> {
        let session = call.session;
        if let Some(name) = text.strip_prefix(PROGRAM) {
            return Ok(Self::Program(program(session, name)?));
        }
        let extension = Path::new(text).extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("rhai") => {
                let functions = FileFunctions::read(calls, call.context, &loader.file("reward", text)?)?;
                if !functions.takes("score", 1) {
                    return Err(Error::value(format!("{text} has no function `score` of one argument"))
                        .hint("fn score(b) gives each row of b a number: an array of B numbers, or a tensor [B,1]")
                        .into());
                }
                Ok(Self::Function { functions, name: "score", more: Array::new() })
            }
            Some("gguf") => {
                let judge = Dynamic::from(frozen::open_judge(session, text)?);
                let functions = FileFunctions::read(calls, call.context, &loader.module("std/judge", None)?)?;
                Ok(Self::Function { functions, name: "reward", more: vec![judge] })
            }
            _ if files::is_folder(&session.access().at(text)) => Ok(Self::Model(model(session, text)?)),
            _ => Err(Error::value(format!("{text:?} is not a reward"))
                .hint(
                    "a Rhai file with fn score(b), the folder of a model with a score head, a GGUF file, or exec:NAME",
                )
                .into()),
        }
    }

    /// That of worked answers, by the rows' field `answer`.
    ///
    /// # Errors
    /// A folder's own `std/reward` that cannot be used.
    pub fn worked(call: &Call<'_>, loader: &Loader, calls: &CallStack) -> Fallible<Self> {
        let functions = FileFunctions::read(calls, call.context, &loader.module("std/reward", None)?)?;
        Ok(Self::Function { functions, name: "worked", more: Array::new() })
    }

    /// The file of a reward that is one.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Function { functions, more, .. } if more.is_empty() => Some(functions.label()),
            _ => None,
        }
    }

    /// The reward within a call, from which functions of its file are called.
    pub fn within<'a>(&'a self, caller: &'a Caller<'a>, session: &'a Session) -> Box<dyn Reward + 'a> {
        Box::new(Asked { source: self, caller, session })
    }
}

fn program(session: &Session, name: &str) -> Result<Grader> {
    let programs = &session.launched().programs;
    let Some(program) = programs.iter().find(|program| program.name == name) else {
        return Err(Error::value(format!("the program {PROGRAM}{name} is not allowed"))
            .hint(format!("allow it on the command line: --allow-exec \"{name}=python3 grade.py\"")));
    };
    let stop = session.engine().settings().stop.clone();
    Ok(Grader::new(&format!("{PROGRAM}{name}"), program.words.clone(), session.launched().patience, stop))
}

/// A model that scores, as it was stored. It draws nothing, so that other models keep their random numbers.
fn model(session: &Session, folder: &str) -> Result<ModelHandle> {
    let name = session.access().read(folder)?;
    let key = Key::new(session.seed());
    let options =
        OpenOptions { random: false, head: None, adaptation: Adaptation::None, key, compute: session.compute() };
    let request = OpenRequest::Stored { name, options, place: session.place() };
    let model = session.engine().open(&request)?;
    if model.head != Head::Score {
        return Err(Error::model(format!("the model {folder} has no score head, so it gives no reward"))
            .hint("reward_model trains one and saves it with its head"));
    }
    session.engine().frozen(&model)
}

struct Asked<'a> {
    source: &'a RewardSource,
    caller: &'a Caller<'a>,
    session: &'a Session,
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reward")
    }
}

impl Reward for Asked<'_> {
    fn score(&self, batch: &Batch) -> Result<Tensor> {
        match self.source {
            RewardSource::Function { functions, name, more } => {
                let values = [Dynamic::from(batch.clone())].into_iter().chain(more.iter().cloned()).collect();
                let found = self.caller.keep(functions.call(self.caller.context, name, values))?;
                score_of(functions.label(), &found, batch)
            }
            RewardSource::Model(model) => scored(self.session, model, batch),
            RewardSource::Program(grader) => grader.score(batch),
        }
    }
}

/// What a function named `score` in `label` gave, as `[B,1]`.
///
/// # Errors
/// Anything but one finite number a row.
pub fn score_of(label: &str, found: &Dynamic, batch: &Batch) -> Result<Tensor> {
    let wrong = |e: Error| Error { what: format!("`score` of {label}: {}", e.what), ..e };
    let mut rows = batch.clone();
    let column = read_column("reward", found, batch.device()).map_err(wrong)?;
    if let Column::Tensor(tensor) = &column
        && tensor.dims().get(1).is_none_or(|&width| width != 1)
    {
        let shape = crate::tensor::shape::show(tensor.dims());
        return Err(wrong(Error::shape(format!("the reward has shape {shape}, expected [{},1]", batch.len())))
            .hint("one number a row: an array of B numbers, or a tensor [B,1]"));
    }
    rows.set("reward", column).and_then(|()| rows.tensor("reward")).map_err(wrong)
}

/// The score of each row: of its tokens where the model reads the same ones, else of its texts.
fn scored(session: &Session, model: &ModelHandle, batch: &Batch) -> Result<Tensor> {
    let same = |rows: &&std::sync::Arc<crate::model::rows::Rows>| {
        rows.vocabulary().is_some() && rows.vocabulary() == model.vocabulary()
    };
    let rows = match batch.rows().filter(same) {
        Some(rows) => rows.clone(),
        None => {
            let (prompts, texts) = (batch.list("prompt")?, batch.list("text")?);
            let demo = |i: usize| {
                let prompt = Content::read(&format!("row {i}: `prompt`"), prompts[i].clone())?;
                let text = texts[i].as_str().unwrap_or_default();
                let completion = match &prompt {
                    Content::Text(_) => Content::from(text),
                    Content::Messages(_) => {
                        Content::Messages(vec![serde_json::json!({ "role": "assistant", "content": text })])
                    }
                };
                Ok(Demo { prompt, completion, fields: serde_json::Map::new() })
            };
            let demos = (0..batch.len()).map(demo).collect::<Result<Vec<_>>>()?;
            encode::encode(model, &demos, false, MaxLength::default())?.require_rows("score")?.clone()
        }
    };
    let request = ForwardRequest { model: model.clone(), rows, temperature: 1.0, measure: Measure::Score };
    engine::measure(session.engine(), &request, "the reward")
}
