//! A loop's variables in checkpoints: what they were when the loop began, what they are between two steps, and how they
//! come back in another process.
//!
//! The prologue of a continued run makes everything anew; what has changed since the loop began is then put back into it.
//! Owns the order of that. Values are written by `encode.rs` and read by `decode.rs`, what both share is in `objects.rs`;
//! folders are `run::checkpoint`'s.

mod decode;
mod encode;
mod entry;
mod loops;
mod objects;

use crate::error::{Error, Kind, Result};
use crate::files::{self, Location};
use crate::run::checkpoint::{state::RunState, store};
use crate::run::folder::SCRIPT;
use crate::run::{Run, Session};
use crate::script::bind::tracked::Tracked;
use crate::script::lang::loader::Loader;
use decode::Decoder;
use encode::Encoder;
use entry::{Differing, Entry};
use loops::Loops;
use objects::{Saved, Variable};
use rhai::{AST, Dynamic, EvalContext, Scope};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Stands for the values of the run's state, whose name no variable can have.
const STATE: &str = "run.state";

/// The variables of a loop in checkpoints.
pub(super) struct StoredLoop {
    session: Rc<Session>,
    tracked: Tracked,
    loader: Rc<Loader>,
    loops: RefCell<Loops>,
    entry: RefCell<Option<Entry>>,
    /// Why nothing can be stored; told when something was to be.
    refused: RefCell<Option<Error>>,
}

impl StoredLoop {
    pub fn new(session: &Rc<Session>, tracked: &Tracked, loader: &Rc<Loader>) -> Self {
        let (loops, entry, refused) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { session: session.clone(), tracked: tracked.clone(), loader: loader.clone(), loops, entry, refused }
    }

    /// Another script is about to run.
    pub fn read(&self, ast: &AST) {
        *self.loops.borrow_mut() = Loops::of(ast);
        *self.entry.borrow_mut() = None;
        *self.refused.borrow_mut() = None;
    }

    /// Whether the loop's variables are in reach of what is being read.
    pub fn reaches(&self, context: &EvalContext) -> bool {
        self.loops.borrow().reaches(context.global_runtime_state().level)
    }

    /// Whether a step may read nothing more once it has read this name.
    pub fn may_end_with(&self, name: &str) -> bool {
        self.loops.borrow().may_end_with(name)
    }

    /// Which statement of the script's body is its `number`th step loop.
    pub fn statement(&self, number: u64) -> Option<usize> {
        self.loops.borrow().statement(number)
    }

    /// The loop begins: remembers what the prologue has made, by which a continued run knows its own.
    ///
    /// # Errors
    /// A value that cannot be stored, where checkpoints were asked for; else it is told when one is due.
    pub fn enter(&self, context: &EvalContext) -> Result<()> {
        let now = self.variables(context).and_then(|variables| Entry::of(self.session.engine(), &variables));
        match now {
            Ok(now) => {
                // A later loop of the script: what a continued run has when it comes there is what the first one began with.
                match &mut *self.entry.borrow_mut() {
                    Some(first) => first.objects.add_remade(now.objects),
                    none => *none = Some(now),
                }
                Ok(())
            }
            Err(e) if self.session.checkpoints().asked_for() => Err(e),
            Err(e) => {
                *self.entry.borrow_mut() = None;
                *self.refused.borrow_mut() = Some(e);
                Ok(())
            }
        }
    }

    /// Writes a checkpoint. One that cannot be written is told, and the run goes on.
    ///
    /// # Errors
    /// As [`StoredLoop::enter`].
    pub fn store(&self, context: &EvalContext) -> Result<()> {
        if let Some(e) = self.refused.take() {
            return self.give_up(e);
        }
        let entry = self.entry.borrow();
        let (Some(entry), Some(run)) = (&*entry, self.session.run()) else { return Ok(()) };
        let variables = self.variables(context)?;
        let step = self.session.step();
        run.folder().check()?;
        let written = store::write(run.folder().path(), step, |part| self.fill(part.clone(), entry, &variables, &run));
        self.session.checkpoints().done();
        match written {
            Ok(_) => Ok(()),
            Err(e) if e.kind == Kind::File => {
                self.session.reporter().note(&format!("no checkpoint after step {step}: {e}"));
                Ok(())
            }
            // A person who ends the run while it is stored wants no word on what can be stored.
            Err(e) if e.kind == Kind::Interrupted => Err(e),
            Err(e) => self.give_up(e),
        }
    }

