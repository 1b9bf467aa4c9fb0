//! A conversation with the engine: inputs evaluated one after the other in variables that stay, whether those of a
//! prompt of its own or those of a script that pauses.
//!
//! Owns what was said and defined; who reads lines and draws answers is `ui/repl/`.

pub mod complete;
pub mod curves;
mod lookup;
pub mod show;

use crate::error::{Error, Result};
use crate::run::device;
use crate::run::session::Program;
use crate::run::{Run, Session};
use crate::script::diagnostics::Diagnostic;
use crate::script::lex;
use crate::script::loader::{self, Loader, Source};
use crate::script::reference::{self, Entry};
use crate::script::surroundings::Surroundings;
use complete::Variable;
use curves::Curve;
use rhai::{
    AST, Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, GlobalRuntimeState, Position, Scope, Stmt,
    StmtBlock,
};
use show::Shown;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What errors call the text of a prompt.
pub const LABEL: &str = "prompt";
/// What a saved session begins with.
pub const SAVED: &str = "//! A session at the prompt, saved as a script.\n";
/// The last value, also written `_`.
const LAST: &str = "ans";

type Explained<T> = std::result::Result<T, Diagnostic>;

/// One input, as it was taken.
#[derive(Debug, Clone)]
struct Input {
    text: String,
    /// Where the last statement begins, if it gave a value.
    value_at: Option<usize>,
}

/// A file whose functions are in use.
#[derive(Debug, Clone)]
struct Loaded {
    source: Source,
    name: String,
}

/// What stays from one input to the next, apart from variables.
pub struct Console {
    surroundings: Rc<Surroundings>,
    /// Everything said so far, line by line: errors show their lines in it.
    text: String,
    inputs: Vec<Input>,
    /// Functions and closures of all inputs and files.
    defined: AST,
    files: Vec<Loaded>,
    entries: OnceCell<Vec<Entry>>,
}

/// What came of an input.
#[derive(Debug)]
pub struct Answer {
    /// The value, unless there is none.
    pub value: Option<Shown>,
    pub took: Duration,
}

impl Console {
    pub fn new(surroundings: Rc<Surroundings>) -> Self {
        let (text, inputs, files) = (String::new(), Vec::new(), Vec::new());
        Self { surroundings, text, inputs, defined: AST::empty(), files, entries: OnceCell::new() }
    }

    fn loader(&self) -> &Rc<Loader> {
        &self.surroundings.loader
    }

    /// Functions that were defined here, closures included.
    pub(in crate::script) fn functions(&self) -> AST {
        self.defined.clone()
    }

    fn session(&self) -> &Rc<Session> {
        &self.surroundings.session
    }
}

/// Where inputs are evaluated: a console, and the variables that are in reach.
pub struct Desk<'d, 'ps> {
    pub(in crate::script) engine: &'d Engine,
    pub(in crate::script) global: &'d mut GlobalRuntimeState,
    pub(in crate::script) scope: &'d mut Scope<'ps>,
    pub(in crate::script) console: &'d mut Console,
}

impl Desk<'_, '_> {
    pub fn session(&self) -> &Rc<Session> {
        self.console.session()
    }

    pub fn loader(&self) -> &Rc<Loader> {
        self.console.loader()
    }

    /// Evaluates one input; its value is shown within `width` columns.
    ///
    /// # Errors
    /// What is wrong with it. What it did before stays done.
    pub fn eval(&mut self, text: &str, width: usize) -> Explained<Answer> {
        let begun = Instant::now();
        let value = self.take(text)?;
        let took = begun.elapsed();
        let value = match value.is_unit() || lex::ends_silently(text) {
            true => None,
            false => Some(show::value(self.engine, &value, width)?),
        };
        Ok(Answer { value, took })
    }

