//! The Rhai engine: how it is limited, what is installed in it, and how a script is run.
//! Owns no functions of its own (`bind/`) and no rendering of errors (`diagnostics.rs`).

use crate::error::{Error, Kind, Result};
use crate::run::Session;
use crate::run::session::Program;
use crate::script::between::Between;
use crate::script::bind;
use crate::script::callee::Callees;
use crate::script::diagnostics::Diagnostic;
use crate::script::loader::{self, Loader, Resolver, Source};
use crate::script::registry::{Doc, Registry};
use crate::script::surroundings::{Surroundings, Usage};
use crate::tensor::memory;
use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FLOAT, FnAccess, FuncInfo, INT, Module, OptimizationLevel, Scope, Token,
};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Calls within calls. The stack of the engine's thread holds far more; scripts need far fewer.
pub const CALL_LEVELS: usize = 128;
const EXPRESSION_DEPTH: usize = 256;
/// Characters, elements, entries.
pub(super) const STRING_SIZE: usize = 64 << 20;
pub(super) const ARRAY_SIZE: usize = 16 << 20;
const MAP_SIZE: usize = 1 << 20;
const VARIABLES: usize = 4096;
const FUNCTIONS: usize = 4096;
const MODULES: usize = 256;

/// How often the clock is compared with the limit, and the machine asked for what memory is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const KEYWORD_EVAL: &str = "eval";

/// How scripts are run.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Operations that one script may use, calls between scripts included; `None` is no limit.
    pub operations: Option<u64>,
    /// Time that one script may take.
    pub time: Option<Duration>,
}

impl Limits {
    fn check_operations(&self, used: u64) -> Result<()> {
        match self.operations.filter(|most| used > *most) {
            Some(most) => Err(Error::value(format!("the script used more than {most} operations"))
                .hint("is there a loop that never ends?")),
            None => Ok(()),
        }
    }

    fn check_time(&self, used: Duration) -> Result<()> {
        match self.time.filter(|most| used > *most) {
            Some(most) => Err(Error::value(format!("the script took more than {} s", most.as_secs_f64()))
                .hint("the limit is --max-seconds")),
            None => Ok(()),
        }
    }
}

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
        limit(&mut engine);
        free_words(&mut engine);
        let usage = watch(&mut engine, session, limits);
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
        let closed = session.run().map_or(Ok(()), |run| run.finish(session, ran.is_err()));
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
            Err(panic) => Err(Diagnostic::from(crashed(panic.as_ref()))),
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

/// Rhai's own limits depend on its build profile, so every one is set.
fn limit(engine: &mut Engine) {
    engine
        .set_max_call_levels(CALL_LEVELS)
        .set_max_expr_depths(EXPRESSION_DEPTH, EXPRESSION_DEPTH)
        .set_max_operations(0)
        .set_max_variables(VARIABLES)
        .set_max_functions(FUNCTIONS)
        .set_max_modules(MODULES)
        .set_max_string_size(STRING_SIZE)
        .set_max_array_size(ARRAY_SIZE)
        .set_max_map_size(MAP_SIZE)
        .set_strict_variables(false)
        .set_fail_on_invalid_map_property(true)
        // Maps of constants stay map literals, whose keys serve as suggestions; positions stay exact.
        .set_optimization_level(OptimizationLevel::None);
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

/// Counts operations and time on our side: Rhai begins anew in every call that a native function makes.
fn watch(engine: &mut Engine, session: &Rc<Session>, limits: &Limits) -> Rc<Usage> {
    let (usage, counter, limits) = (Rc::new(Usage::default()), session.clone(), limits.clone());
    let (total, looked) = (usage.clone(), Cell::new(Instant::now()));
    engine.on_progress(move |_| {
        let operations = total.count();
        // What is small alone adds up; the clock is looked at rarely because it takes as long as an operation.
        if operations.is_multiple_of(32) && looked.get().elapsed() >= LOOK_EVERY {
            looked.set(Instant::now());
            let checked = limits.check_time(total.elapsed()).and_then(|()| memory::enough());
            if let Err(e) = checked {
                return Some(Dynamic::from(e));
            }
        }
        let checked = limits.check_operations(operations).and_then(|()| counter.check());
        checked.err().map(Dynamic::from)
    });
    usage
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

/// A panic as an error: a defect of ours, whatever the script did.
pub fn crashed(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Error::new(Kind::Internal, format!("rhopo itself failed: {text}"))
        .hint("this is a defect of rhopo: please report it with the script that shows it")
}

/// A value as JSON, for `config.json`; what has no JSON form (a function, a tensor) is named by its type.
pub fn to_json(value: &Dynamic) -> serde_json::Value {
    use serde_json::Value;
    if value.is_unit() {
        return Value::Null;
    }
    if let Ok(map) = value.as_map_ref() {
        return Value::Object(map.iter().map(|(k, v)| (k.to_string(), to_json(v))).collect());
    }
    if let Ok(array) = value.as_array_ref() {
        return Value::Array(array.iter().map(to_json).collect());
    }
    let int = value.as_int().map(|i: INT| Value::from(i));
    let number = int.or_else(|_| value.as_float().map(|x: FLOAT| Value::from(x)));
    let plain = number.or_else(|_| value.as_bool().map(Value::from));
    plain.unwrap_or_else(|_| match value.clone().into_string() {
        Ok(text) => Value::String(text),
        Err(kind) => Value::String(format!("({kind})")),
    })
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

    #[test]
    fn values_become_json() {
        let (host, _) = host(&Limits::default());
        let value = eval(&host, "#{ a: 1, b: [0.5, true, ()], c: \"x\", d: |x| x }").expect("a map");
        assert_eq!(to_json(&value), serde_json::json!({ "a": 1, "b": [0.5, true, null], "c": "x", "d": "(Fn)" }));
    }
}
