//! A conversation with the engine: inputs evaluated one after the other in variables that stay, whether those of a
//! prompt of its own or those of a script that pauses.
//!
//! Owns what was said and defined; who reads lines and draws answers is `ui/repl/`.

pub mod complete;
pub mod lex;
pub mod show;

use crate::error::{Error, Kind, Result};
use crate::run::device;
use crate::run::session::Program;
use crate::run::{Run, Session};
use crate::script::diagnostics::Diagnostic;
use crate::script::host::{self, Host};
use crate::script::loader::{self, Loader, Source};
use crate::script::reference::{self, Entry};
use crate::script::surroundings::Surroundings;
use crate::script::wording;
use complete::Variable;
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
    library: AST,
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
        Self { surroundings, text, inputs, library: AST::empty(), files, entries: OnceCell::new() }
    }

    fn loader(&self) -> &Rc<Loader> {
        &self.surroundings.loader
    }

    fn session(&self) -> &Rc<Session> {
        &self.surroundings.session
    }
}

/// A prompt of its own: an engine with variables that live as long as it does.
pub struct Workbench {
    host: Host,
    global: GlobalRuntimeState,
    scope: Scope<'static>,
    console: Console,
}

impl Workbench {
    pub fn new(host: Host) -> Self {
        let console = Console::new(host.surroundings().clone());
        let global = host.engine().new_global_runtime_state();
        Self { host, global, scope: Scope::new(), console }
    }

    pub fn desk(&mut self) -> Desk<'_, 'static> {
        let Self { host, global, scope, console } = self;
        Desk { engine: host.engine(), global, scope, console }
    }
}

