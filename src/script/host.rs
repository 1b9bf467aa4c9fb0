//! A Rhai engine with everything in it, and how a script is run by it.
//! Owns neither what is in it (`builder.rs`) nor the rendering of errors (`diagnostics.rs`).

use crate::budget;
use crate::error::Error;
use crate::run::Session;
use crate::run::session::Program;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::host_state::HostState;
use crate::script::lang::loader::{self, Loader, Source};
use crate::script::lang::native::Declaration;
use crate::script::lang::render::render;
use crate::script::live::pause_loop::PauseLoop;
use rhai::{AST, Dynamic, Engine, EvalAltResult, FnAccess, FuncInfo, Scope};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// An engine with everything installed.
pub struct Host {
    engine: Engine,
    state: Rc<HostState>,
    pauses: Rc<PauseLoop>,
}

impl Host {
    /// Puts together what belongs together: `HostBuilder` sees to that.
    pub(super) fn new(engine: Engine, state: Rc<HostState>, pauses: Rc<PauseLoop>) -> Self {
        Self { engine, state, pauses }
    }

    pub fn session(&self) -> &Rc<Session> {
        &self.state.session
    }

    pub fn loader(&self) -> &Rc<Loader> {
        &self.state.loader
    }

    /// Everything that scripts can call.
    pub fn docs(&self) -> &[Declaration] {
        &self.state.docs
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn state(&self) -> &Rc<HostState> {
        &self.state
    }

    /// What happens between the steps of a run.
    pub fn pauses(&self) -> &Rc<PauseLoop> {
        &self.pauses
    }

    /// Runs a script from its first line to its last, and closes the run that it opened, whatever happened.
    pub fn run(&self, source: &Source) -> std::result::Result<(), Diagnostic> {
        self.run_for_value(source).map(drop)
    }

    /// As `run`, and returns the value of the script's last expression.
    ///
    /// # Errors
    /// What goes wrong in the script, or at the end of its run.
    pub fn run_for_value(&self, source: &Source) -> std::result::Result<Dynamic, Diagnostic> {
        let program = Program { name: source.stem(), label: source.label.clone(), text: source.text.clone() };
        let session = &self.state.session;
        session.set_program(program);
        let ran = self.eval(source).and_then(|value| self.end(source).map(|()| value));
        if let (Err(e), Some(run)) = (&ran, session.run())
            && !e.interrupted
        {
            run.tell(render(e, self.loader(), false).trim_end());
        }
        let closed = session.finish_run(ran.is_err());
        let value = ran?;
        closed.and_then(|()| session.check_sets()).map_err(Diagnostic::from)?;
        Ok(value)
    }

    /// What is due when a script has come to its end.
    fn end(&self, source: &Source) -> std::result::Result<(), Diagnostic> {
        let session = &self.state.session;
        session.checkpoints().check()?;
        if session.launched().interrupt.asked() {
            return Ok(());
        }
        self.pauses.end(&self.engine).map_err(|e| self.explain(&e, &AST::empty(), &source.label))
    }

    /// Finds and runs the script called `name`.
    ///
    /// # Errors
    /// There is none; what goes wrong in it.
    pub fn run_named(&self, name: &str) -> std::result::Result<(), Diagnostic> {
        self.run(&self.loader().find(name)?)
    }

    /// The value of a script's last expression.
    pub fn eval(&self, source: &Source) -> std::result::Result<Dynamic, Diagnostic> {
        self.state.begin();
        let ast = self.compile(source)?;
        self.state.warn(source, &ast);
        let ast = self.pauses.follow(&self.engine, source, ast);
        let mut scope = Scope::new();
        budget::hold(true);
        let ran = self.attempt(source, &ast, &mut scope);
        if self.state.session.engine().settings().stop.load(Ordering::Relaxed) {
            // The process ends: to take millions of values apart may take longer than it was given.
            std::mem::forget(scope);
        }
        budget::hold(false);
        ran
    }

    /// Runs a script, again and again where a person who pauses mends what has failed.
    fn attempt(&self, source: &Source, ast: &AST, scope: &mut Scope) -> std::result::Result<Dynamic, Diagnostic> {
        let mut result = self.guard(|| Some(self.engine.eval_ast_with_scope(scope, ast)), ast, source);
        while let Some(Err(e)) = &result {
            let e = e.clone();
            match self.guard(|| self.pauses.again(&self.engine, scope, ast, &e), ast, source) {
                None => return Err(e),
                went_on => result = went_on,
            }
        }
        result.unwrap_or(Ok(Dynamic::UNIT))
    }

    /// A panic is a defect of ours; what the script did so far must still be written.
    fn guard(
        &self,
        run: impl FnOnce() -> Option<std::result::Result<Dynamic, Box<EvalAltResult>>>,
        ast: &AST,
        source: &Source,
    ) -> Option<std::result::Result<Dynamic, Diagnostic>> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => result.map(|result| result.map_err(|e| self.explain(&e, ast, &source.label))),
            Err(panic) => Some(Err(Diagnostic::from(Error::panicked(panic.as_ref())))),
        }
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
        Ok(self.state.loader.module(path, Some(from))?)
    }

    /// The functions of a script that others may call: names and numbers of arguments, in no order.
    pub fn functions(&self, source: &Source) -> std::result::Result<Vec<(String, usize)>, Diagnostic> {
        let ast = self.compile(source)?;
        let public = ast.iter_functions().filter(|f| f.access == FnAccess::Public);
        Ok(public.map(|f| (f.name.to_string(), f.params.len())).collect())
    }

    fn explain(&self, e: &EvalAltResult, ast: &AST, label: &str) -> Diagnostic {
        self.state.explain(e, ast, label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::builder::HostBuilder;
    use crate::script::lang::limits::Limits;
    use rhai::INT;
    use std::sync::atomic::Ordering;

    fn host(limits: Limits) -> Host {
        HostBuilder::new().limits(limits).build()
    }

    fn eval(host: &Host, text: &str) -> std::result::Result<Dynamic, Diagnostic> {
        host.eval(&host.loader().keep("test".into(), text.into()))
    }

    #[test]
    fn operations_are_counted_across_calls_between_scripts() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("callee.rhai");
        std::fs::write(&path, "fn f() { for i in 0..100 { } }").expect("written");
        let host = host(Limits { operations: Some(2000), ..Limits::default() });
        let calls = |n| format!("let s = script(\"{}\"); for i in 0..{n} {{ s.call(\"f\", []); }}", path.display());
        assert!(eval(&host, &calls(2)).is_ok(), "few operations");
        let e = eval(&host, &calls(1000)).expect_err("many, though few in each call");
        assert_eq!(e.message, "the script used more than 2000 operations");
    }

    #[test]
    fn an_interruption_is_not_caught_by_the_script() {
        let host = host(Limits::default());
        host.session().engine().settings().stop.store(true, Ordering::Relaxed);
        let e = eval(&host, "try { while true { } } catch (e) { 1 }").expect_err("stopped");
        assert!(e.interrupted);
    }

    #[test]
    fn caught_errors_are_values_that_print() {
        let host = host(Limits::default());
        let text = "let said = \"\"; try { assert(false, \"no\") } catch (e) { said = `${e}` + e.message; } said";
        assert_eq!(eval(&host, text).expect("caught").into_string().as_deref(), Ok("nono"));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let mut host = host(Limits::default());
        host.engine.register_fn("broken", || -> INT { panic!("on purpose") });
        let e = eval(&host, "broken()").expect_err("caught");
        assert_eq!(e.message, "rhopo itself failed: on purpose");
    }
}
