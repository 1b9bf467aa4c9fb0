//! `script(name)`: the functions of another file, callable without running its body.
//!
//! Rhai owns the word `.call` for function pointers, so the handle is one, made from a native function.

use crate::error::Error;
use crate::run::Session;
use crate::script::lang::functions::{self, CallStack, Environment, Fallible, Trial};
use crate::script::lang::loader::{Loader, Source};
use crate::script::lang::messages;
use crate::script::lang::native::{Call, Registry};
use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, ImmutableString, Map, NativeCallContext};
use std::cell::RefCell;
use std::rc::Rc;

pub fn register(reg: &mut Registry, session: &Rc<Session>, loader: &Rc<Loader>, calls: &CallStack) {
    let shared = Shared { session: session.clone(), loader: loader.clone(), calls: calls.clone() };
    let handles = shared.clone();
    reg.function("script", ["name"], move |name: ImmutableString| handles.handle(&name));
    reg.function("defaults", ["name"], move |call: &Call, name: ImmutableString| -> Fallible<Map> {
        let _level = shared.calls.deeper(call.context)?;
        functions::defaults(call.context.engine(), &shared.loader.find(&name)?)
    });
}

#[derive(Clone)]
struct Shared {
    session: Rc<Session>,
    loader: Rc<Loader>,
    calls: CallStack,
}

/// A file as it was last read.
struct Loaded {
    source: Source,
    /// Of all modules: an import may have changed where the file has not.
    generation: u64,
    /// An edit is on trial for one call, where a run follows its files.
    functions: Rc<RefCell<Trial>>,
}

impl Shared {
    fn handle(&self, name: &str) -> Fallible<FnPtr> {
        // An unknown name fails here and not at the first call.
        self.loader.find(name)?;
        let (own, name) = (self.clone(), name.to_string());
        let loaded: RefCell<Option<Loaded>> = RefCell::default();
        functions::native("script", move |ctx, args| own.call(&ctx, &name, &loaded, args))
    }

    /// `.call("function", [arguments])`
    fn call(
        &self,
        ctx: &NativeCallContext,
        name: &str,
        loaded: &RefCell<Option<Loaded>>,
        args: &mut [&mut Dynamic],
    ) -> Fallible<Dynamic> {
        let usage = || {
            Error::value("a script is called with a function's name and an array of arguments")
                .hint("s.call(\"loss\", [logp, b, cfg])")
        };
        let [function, values] = args else { return Err(usage().into()) };
        let function = function.clone().into_string().map_err(|_| usage())?;
        let values: Array = std::mem::take(*values).try_cast().ok_or_else(usage)?;
        let _level = self.calls.deeper(ctx)?;
        let (functions, label) = self.functions(ctx.engine(), name, loaded)?;
        let call = |environment: &Environment, values| self.calls.call(ctx, environment, &label, &function, values);
        let done = functions::call_on_trial(&functions, values, call, |e| self.stays(&label, e));
        functions.borrow_mut().settle();
        done
    }

    /// Tells of an edit that is not taken over.
    fn stays(&self, label: &str, e: &EvalAltResult) {
        let text = format!("{label}: {}; its functions stay as they were", messages::plain(e));
        self.session.reporter().note(&text);
    }

    /// The file's functions, read again if the file changed. A run that follows its files goes on with the functions it
    /// has while an edit is broken.
    fn functions(
        &self,
        engine: &Engine,
        name: &str,
        loaded: &RefCell<Option<Loaded>>,
    ) -> Fallible<(Rc<RefCell<Trial>>, String)> {
        let source = self.loader.find(name)?;
        let generation = self.loader.generation();
        let same = |old: &&Loaded| old.source == source && old.generation == generation;
        if let Some(same) = loaded.borrow().as_ref().filter(same) {
            return Ok((same.functions.clone(), source.label));
        }
        let (read, label) = (self.calls.read(engine, &source), source.label.clone());
        let mut loaded = loaded.borrow_mut();
        let followed = loaded.take().filter(|_| self.session.step_loop().follows()).map(|old| old.functions);
        let functions = match (read, followed) {
            (Ok(environment), Some(functions)) => {
                functions.borrow_mut().edit(environment);
                functions
            }
            (Ok(environment), None) => Rc::new(RefCell::new(Trial::new(environment))),
            (Err(e), Some(functions)) => {
                self.stays(&label, &e);
                functions
            }
            (Err(e), None) => return Err(e),
        };
        *loaded = Some(Loaded { source, generation, functions: functions.clone() });
        Ok((functions, label))
    }
}
