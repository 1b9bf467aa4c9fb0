//! A script that follows its file while it runs: its functions are replaced and its hyper-parameters are read again
//! when the file changes, between two steps.
//!
//! The body of the running script keeps its statements; each of its functions is a stand-in that calls the newest text.

use crate::error::{Error, Result};
use crate::run::Session;
use crate::run::edit::SCRIPT;
use crate::run::editing::Edited;
use crate::script::bind::args;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::functions::{self, CallStack, Environment, Fallible, Trial};
use crate::script::lang::host_state::HostState;
use crate::script::lang::lex;
use crate::script::lang::loader::{Source, compile};
use crate::script::lang::render::render;
use crate::script::lang::value::{describe, to_json};
use crate::script::live::console::bounds;
use rhai::{AST, Array, Dynamic, Engine, EvalContext, Map, NativeCallContext};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The native function that stand-ins call; no script has a reason to.
pub const CALL: &str = "newest_function_of_this_file";

/// Read when a run begins, and never again: what was made from them is there.
const FIXED: [&str; 3] = ["model", "task", "seed"];

/// The running script.
pub struct HotReload {
    /// Names and numbers of arguments that the body may call.
    functions: Vec<(String, usize)>,
    /// The variable that holds the hyper-parameters.
    variable: Option<String>,
    label: String,
    now: RefCell<Now>,
    /// What its functions see: an edit is on trial for the step at which it was taken over.
    newest: RefCell<Trial>,
    /// That step.
    tried: Cell<u64>,
    /// As the file has it, without what was defined at a pause.
    file: RefCell<Environment>,
    /// What became of functions that were defined at a pause and go before the file's.
    said: Cell<Said>,
    /// Files of the run folder that hold what is on trial.
    kept: RefCell<Vec<String>>,
}

/// Functions that were defined at a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    InUse,
    /// They failed in their first step.
    Refused,
}

/// As the file was last read.
struct Now {
    source: Source,
    generation: u64,
    /// What it declares, the command line's overrides applied.
    declared: Map,
}

impl HotReload {
    /// What follows the file, and the script to run in place of `ast`; nothing where there is no function to follow.
    pub fn begin(
        engine: &Engine,
        session: &Session,
        calls: &CallStack,
        source: &Source,
        ast: &AST,
    ) -> Fallible<Option<(Self, AST)>> {
        let named = |f: &rhai::ScriptFnMetadata<'_>| !f.name.starts_with("anon$");
        let functions: Vec<(String, usize)> =
            ast.iter_functions().filter(named).map(|f| (f.name.to_string(), f.params.len())).collect();
        let variable = functions::hyper_parameters(ast).map(|(name, _)| name);
        if functions.is_empty() && variable.is_none() {
            return Ok(None);
        }
        // Below the last line of the file, where no error is shown.
        let mut text = "\n".repeat(source.text.lines().count() + 1);
        for f in ast.iter_functions().filter(named) {
            let values = f.params.join(", ");
            text += &format!("fn {}({values}) {{ {CALL}(\"{}\", [{values}]) }}\n", f.name, f.name);
        }
        let stand_ins = compile(engine, &Source { label: source.label.clone(), text })?;
        let mut body = ast.clone();
        body.retain_functions(|_, _, name, _| name.starts_with("anon$"));
        body.combine(stand_ins);
        let declared = match variable {
            Some(_) => args::overridden(session, functions::defaults(engine, source)?)?,
            None => Map::new(),
        };
        let environment = calls.read(engine, source)?;
        let (newest, file) = (RefCell::new(Trial::new(environment.clone())), RefCell::new(environment));
        let now = RefCell::new(Now { source: source.clone(), generation: 0, declared });
        let (label, tried, said) = (source.label.clone(), Cell::new(0), Cell::new(Said::Nothing));
        let kept = RefCell::default();
        Ok(Some((Self { functions, variable, label, now, newest, tried, file, said, kept }, body)))
    }

