//! `script(name)`: the functions of another file, callable without running its body.
//!
//! Rhai owns the word `.call` for function pointers, so the handle is one, made from a native function.

use crate::error::Error;
use crate::run::Session;
use crate::script::callee::{self, Callees, Fallible, Home};
use crate::script::loader::{Loader, Source};
use crate::script::native::{Call, Registry};
use crate::script::wording;
use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, ImmutableString, Map, NativeCallContext};
use std::cell::RefCell;
use std::rc::Rc;

pub fn register(reg: &mut Registry, session: &Rc<Session>, loader: &Rc<Loader>, callees: &Callees) {
    let shared = Shared { session: session.clone(), loader: loader.clone(), callees: callees.clone() };
    let handles = shared.clone();
    reg.function("script", ["name"], move |name: ImmutableString| handles.handle(&name));
    reg.function("defaults", ["name"], move |call: &Call, name: ImmutableString| -> Fallible<Map> {
        let _level = shared.callees.deeper(call.context)?;
        callee::defaults(call.context.engine(), &shared.loader.find(&name)?)
    });
}

#[derive(Clone)]
struct Shared {
    session: Rc<Session>,
    loader: Rc<Loader>,
    callees: Callees,
}

/// A file as it was last read.
struct Loaded {
    source: Source,
    /// Of all modules: an import may have changed where the file has not.
    generation: u64,
    home: Home,
    /// What was there before the last edit, until a call of the new text went well.
    before: Option<Home>,
}

impl Shared {
    fn handle(&self, name: &str) -> Fallible<FnPtr> {
        // An unknown name fails here and not at the first call.
        self.loader.find(name)?;
        let (own, name) = (self.clone(), name.to_string());
        let loaded: RefCell<Option<Loaded>> = RefCell::default();
        callee::native("script", move |ctx, args| own.call(&ctx, &name, &loaded, args))
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
        let _level = self.callees.deeper(ctx)?;
        let (home, label) = self.environment(ctx.engine(), name, loaded)?;
        let before = loaded.borrow_mut().as_mut().and_then(|loaded| loaded.before.take());
        // A run that follows its files tries an edit, and goes back where that fails.
        let again = before.filter(|_| self.session.step_loop().follows()).map(|before| (before, values.clone()));
        let done = self.callees.call(ctx, &home, &label, &function, values);
        match (done, again) {
            (Err(e), Some((before, values))) if !matches!(*e, EvalAltResult::ErrorTerminated(..)) => {
                self.stays(&label, &e);
                if let Some(loaded) = &mut *loaded.borrow_mut() {
                    loaded.home = before.clone();
                }
                self.callees.call(ctx, &before, &label, &function, values)
            }
            (done, _) => done,
        }
    }

    /// Tells of an edit that is not taken over.
    fn stays(&self, label: &str, e: &EvalAltResult) {
        let text = format!("{label}: {}; its functions stay as they were", wording::plain(e));
        self.session.reporter().note(&text);
    }

    /// What the file's functions see, read again if the file changed. A run that follows its files goes on with the
    /// functions it has while an edit is broken.
    fn environment(&self, engine: &Engine, name: &str, loaded: &RefCell<Option<Loaded>>) -> Fallible<(Home, String)> {
        let source = self.loader.find(name)?;
        let generation = self.loader.generation();
        let same = |old: &&Loaded| old.source == source && old.generation == generation;
        if let Some(same) = loaded.borrow().as_ref().filter(same) {
            return Ok((same.home.clone(), source.label));
        }
        let read = self.callees.read(engine, &source);
        let mut loaded = loaded.borrow_mut();
        let home = match (read, loaded.as_mut()) {
            (Ok(home), _) => home,
            (Err(e), Some(old)) if self.session.step_loop().follows() => {
                self.stays(&source.label, &e);
                old.home.clone()
            }
            (Err(e), _) => return Err(e),
        };
        let before = loaded.take().map(|old| old.home);
        *loaded = Some(Loaded { source: source.clone(), generation, home: home.clone(), before });
        Ok((home, source.label))
    }
}