    fn fill(&self, part: Location, entry: &Entry, variables: &[Variable], run: &Run) -> Result<RunState> {
        let sources = self.loader.files().into_iter().map(|(label, text)| (label, Value::from(text)));
        let sources = Value::Object(sources.collect());
        files::write(&part.join(store::SOURCES), sources.to_string())?;
        let mut encoder = Encoder::new(self.session.engine(), &entry.objects, Some(part));
        let mut nodes = BTreeMap::new();
        // Between two loops the script may do anything with what the prologue has made.
        let first = self.session.step_loop().number() == 1;
        for Variable { name, value } in variables {
            let made = entry.nodes.get(name).filter(|_| first);
            let node = encoder.variable(name, value, made).map_err(|e| self.named(e, name))?;
            nodes.insert(name.clone(), node);
        }
        let saved = encoder.finish(entry.marks.clone(), nodes);
        self.session.state(run, serde_json::to_value(saved).map_err(|e| Error::file(format!("state: {e}")))?)
    }

    /// Puts everything back that the checkpoint holds.
    ///
    /// # Errors
    /// A prologue that came out differently; values that do not fit.
    pub fn restore(&self, context: &mut EvalContext) -> Result<()> {
        let Some(stored) = self.session.checkpoints().pending() else { return Ok(()) };
        let variables = self.variables(context)?;
        let mut entry = Entry::of(self.session.engine(), &variables)?;
        let saved: Saved = serde_json::from_value(stored.state.values.clone())
            .map_err(|e| Error::file(format!("{}: {e}", stored.path.display())))?;
        let changed = self.session.changed();
        let first = stored.state.number == 1;
        let edited = self.was_edited(&stored.path);
        entry.check(&saved.marks, !first, |name| match saved.variables.get(name) {
            _ if !first || !changed.is_empty() => Differing::Allowed,
            Some(node) if edited && !node.is_null() => Differing::Allowed,
            _ if edited => Differing::Edited,
            _ => Differing::No,
        })?;
        if !first {
            entry.marks = saved.marks.clone();
        }
        if let Some(name) = saved.variables.keys().find(|name| !variables.iter().any(|now| now.name == **name)) {
            return Err(Error::value(format!(
                "`{name}` was there when the run was stored, and is not before its loop"
            ))
            .hint("make it before the loop"));
        }
        let mut decoder = Decoder::new(self.session.engine(), &entry.objects, &stored.path);
        decoder.objects(&saved)?;
        for Variable { name, value } in &variables {
            let Some(node) = saved.variables.get(name) else {
                return Err(Error::file(format!("the checkpoint lacks the variable `{name}`")));
            };
            let Some(mut then) = decoder.variable(name, node, value)? else { continue };
            take_over(&mut then, value, changed);
            match then.is_map() && name == STATE {
                true => self.tracked.set_values(then.cast()),
                false => assign(context.scope_mut(), name, then),
            }
        }
        *self.entry.borrow_mut() = Some(entry);
        self.session.restored()
    }

    /// Whether the script is another one than the stored run began with: it was edited, and its hyper-parameters may be others.
    fn was_edited(&self, stored: &Location) -> bool {
        let folder = stored.folder().and_then(|checkpoints| checkpoints.folder());
        let first = folder.map(|folder| folder.join(SCRIPT)).filter(files::is_file);
        first.is_some_and(|path| files::text(&path).is_ok_and(|text| text != self.session.program().text))
    }

    /// Nothing can be stored: an error where it was asked for, a note where it was not.
    fn give_up(&self, e: Error) -> Result<()> {
        if self.session.checkpoints().asked_for() {
            return Err(e);
        }
        self.session.checkpoints().close();
        let hint = e.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        self.session.reporter().note(&format!("this run has no checkpoints: {}{hint}", e.what));
        Ok(())
    }

