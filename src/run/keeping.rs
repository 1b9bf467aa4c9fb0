//! What is kept of a run between two of its steps: checkpoints, and the best model so far.
//! Owns when; what a checkpoint holds of the script's values is read and written where scripts are.

use crate::engine::ModelHandle;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::run::checkpoint::state::RunState;
use crate::run::computer;
use crate::run::folder::CONFIG;
use crate::run::handle::Run;
use crate::run::names::EVAL;
use crate::run::session::Session;
use crate::run::status::Status;
use crate::run::step_loop::{Midway, Phase};
use serde_json::Value;

impl Session {
    /// Whether anything is to be done before the step that the loop has come to.
    pub(super) fn is_looked_at(&self, step: u64) -> bool {
        let steps = self.step_loop();
        let begins = steps.plan().is_some_and(|plan| step == plan.first) && self.stores();
        steps.attended()
            || begins
            || (step == 1 && self.run_options().eval_every.is_some())
            || self.repeats()
            || self.checkpoint_is_due(step)
            || self.evaluation_is_due(step - 1)
            || self.keeps(step - 1).is_some()
            || (steps.ends() && self.stores_at_end())
    }

    /// Whether this run can be stored between its steps.
    pub fn stores(&self) -> bool {
        self.checkpoints().written() && self.run().is_some() && !self.step_loop().is_interactive()
    }

    /// Whether a loop that is to end is stored first.
    pub(super) fn stores_at_end(&self) -> bool {
        self.stores() && !self.step_loop().wants_pause()
    }

    /// Whether a checkpoint is due before `step`.
    pub fn checkpoint_is_due(&self, step: u64) -> bool {
        self.stores() && self.checkpoints().due(step - 1)
    }

    /// Whether the command line asked for an evaluation after so many steps.
    pub fn evaluation_is_due(&self, steps: u64) -> bool {
        steps > 0 && self.run_options().eval_every.is_some_and(|every| steps.is_multiple_of(every))
    }

    /// Tells of an evaluation; within a loop not of each, where many follow each other.
    pub fn tell_evaluation(&self, run: &Run, value: f64) {
        if run.tells_again() || self.step_loop().phase() == Phase::Outside {
            self.reporter().note(&format!("step {}: {EVAL} {value:.3}", self.step()));
        }
    }

    /// The evaluation of these steps, by which the model is to be kept; none where it is not wanted.
    pub fn keeps(&self, steps: u64) -> Option<f64> {
        let wanted = steps > 0 && self.run_options().keep;
        self.run().filter(|_| wanted)?.number(EVAL)
    }

    /// Where the run stands, with the script's `values`. Called between two steps of a loop.
    ///
    /// # Errors
    /// Metrics that cannot be read back.
    pub fn state(&self, run: &Run, values: Value) -> Result<RunState> {
        let steps = self.step_loop();
        let plan = steps.plan().ok_or_else(|| Error::new(Kind::Internal, "a state was asked for outside of loops"))?;
        let [samples, log] = run.recorded()?;
        Ok(RunState {
            samples,
            log,
            step: self.step(),
            number: steps.number(),
            first: plan.first,
            seed: self.seed(),
            sampled: self.sampled(),
            spent: self.meter().spent(),
            suspect: self.suspect(),
            seconds: run.seconds(),
            metrics: run.metrics_state()?,
            best: run.best(),
            values,
        })
    }

    /// Hyper-parameters that are other than when the run began.
    pub fn changed(&self) -> &[String] {
        self.launched().continued.as_ref().map_or(&[], |continued| &continued.changed)
    }

    /// A run is continued: its loop will go on where the checkpoint was written.
    pub(super) fn go_on_midway(&self) {
        if let Some(stored) = self.checkpoints().pending() {
            let RunState { number, first, step, .. } = stored.state;
            self.step_loop().go_on_at(Midway { number, first, step });
        }
    }

    /// The run stands where the checkpoint was written: from here on it is told and written again.
    ///
    /// # Errors
    /// Metrics that are not as they were.
    pub fn restored(&self) -> Result<()> {
        let (Some(stored), Some(run)) = (self.checkpoints().pending(), self.run()) else { return Ok(()) };
        run.resume(&stored.state)?;
        self.go_on_in(&run)?;
        self.set_progress(&stored.state);
        self.checkpoints().restored();
        let plan = self.step_loop().plan();
        self.reporter().begin(plan.map_or(0, |plan| plan.last));
        self.reporter().note(&format!("continuing after step {}, from {}", stored.state.step, stored.path.display()));
        Ok(())
    }

    /// The run does go on: its folder no longer says how it ended, and has the options that it goes on with.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn go_on_in(&self, run: &Run) -> Result<()> {
        Status::clear(run.folder())?;
        let config = self.launched().continued.as_ref().and_then(|continued| continued.config.as_ref());
        config.map_or(Ok(()), |config| run.folder().write(CONFIG, config))?;
        if self.launched().until.is_some() {
            // A copy, of which nothing is left.
            return Ok(());
        }
        let path = run.folder().file(CONFIG);
        let read = serde_json::from_str(&files::text(&path)?);
        let mut config = read.map_err(|e| Error::file(format!("{} cannot be read: {e}", path.display())))?;
        match computer::note(&mut config, &computer::describe(&self.place()), self.step()) {
            true => run.folder().write(CONFIG, &format!("{config:#}\n")),
            false => Ok(()),
        }
    }

    /// A loop that was to go on has no step left.
    ///
    /// # Errors
    /// It has done more steps than the script now has.
    pub(super) fn check_midway(&self) -> Result<()> {
        let Some(stored) = self.checkpoints().pending() else { return Ok(()) };
        if self.step_loop().number() < stored.state.number {
            return Ok(());
        }
        let (done, last) = (stored.state.step, self.step_loop().plan().map_or(0, |plan| plan.last));
        Err(Error::value(format!("the run has done {done} steps, and its loop now ends after step {last}"))
            .hint("continue it with as many steps as it had"))
    }

    /// Keeps a model as `model-best/` if its number is the largest so far; says whether it is. A folder that cannot be
    /// written costs the copy and not the run.
    ///
    /// # Errors
    /// Another name than that of the number so far; a number that is none.
    pub fn keep(&self, run: &Run, name: &str, value: f64, model: &ModelHandle) -> Result<bool> {
        if let Some(best) = run.best().filter(|best| best.name != name) {
            return Err(Error::value(format!("run.keep: the best is kept by `{}`, found `{name}`", best.name))
                .hint("one number decides; join several into one"));
        }
        if value.is_nan() {
            return Err(Error::value(format!("run.keep: `{name}` is NaN")).hint("a number that can be compared"));
        }
        if self.repeats() || run.best().is_some_and(|best| value <= best.value) {
            return Ok(false);
        }
        match run.keep(self.engine(), name, value, model) {
            Err(e) if e.kind == Kind::File => {
                self.reporter().note(&format!("the best model could not be kept: {e}"));
                Ok(false)
            }
            kept => kept.map(|()| true),
        }
    }
}
