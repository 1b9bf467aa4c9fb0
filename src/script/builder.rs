//! How a host is put together: a session, what finds its scripts, an engine with everything in it, and its limits.

use crate::error::Error;
use crate::run::{Launch, Session};
use crate::script::bind;
use crate::script::bind::tracked::Tracked;
use crate::script::host::Host;
use crate::script::lang::functions::CallStack;
use crate::script::lang::host_state::HostState;
use crate::script::lang::limits::{self, Limits};
use crate::script::lang::loader::{Loader, Resolver};
use crate::script::lang::native::Registry;
use crate::script::live::pause_loop::PauseLoop;
use rhai::{Engine, FLOAT, INT, Module, Token};
use std::cell::RefCell;
use std::rc::Rc;

const KEYWORD_EVAL: &str = "eval";

/// A host to be: unless told otherwise silent, on the CPU, without limits, and with the modules of the binary.
#[derive(Default)]
pub struct HostBuilder {
    launch: Launch,
    loader: Rc<Loader>,
    limits: Limits,
    strict: bool,
}

impl HostBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// What its session begins with.
    #[must_use]
    pub fn launch(self, launch: Launch) -> Self {
        Self { launch, ..self }
    }

    /// Where its scripts come from; several hosts may share one.
    #[must_use]
    pub fn loader(self, loader: &Rc<Loader>) -> Self {
        Self { loader: loader.clone(), ..self }
    }

    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Refuses variables that are not declared when a script is compiled, not only when it gets there.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    pub fn build(self) -> Host {
        let (session, loader) = (Session::launch(self.launch), self.loader);
        loader.confine(session.access());
        let mut engine = Engine::new();
        limits::bound(&mut engine);
        engine.set_strict_variables(self.strict);
        free_words(&mut engine);
        // Otherwise the language compares a text with a number by itself, and says false.
        engine.set_fast_operators(false);
        let usage = limits::count(&mut engine, &session, &self.limits);
        print_through(&mut engine, &session);
        engine.set_module_resolver(Resolver(loader.clone()));
        let (mut registry, calls) = (Registry::new(&session), CallStack::default());
        calls.install(registry.global());
        let tracked = Tracked::default();
        let pauses = PauseLoop::new(&session, &calls, &tracked, &loader);
        pauses.install(&mut engine, registry.global());
        bind::register(&mut registry, &session, &loader, &calls, &tracked);
        errors_as_values(registry.global());
        compare_exactly(registry.global());
        let docs = registry.install(&mut engine).expect("declarations fit together");
        let state = Rc::new(HostState { docs, loader, session, usage, origins: RefCell::default() });
        pauses.set_state(&state);
        Host::new(engine, state, pauses)
    }
}

/// `eval` is a name for a metric here, not a way to run text: Rhai reserves the word, so its token is renamed.
// Rhai marks the hook as volatile by calling it deprecated; its version is pinned by the lock file.
#[allow(deprecated)]
pub(crate) fn free_words(engine: &mut Engine) {
    engine.on_parse_token(|token, _, _| match token {
        Token::Reserved(word) if word.as_str() == KEYWORD_EVAL => Token::Identifier(word),
        token => token,
    });
}

/// Numbers compare as IEEE 754 has it. The language's own comparisons divide by the larger number to look away from the last
/// bit, so that infinity compared false with everything, itself included.
fn compare_exactly(m: &mut Module) {
    type Compare = fn(f64, f64) -> bool;
    let all: [(&str, Compare); 6] = [
        ("==", |x, y| x == y),
        ("!=", |x, y| x != y),
        ("<", |x, y| x < y),
        ("<=", |x, y| x <= y),
        (">", |x, y| x > y),
        (">=", |x, y| x >= y),
    ];
    for (sign, compare) in all {
        m.set_native_fn(sign, move |x: FLOAT, y: FLOAT| Ok(compare(x, y)));
        m.set_native_fn(sign, move |x: INT, y: FLOAT| Ok(compare(x as FLOAT, y)));
        m.set_native_fn(sign, move |x: FLOAT, y: INT| Ok(compare(x, y as FLOAT)));
    }
}

/// What `catch (e)` gives: an error that prints, with its message and hint.
fn errors_as_values(m: &mut Module) {
    m.set_custom_type::<Error>("Error");
    m.set_getter_fn("message", |e: &mut Error| Ok(e.what.clone()));
    m.set_getter_fn("hint", |e: &mut Error| Ok(e.hint.clone().unwrap_or_default()));
    for name in ["to_string", "print", "to_debug", "debug"] {
        m.set_native_fn(name, |e: &mut Error| Ok(e.what.clone()));
    }
}

fn print_through(engine: &mut Engine, session: &Rc<Session>) {
    let (out, notes) = (session.clone(), session.clone());
    engine.on_print(move |text| out.reporter().print(text));
    engine.on_debug(move |text, source, pos| {
        let place = source.map(|source| format!("{source}:{pos:?} ")).unwrap_or_default();
        notes.reporter().note(&format!("{place}{text}"));
    });
}