/// Where inputs are evaluated: a console, and the variables that are in reach.
pub struct Desk<'d, 'ps> {
    pub(super) engine: &'d Engine,
    pub(super) global: &'d mut GlobalRuntimeState,
    pub(super) scope: &'d mut Scope<'ps>,
    pub(super) console: &'d mut Console,
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
        let value = self.run(&ast, LABEL)?;
        let has_value = !value.is_unit();
        let value_at = has_value.then(|| lex::last_statement(&text));
        self.console.inputs.push(Input { text, value_at });
        if has_value {
            self.scope.set_or_push(LAST, value.clone());
        }
        Ok(value)
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
        let ran = self.compile(&source).and_then(|ast| self.run(&ast, &source.label));
        let closed = session.run().map_or(Ok(()), |run| run.finish(&session, ran.is_err()));
        session.set_program(before);
        self.console.files.retain(|file| file.source.label != source.label);
        self.console.files.push(Loaded { source, name: name.to_string() });
        let _ = ran?;
        closed.and_then(|()| session.check_sets()).map_err(Diagnostic::from)
    }

    /// Reads the loaded files and all modules again: functions, imports and constants, no other line. Returns what was
    /// read.
    ///
    /// # Errors
    /// A file that is gone or does not compile; what was there before stays in use.
    pub fn reload(&mut self) -> Explained<Vec<String>> {
        let mut read = self.loader().refresh();
        for file in self.console.files.clone() {
            let source = self.loader().find(&file.name)?;
            let mut ast = self.engine_compile(&source)?;
            let kept: Vec<Stmt> = ast.statements().iter().filter(|s| declares(s)).cloned().collect();
            if source != file.source && !read.contains(&source.label) {
                read.push(source.label.clone());
            }
            self.adopt(&ast);
            ast = AST::new(kept, ast.shared_lib().clone());
            let _ = self.run(&ast, &source.label)?;
            self.console.files.retain(|other| other.name != file.name);
            self.console.files.push(Loaded { source, name: file.name });
        }
        // What was said at the prompt goes before what stands in files.
        let imports: Vec<String> =
            self.console.inputs.iter().map(|input| input.text.clone()).filter(|t| lex::mentions_import(t)).collect();
        for text in imports {
            let ast = self.engine_compile(&Source { label: LABEL.into(), text })?;
            let kept: Vec<Stmt> = ast.statements().iter().filter(|s| matches!(s, Stmt::Import(..))).cloned().collect();
            let _ = self.run(&AST::new(kept, ast.shared_lib().clone()), LABEL)?;
        }
        Ok(read)
    }

    fn engine_compile(&self, source: &Source) -> Explained<AST> {
        let explain = |e: Box<EvalAltResult>| self.console.surroundings.explain(&e, &AST::empty(), &source.label);
        loader::compile(self.engine, source).map_err(explain)
    }

    /// Compiles a text and takes over its functions.
    fn compile(&mut self, source: &Source) -> Explained<AST> {
        let ast = self.engine_compile(source)?;
        self.adopt(&ast);
        Ok(ast)
    }

    /// Functions go before those of the same name that were there.
    fn adopt(&mut self, ast: &AST) {
        let before = self.console.library.shared_lib().clone();
        self.console.library = self.console.library.merge(&ast.clone_functions_only());
        self.global.lib.retain(|lib| !Rc::ptr_eq(lib, &before));
        self.global.lib.push(self.console.library.shared_lib().clone());
    }

    fn run(&mut self, ast: &AST, label: &str) -> Explained<Dynamic> {
        let source = self.global.source.replace(label.into());
        let block = StmtBlock::new(ast.statements().to_vec(), Position::NONE, Position::NONE);
        let result = self.run_block(Expr::Stmt(block.into()));
        self.global.source = source;
        self.keep_constants(ast);
        result.map_err(|e| match e {
            Failure::Script(e) => self.console.surroundings.explain(&e, &self.console.library, label),
            Failure::Ours(e) => e.into(),
        })
    }

    // Rhai marks the call as volatile by calling it deprecated; its version is pinned by the lock file.
    #[allow(deprecated)]
    fn run_block(&mut self, block: Expr) -> std::result::Result<Dynamic, Failure> {
        let Self { engine, global, scope, console } = self;
        let mut caches = Caches::new();
        let level = global.scope_level;
        console.surroundings.begin();
        let run = || {
            let mut context = EvalContext::new(engine, global, &mut caches, scope, None);
            context.eval_expression_tree_raw(&(&block).into(), false)
        };
        let result = catch_unwind(AssertUnwindSafe(run));
        self.global.scope_level = level;
        match result {
            Err(panic) => Err(Failure::Ours(host::crashed(panic.as_ref()))),
            Ok(Ok(value)) => Ok(value.flatten()),
            Ok(Err(e)) => match *e {
                EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok(value),
                EvalAltResult::LoopBreak(..) => Ok(Dynamic::UNIT),
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

    /// The value of an expression as curves: an array or a `[B,1]` tensor is one, the rows of a wider tensor, an array of
    /// arrays or the entries of a map are several. Points are (place from 0, value); each has a name.
    ///
    /// # Errors
    /// Those of the expression; a value without numbers.
    pub fn curves(&mut self, text: &str) -> Explained<Vec<(String, Vec<f64>)>> {
        let value = self.take(text)?;
        Ok(curves(&value)?)
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
            .library
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

    /// What the language says of a function of its own: signatures, and the comment on them.
    pub fn of_the_language(&self, name: &str) -> Vec<(String, String)> {
        let page = |f: rhai::FuncInfo<'_>| {
            let about = f.metadata.comments.iter().map(|line| line.trim_start_matches('/').trim());
            let about = about.collect::<Vec<_>>().join("\n").trim().to_string();
            let signature = f.metadata.gen_signature(|kind| wording::plain_types(kind).into());
            (f.metadata.name == name && !about.is_empty()).then_some((signature, about))
        };
        self.engine.collect_fn_metadata(None, page, true)
    }

    /// The Rhai text of a function or a script, and where it stands.
    ///
    /// # Errors
    /// A native function, or nothing of that name.
    pub fn source(&self, name: &str) -> Result<(String, String)> {
        let bare = name.rsplit("::").next().unwrap_or(name);
        let of = |label: &str, text: &str| {
            let functions = lex::functions(text);
            let (_, found) = functions.iter().rfind(|(known, _)| known == bare)?;
            Some((label.to_string(), (*found).to_string()))
        };
        let files = self.console.files.iter().rev().map(|file| (&file.source.label[..], &file.source.text[..]));
        let said = std::iter::once((LABEL, self.console.text.as_str())).chain(files);
        let modules = loader::STDLIB.iter().filter(|(module, _)| name.starts_with(&format!("{module}::")));
        let modules: Vec<Source> =
            modules.filter_map(|(module, _)| self.loader().module(&format!("std/{module}"), None).ok()).collect();
        let modules = modules.iter().map(|source| (&source.label[..], &source.text[..]));
        if let Some(found) = said.chain(modules).find_map(|(label, text)| of(label, text)) {
            return Ok(found);
        }
        if let Some(entry) =
            self.entries().iter().find(|entry| entry.path == name || entry.path.ends_with(&format!("::{bare}")))
        {
            let native = !entry.topic.starts_with("std/");
            if native {
                return Err(Error::value(format!("`{name}` is a native function: it has no Rhai text"))
                    .hint(format!(":help {name} says what it does")));
            }
            let module = self.loader().module(&entry.topic, None)?;
            return of(&module.label, &module.text)
                .ok_or_else(|| Error::new(Kind::Internal, format!("{} has lost `{bare}`", module.label)));
        }
        self.loader().find(name).map(|source| (source.label, source.text)).map_err(|e| {
            Error::new(Kind::Name, format!("there is no function or script `{name}`")).hint(e.hint.unwrap_or_default())
        })
    }

    /// The session as a script: what was said and well, in order, with the values that later lines use named.
    pub fn script(&self) -> String {
        let mut script = String::from("//! A session at the prompt, saved as a script.\n");
        for (i, input) in self.console.inputs.iter().enumerate() {
            let later = self.console.inputs[i + 1..].iter();
            let until_next = later.clone().take(1 + later.clone().take_while(|input| input.value_at.is_none()).count());
            let used = until_next.into_iter().any(|later| lex::mentions(&later.text, LAST));
            let mut text = input.text.trim().to_string();
            let shift = input.text.len() - input.text.trim_start().len();
            if let Some(at) = input.value_at.filter(|_| used) {
                text.insert_str(at.saturating_sub(shift), &format!("let {LAST} = "));
            }
            if !lex::ends_silently(&text) && !lex::ends_in_function(&text) {
                // A comment at the end would swallow it.
                text += if lex::ends_in_comment(&text) { "\n;" } else { ";" };
            }
            script += &format!("{text}\n");
        }
        script
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

fn curves(value: &Dynamic) -> Result<Vec<(String, Vec<f64>)>> {
    let wrong = || {
        Error::value("there is no curve in this: expected numbers")
            .hint("an array of numbers, a tensor, an array of arrays, or a map of names and these")
    };
    let number = |x: &Dynamic| x.as_float().or_else(|_| x.as_int().map(|i| i as f64)).map_err(|_| wrong());
    if let Some(tensor) = value.read_lock::<crate::tensor::Tensor>() {
        let (values, dims) = (tensor.to_vec()?, tensor.dims());
        let one_curve = dims.len() < 2 || dims[1] == 1 || dims[0] == 1;
        let width = if one_curve { values.len() } else { dims[1..].iter().product() };
        return Ok(values
            .chunks(width.max(1))
            .enumerate()
            .map(|(i, row)| (format!("row {i}"), row.to_vec()))
            .collect());
    }
    if let Ok(map) = value.as_map_ref() {
        let named = |(name, value): (&_, &Dynamic)| {
            let mut inner = curves(value)?;
            (inner.len() == 1).then(|| (ToString::to_string(name), inner.remove(0).1)).ok_or_else(wrong)
        };
        return map.iter().map(named).collect();
    }
    let array = value.as_array_ref().map_err(|_| wrong())?;
    if array.iter().any(|x| x.is_array()) {
        let mut rows = Vec::new();
        for (i, row) in array.iter().enumerate() {
            rows.extend(curves(row)?.into_iter().map(|(_, points)| (format!("row {i}"), points)));
        }
        return Ok(rows);
    }
    Ok(vec![("row 0".into(), array.iter().map(number).collect::<Result<_>>()?)])
}
