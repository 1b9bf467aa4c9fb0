//! Going on from the middle of rows, and dialogues, in scripts.

use super::caller::{Caller, Closure};
use super::choices::Conversing;
use super::encode::{AnyPrompts, Asked};
use super::model::Frozen;
use crate::data::Batch;
use crate::data::dialogue::Start;
use crate::data::reset::{self, ResetPrompts};
use crate::data::user::User;
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::run::Stream;
use crate::run::converse::{ConverseOptions, ConverseRequest, Partner, converse};
use crate::script::lang::native::{Call, Fallible, FromScript, OptionSet, Options, Place, Registry, Typed, options};
use crate::script::lang::value::describe;
use crate::tensor::Tensor;
use rhai::{Dynamic, FnPtr};
use std::rc::Rc;

pub fn register(reg: &mut Registry) {
    reg.function("reset", ["b", "at"], |b: Batch, at: Places| go_back(&b, &at.0));
    reg.function(
        "converse",
        ["policy", "user", "prompts", "options"],
        |call: &Call, policy: ModelHandle, user: Speaker, prompts: Asked, Options(options): Options<Conversing>| {
            talk(call, &policy, &user.0, &prompts.0, options)
        },
    );
}

/// Where rows are gone back to.
struct Places(Dynamic);

impl Typed for Places {
    const TYPE: &'static str = "int | array | Tensor | map";
}

impl FromScript for Places {
    fn read(value: Dynamic, _: Place<'_>) -> Result<Self> {
        Ok(Self(value))
    }
}

/// Who answers the assistant.
struct Speaker(Dynamic);

impl Typed for Speaker {
    const TYPE: &'static str = "Fn | Model | Frozen | User";
}

impl FromScript for Speaker {
    fn read(value: Dynamic, _: Place<'_>) -> Result<Self> {
        Ok(Self(value))
    }
}

options! {
    struct Turn {
        /// the assistant is to speak its turn of this number, counted from 1
        turn: Option<Dynamic>,
    }
}

fn go_back(b: &Batch, at: &Dynamic) -> Result<ResetPrompts> {
    let Ok(map) = at.as_map_ref().map(|map| map.clone()) else {
        return reset::reset(b, &read_counts("at", at, b.len())?);
    };
    let turn = Turn::of("reset", map)?.turn.ok_or_else(|| {
        Error::value("`reset`: the option `turn` is not there").hint("reset(d, #{ turn: 2 }), or reset(b, at)")
    })?;
    reset::reset_turns(b, &read_counts("turn", &turn, b.len())?)
}

/// One count for all rows, or one for each.
fn read_counts(name: &str, value: &Dynamic, rows: usize) -> Result<Vec<usize>> {
    let wrong = |found: String| {
        Error::value(format!("`reset`: {name} must be whole numbers, 0 or more, found {found}"))
            .hint("give one int for all rows, an array of B ints, or a tensor [B,1]")
    };
    let whole = |x: f64| (x >= 0.0 && x.fract() == 0.0).then_some(x as usize).ok_or_else(|| wrong(x.to_string()));
    if let Some(tensor) = value.read_lock::<Tensor>() {
        if tensor.dims() != [rows, 1] {
            let found = crate::tensor::shape::show(tensor.dims());
            return Err(Error::shape(format!("`reset`: {name} has shape {found}, expected [{rows},1]")));
        }
        return tensor.to_vec()?.into_iter().map(whole).collect();
    }
    let int = |value: &Dynamic| {
        let int = value.as_int().ok().and_then(|i| usize::try_from(i).ok());
        int.ok_or_else(|| wrong(describe(value)))
    };
    match value.as_array_ref() {
        Ok(items) => items.iter().map(int).collect(),
        Err(_) => Ok(vec![int(value)?; rows]),
    }
}

fn talk(
    call: &Call<'_>,
    policy: &ModelHandle,
    user: &Dynamic,
    prompts: &AnyPrompts,
    options: Conversing,
) -> Fallible<Batch> {
    let options = ConverseOptions { turns: options.turns, sample: options.choices.into() };
    let start = match prompts {
        AnyPrompts::Fresh(prompts) => Start::Prompts(prompts),
        AnyPrompts::Reset(states) => Start::Reset(states),
    };
    if let AnyPrompts::Fresh(prompts) = prompts {
        prompts.measure_origin(policy, options.sample.max_tokens, false)?;
    }
    let session = call.session;
    let with = |partner: Partner| -> Result<Batch> {
        let keys = [session.key(Stream::Sample), session.key(Stream::Generate)];
        let b = converse(session.engine(), &ConverseRequest { policy, partner, start, options, keys })?;
        let total = |column: &str| Ok::<f64, Error>(b.tensor(column)?.to_vec()?.iter().sum());
        session.count_sampled(total("length")? as u64, b.len(), total("finished")? as usize);
        Ok(b)
    };
    if let Some(model) = user.read_lock::<ModelHandle>() {
        return Ok(with(Partner::Model(&model))?);
    }
    if let Some(model) = user.read_lock::<Frozen>() {
        return Ok(with(Partner::Model(&model.0))?);
    }
    if let Some(scripted) = user.read_lock::<Rc<dyn User>>() {
        return Ok(with(Partner::User(&**scripted))?);
    }
    let Some(function) = user.read_lock::<FnPtr>() else {
        let what =
            format!("`converse`: the user must be a closure, a model or a task's user, found {}", describe(user));
        return Err(Error::value(what).hint("|messages| \"what the user says\", or () to end").into());
    };
    let caller = Caller::new(call.context);
    let spoken = with(Partner::User(&Closure { caller: &caller, function: function.clone() }));
    caller.finish(spoken)
}
