//! Functions of scripts where only an error of ours can be handed on: as rewards, as users in dialogues.
//!
//! The script's own error, with its place, is kept meanwhile, and takes the place of ours in the end.

use crate::data::User;
use crate::error::{Error, Result};
use crate::script::lang::functions::Fallible;
use crate::script::lang::messages;
use crate::script::lang::value::{describe, from_json};
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, NativeCallContext};
use serde_json::Value;
use std::cell::RefCell;

/// The call within which functions of scripts are called.
pub(super) struct Caller<'a> {
    pub context: &'a NativeCallContext<'a>,
    /// The first error of a script's function.
    failed: RefCell<Option<Box<EvalAltResult>>>,
}

impl std::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller")
    }
}

impl<'a> Caller<'a> {
    pub fn new(context: &'a NativeCallContext<'a>) -> Self {
        Self { context, failed: RefCell::default() }
    }

    /// What a script's function gave, or an error of ours that stands for its own.
    pub fn keep<T>(&self, done: Fallible<T>) -> Result<T> {
        done.map_err(|e| {
            let ours = Error::value(messages::plain(&e));
            self.failed.borrow_mut().get_or_insert(e);
            ours
        })
    }

    /// The outcome of everything that was asked; of errors the script's own.
    pub fn finish<T>(self, done: Result<T>) -> Fallible<T> {
        match (done, self.failed.into_inner()) {
            (Err(_), Some(own)) => Err(own),
            (done, _) => Ok(done?),
        }
    }
}

/// A script's function as a user.
pub(super) struct Closure<'a> {
    pub caller: &'a Caller<'a>,
    pub function: FnPtr,
}

impl std::fmt::Debug for Closure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.function.fn_name())
    }
}

impl User for Closure<'_> {
    fn reply(&self, messages: &[Value], fields: &serde_json::Map<String, Value>) -> Result<Option<String>> {
        let said = self.caller.keep(self.call(messages, fields))?;
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
    fn call(&self, messages: &[Value], fields: &serde_json::Map<String, Value>) -> Fallible<Dynamic> {
        let messages: Array = messages.iter().map(from_json).collect();
        let prompt = from_json(&Value::Object(fields.clone()));
        let call = |arguments: Vec<Dynamic>| self.function.call_raw(self.caller.context, None, arguments);
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
        let mut known = self.caller.context.global_runtime_state().lib.iter().flat_map(|lib| lib.iter_script_fn_info());
        let all = known.find(|f| f.2 == name).map(|f| f.3)?;
        Some(all - self.function.curry().len())
    }
}
