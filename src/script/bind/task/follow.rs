//! What was made of a file that a run follows (`--watch`): made again where the file was edited, between two steps.
//!
//! An edit is on trial for the step at which it was taken over: where something that is asked of it fails, what was there
//! before comes back. Owns not what is made.

use crate::run::editing::Edited;
use crate::script::lang::lex;
use crate::script::lang::loader::Loader;
use crate::script::lang::messages;
use crate::script::lang::native::{Call, Fallible};
use rhai::EvalAltResult;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A value of a file's, and the one before it while an edit is on trial.
pub struct Followed<T> {
    /// What the run's folder calls the file.
    noun: &'static str,
    label: String,
    now: RefCell<Rc<T>>,
    /// With the step at which it was replaced.
    before: RefCell<Option<(Rc<T>, u64)>>,
    /// The file of the run folder with the text that is on trial.
    kept: RefCell<Option<String>>,
    /// As the file was read last, and as it was when the value was made.
    read: RefCell<String>,
    good: RefCell<String>,
    generation: Cell<u64>,
}

impl<T> Followed<T> {
    /// `value` was made of the text that the loader has under `label`.
    pub fn new(noun: &'static str, label: &str, loader: &Loader, value: T) -> Self {
        let text = loader.text(label).unwrap_or_default();
        Self {
            noun,
            label: label.to_string(),
            now: RefCell::new(Rc::new(value)),
            before: RefCell::default(),
            kept: RefCell::default(),
            read: RefCell::new(text.clone()),
            good: RefCell::new(text),
            generation: Cell::new(loader.generation()),
        }
    }

    pub fn now(&self) -> Rc<T> {
        self.now.borrow().clone()
    }

    /// Makes the value again where the file, or a module that it may import, was edited since. What is wrong with an edit is
    /// told, and nothing changes then.
    ///
    /// # Errors
    /// An interruption; text that cannot be kept in the run folder.
    pub fn refresh(&self, call: &Call<'_>, loader: &Loader, make: impl FnOnce() -> Fallible<T>) -> Fallible<()> {
        let step = call.session.step();
        if self.before.borrow().as_ref().is_some_and(|(_, taken)| *taken != step) {
            *self.before.borrow_mut() = None;
            *self.good.borrow_mut() = self.read.borrow().clone();
        }
        let follows = call.session.step_loop().follows();
        if !follows || self.generation.replace(loader.generation()) == loader.generation() {
            return Ok(());
        }
        let text = loader.text(&self.label).unwrap_or_default();
        let edited = self.read.replace(text.clone()) != text;
        if !edited && !lex::mentions_import(&text) {
            return Ok(());
        }
        match make() {
            Ok(value) => {
                let old = self.now.replace(Rc::new(value));
                *self.before.borrow_mut() = Some((old, step));
                *self.kept.borrow_mut() = None;
                if edited {
                    let kept = self.keep(call, step, &text)?;
                    let place = kept.as_ref().map_or_else(String::new, |name| format!(" ({name} in the run folder)"));
                    call.session.reporter().note(&format!("step {step}: reloaded {}{place}", self.label));
                    *self.kept.borrow_mut() = kept;
                }
                Ok(())
            }
            Err(e) if is_interruption(&e) => Err(e),
            Err(e) => {
                self.tell(call, &e, "keeps its previous version");
                self.show_good(loader);
                Ok(())
            }
        }
    }

    /// Brings back what was there before an edit that is on trial, because of what went wrong; false where none is.
    pub fn go_back(&self, call: &Call<'_>, loader: &Loader, e: &EvalAltResult) -> bool {
        if is_interruption(e) {
            return false;
        }
        let Some((before, _)) = self.before.borrow_mut().take() else { return false };
        *self.now.borrow_mut() = before;
        self.tell(call, e, "is back to its previous version");
        if let (Some(file), Some(run)) = (self.kept.take(), call.session.run())
            && let Err(e) = run.turn_down(&file)
        {
            call.session.reporter().note(&e.to_string());
        }
        self.show_good(loader);
        true
    }

    fn tell(&self, call: &Call<'_>, e: &EvalAltResult, what: &str) {
        let line = e.unwrap_inner().position().line().or_else(|| e.position().line());
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        let step = call.session.step();
        let said = messages::plain(e);
        call.session.reporter().note(&format!("step {step}: {}{line}: {said}; it {what}", self.label));
    }

    /// Errors of what runs are shown in the text that runs.
    fn show_good(&self, loader: &Loader) {
        loader.keep(self.label.clone(), self.good.borrow().clone());
    }

    /// Keeps the text in the run folder; the name of its file there.
    fn keep(&self, call: &Call<'_>, step: u64, text: &str) -> Fallible<Option<String>> {
        let good = self.good.borrow();
        let edited = Edited { noun: self.noun, label: &self.label, text, before: Some(&good) };
        Ok(call.session.run().map(|run| run.keep_edit(step, edited)).transpose()?)
    }
}

fn is_interruption(e: &EvalAltResult) -> bool {
    matches!(e.unwrap_inner(), EvalAltResult::ErrorTerminated(..))
}
