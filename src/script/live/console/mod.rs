//! A conversation with the engine: inputs evaluated one after the other in variables that stay, whether those of a
//! prompt of its own or those of a script that pauses.
//!
//! Owns what was said and defined; who reads lines and draws answers is `ui/repl/`.

pub mod bounds;
pub mod complete;
pub mod curves;
mod evaluate;
mod lookup;
pub mod show;

use crate::error::Result;
use crate::run::device;
use crate::run::session::Program;
use crate::run::{Run, Session};
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::host_state::HostState;
use crate::script::lang::lex;
use crate::script::lang::loader::{Loader, Source};
use crate::script::lang::reference::{self, Entry};
use bounds::Bounds;
use complete::Variable;
use curves::Curve;
use rhai::{AST, Dynamic, Engine, GlobalRuntimeState, Scope};
use show::Shown;
use std::cell::OnceCell;
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
    /// Whether it may have changed something.
    changes: bool,
}

/// A file whose functions are in use.
#[derive(Debug, Clone)]
struct Loaded {
    source: Source,
    name: String,
}

/// What stays from one input to the next, apart from variables.
pub struct Console {
    state: Rc<HostState>,
    /// Everything said so far, line by line: errors show their lines in it.
    text: String,
    inputs: Vec<Input>,
    /// Functions and closures of all inputs and files.
    defined: AST,
    files: Vec<Loaded>,
    entries: OnceCell<Vec<Entry>>,
    /// What inputs must leave as it is, between two steps of a script.
    bounds: Option<Rc<Bounds>>,
}

/// What came of an input.
#[derive(Debug)]
pub struct Answer {
    /// The value, unless there is none.
    pub value: Option<Shown>,
    pub took: Duration,
}

impl Console {
    pub fn new(state: Rc<HostState>) -> Self {
        let (text, inputs, files) = (String::new(), Vec::new(), Vec::new());
        Self { state, text, inputs, defined: AST::empty(), files, entries: OnceCell::new(), bounds: None }
    }

    fn loader(&self) -> &Rc<Loader> {
        &self.state.loader
    }

    /// Functions that were defined here, closures included.
    pub(in crate::script) fn functions(&self) -> AST {
        self.defined.clone()
    }

    fn session(&self) -> &Rc<Session> {
        &self.state.session
    }

    /// Inputs stay within these bounds from here on.
    pub(in crate::script) fn bind(&mut self, bounds: Option<Rc<Bounds>>) {
        self.bounds = bounds;
    }

    /// How many inputs were taken.
    pub(in crate::script) fn taken(&self) -> usize {
        self.inputs.len()
    }

    /// What was said after the first `from` inputs and may have changed something, as text.
    pub(in crate::script) fn changes_since(&self, from: usize) -> String {
        let said = self.inputs.iter().skip(from).filter(|input| input.changes);
        said.map(|input| closed(input.text.trim()) + "\n").collect()
    }
}

/// An input with its end: the next one may follow.
fn closed(text: &str) -> String {
    if text.is_empty() || lex::ends_silently(text) || lex::ends_in_function(text) {
        return text.to_string();
    }
    // A comment at the end would swallow it.
    format!("{text}{}", if lex::ends_in_comment(text) { "\n;" } else { ";" })
}

/// Where inputs are evaluated: a console, and the variables that are in reach.
pub struct Repl<'d, 'ps> {
    pub(in crate::script) engine: &'d Engine,
    pub(in crate::script) global: &'d mut GlobalRuntimeState,
    pub(in crate::script) scope: &'d mut Scope<'ps>,
    pub(in crate::script) console: &'d mut Console,
}

impl Repl<'_, '_> {
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

    /// Evaluates an input several times: the first answer, and how long each took. It is part of the session once. No
    /// time knows the value of the one before, which would keep what was computed for it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn timed(&mut self, text: &str, times: usize, width: usize) -> Explained<(Answer, Vec<Duration>)> {
        let before = self.scope.get_value::<Dynamic>(LAST);
        let first = self.eval(text, width)?;
        let mut took = vec![first.took];
        let (inputs, said) = (self.console.inputs.len(), self.console.text.len());
        while took.len() < times {
            if self.scope.contains(LAST) {
                self.scope.set_or_push(LAST, before.clone().unwrap_or(Dynamic::UNIT));
            }
            let answer = self.eval(text, width);
            self.console.inputs.truncate(inputs);
            self.console.text.truncate(said);
            took.push(answer?.took);
        }
        Ok((first, took))
    }

    /// Takes the functions of a script, with its imports and constants, and runs no other line.
    ///
    /// # Errors
    /// Those of the script.
    pub fn load_functions(&mut self, name: &str) -> Explained<()> {
        let source = self.loader().find(name)?;
        self.reload_file(&Loaded { source: source.clone(), name: name.to_string() })?;
        let declares = |line: &&str| ["import ", "const "].iter().any(|begin| line.starts_with(begin));
        let functions = lex::functions(&source.text).into_iter().map(|(_, text)| text);
        let text = source.text.lines().filter(declares).chain(functions).collect::<Vec<_>>().join("\n");
        self.console.inputs.push(Input { text, value_at: None, changes: true });
        Ok(())
    }

    /// Whether a script opens a run: to load it would train.
    ///
    /// # Errors
    /// There is no such script.
    pub fn opens_run(&self, name: &str) -> Result<bool> {
        Ok(lex::mentions(&self.loader().find(name)?.text, "open_run"))
    }

    /// What was evaluated last.
    pub fn last_input(&self) -> Option<String> {
        self.console.inputs.last().map(|input| input.text.clone())
    }

    /// Runs a script in these variables, from its first line to its last.
    ///
    /// # Errors
    /// Those of the script; what it defined before stays.
    pub fn load(&mut self, name: &str) -> Explained<()> {
        let source = self.loader().find(name)?;
        if self.console.bounds.is_some() {
            return self.load_at_pause(&source);
        }
        let session = self.session().clone();
        let before = session.program();
        session.set_program(Program { name: source.stem(), label: source.label.clone(), text: source.text.clone() });
        session.forget_arguments();
        let ran = self.compile(&source).and_then(|ast| self.run(&ast, &source.label).map_err(|(_, e)| e));
        if ran.is_ok() {
            self.console.inputs.push(Input { text: source.text.clone(), value_at: None, changes: true });
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
        self.console.bounds.as_ref().map_or(Ok(()), |bounds| bounds.check(&ast))?;
        self.run_only(&ast, &source.label)?;
        self.adopt(&ast, &source.label);
        self.console.files.retain(|other| other.name != file.name);
        self.console.files.push(Loaded { source: source.clone(), name: file.name.clone() });
        Ok(source)
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
        self.console.entries.get_or_init(|| reference::entries(&self.console.state.docs))
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
            script += &closed(text.trim());
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

    /// Sets where models opened from here on are.
    ///
    /// # Errors
    /// An unknown device, or one that cannot be used.
    pub fn set_device(&self, name: &str) -> Result<()> {
        self.session().set_place(device::parse(name)?);
        Ok(())
    }

    /// The run that is open, if one is.
    pub fn open_run(&self) -> Option<Rc<Run>> {
        self.session().run()
    }
}