    /// Calls the newest text of a function.
    pub fn call(
        &self,
        ctx: &NativeCallContext,
        calls: &CallStack,
        with: &HostState,
        name: &str,
        values: Array,
    ) -> Fallible<Dynamic> {
        let _level = calls.deeper(ctx)?;
        if with.session.step() > self.tried.get() {
            self.newest.borrow_mut().settle();
        }
        let call = |environment: &Environment, values| calls.call(ctx, environment, &self.label, name, values);
        functions::call_on_trial(&self.newest, values, call, |e| {
            let (reporter, step) = (with.session.reporter(), with.session.step());
            reporter.note(render(&with.explain(e, &AST::empty(), &self.label), &with.loader, false).trim_end());
            let turned_down = self
                .kept
                .take()
                .iter()
                .try_for_each(|file| with.session.run().map_or(Ok(()), |run| run.turn_down(file)));
            if let Err(e) = turned_down {
                reporter.note(&e.to_string());
            }
            if self.said.get() == Said::InUse {
                self.said.set(Said::Refused);
                // Whoever said it may say it better.
                with.session.step_loop().request_pause();
                reporter.note(&format!("step {step}: the functions are back to their previous versions"));
                return;
            }
            reporter.note(&format!("step {step}: {} is back to its previous version", self.label));
        })
    }

    /// Functions of a prompt go before the file's, until the file is edited; they are on trial in the coming step. `kept` is
    /// the file of the run folder that has them.
    pub fn override_by(&self, prompt: &AST, coming: u64, kept: Option<String>) {
        let mut with_said = (**self.file.borrow()).clone();
        with_said.lib.push(prompt.shared_lib().clone());
        self.newest.borrow_mut().edit(Rc::new(with_said));
        self.tried.set(coming);
        self.said.set(Said::InUse);
        *self.kept.borrow_mut() = kept.into_iter().collect();
    }

    /// Whether functions of a prompt were turned down since this was asked last.
    pub fn take_refused(&self) -> bool {
        let refused = self.said.get() == Said::Refused;
        if refused {
            self.said.set(Said::Nothing);
        }
        refused
    }

    /// Reads files again if one has changed. What is wrong with an edit is shown, and nothing changes then.
    ///
    /// # Errors
    /// Text that cannot be kept in the run folder.
    pub fn refresh(&self, context: &mut EvalContext, calls: &CallStack, with: &HostState) -> Fallible<()> {
        let loader = &with.loader;
        if !with.session.step_loop().follows() {
            return Ok(());
        }
        self.newest.borrow_mut().settle();
        let before = loader.files();
        let changed = loader.refresh();
        let generation = loader.generation();
        let Ok(source) = loader.find(&self.label) else { return Ok(()) };
        let old = self.now.borrow().source.clone();
        if generation == self.now.borrow().generation {
            return Ok(());
        }
        self.now.borrow_mut().generation = generation;
        let apart = |label: &String| *label != self.label && loader.stands_apart(label);
        if !changed.is_empty() && changed.iter().all(apart) {
            return Ok(());
        }
        let reporter = with.session.reporter();
        let step = with.session.step() + 1;
        match self.read(context.engine(), calls, with, &source) {
            Ok((environment, declared)) => {
                *self.file.borrow_mut() = environment.clone();
                self.newest.borrow_mut().edit(environment);
                self.tried.set(step);
                self.said.set(Said::Nothing);
                let changes = self.adopt(context, declared, &source);
                self.renew_imports(context);
                let mut kept = Vec::new();
                for label in changed.iter().filter(|label| **label != self.label && !apart(label)) {
                    let text = loader.text(label).unwrap_or_default();
                    let before = before.get(label).map(String::as_str);
                    let edited = Edited { noun: "module", label, text: &text, before };
                    kept.extend(keep(&with.session, step, edited)?);
                }
                if source.text == old.text {
                    let place = place(kept.first());
                    reporter.note(&format!("step {step}: reloaded a module of {}{place}", source.label));
                } else {
                    let Source { label, text } = &source;
                    let own = keep(&with.session, step, Edited { noun: SCRIPT, label, text, before: None })?;
                    reporter.note(&format!("step {step}: reloaded {label}: {changes}{}", place(own.as_ref())));
                    kept.extend(own);
                }
                *self.kept.borrow_mut() = kept;
            }
            Err(e) => {
                reporter.note(render(&e, loader, false).trim_end());
                reporter.note(&format!("step {step}: {} keeps its previous version", source.label));
                // Errors of what runs are shown in the text that runs.
                loader.keep(old.label, old.text);
            }
        }
        Ok(())
    }

