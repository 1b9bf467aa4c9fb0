//! Signals that ask a run to end, Ctrl-C first of all: the first ends the step loop after the current step, the second
//! stops at once, the third leaves.
//! Owns the flags; who looks at them decides what stopping means.

use crate::error::{Error, Kind, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicUsize, Ordering};

/// What a cluster, a terminal that is closed, or `kill` sends.
const REQUESTS: [i32; 3] = [SIGTERM, SIGUSR1, SIGHUP];

/// From here on a file that grows beyond the limit on file sizes is an error of who writes it, and does not end the process. Programs
/// that are started have the system's way again.
///
/// # Errors
/// A system that refuses.
pub fn spare_writers() -> Result<()> {
    let taken = signal_hook::flag::register(SIGXFSZ, Arc::default());
    taken.map(drop).map_err(|e| Error::new(Kind::Internal, format!("signals cannot be handled: {e}")))
}

/// How a signal was taken.
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
    /// The first signal that asked, as the system numbers it; 0 where none did.
    signal: AtomicI32,
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
        self.take(SIGINT)
    }

    /// Takes one signal. Only after Ctrl-C is there a person who could be asked what it means.
    fn take(&self, signal: i32) -> Press {
        // A later one changes nothing of why the run ends.
        let _ = self.pressed.signal.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
        if signal != SIGINT {
            self.pressed.decided.store(true, Ordering::Relaxed);
        }
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
        self.pressed.signal.store(0, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
    }

    /// What was pressed counts as if it had come in a step: that is finished first.
    pub fn postpone(&self) {
        if self.asked() {
            self.stop.store(false, Ordering::Relaxed);
            self.pressed.times.store(1, Ordering::Relaxed);
        }
    }

    /// What the process ends with as a program that a signal ended: 130 after Ctrl-C, 143 after SIGTERM.
    pub fn exit_code(&self) -> u8 {
        const ENDED_BY_SIGNAL: u8 = 128;
        match self.pressed.signal.load(Ordering::Relaxed) {
            // A person has ended it at a prompt.
            0 => ENDED_BY_SIGNAL + SIGINT as u8,
            signal => ENDED_BY_SIGNAL + signal as u8,
        }
    }

    /// The user asked to end.
    pub fn asked(&self) -> bool {
        self.pressed.times.load(Ordering::Relaxed) > 0
    }

    /// A signal asked, not the program itself.
    pub fn signalled(&self) -> bool {
        self.pressed.signal.load(Ordering::Relaxed) != 0
    }

    /// Calls `tell` in a thread of its own at every Ctrl-C. Once per process.
    ///
    /// # Errors
    /// A system that gives no thread, or refuses the handler.
    pub fn install(&self, tell: impl Fn(Press) + Send + 'static) -> Result<()> {
        self.watch(&[SIGINT], tell)
    }

    /// The same at everything that asks a run to end: Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP.
    ///
    /// # Errors
    /// Those of [`Interrupt::install`].
    pub fn install_for_runs(&self, tell: impl Fn(Press) + Send + 'static) -> Result<()> {
        let all: Vec<i32> = std::iter::once(SIGINT).chain(REQUESTS).collect();
        self.watch(&all, tell)
    }

    fn watch(&self, signals: &[i32], tell: impl Fn(Press) + Send + 'static) -> Result<()> {
        let own = self.clone();
        let failed = |e| Error::new(Kind::Internal, format!("signals cannot be watched: {e}"));
        let mut signals = Signals::new(signals).map_err(failed)?;
        let thread = std::thread::Builder::new().name("signals".into());
        let watching = move || signals.forever().for_each(|signal| tell(own.take(signal)));
        thread.spawn(watching).map(drop).map_err(failed)
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
        assert!(i.asked() && !i.decided(), "a person may still be asked");
        assert_eq!(i.exit_code(), 130);
    }

    #[test]
    fn what_no_person_sent_is_decided_and_the_first_signal_names_the_end() {
        let i = Interrupt::default();
        i.set(Mode::Steps);
        assert_eq!([i.take(SIGTERM), i.take(SIGINT)], [Press::AfterStep, Press::AtOnce]);
        assert!(i.decided());
        assert_eq!(i.exit_code(), 143);
        i.reset();
        assert_eq!((i.take(SIGUSR1), i.exit_code()), (Press::AfterStep, 138));
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
