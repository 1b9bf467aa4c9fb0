//! Going on from the middle of rows, and dialogues, in scripts.

use super::choices::{CHOICES, choices};
use super::convert::Answer;
use super::encode::read_prompts;
use super::frozen::Frozen;
use crate::data::dialogue::Start;
use crate::data::reset::{self, ResetPrompts};
use crate::data::user::User;
use crate::data::{Batch, Prompts};
use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::run::converse::{ConverseOptions, ConverseRequest, Partner, converse};
use crate::run::{Session, Stream};
use crate::script::options::{Options, describe};
use crate::script::registry::{Doc, Registry};
use crate::tensor::Tensor;
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, INT, Map, NativeCallContext};
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;

/// Turns of a dialogue unless given.
const TURNS: usize = 5;

pub fn register(reg: &mut Registry, session: &Rc<Session>) {
    reg.global().set_custom_type::<ResetPrompts>("Prompts");
    reg.global().set_custom_type::<Rc<dyn User>>("User");
    for name in ["to_string", "to_debug"] {
        reg.global().set_native_fn(name, |states: &mut ResetPrompts| -> Answer<String> { Ok(states.to_string()) });
        let show = |user: &mut Rc<dyn User>| -> Answer<String> { Ok(format!("User({user:?})")) };
        reg.global().set_native_fn(name, show);
    }
    reg.global().set_native_fn("len", |states: &mut ResetPrompts| -> Answer<INT> { Ok(states.len() as INT) });
    resets(reg);
    dialogues(reg, session);
}

fn resets(reg: &mut Registry) {
    let doc = Doc::new(
        "reset(b: Batch, at: int | array | Tensor | map) -> Prompts",
        "The states of rows after their first completion tokens, or of dialogues before a turn, for sample and converse.",
    )
    .param("b", "Batch", "sampled rows, encoded demonstrations, or dialogues from converse")
    .param(
        "at",
        "int, array of int or [B,1]; or #{ turn: … } of these",
        "how many completion tokens of each row are kept; with `turn`: the assistant is to speak its turn of this number, \
         counted from 1",
    )
    .errors(
        "A number beyond the row, or after its end token (names the row); another number of entries than rows; `turn` of \
         a batch that holds no dialogues, or that a dialogue does not have.",
    )
    .source(
        "nothing is tokenised again. A batch sampled from it has the original prompts, and completions of kept and new \
         tokens: `rollin` is 1 on the kept ones, `mask`, `old_logprob` and `length` are of the new ones, `text` is of \
         both. List columns but text, prompt and messages stay with the rows.",
    )
    .example(
        "let model = load_model(\"tiny\");\n\
         let b = encode(model, [#{ prompt: \"1+2=\", completion: \"345\", answer: \"3\" }]);\n\
         let again = sample(model, reset(b, 2), #{ n: 3, max_tokens: 4 });\n\
         assert_eq(again.rollin[2].to_array()[0], 1.0);\n\
         assert_eq(seq_sum(again.rollin, ones(again.mask.shape)).to_array(), [[2.0], [2.0], [2.0]]);\n\
         assert_eq(token_mean(again.rollin, again.mask).item(), 0.0);\n\
         assert(again.text[0].starts_with(\"34\"));\nassert_eq(again.answer, [\"3\", \"3\", \"3\"]);",
    );
    reg.add(doc, |m| {
        m.set_native_fn("reset", |b: Batch, at: Dynamic| -> Answer<ResetPrompts> {
            let Ok(map) = at.as_map_ref().map(|map| map.clone()) else {
                return Ok(reset::reset(&b, &read_counts("at", &at, b.len())?)?);
            };
            let mut o = Options::new("reset", map)?;
            let turn = o.value("turn").ok_or_else(|| {
                Error::value("`reset`: the option `turn` is not there").hint("reset(d, #{ turn: 2 }), or reset(b, at)")
            })?;
            o.finish()?;
            Ok(reset::reset_turns(&b, &read_counts("turn", &turn, b.len())?)?)
        });
    });
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

fn dialogues(reg: &mut Registry, session: &Rc<Session>) {
    let doc = Doc::new(
        "converse(policy: Model, user: Fn | Model | User, prompts: Prompts | array, options?: map) -> Batch",
        "Dialogues: policy and user take turns, all dialogues together; one row for each.",
    )
    .param("policy", "Model", "with a chat template; speaks as the assistant")
    .param(
        "user",
        "Fn | Model | Frozen | User",
        "a closure |messages| or |messages, prompt| (the prompt's fields) that returns what the user says, or () to end; \
         or a model, which is shown the messages with user and assistant swapped and answers by the same options; or \
         what task.user() gives",
    )
    .param(
        "prompts",
        "Prompts | array",
        "as for sample, a text being what the user says first; or reset(d, #{ turn: h }), from where dialogues go on",
    )
    .param("turns", "int", "how often the assistant speaks at most, kept turns included; 5 unless given")
    .params(&CHOICES)
    .errors(
        "As sample; a prompt that ends with the assistant's message; states that were not reset by turn or keep `turns` \
         turns already; a user that returns something else than a text or (); a chat template whose text before a turn \
         is not the beginning of its text after it.",
    )
    .source(
        "columns: those of sample, `mask` 1 on what the policy said in this call, `text` what it said last, `length` the \
         tokens of `mask`; `turn` [B,T] (1, 2, … on each turn and on the user's answer after it), `turns` [B,1], \
         `messages` (the whole dialogue); after a reset `rollin`. Ids are never tokenised again: between two turns stands \
         what the template renders there, and an answer that was cut off gets its end token there. A dialogue also ends \
         where the context has no room for the user's answer and another turn: there `finished` is 0",
    )
    .example(
        "let policy = load_model(\"tiny\");\n\
         let asks = |messages| if messages.len() < 4 { \"again\" };\n\
         let d = converse(policy, asks, [\"1+2=\"], #{ turns: 3, max_tokens: 5, n: 2 });\n\
         assert_eq(d.turns.to_array(), [[2.0], [2.0]]);   // the user says nothing after the second\n\
         assert_eq(d.messages[0].map(|m| m.role), [\"user\", \"assistant\", \"user\", \"assistant\"]);\n\
         let other = converse(policy, asks, reset(d, #{ turn: 2 }), #{ turns: 3, max_tokens: 5 });\n\
         assert_eq(other.messages[1][1].content, d.messages[1][1].content);   // the first turn is kept\n\
         assert_eq(token_mean(other.rollin, other.mask).item(), 0.0);",
    );
    let session = session.clone();
    reg.add(doc, |m| {
        let plain = session.clone();
        m.set_native_fn(
            "converse",
            move |ctx: NativeCallContext, policy: ModelHandle, user: Dynamic, prompts: Dynamic| -> Answer<Batch> {
                talk(&ctx, &plain, &policy, &user, prompts, Map::new())
            },
        );
        m.set_native_fn(
            "converse",
            move |ctx: NativeCallContext,
                  policy: ModelHandle,
                  user: Dynamic,
                  prompts: Dynamic,
                  options: Map|
                  -> Answer<Batch> { talk(&ctx, &session, &policy, &user, prompts, options) },
        );
    });
}

fn talk(
    ctx: &NativeCallContext,
    session: &Session,
    policy: &ModelHandle,
    user: &Dynamic,
    prompts: Dynamic,
    options: Map,
) -> Answer<Batch> {
    let mut o = Options::new("converse", options)?;
    let turns = o.count("turns")?.unwrap_or(TURNS);
    let options = ConverseOptions { turns, sample: choices(&mut o)? };
    o.finish()?;
    let states = prompts.read_lock::<ResetPrompts>().map(|states| states.clone());
    let fresh = match states {
        Some(_) => Prompts::default(),
        None => read_prompts("converse", prompts)?,
    };
    let start = states.as_ref().map_or(Start::Prompts(&fresh), Start::Reset);
    let with = |partner: Partner| -> Result<Batch> {
        let keys = [session.key(Stream::Sample), session.key(Stream::Generate)];
        let b = converse(session.engine(), &ConverseRequest { policy, partner, start, options, keys })?;
        session.count_sampled(b.tensor("length")?.to_vec()?.iter().sum::<f64>() as u64);
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
    let closure = Closure { ctx, function: &function, failed: RefCell::default() };
    match (with(Partner::User(&closure)), closure.failed.take()) {
        (_, Some(failed)) => Err(failed),
        (spoken, None) => Ok(spoken?),
    }
}

/// A script's function as a user.
struct Closure<'a> {
    ctx: &'a NativeCallContext<'a>,
    function: &'a FnPtr,
    /// Its own error, with its place in the script.
    failed: RefCell<Option<Box<EvalAltResult>>>,
}

impl std::fmt::Debug for Closure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.function.fn_name())
    }
}