    fn take(&mut self, text: &str) -> Explained<Dynamic> {
        let text = lex::replace_blank(text, LAST);
        // Every line of the session has a number of its own, so that errors in earlier functions find their lines.
        let above = self.console.text.matches('\n').count();
        self.console.text += &format!("{}\n", text.trim_end());
        let whole = self.console.loader().keep(LABEL.into(), self.console.text.clone());
        let source = Source { label: LABEL.into(), text: format!("{}{text}", "\n".repeat(above)) };
        let session = self.session().clone();
        if self.is_program() {
            session.set_program(Program { name: "session".into(), label: LABEL.into(), text: whole.text });
            session.forget_arguments();
        }
        let ast = self.compile(&source)?;
        self.console.surroundings.warn(&source, &ast);
        let value = match self.run(&ast, LABEL) {
            Ok(value) => value,
            Err((done, e)) => {
                self.keep_what_was_done(&text, &ast, done);
                return Err(e);
            }
        };
        let has_value = !value.is_unit();
        let last = lex::last_statement(&text);
        let returned = text[last..].strip_prefix("return").map(str::len);
        let text = returned.map_or_else(
            || text.clone(),
            |rest| format!("{}{}", &text[..last], text[text.len() - rest..].trim_start()),
        );
        self.console.inputs.push(Input { text, value_at: has_value.then_some(last) });
        if has_value {
            self.scope.set_or_push(LAST, value.clone());
        }
        Ok(value)
    }

    /// Of an input that failed, the statements before that: what they did stays.
    fn keep_what_was_done(&mut self, text: &str, ast: &AST, done: usize) {
        let is_function = |at: &usize| ["fn ", "private fn "].iter().any(|begin| text[*at..].starts_with(begin));
        let starts: Vec<usize> = lex::statements(text).into_iter().filter(|at| !is_function(at)).collect();
        if starts.len() == ast.statements().len()
            && let Some(&end) = starts.get(done)
            && !text[..end].trim().is_empty()
        {
            self.console.inputs.push(Input { text: text[..end].to_string(), value_at: None });
        }
    }

    /// Whether this is the program itself, not a look into one that pauses.
    fn is_program(&self) -> bool {
        let label = self.session().program().label;
        label.is_empty() || label == LABEL
    }

    /// Runs a script in these variables, from its first line to its last.
    ///
    /// # Errors
    /// Those of the script; what it defined before stays.
    pub fn load(&mut self, name: &str) -> Explained<()> {
        let source = self.loader().find(name)?;
        let session = self.session().clone();
        let before = session.program();
        session.set_program(Program { name: source.stem(), label: source.label.clone(), text: source.text.clone() });
        session.forget_arguments();
        let ran = self.compile(&source).and_then(|ast| self.run(&ast, &source.label).map_err(|(_, e)| e));
        if ran.is_ok() {
            self.console.inputs.push(Input { text: source.text.clone(), value_at: None });
        }
        let closed = session.finish_run(ran.is_err());
        session.set_program(before);
        self.console.files.retain(|file| file.source.label != source.label);
        self.console.files.push(Loaded { source, name: name.to_string() });
        let _ = ran?;
        closed.and_then(|()| session.check_sets()).map_err(Diagnostic::from)
    }

    /// Reads the loaded files and all modules again: functions, imports and constants, no other line. Returns what was
    /// read, and what is wrong: of such a file what was there before stays in use.
    pub fn reload(&mut self) -> (Vec<String>, Vec<Diagnostic>) {
        let (mut read, mut wrong) = (self.loader().refresh(), Vec::new());
        for file in self.console.files.clone() {
            match self.reload_file(&file) {
                Ok(source) if source == file.source || read.contains(&source.label) => {}
                Ok(source) => read.push(source.label),
                Err(e) => wrong.push(e),
            }
        }
        // What was said at the prompt goes before what stands in files.
        for input in self.console.inputs.clone().iter().filter(|input| lex::mentions_import(&input.text)) {
            let source = Source { label: LABEL.into(), text: input.text.clone() };
            let imported = self.engine_compile(&source).and_then(|ast| self.run_only(&ast, LABEL));
            wrong.extend(imported.err());
        }
        (read, wrong)
    }

