//! Ctrl-C: the first ends the step loop after the current step, the second stops at once, the third leaves.
//! Owns the flags; who looks at them decides what stopping means.

use crate::error::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

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

/// What is under way, by which a press is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A script without a step loop so far.
    Script,
    /// A script with a step loop, which can end in order.
    Steps,
    /// What a person typed: every press stops that at once, and nothing leaves.
    Prompt,
}

/// The state of interruption, shared with the signal handler.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    pressed: Arc<Pressed>,
    /// The flag that the engine looks at.
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Pressed {
    times: AtomicUsize,
    /// Ending is decided, not only asked for.
    decided: AtomicBool,
    /// A `Mode`.
    mode: AtomicU8,
}

impl Interrupt {
    /// `stop` is the flag that the engine looks at.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..Self::default() }
    }

    /// From now on this is under way.
    pub fn set(&self, mode: Mode) {
        self.pressed.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Takes one press of Ctrl-C.
    pub fn press(&self) -> Press {
        let first = self.pressed.times.fetch_add(1, Ordering::Relaxed) == 0;
        let mode = self.pressed.mode.load(Ordering::Relaxed);
        if first && mode == Mode::Steps as u8 {
            return Press::AfterStep;
        }
        let again = self.stop.swap(true, Ordering::Relaxed);
        if again && mode != Mode::Prompt as u8 { Press::Leave } else { Press::AtOnce }
    }

    /// The person has decided to end: as after a press, and nobody is asked again.
    pub fn end(&self) {
        self.pressed.decided.store(true, Ordering::Relaxed);
        self.pressed.times.store(1, Ordering::Relaxed);
    }

    /// Whether ending is decided, not only asked for.
    pub fn decided(&self) -> bool {
        self.pressed.decided.load(Ordering::Relaxed)
    }

    /// Whatever was pressed is dealt with.
    pub fn reset(&self) {
        self.pressed.decided.store(false, Ordering::Relaxed);
        self.pressed.times.store(0, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
    }

    /// The user asked to end.
    pub fn asked(&self) -> bool {
        self.pressed.times.load(Ordering::Relaxed) > 0
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
        i.set(Mode::Steps);
        assert!(!i.asked());
        assert_eq!([i.press(), i.press(), i.press()], [Press::AfterStep, Press::AtOnce, Press::Leave]);
        assert!(i.asked());
    }

    #[test]
    fn at_a_prompt_every_press_stops_what_runs() {
        let i = Interrupt::default();
        i.set(Mode::Prompt);
        assert_eq!([i.press(), i.press(), i.press()], [Press::AtOnce; 3]);
        i.reset();
        assert!(!i.asked());
        i.set(Mode::Steps);
        assert_eq!(i.press(), Press::AfterStep);
    }

    #[test]
    fn without_steps_the_first_press_stops() {
        assert_eq!(Interrupt::default().press(), Press::AtOnce);
    }
}
