//! The Rhai engine: what is installed in it, and how a script is run.
//! Owns no functions of its own (`bind/`), no limits (`limits.rs`) and no rendering of errors (`diagnostics.rs`).

use crate::error::{Error, Result};
use crate::run::Session;
use crate::run::session::Program;
use crate::script::between::Between;
use crate::script::bind;
use crate::script::callee::Callees;
use crate::script::diagnostics::Diagnostic;
use crate::script::limits::{self, Limits};
use crate::script::loader::{self, Loader, Resolver, Source};
use crate::script::registry::{Doc, Registry};
use crate::script::surroundings::Surroundings;
use rhai::{AST, Dynamic, Engine, EvalAltResult, FnAccess, FuncInfo, Module, Scope, Token};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

const KEYWORD_EVAL: &str = "eval";

/// An engine with everything installed.
pub struct Host {
    engine: Engine,
    surroundings: Rc<Surroundings>,
    between: Rc<Between>,
}

impl Host {
    pub fn new(session: &Rc<Session>, loader: &Rc<Loader>, limits: &Limits) -> Self {
        loader.confine(session.access());
        let mut engine = Engine::new();
        limits::bound(&mut engine);
        free_words(&mut engine);
        let usage = limits::count(&mut engine, session, limits);
        print_through(&mut engine, session);
        engine.set_module_resolver(Resolver(loader.clone()));
        let (mut registry, callees) = (Registry::new(), Callees::default());
        callees.install(registry.global());
        let between = Between::new(session, &callees);
        between.install(&mut engine, registry.global());
        bind::register(&mut registry, session, loader, &callees);
        errors_as_values(registry.global());
        let docs = registry.install(&mut engine);
        let surroundings =
            Surroundings { docs, loader: loader.clone(), session: session.clone(), usage, homes: RefCell::default() };
        let surroundings = Rc::new(surroundings);
        between.set_surroundings(&surroundings);
        Self { engine, surroundings, between }
    }

    /// Everything that scripts can call.
    pub fn docs(&self) -> &[Doc] {
        &self.surroundings.docs
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn surroundings(&self) -> &Rc<Surroundings> {
        &self.surroundings
    }

    /// What happens between the steps of a run.
    pub fn between(&self) -> &Rc<Between> {
        &self.between
    }

    /// Runs a script from its first line to its last, and closes the run that it opened, whatever happened.
    pub fn run(&self, source: &Source) -> std::result::Result<(), Diagnostic> {
        let program = Program { name: source.stem(), label: source.label.clone(), text: source.text.clone() };
        let session = &self.surroundings.session;
        session.set_program(program);
        let ran = self.eval(source).map(|_| ());
        let closed = session.finish_run(ran.is_err());
        ran?;
        closed.and_then(|()| session.check_sets()).map_err(Diagnostic::from)
    }

    /// The value of a script's last expression.
    pub fn eval(&self, source: &Source) -> std::result::Result<Dynamic, Diagnostic> {
        self.surroundings.begin();
        let ast = self.compile(source)?;
        self.surroundings.warn(source, &ast);
        let ast = self.between.follow(&self.engine, source, ast);
        let run = || self.engine.eval_ast_with_scope::<Dynamic>(&mut Scope::new(), &ast);
        // A panic is a defect of ours; what the script did so far must still be written.
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => result.map_err(|e| self.explain(&e, &ast, &source.label)),
            Err(panic) => Err(Diagnostic::from(Error::panicked(panic.as_ref()))),
        }
    }

    /// Refuses variables that are not declared when a script is compiled, not only when it gets there.
    pub fn strict(mut self) -> Self {
        self.engine.set_strict_variables(true);
        self
    }

    pub fn compile(&self, source: &Source) -> std::result::Result<AST, Diagnostic> {
        loader::compile(&self.engine, source).map_err(|e| self.explain(&e, &AST::empty(), &source.label))
    }

