//! A run within its session: opened once, written whatever happened, and at a prompt followed by the next.

use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::run::checkpoint::{Continued, store};
use crate::run::computer;
use crate::run::folder::{CONFIG, Folder, versions};
use crate::run::handle::Run;
use crate::run::report::Log;
use crate::run::session::Session;
use crate::run::status::{Ending, Status};
use serde_json::{Value, json};
use std::rc::Rc;

/// What is told goes into the log of this run, for as long as it is there.
fn log_of(run: &Rc<Run>) -> Log {
    let run = Rc::downgrade(run);
    Rc::new(move |text| {
        if let Some(run) = run.upgrade() {
            run.tell(text);
        }
    })
}

/// Whether two values are the same as JSON has them: 1.0 is 1.
fn same_number(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

impl Session {
    /// Opens the run of this session in a folder of its own. `hyper` are the hyper-parameters.
    ///
    /// # Errors
    /// A run is open already; a folder that holds something or cannot be written.
    pub fn open_run(&self, hyper: &Value) -> Result<Rc<Run>> {
        self.end_run()?;
        if self.run().is_some() {
            return Err(Error::value("a run is already open").hint("a script opens one run: call `open_run` once"));
        }
        if let Some(continued) = self.launched().continued.clone() {
            return self.continue_run(&continued, hyper);
        }
        let (launch, program) = (self.launched(), self.program());
        let name = if program.name.is_empty() { "run" } else { &program.name };
        let config = json!({
            "script": name,
            "args": hyper,
            "seed": self.seed(),
            "token_budget": launch.engine.settings().token_budget,
            "device": self.place().to_string(),
            "dtype": if self.place().is_host() { "f32" } else { self.compute().name() },
            "threads": launch.threads,
            "command": launch.command,
            "versions": versions(),
            computer::MACHINE: computer::describe(&self.place()),
        });
        let run = Rc::new(Run::create(
            Folder::create(self.access().door(), launch.out.as_deref(), name)?,
            &config,
            &program.text,
        )?);
        self.set_run(run.clone());
        self.launched().reporter.opened(log_of(&run));
        Ok(run)
    }

    /// Opens the run that another process has begun.
    fn continue_run(&self, continued: &Continued, hyper: &Value) -> Result<Rc<Run>> {
        let run = Rc::new(Run::reopen(Folder::of(self.access().at(&*continued.folder)), continued.from.is_none())?);
        self.set_run(run.clone());
        self.launched().reporter.opened(log_of(&run));
        self.tell_ignored(&run, hyper);
        if continued.from.is_none() {
            self.go_on_in(&run)?;
        }
        self.go_on_midway();
        Ok(run)
    }

    /// Hyper-parameters in the folder's configuration that are not those the run goes on with: somebody has edited the file,
    /// which says what was, and sets nothing.
    fn tell_ignored(&self, run: &Run, hyper: &Value) {
        let config = files::text(&run.folder().file(CONFIG)).ok().and_then(|text| serde_json::from_str(&text).ok());
        let Some(config) = config.filter(|_: &Value| self.launched().until.is_none()) else { return };
        let again = config["resumed"].to_string();
        let written = config["args"].as_object().into_iter().flatten();
        let edited = written.filter(|(name, value)| {
            // What an earlier --resume has set is in its own entry.
            let set = self.changed().contains(name) || again.contains(&format!("\"{name}="));
            !set && hyper.get(name).is_some_and(|now| !same_number(now, value))
        });
        for (name, value) in edited {
            let now = &hyper[name];
            // Told at once: the reporter itself is silent while what was told before is done again.
            self.launched().reporter.note(&format!(
                "{CONFIG} says {name} = {value}, and the run goes on with {now}, as it began: --set {name}={value} changes it"
            ));
        }
    }

    /// Writes what the open run has not written yet, if there is one. `failed`: the script ended with an error.
    ///
    /// # Errors
    /// What cannot be written; of a script that has failed it is only told.
    pub fn finish_run(&self, failed: bool) -> Result<()> {
        let Some(run) = self.run() else { return Ok(()) };
        if self.repeats() {
            // It has not come to where it was to go on: the folder is as it was.
            return Ok(());
        }
        let asked = self.launched().interrupt.asked();
        let cut_short = asked || (failed && self.step() > 0);
        // What was asked to end after its last step has lost nothing.
        let complete = self.step_loop().plan().is_none_or(|plan| self.step() >= plan.last);
        let status = match (asked, failed) {
            (true, _) if failed || !complete => Ending::Interrupted,
            (_, true) => Ending::Failed,
            _ => Ending::Finished,
        };
        let mut written = run.finish(self.engine(), &self.own_numbers(), cut_short);
        if written.is_ok() {
            written = (Status { status, step: self.step() }).write(run.folder());
        }
        if written.is_ok()
            && let Some(e) = run.unlogged()
        {
            match failed {
                true => self.reporter().note(&e.to_string()),
                false => written = Err(e),
            }
        }
        // What was trained is on the disk: a picture that fails is no loss.
        let curves = run.draw().map_err(|e| ("the curves could not be drawn", e));
        let wanted = self.launched().until.is_none();
        let page = if wanted { run.report() } else { Ok(()) }.map_err(|e| ("the report could not be written", e));
        for (what, e) in [curves, page].into_iter().filter_map(std::result::Result::err) {
            // The reason of what matters more is told below.
            if written.is_ok() {
                self.reporter().note(&format!("{what}: {e}"));
            }
        }
        let folder = run.folder().path().display();
        match written {
            // Steps that are only computed again go with their folder.
            Ok(()) if self.launched().until.is_some() => {}
            Ok(()) => {
                self.reporter().written(run.folder().path());
                if status == Ending::Interrupted {
                    self.tell_how_to_continue(run.folder().path());
                }
            }
            // The script's own error goes before this one, which would be lost.
            Err(e) if failed => self.reporter().note(&format!("{folder} is incomplete: {e}")),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Of a run that was asked to end: how far it came, and what continues it.
    fn tell_how_to_continue(&self, folder: &Location) {
        let last = self.step_loop().plan().map_or_else(String::new, |plan| format!(" of {}", plan.last));
        let mut text = format!("interrupted at step {}{last}", self.step());
        // Without a checkpoint there is nothing to continue from.
        if let Some(newest) = store::steps(folder).ok().and_then(|steps| steps.first().copied()) {
            text += &format!("; `rhopo run --resume {}` continues after step {newest}", folder.display());
        }
        self.reporter().note(&text);
    }

    /// Ends the run that is open so that another can begin, where that may be: at a prompt.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn end_run(&self) -> Result<()> {
        if self.step_loop().may_restart() && self.run().is_some() {
            self.finish_run(false)?;
            self.forget_run();
        }
        Ok(())
    }
}
