//! The state machine of a run's step loop: where it stands, whether somebody looks between two steps, and how it ends.
//!
//! Every change is a method here that says which phases it leads from; everyone else asks. `steps.rs` drives it from
//! the script's `for`, `script`'s pause loop from between two steps. It writes, draws and evaluates nothing.

use crate::error::{Error, Result};
use crate::run::interrupt::{Interrupt, Mode};
use std::cell::Cell;
use std::time::Instant;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No step loop is under way.
    Outside,
    /// A loop has begun and has come to no step yet.
    Entered,
    /// The loop has come to this step, and somebody is to look before it begins.
    Before(u64),
    /// Edited files are read again before this step.
    Refreshing(u64),
    /// A person is at a prompt before this step.
    Paused(u64),
    /// This step is under way.
    In(u64),
    /// A person has stopped the loop: it comes to no further step.
    Leaving,
}

/// How a pause ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The loop goes on.
    Continue,
    /// The loop goes on for one step.
    Step,
    /// The loop ends; what stands after it runs.
    Stop,
}

/// The steps of a loop.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub first: u64,
    pub last: u64,
    /// The first step of this process: later than the loop's where a run is continued.
    pub from: u64,
    pub started: Instant,
}

/// Where a loop goes on that another process has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Midway {
    /// Which of the script's loops, from 1.
    pub number: u64,
    /// Its first step.
    pub first: u64,
    /// The last step that is done.
    pub step: u64,
}

/// A run's steps, from before the first to after the last.
#[derive(Debug)]
pub struct StepLoop {
    phase: Cell<Phase>,
    /// The step that began last; 0 before the first.
    step: Cell<u64>,
    plan: Cell<Option<Plan>>,
    /// Files are read again before every step.
    follows: Cell<bool>,
    /// The run pauses before its next step.
    pauses: Cell<bool>,
    /// Loops that have begun.
    number: Cell<u64>,
    /// Where a continued run goes on: loops before that one have no steps left.
    midway: Cell<Option<Midway>>,
    /// Loops are typed at a prompt.
    interactive: Cell<bool>,
    /// The loop that was under way last was left in the middle of a step.
    broken: Cell<bool>,
    interrupt: Interrupt,
}