impl User for Closure<'_> {
    fn reply(&self, messages: &[Value], fields: &serde_json::Map<String, Value>) -> Result<Option<String>> {
        let said = self.call(messages, fields).map_err(|e| {
            let text = e.to_string();
            *self.failed.borrow_mut() = Some(e);
            Error::value(text)
        })?;
        if said.is_unit() {
            return Ok(None);
        }
        let found = describe(&said);
        said.into_string().map(Some).map_err(|_| {
            Error::value(format!("`converse`: the user must return a text, or () to end the dialogue, found {found}"))
        })
    }
}

impl Closure<'_> {
    fn call(&self, messages: &[Value], fields: &serde_json::Map<String, Value>) -> Answer<Dynamic> {
        let messages = messages.iter().map(rhai::serde::to_dynamic).collect::<Answer<Array>>()?;
        let prompt = rhai::serde::to_dynamic(fields)?;
        let call = |arguments: Vec<Dynamic>| self.function.call_raw(self.ctx, None, arguments);
        let both = || call(vec![messages.clone().into(), prompt]);
        match self.parameters() {
            Some(1) => call(vec![messages.into()]),
            Some(2) => both(),
            Some(n) => Err(Error::value(format!("`converse`: the user takes {n} parameters, expected 1 or 2"))
                .hint("|messages| or |messages, prompt|")
                .into()),
            // A function of another file does not say how many it takes.
            None => match both() {
                Err(e) if matches!(*e, EvalAltResult::ErrorFunctionNotFound(..)) => call(vec![messages.into()]),
                other => other,
            },
        }
    }

    /// How many arguments the function takes beside captured ones.
    fn parameters(&self) -> Option<usize> {
        let name = self.function.fn_name();
        let mut known = self.ctx.global_runtime_state().lib.iter().flat_map(|lib| lib.iter_script_fn_info());
        let all = known.find(|f| f.2 == name).map(|f| f.3)?;
        Some(all - self.function.curry().len())
    }
}
