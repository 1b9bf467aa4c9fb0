//! Ctrl-C: the first ends the step loop after the current step, the second stops at once, the third leaves.
//! Owns the flags; who looks at them decides what stopping means.

use crate::error::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a key press was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// The current step is finished first.
    AfterStep,
    /// Everything stops where it is.
    AtOnce,
    /// The process must leave without saving.
    Leave,
}

/// The state of interruption, shared with the signal handler.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    presses: Arc<AtomicUsize>,
    has_steps: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    at_prompt: Arc<AtomicBool>,
    decided: Arc<AtomicBool>,
}

impl Interrupt {
    /// `stop` is the flag that the engine looks at.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..Self::default() }
    }

    /// From now on there is a step loop that can end in order.
    pub fn expect_steps(&self) {
        self.has_steps.store(true, Ordering::Relaxed);
    }

    /// Takes one press of Ctrl-C.
    pub fn press(&self) -> Press {
        let before = self.presses.fetch_add(1, Ordering::Relaxed);
        if self.at_prompt.load(Ordering::Relaxed) {
            self.stop.store(true, Ordering::Relaxed);
            return Press::AtOnce;
        }
        if before == 0 && self.has_steps.load(Ordering::Relaxed) {
            return Press::AfterStep;
        }
        let again = self.stop.swap(true, Ordering::Relaxed);
        if again { Press::Leave } else { Press::AtOnce }
    }

    /// What a person typed runs: every press stops that at once, and nothing leaves.
    pub fn at_prompt(&self) {
        self.at_prompt.store(true, Ordering::Relaxed);
    }

    /// The opposite: a script goes on.
    pub fn leave_prompt(&self) {
        self.at_prompt.store(false, Ordering::Relaxed);
    }

    /// The person has decided to end: as after a press, and nobody is asked again.
    pub fn end(&self) {
        self.decided.store(true, Ordering::Relaxed);
        self.presses.store(1, Ordering::Relaxed);
    }

    /// Whether ending is decided, not only asked for.
    pub fn decided(&self) -> bool {
        self.decided.load(Ordering::Relaxed)
    }

    /// Whatever was pressed is dealt with.
    pub fn reset(&self) {
        self.presses.store(0, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
    }

    /// The user asked to end.
    pub fn asked(&self) -> bool {
        self.presses.load(Ordering::Relaxed) > 0
    }

    /// Calls `tell` in a thread of its own at every Ctrl-C. Once per process.
    pub fn install(&self, tell: impl Fn(Press) + Send + 'static) -> Result<()> {
        let own = self.clone();
        ctrlc::set_handler(move || tell(own.press()))
            .map_err(|e| Error::new(Kind::Internal, format!("Ctrl-C cannot be watched: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presses_escalate() {
        let i = Interrupt::default();
        i.expect_steps();
        assert!(!i.asked());
        assert_eq!([i.press(), i.press(), i.press()], [Press::AfterStep, Press::AtOnce, Press::Leave]);
        assert!(i.asked());
    }

    #[test]
    fn at_a_prompt_every_press_stops_what_runs() {
        let i = Interrupt::default();
        i.at_prompt();
        i.expect_steps();
        assert_eq!([i.press(), i.press(), i.press()], [Press::AtOnce; 3]);
        i.reset();
        assert!(!i.asked());
        i.leave_prompt();
        assert_eq!(i.press(), Press::AfterStep);
    }

    #[test]
    fn without_steps_the_first_press_stops() {
        assert_eq!(Interrupt::default().press(), Press::AtOnce);
    }
}
