//! `for step in run.steps(n)`: drives the step loop, reports its progress and asks what Ctrl-C means.
//! Owns no state of the loop (`step_loop.rs`).

use crate::error::{Error, Kind, Result};
use crate::run::Until;
use crate::run::handle::Run;
use crate::run::report::Status;
use crate::run::session::Session;
use crate::run::step_loop::Plan;
use std::rc::Rc;

/// Numbers that the progress line has room for.
const TOLD: usize = 3;

/// A step loop that has not begun.
#[derive(Clone)]
pub struct Steps {
    session: Rc<Session>,
    run: Rc<Run>,
    n: u64,
}

impl Steps {
    /// The next `n` steps: 1 to n, and on from there in a further loop.
    pub fn new(session: &Rc<Session>, run: &Rc<Run>, n: u64) -> Self {
        Self { session: session.clone(), run: run.clone(), n }
    }

    /// Begins the loop.
    fn enter(&self) -> Result<Plan> {
        if !self.session.run().is_some_and(|open| Rc::ptr_eq(&open, &self.run)) {
            return Err(Error::value("the steps are those of a run that has ended")
                .hint("count the steps of the run that was opened last"));
        }
        let plan = self.session.step_loop().enter(self.n)?;
        self.session.reporter().begin(plan.last);
        Ok(plan)
    }

    /// Tells of the step that is over.
    fn report(&self, plan: &Plan) {
        let (session, run) = (&self.session, &self.run);
        session.reporter().step(&Status {
            step: session.step(),
            total: plan.last,
            seconds: plan.started.elapsed().as_secs_f64(),
            done: session.step() + 1 - plan.from,
            numbers: run.told(TOLD),
        });
    }

    /// Comes to the next step, which begins at once unless somebody looks before it.
    fn arrive(&self) -> Option<Result<u64>> {
        let (session, steps) = (&self.session, self.session.step_loop());
        let further = |until: &Until| session.step() >= until.step && steps.plan().is_some_and(|p| p.last > until.step);
        match session.launched().until.filter(further) {
            Some(Until { through: true, .. }) => session.launched().interrupt.end(),
            Some(_) => return Some(Err(Error::new(Kind::Interrupted, "all steps that were asked for are done"))),
            None => {}
        }
        if steps.is_in_doubt() && session.reporter().wants_pause() {
            session.launched().interrupt.reset();
            steps.request_pause();
        }
        let step = steps.arrive(session.stores_at_end())?;
        if !session.is_looked_at(step) {
            return Some(session.begin_step().map(|()| step));
        }
        session.restart_streams();
        Some(Ok(step))
    }
}

impl IntoIterator for Steps {
    type Item = Result<u64>;
    type IntoIter = StepIter;

    fn into_iter(self) -> StepIter {
        StepIter { steps: self, state: State::Ahead }
    }
}

/// A step loop that goes on: each `next` closes the step before.
pub struct StepIter {
    steps: Steps,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Ahead,
    Going(Plan),
    Over,
}

impl Iterator for StepIter {
    type Item = Result<u64>;

    fn next(&mut self) -> Option<Result<u64>> {
        match self.state {
            State::Over => return None,
            State::Going(plan) => {
                // A body that reads no variable leaves its step to be begun here, and looks at nothing.
                if let Err(e) = self.steps.session.begin_step() {
                    return Some(Err(e));
                }
                self.steps.report(&plan);
            }
            State::Ahead => match self.steps.enter() {
                Ok(plan) => self.state = State::Going(plan),
                Err(e) => {
                    self.state = State::Over;
                    return Some(Err(e));
                }
            },
        }
        let step = self.steps.arrive();
        if step.is_none() {
            if let Err(e) = self.steps.session.check_midway() {
                self.state = State::Over;
                return Some(Err(e));
            }
            // The last step's line stays open: what is logged after the loop belongs to it.
            self.state = State::Over;
            self.steps.session.reporter().end();
        }
        step
    }
}

impl Drop for StepIter {
    /// A loop left by `break` or an error ends its display as well.
    fn drop(&mut self) {
        if let State::Going(_) = self.state {
            self.steps.session.step_loop().leave();
            self.steps.session.reporter().end();
        }
    }
}