    fn reload_file(&mut self, file: &Loaded) -> Explained<Source> {
        let source = self.loader().find(&file.name)?;
        let ast = self.engine_compile(&source)?;
        self.run_only(&ast, &source.label)?;
        self.adopt(&ast, &source.label);
        self.console.files.retain(|other| other.name != file.name);
        self.console.files.push(Loaded { source: source.clone(), name: file.name.clone() });
        Ok(source)
    }

    /// Runs what functions see of a text, and no other line.
    fn run_only(&mut self, ast: &AST, label: &str) -> Explained<()> {
        let kept: Vec<Stmt> = ast.statements().iter().filter(|s| declares(s)).cloned().collect();
        self.run(&AST::new(kept, ast.shared_lib().clone()), label).map(|_| ()).map_err(|(_, e)| e)
    }

    fn engine_compile(&self, source: &Source) -> Explained<AST> {
        let explain = |e: Box<EvalAltResult>| self.console.surroundings.explain(&e, &AST::empty(), &source.label);
        loader::compile(self.engine, source).map_err(explain)
    }

    /// Compiles a text and takes over its functions.
    fn compile(&mut self, source: &Source) -> Explained<AST> {
        let ast = self.engine_compile(source)?;
        self.adopt(&ast, &source.label);
        Ok(ast)
    }

    /// Functions go before those of the same name that were there.
    fn adopt(&mut self, ast: &AST, label: &str) {
        self.console.surroundings.settle(ast, label);
        let before = self.console.defined.shared_lib().clone();
        self.console.defined = self.console.defined.merge(&ast.clone_functions_only());
        self.global.lib.retain(|lib| !Rc::ptr_eq(lib, &before));
        self.global.lib.push(self.console.defined.shared_lib().clone());
    }

    /// Runs the statements one by one; of an error also how many went well before it.
    fn run(&mut self, ast: &AST, label: &str) -> std::result::Result<Dynamic, (usize, Diagnostic)> {
        let source = self.global.source.replace(label.into());
        self.console.surroundings.begin();
        let (mut value, mut ended) = (Ok(Dynamic::UNIT), false);
        for (done, statement) in ast.statements().iter().enumerate() {
            let block = StmtBlock::new([statement.clone()], Position::NONE, Position::NONE);
            value = match self.run_block(Expr::Stmt(block.into())) {
                Ok((value, true)) => Ok(value),
                Ok((value, false)) => {
                    ended = true;
                    Ok(value)
                }
                Err(e) => Err((done, e)),
            };
            if ended || value.is_err() {
                break;
            }
        }
        self.global.source = source;
        self.keep_constants(ast);
        value.map_err(|(done, e)| match e {
            Failure::Script(e) => (done, self.console.surroundings.explain(&e, &self.console.defined, label)),
            Failure::Ours(e) => (done, e.into()),
        })
    }

    // Rhai marks the call as volatile by calling it deprecated; its version is pinned by the lock file.
    #[allow(deprecated)]
    /// A statement's value, and whether the next one follows.
    fn run_block(&mut self, block: Expr) -> std::result::Result<(Dynamic, bool), Failure> {
        let Self { engine, global, scope, .. } = self;
        let mut caches = Caches::new();
        let level = global.scope_level;
        let run = || {
            let mut context = EvalContext::new(engine, global, &mut caches, scope, None);
            context.eval_expression_tree_raw(&(&block).into(), false)
        };
        let result = catch_unwind(AssertUnwindSafe(run));
        self.global.scope_level = level;
        match result {
            Err(panic) => Err(Failure::Ours(Error::panicked(panic.as_ref()))),
            Ok(Ok(value)) => Ok((value.flatten(), true)),
            Ok(Err(e)) => match *e {
                EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok((value, false)),
                EvalAltResult::LoopBreak(..) => Ok((Dynamic::UNIT, true)),
                _ => Err(Failure::Script(e)),
            },
        }
    }