    /// Every native function, those of the language among them: its path and a number of arguments.
    pub fn natives(&self) -> Vec<(String, usize)> {
        let path = |f: FuncInfo| {
            let name = &f.metadata.name;
            let path = if f.namespace.is_empty() { name.to_string() } else { format!("{}::{name}", f.namespace) };
            Some((path, f.metadata.num_params))
        };
        self.engine.collect_fn_metadata(None, path, true)
    }

    /// What the module that `import "path"` finds in the script `from` exports.
    pub fn module_functions(&self, path: &str, from: &str) -> std::result::Result<Vec<(String, usize)>, Diagnostic> {
        self.functions(&self.module(path, from)?)
    }

    /// What `import "path"` means in the script `from`.
    pub fn module(&self, path: &str, from: &str) -> std::result::Result<Source, Diagnostic> {
        Ok(self.surroundings.loader.module(path, Some(from))?)
    }

    /// The functions of a script that others may call: names and numbers of arguments, in no order.
    pub fn functions(&self, source: &Source) -> std::result::Result<Vec<(String, usize)>, Diagnostic> {
        let ast = self.compile(source)?;
        let public = ast.iter_functions().filter(|f| f.access == FnAccess::Public);
        Ok(public.map(|f| (f.name.to_string(), f.params.len())).collect())
    }

    fn explain(&self, e: &EvalAltResult, ast: &AST, label: &str) -> Diagnostic {
        self.surroundings.explain(e, ast, label)
    }
}

/// `eval` is a name for a metric here, not a way to run text: Rhai reserves the word, so its token is renamed.
// Rhai marks the hook as volatile by calling it deprecated; its version is pinned by the lock file.
#[allow(deprecated)]
fn free_words(engine: &mut Engine) {
    engine.on_parse_token(|token, _, _| match token {
        Token::Reserved(word) if word.as_str() == KEYWORD_EVAL => Token::Identifier(word),
        token => token,
    });
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

/// Finds and runs the script called `name`.
pub fn run_named(host: &Host, name: &str) -> std::result::Result<(), Diagnostic> {
    let found: Result<Source> = host.surroundings.loader.find(name);
    host.run(&found?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Settings;
    use crate::run::{Launch, Session};
    use crate::tensor::Device;
    use rhai::INT;
    use std::sync::atomic::Ordering;

    fn host(limits: &Limits) -> (Host, Rc<Session>) {
        let session = Session::launch(Launch::new(Device::Cpu, Settings::default()));
        (Host::new(&session, &Loader::new(None), limits), session)
    }

    fn eval(host: &Host, text: &str) -> std::result::Result<Dynamic, Diagnostic> {
        host.eval(&host.surroundings.loader.keep("test".into(), text.into()))
    }

    #[test]
    fn operations_are_counted_across_calls_between_scripts() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("callee.rhai");
        std::fs::write(&path, "fn f() { for i in 0..100 { } }").expect("written");
        let (host, _) = host(&Limits { operations: Some(2000), ..Limits::default() });
        let calls = |n| format!("let s = script(\"{}\"); for i in 0..{n} {{ s.call(\"f\", []); }}", path.display());
        assert!(eval(&host, &calls(2)).is_ok(), "few operations");
        let e = eval(&host, &calls(1000)).expect_err("many, though few in each call");
        assert_eq!(e.message, "the script used more than 2000 operations");
    }

    #[test]
    fn an_interruption_is_not_caught_by_the_script() {
        let (host, session) = host(&Limits::default());
        session.settings().stop.store(true, Ordering::Relaxed);
        let e = eval(&host, "try { while true { } } catch (e) { 1 }").expect_err("stopped");
        assert!(e.interrupted);
    }

    #[test]
    fn caught_errors_are_values_that_print() {
        let (host, _) = host(&Limits::default());
        let text = "let said = \"\"; try { assert(false, \"no\") } catch (e) { said = `${e}` + e.message; } said";
        assert_eq!(eval(&host, text).expect("caught").into_string().as_deref(), Ok("nono"));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let (mut host, _) = host(&Limits::default());
        host.engine.register_fn("broken", || -> INT { panic!("on purpose") });
        let e = eval(&host, "broken()").expect_err("caught");
        assert_eq!(e.message, "rhopo itself failed: on purpose");
    }
}
