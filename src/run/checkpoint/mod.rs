//! Checkpoints: when one is due, and which one a run goes on from.
//!
//! Owns the schedule and what this process knows of the run that it continues. What lies on the disk is `store.rs`'s, what
//! is in it beside the script's values `state.rs`'s; the values themselves are read and written where scripts are.

pub mod state;
pub mod store;

use crate::error::{Error, Result};
use crate::files::Location;
use state::RunState;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};
use store::Stored;

/// How long a run lasts before its first checkpoint, where nobody says.
const UNASKED: Duration = Duration::from_secs(600);

/// How often checkpoints are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// Every ten minutes once a run has lasted ten. What cannot be stored is told, and the run goes on.
    #[default]
    Unasked,
    Never,
    Steps(u64),
    Time(Duration),
}

impl FromStr for Schedule {
    type Err = String;

    /// `50` steps; `30s`, `10m`, `2h`; `off`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("expected a number of steps (50), a time (30s, 10m, 2h) or off, found {text:?}");
        if text == "off" {
            return Ok(Self::Never);
        }
        let unit = [("s", 1), ("m", 60), ("h", 3600)];
        let timed = unit.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
        let number: u64 = timed.map_or(text, |(number, _)| number).parse().map_err(|_| wrong())?;
        match (number, timed) {
            (0, _) => Err(wrong()),
            (n, None) => Ok(Self::Steps(n)),
            (n, Some((_, seconds))) => Ok(Self::Time(Duration::from_secs(n.saturating_mul(*seconds)))),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unasked => f.write_str("unasked"),
            Self::Never => f.write_str("off"),
            Self::Steps(n) => write!(f, "{n}"),
            Self::Time(time) => write!(f, "{}s", time.as_secs()),
        }
    }
}

/// What a session is to continue.
#[derive(Debug, Clone)]
pub struct Continued {
    /// The run's folder.
    pub folder: Location,
    /// Its newest whole checkpoint; none where it was killed before the first.
    pub from: Option<Rc<Stored>>,
    /// Hyper-parameters that are no longer those it began with.
    pub changed: Vec<String>,
    /// What its configuration says from here on, where options were added.
    pub config: Option<String>,
}

/// When checkpoints are written, and what is to be restored.
#[derive(Debug)]
pub struct Checkpoints {
    schedule: Schedule,
    last: Cell<Instant>,
    /// Nothing is written any more: what the script holds cannot be stored, or the run's end has been stored.
    closed: Cell<bool>,
    /// What the loop has not come to yet.
    pending: RefCell<Option<Rc<Stored>>>,
}

impl Checkpoints {
    pub fn new(schedule: Schedule, continued: Option<&Continued>) -> Self {
        let pending = RefCell::new(continued.and_then(|continued| continued.from.clone()));
        let closed = Cell::new(schedule == Schedule::Never);
        Self { schedule, last: Cell::new(Instant::now()), closed, pending }
    }

    /// Whether anybody said how often.
    pub fn asked_for(&self) -> bool {
        matches!(self.schedule, Schedule::Steps(_) | Schedule::Time(_))
    }

    /// Whether checkpoints are written at all.
    pub fn written(&self) -> bool {
        !self.closed.get()
    }

    /// None is written from here on.
    pub fn close(&self) {
        self.closed.set(true);
    }

    /// One was written, or tried: the next is due a whole period later.
    pub fn done(&self) {
        self.last.set(Instant::now());
    }

    /// Whether one is due after `steps` steps.
    pub fn due(&self, steps: u64) -> bool {
        self.written()
            && steps > 0
            && match self.schedule {
                Schedule::Never => false,
                Schedule::Steps(n) => steps.is_multiple_of(n),
                Schedule::Time(time) => self.last.get().elapsed() >= time,
                Schedule::Unasked => self.last.get().elapsed() >= UNASKED,
            }
    }

    /// What is to be restored, until it is.
    pub fn pending(&self) -> Option<Rc<Stored>> {
        self.pending.borrow().clone()
    }

    /// The loop has everything back.
    pub fn restored(&self) {
        self.pending.replace(None);
    }

    /// The script has ended: it must have come to what was to be restored.
    ///
    /// # Errors
    /// It has not.
    pub fn check(&self) -> Result<()> {
        match self.pending() {
            None => Ok(()),
            Some(stored) => Err(never_came(&stored.state)),
        }
    }
}

fn never_came(state: &RunState) -> Error {
    Error::value(format!("the script ended before it came to step {}, from which it was to go on", state.step + 1))
        .hint("has the script changed? The run folder holds the text that it was started with: script.rhai")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_steps_or_times() {
        let of = |text: &str| text.parse::<Schedule>();
        assert_eq!(of("50"), Ok(Schedule::Steps(50)));
        assert_eq!(of("90s"), Ok(Schedule::Time(Duration::from_secs(90))));
        assert_eq!(of("10m"), Ok(Schedule::Time(Duration::from_secs(600))));
        assert_eq!(of("2h"), Ok(Schedule::Time(Duration::from_secs(7200))));
        assert_eq!(of("off"), Ok(Schedule::Never));
        for wrong in ["", "0", "0m", "-1", "m", "1.5h", "ten", "10 m"] {
            of(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn one_is_due_every_so_many_steps_and_none_before_the_first() {
        let checkpoints = Checkpoints::new(Schedule::Steps(3), None);
        let due: Vec<u64> = (0..10).filter(|&step| checkpoints.due(step)).collect();
        assert_eq!(due, [3, 6, 9]);
        checkpoints.close();
        assert!(!checkpoints.due(3));
        assert!(!Checkpoints::new(Schedule::Unasked, None).due(1), "not within ten minutes");
        assert!(Checkpoints::new(Schedule::Time(Duration::ZERO), None).due(1));
    }
}