    /// `global::X` in functions: Rhai keeps constants only while a text runs that has functions itself.
    fn keep_constants(&mut self, ast: &AST) {
        let constants = self.global.constants.get_or_insert_with(Default::default);
        for statement in ast.statements() {
            if let Stmt::Var(var, flags, _) = statement
                && flags.contains(rhai::ASTFlags::CONSTANT)
                && let Some(value) = self.scope.get(&var.0.name)
            {
                constants.borrow_mut().insert(var.0.name.clone(), value.clone());
            }
        }
    }

    /// The value of an expression as curves.
    ///
    /// # Errors
    /// Those of the expression; a value without numbers.
    pub fn curves(&mut self, text: &str) -> Explained<Vec<Curve>> {
        let value = self.take(text)?;
        Ok(curves::of(&value)?)
    }

    /// The variables in reach, oldest first; of those with one name the newest.
    pub fn variables(&self, width: usize) -> Vec<Variable> {
        let mut seen: Vec<Variable> = Vec::new();
        for (name, constant, value) in self.scope.iter_raw() {
            if !seen.iter().any(|known| known.name == name) {
                seen.push(complete::variable(self.engine, name, constant, value, width));
            }
        }
        seen.reverse();
        seen
    }

    /// Functions that were defined here: `loss(logp, b, cfg)`.
    pub fn own_functions(&self) -> Vec<String> {
        let named = |f: &rhai::ScriptFnMetadata<'_>| !f.name.starts_with("anon$");
        self.console
            .defined
            .iter_functions()
            .filter(named)
            .map(|f| format!("{}({})", f.name, f.params.join(", ")))
            .collect()
    }

    /// The names of modules that were imported.
    pub fn modules(&self) -> Vec<String> {
        let mut names: Vec<String> = self.global.iter_imports().map(|(name, _)| name.to_string()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Everything that has a page.
    pub fn entries(&self) -> &[Entry] {
        self.console.entries.get_or_init(|| reference::entries(&self.console.surroundings.docs))
    }

    /// The session as a script: what was said and well, in order, with the values that later lines use named, and the
    /// files that were loaded in full.
    pub fn script(&self) -> String {
        let mut script = SAVED.to_string();
        let inputs = &self.console.inputs;
        for (i, input) in inputs.iter().enumerate() {
            let later = inputs[i + 1..].iter();
            let until_next = later.clone().take(1 + later.clone().take_while(|input| input.value_at.is_none()).count());
            let used = until_next.into_iter().any(|later| lex::mentions(&later.text, LAST));
            let mut text = input.text.clone();
            if let Some(at) = input.value_at.filter(|_| used) {
                text.insert_str(at, &format!("let {LAST} = "));
            }
            // A language that knows a function once takes its last text.
            let text = lex::without_functions(&text, |name| {
                inputs[i + 1..].iter().any(|later| lex::functions(&later.text).iter().any(|(known, _)| known == name))
            });
            let text = text.trim();
            script += text;
            if !text.is_empty() && !lex::ends_silently(text) && !lex::ends_in_function(text) {
                // A comment at the end would swallow it.
                script += if lex::ends_in_comment(text) { "\n;" } else { ";" };
            }
            script += "\n";
        }
        script
    }

    /// Ends the run that is open, if one is: its last step is written.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn end_run(&self) -> Result<()> {
        self.session().end_run()
    }

    /// Sets the seed of what is drawn from here on.
    pub fn set_seed(&self, seed: u64) {
        self.session().reseed(seed);
    }

    /// Sets where models and tensors made from here on live.
    ///
    /// # Errors
    /// An unknown device, or one that cannot be used.
    pub fn set_device(&self, name: &str) -> Result<()> {
        self.session().set_device(device::parse(name)?);
        Ok(())
    }

    /// The run that is open, if one is.
    pub fn open_run(&self) -> Option<Rc<Run>> {
        self.session().run()
    }
}

/// Imports and constants: what functions see of a file.
fn declares(statement: &Stmt) -> bool {
    match statement {
        Stmt::Import(..) => true,
        Stmt::Var(_, flags, _) => flags.contains(rhai::ASTFlags::CONSTANT),
        _ => false,
    }
}

enum Failure {
    Script(Box<EvalAltResult>),
    Ours(Error),
}