    fn named(&self, e: Error, name: &str) -> Error {
        match line_of(&self.session.program().text, name) {
            Some(line) if e.kind == Kind::Value => Error { what: format!("{} (line {line})", e.what), ..e },
            _ => e,
        }
    }

    /// What is stored of a loop: the newest variable of each name, in the order in which they were declared.
    fn variables(&self, context: &EvalContext) -> Result<Vec<Variable>> {
        let mut found = if context.global_runtime_state().level > 0 {
            let handles = self.tracked.handles().into_iter();
            handles.map(|(name, value)| Variable { name: format!("run.track {name}"), value }).collect()
        } else {
            let loops = self.loops.borrow();
            loops.check()?;
            declared(context.scope(), &loops.variables)
        };
        let state = self.tracked.values().map(Dynamic::from_map);
        found.extend(state.map(|value| Variable { name: STATE.into(), value }));
        Ok(found)
    }
}

/// Variables outside of the loop that counts steps in one of `counters`.
fn declared(scope: &Scope, counters: &[String]) -> Vec<Variable> {
    let mut found: Vec<Variable> = Vec::new();
    // Newest first, as Rhai lists them: what the body has made stands before the counter, and an older variable of the
    // same name is out of reach.
    let newest = scope.iter_raw().skip_while(|(name, ..)| !counters.iter().any(|counter| counter == name));
    for (name, constant, value) in newest.skip(1) {
        if !constant && !found.iter().any(|variable| variable.name == name) {
            found.push(Variable { name: name.into(), value: value.clone() });
        }
    }
    found.reverse();
    found
}

/// Hyper-parameters that the command line has changed keep what the prologue has made of them.
fn take_over(then: &mut Dynamic, now: &Dynamic, changed: &[String]) {
    let now = now.flatten_clone();
    if let (Ok(mut then), Ok(now)) = (then.as_map_mut(), now.as_map_ref()) {
        for (key, value) in now.iter().filter(|(key, _)| changed.iter().any(|name| name == key.as_str())) {
            then.insert(key.clone(), value.clone());
        }
    }
}

/// Writes through what closures share.
fn assign(scope: &mut Scope, name: &str, value: Dynamic) {
    let Some(slot) = scope.get_mut(name) else { return };
    match slot.is_shared() {
        true => *slot.write_lock::<Dynamic>().expect("a shared value can be written between two steps") = value,
        false => *slot = value,
    }
}

/// The line that declares a variable of the script.
fn line_of(text: &str, name: &str) -> Option<usize> {
    let declares = |line: &str| {
        let rest = line.trim_start().strip_prefix("let ")?.trim_start().strip_prefix(name)?;
        rest.chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '_').then_some(())
    };
    text.lines().position(|line| declares(line).is_some()).map(|i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_by_their_declaration() {
        let text = "let a = 1;\nfn f() {}\n    let pool = [];\nlet pooled = 2;";
        assert_eq!(line_of(text, "pool"), Some(3));
        assert_eq!(line_of(text, "pooled"), Some(4));
        assert_eq!(line_of(text, "step"), None);
    }

    #[test]
    fn the_newest_of_a_name_counts_and_constants_do_not() {
        let mut scope = Scope::new();
        scope.push("x", 1_i64).push("y", 2_i64).push_constant("c", 3_i64).push("x", 4_i64);
        scope.push("step", 9_i64).push("made_by_the_body", 5_i64);
        let found: Vec<(String, i64)> = declared(&scope, &["step".to_string()])
            .into_iter()
            .map(|v| (v.name, v.value.as_int().expect("an int")))
            .collect();
        assert_eq!(found, [("y".to_string(), 2), ("x".to_string(), 4)]);
    }

    #[test]
    fn what_a_closure_shares_is_written_through() {
        let mut scope = Scope::new();
        let shared = Dynamic::from(1_i64).into_shared();
        scope.push_dynamic("x", shared.clone()).push("y", 1_i64);
        assign(&mut scope, "x", Dynamic::from(7_i64));
        assign(&mut scope, "y", Dynamic::from(8_i64));
        assert_eq!(shared.flatten_clone().as_int(), Ok(7));
        assert_eq!(scope.get_value::<i64>("y"), Some(8));
    }
}