    fn read(
        &self,
        engine: &Engine,
        calls: &CallStack,
        with: &HostState,
        source: &Source,
    ) -> std::result::Result<(Environment, Map), Diagnostic> {
        let explain = |e: Box<rhai::EvalAltResult>| with.explain(&e, &AST::empty(), &source.label);
        let environment = calls.read(engine, source).map_err(explain)?;
        for (name, arguments) in &self.functions {
            if !functions::has_function(&environment, name, *arguments) {
                return Err(gone(&environment, name, *arguments).into());
            }
        }
        let declared = match self.variable {
            Some(_) => args::overridden(&with.session, functions::defaults(engine, source).map_err(explain)?)?,
            None => Map::new(),
        };
        let now = self.now.borrow();
        let number = |value: &Dynamic| value.is_int() || value.is_float();
        for (key, value) in &declared {
            if let Some(old) = now.declared.get(key).filter(|old| old.type_id() != value.type_id())
                && !(number(old) && number(value))
            {
                let what =
                    format!("`{key}` was {} when it was read last, and is {} now", describe(old), describe(value));
                return Err(Error::value(what).hint("give it a value of the same type, or start a new run").into());
            }
        }
        Ok((environment, declared))
    }

    /// The body's own calls of modules find the newest: each takes the place of the one that was imported by its name.
    fn renew_imports(&self, context: &mut EvalContext) {
        let environment = self.newest.borrow().now().clone();
        let global = context.global_runtime_state_mut();
        let old: Vec<_> = global.scan_imports_raw().map(|(name, module)| (name.clone(), module.clone())).collect();
        global.truncate_imports(0);
        for (name, module) in old {
            let newest =
                environment.iter_imports_raw().find(|(known, _)| **known == name).map(|(_, module)| module.clone());
            global.push_import(name, newest.unwrap_or(module));
        }
    }

    /// Takes the new text over and says what changed by it.
    fn adopt(&self, context: &mut EvalContext, declared: Map, source: &Source) -> String {
        let mut now = self.now.borrow_mut();
        let (was, is) = (lex::functions(&now.source.text), lex::functions(&source.text));
        let changed = is.iter().filter(|function| !was.contains(function)).map(|(name, _)| format!("`{name}`"));
        let mut changes: Vec<String> = changed.collect();
        if constants(&now.source.text) != constants(&source.text) {
            changes.push("constants and imports".to_string());
        }
        let mut fixed = Vec::new();
        for (key, value) in &declared {
            let before = now.declared.get(key).map(to_json);
            if before.as_ref() == Some(&to_json(value)) {
                continue;
            }
            if FIXED.contains(&key.as_str()) {
                fixed.push(key.to_string());
                continue;
            }
            let from = before.map_or("new".to_string(), |before| before.to_string());
            changes.push(format!("{key} {from} → {}", to_json(value)));
            self.set(context, key, value);
        }
        now.source = source.clone();
        now.declared = declared;
        if changes.is_empty() {
            changes.push(
                "what changed is outside of its functions and hyper-parameters, so it waits for a new run".into(),
            );
        }
        if !fixed.is_empty() {
            changes.push(format!("{} is read when a run begins", fixed.join(", ")));
        }
        changes.join(", ")
    }

    fn set(&self, context: &mut EvalContext, key: &str, value: &Dynamic) {
        let Some(variable) = &self.variable else { return };
        if let Some(slot) = context.scope_mut().get_mut(variable)
            && let Some(mut map) = slot.write_lock::<Map>()
        {
            map.insert(key.into(), value.clone());
        }
    }
}

/// Lines that declare what functions see beside each other.
fn constants(text: &str) -> Vec<&str> {
    text.lines().filter(|line| ["const ", "import "].iter().any(|begin| line.starts_with(begin))).collect()
}

fn gone(environment: &Environment, name: &str, arguments: usize) -> Error {
    let now = environment.lib.iter().flat_map(|lib| lib.iter_script_fn_info()).find(|f| f.2 == name).map(|f| f.3);
    now.map_or_else(
        || {
            Error::value(format!("`{name}` was removed, but the running script calls it"))
                .hint("the body of a running script stays as it was: put the function back, or start a new run")
        },
        |now| bounds::other_arguments(name, arguments, now),
    )
}

/// Keeps the text in the run folder; the name of its file there.
fn keep(session: &Session, step: u64, edited: Edited<'_>) -> Result<Option<String>> {
    session.run().map(|run| run.keep_edit(step, edited)).transpose()
}

fn place(kept: Option<&String>) -> String {
    kept.map_or_else(String::new, |name| format!(" ({name} in the run folder)"))
}