impl StepLoop {
    pub fn new(interrupt: Interrupt) -> Self {
        Self {
            phase: Cell::new(Phase::Outside),
            step: Cell::new(0),
            plan: Cell::new(None),
            follows: Cell::new(false),
            pauses: Cell::new(false),
            number: Cell::new(0),
            midway: Cell::new(None),
            interactive: Cell::new(false),
            broken: Cell::new(false),
            interrupt,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The step that began last: what is logged after a loop belongs to it. 0 before the first.
    pub fn step(&self) -> u64 {
        self.step.get()
    }

    /// The loop that is under way, or was the last to be.
    pub fn plan(&self) -> Option<Plan> {
        self.plan.get()
    }

    /// From now on edited files are read again before every step.
    pub fn follow_files(&self) {
        self.follows.set(true);
    }

    /// Whether a run follows its files: while an edit is broken it goes on with what it has.
    pub fn follows(&self) -> bool {
        self.follows.get()
    }

    /// Which of the script's loops is under way, or was the last to be; from 1.
    pub fn number(&self) -> u64 {
        self.number.get()
    }

    /// Another process has come so far.
    pub fn go_on_at(&self, midway: Midway) {
        self.midway.set(Some(midway));
    }

    /// Loops are typed at a prompt, where nothing is stored.
    pub fn is_interactive(&self) -> bool {
        self.interactive.get()
    }

    /// Whether the loop is to end, by Ctrl-C or another signal, and nobody is to be asked about it.
    pub fn ends(&self) -> bool {
        self.interrupt.asked()
    }

    /// The run pauses before its next step, once.
    pub fn request_pause(&self) {
        self.pauses.set(true);
    }

    /// Whether the run pauses before its next step.
    pub fn wants_pause(&self) -> bool {
        self.pauses.get()
    }

    /// Whether somebody looks before the next step.
    pub fn attended(&self) -> bool {
        self.follows.get() || self.pauses.get()
    }

    /// Scripts are typed at a prompt: a run may follow another, and Ctrl-C stops what was typed.
    pub fn set_interactive(&self) {
        self.interactive.set(true);
        self.interrupt.set(self.mode());
    }

    /// Whether a further run may take the place of the one that is open.
    pub fn may_restart(&self) -> bool {
        self.interactive.get() && self.phase() == Phase::Outside
    }

    /// Whether to ask what a press of Ctrl-C means: there is a further step, and nobody has decided yet.
    pub fn is_in_doubt(&self) -> bool {
        self.next().is_some() && self.interrupt.asked() && !self.interrupt.decided()
    }

    /// What a press of Ctrl-C means while nobody is at a pause.
    fn mode(&self) -> Mode {
        if self.interactive.get() { Mode::Prompt } else { Mode::Steps }
    }

    /// The step that comes after the one under way.
    fn next(&self) -> Option<u64> {
        let (step, plan) = (self.step() + 1, self.plan()?);
        let between = matches!(self.phase(), Phase::Entered | Phase::In(_));
        (between && step <= plan.last).then_some(step)
    }

    /// `Outside` → `Entered`: a loop over the next `n` steps begins.
    ///
    /// # Errors
    /// A loop is under way.
    pub fn enter(&self, n: u64) -> Result<Plan> {
        if self.phase() != Phase::Outside {
            return Err(Error::value("a step loop is already running")
                .hint("a run counts its steps in one loop at a time: use a plain `for i in 0..n` inside it"));
        }
        self.broken.set(false);
        self.number.set(self.number() + 1);
        let first = self.step() + 1;
        let mut plan = Plan { first, last: self.step() + n, from: first, started: Instant::now() };
        if let Some(midway) = self.midway.get() {
            if self.number() < midway.number {
                plan.last = self.step();
            } else if self.number() == midway.number {
                self.step.set(midway.step);
                plan = Plan {
                    first: midway.first,
                    last: (midway.first + n).saturating_sub(1),
                    from: midway.step + 1,
                    ..plan
                };
            }
        }
        self.plan.set(Some(plan));
        self.phase.set(Phase::Entered);
        self.interrupt.set(self.mode());
        Ok(plan)
    }

    /// `Entered` or `In` → `Before` the next step, which is returned; → `Outside` after the last one, and after Ctrl-C
    /// or `Stop`, unless `stores`: then the loop is left from between the two steps, where its variables are in reach.
    /// The step begins with [`StepLoop::begin`].
    pub fn arrive(&self, stores: bool) -> Option<u64> {
        let next = self.next().filter(|_| stores || !self.interrupt.asked());
        self.phase.set(next.map_or(Phase::Outside, Phase::Before));
        next
    }

    /// `Before` → `Refreshing`. False in every other phase, where there is nothing to look at.
    pub fn look(&self) -> bool {
        let Phase::Before(step) = self.phase() else { return false };
        self.phase.set(Phase::Refreshing(step));
        true
    }

    /// `Refreshing` → `Paused`, if a pause was asked for. False where it was not, and in every other phase.
    pub fn pause(&self) -> bool {
        let Phase::Refreshing(step) = self.phase() else { return false };
        if !self.pauses.replace(false) {
            return false;
        }
        self.phase.set(Phase::Paused(step));
        self.interrupt.set(Mode::Prompt);
        true
    }

    /// `Paused` → `Refreshing`, or `Leaving`. Nothing happens in any other phase.
    pub fn resume(&self, verdict: Verdict) {
        let Phase::Paused(step) = self.phase() else { return };
        // What was pressed at the prompt is dealt with there: this came after the person had said how to go on.
        self.interrupt.postpone();
        self.interrupt.set(self.mode());
        self.pauses.set(verdict == Verdict::Step);
        if verdict == Verdict::Stop {
            self.interrupt.end();
        }
        self.phase.set(if verdict == Verdict::Stop { Phase::Leaving } else { Phase::Refreshing(step) });
    }

    /// `Refreshing` → `Leaving`: the step that the loop has come to does not begin. Nothing happens in any other phase.
    pub fn leave_before(&self) {
        if let Phase::Refreshing(_) = self.phase() {
            self.interrupt.end();
            self.phase.set(Phase::Leaving);
        }
    }

    /// `Before` or `Refreshing` → `In` the step, which is returned. `None` in every other phase: no step is due.
    pub fn begin(&self) -> Option<u64> {
        let (Phase::Before(step) | Phase::Refreshing(step)) = self.phase() else { return None };
        self.phase.set(Phase::In(step));
        self.step.set(step);
        Some(step)
    }

    /// → `Outside`, from wherever: the loop is over, by its end, `break` or an error.
    pub fn leave(&self) {
        self.broken.set(matches!(self.phase(), Phase::In(_)));
        self.phase.set(Phase::Outside);
    }

    /// Whether the loop was left in the middle of a step, by `break` or an error, and nothing has come after it.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// What follows a loop that was left has begun.
    pub fn follow(&self) {
        self.broken.set(false);
    }

    /// The loop that was left in the middle of a step will be entered once more: it comes to that step again, and pauses
    /// before it.
    pub fn repeat_step(&self) {
        let (true, Some(plan)) = (self.broken.take(), self.plan()) else { return };
        let midway = Midway { number: self.number(), first: plan.first, step: self.step() - 1 };
        self.number.set(midway.number - 1);
        self.step.set(midway.step);
        self.midway.set(Some(midway));
        self.request_pause();
    }

    /// Steps count from 1 again: a further run begins.
    pub fn restart(&self) {
        self.leave();
        self.step.set(0);
        self.number.set(0);
        self.midway.set(None);
        self.plan.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::interrupt::Press;

    fn steps() -> StepLoop {
        StepLoop::new(Interrupt::default())
    }

    /// A loop that stands in its first step.
    fn first_of(n: u64) -> StepLoop {
        let steps = steps();
        steps.enter(n).expect("outside");
        steps.arrive(false);
        steps.begin();
        steps
    }

    #[test]
    fn a_loop_goes_from_step_to_step_and_the_next_one_counts_on() {
        let steps = first_of(2);
        assert_eq!((steps.phase(), steps.step()), (Phase::In(1), 1));
        assert_eq!((steps.arrive(false), steps.phase(), steps.step()), (Some(2), Phase::Before(2), 1));
        assert_eq!((steps.begin(), steps.phase(), steps.step()), (Some(2), Phase::In(2), 2));
        assert_eq!((steps.arrive(false), steps.phase(), steps.step()), (None, Phase::Outside, 2));
        let plan = steps.enter(3).expect("outside again");
        assert_eq!((plan.first, plan.last), (3, 5));
        assert_eq!(steps.arrive(false), Some(3));
    }

    #[test]
    fn a_loop_of_no_steps_ends_at_once() {
        let steps = steps();
        steps.enter(0).expect("outside");
        assert_eq!((steps.arrive(false), steps.phase(), steps.step()), (None, Phase::Outside, 0));
    }

    #[test]
    fn one_loop_at_a_time() {
        let steps = first_of(2);
        for phase in ["in", "before", "refreshing", "paused"] {
            assert_eq!(steps.enter(1).expect_err(phase).what, "a step loop is already running");
            match phase {
                "in" => drop(steps.arrive(false)),
                "before" => drop(steps.look()),
                "refreshing" => {
                    steps.request_pause();
                    assert!(steps.pause());
                }
                _ => {}
            }
        }
        assert_eq!(steps.phase(), Phase::Paused(2));
        steps.resume(Verdict::Stop);
        steps.enter(1).expect_err("leaving");
        steps.leave();
        steps.enter(1).expect("outside");
    }

    #[test]
    fn a_step_is_looked_at_and_begun_once() {
        let steps = first_of(2);
        assert!(
            !steps.look() && steps.begin().is_none(),
            "a step under way is not looked at, and does not begin again"
        );
        steps.arrive(false);
        assert!(steps.look());
        assert!(!steps.look(), "what reads variables while files are read again is no second look");
        assert_eq!(steps.begin(), Some(2));
        assert!(!steps.look() && steps.begin().is_none());
    }

    #[test]
    fn a_pause_comes_before_a_step_and_only_when_asked_for() {
        let steps = first_of(9);
        assert!(!steps.attended());
        steps.arrive(false);
        steps.look();
        assert!(!steps.pause(), "nobody asked");
        steps.begin();
        steps.request_pause();
        assert!(steps.attended() && !steps.pause(), "not within a step");
        steps.arrive(false);
        assert!(!steps.pause(), "files are read first");
        steps.look();
        assert!(steps.pause());
        assert_eq!(steps.begin(), None, "no step begins while a person is at the prompt");
        assert!(!steps.pause() && !steps.look());
        steps.resume(Verdict::Continue);
        assert_eq!((steps.begin(), steps.wants_pause()), (Some(3), false));
    }

    #[test]
    fn a_pause_ends_as_the_person_says() {
        let steps = first_of(9);
        let pause = || {
            steps.request_pause();
            steps.arrive(false);
            steps.look();
            assert!(steps.pause());
        };
        pause();
        steps.resume(Verdict::Step);
        assert_eq!((steps.begin(), steps.wants_pause()), (Some(2), true));
        pause();
        steps.resume(Verdict::Stop);
        assert_eq!((steps.phase(), steps.step()), (Phase::Leaving, 2));
        assert_eq!(steps.begin(), None, "the step that it had come to does not begin");
        assert!(!steps.pause() && !steps.look());
        assert_eq!((steps.arrive(false), steps.phase()), (None, Phase::Outside));
        steps.enter(2).expect("what stands after the loop runs");
        assert!(!steps.is_in_doubt(), "the end is decided");
        assert_eq!(steps.arrive(false), None);
        steps.resume(Verdict::Step);
        assert_eq!((steps.phase(), steps.wants_pause()), (Phase::Outside, false), "nothing to resume");
    }

    #[test]
    fn ctrl_c_right_behind_a_pause_is_not_lost() {
        let steps = first_of(9);
        steps.request_pause();
        steps.arrive(false);
        steps.look();
        assert!(steps.pause());
        assert_eq!(steps.interrupt.press(), Press::AtOnce, "as at any prompt");
        steps.resume(Verdict::Continue);
        assert_eq!(steps.begin(), Some(2), "the step is finished first");
        assert!(steps.is_in_doubt());
        assert_eq!(steps.arrive(false), None);
    }

    #[test]
    fn ctrl_c_ends_the_loop_after_the_step_unless_it_becomes_a_pause() {
        let steps = first_of(9);
        assert!(!steps.is_in_doubt());
        steps.interrupt.press();
        assert!(steps.is_in_doubt());
        assert_eq!(steps.arrive(false), None);
        steps.interrupt.reset();
        steps.enter(9).expect("outside");
        assert_eq!(steps.arrive(false), Some(2));
        steps.begin();
        steps.interrupt.press();
        steps.interrupt.reset();
        steps.request_pause();
        assert_eq!(steps.arrive(false), Some(3));
        assert!(steps.look() && steps.pause());
    }

    #[test]
    fn after_the_last_step_nothing_is_asked() {
        let steps = first_of(1);
        steps.interrupt.press();
        assert!(!steps.is_in_doubt());
    }

    #[test]
    fn a_further_run_begins_at_a_prompt_outside_of_loops() {
        let steps = first_of(1);
        assert!(!steps.may_restart());
        steps.set_interactive();
        assert!(!steps.may_restart(), "within a loop");
        steps.leave();
        assert!(steps.may_restart());
        steps.restart();
        assert_eq!((steps.step(), steps.plan().is_none()), (0, true));
    }
}
