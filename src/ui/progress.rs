//! A run as it goes: a bar on a terminal, plain lines elsewhere. Everything but the script's own `print` goes to
//! standard error.

use crate::run::{Launch, Reporter, Status, Table};
use crate::ui::terminal::asks;
use crate::ui::{out, table};
use crossterm::event::{self, Event, KeyCode};
use crossterm::terminal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Plain lines per run, about.
const LINES: u64 = 20;
/// A plain line comes at least this often.
const SILENCE: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(250);
/// How long the end of a step waits for a key, once Ctrl-C was pressed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows a run on the terminal.
pub struct Progress {
    bar: ProgressBar,
    live: bool,
    last: Cell<Option<Instant>>,
    closed: Arc<AtomicBool>,
    opened: Cell<bool>,
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// `live`: standard error is a terminal. `stop` is set when nobody reads standard output any more and no run is open.
    fn new(live: bool, stop: Arc<AtomicBool>) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        Self { bar, live, last: Cell::new(None), closed: Arc::default(), opened: Cell::new(false), stop }
    }

    /// Shows the run of a session that is to be launched.
    pub fn attach(launch: &mut Launch, live: bool) -> Rc<Self> {
        let progress = Rc::new(Self::new(live, launch.stop()));
        launch.reporter = progress.clone();
        progress
    }

    /// The bar, for whoever has to write beside it.
    pub fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Becomes true when standard output was closed by its reader.
    pub fn closed(&self) -> Arc<AtomicBool> {
        self.closed.clone()
    }

    /// Whether a plain line is due: regularly, at the ends, and after a long silence.
    fn due(&self, status: &Status) -> bool {
        let every = (status.total / LINES).max(1);
        let silent = self.last.get().is_none_or(|last| last.elapsed() >= SILENCE);
        silent || status.step == status.total || status.step.is_multiple_of(every)
    }
}

impl Reporter for Progress {
    fn begin(&self, total: u64) {
        self.last.set(None);
        if self.live {
            self.bar.set_length(total);
            self.bar.set_style(style());
            self.bar.reset();
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(TICK);
        }
    }

    fn step(&self, status: &Status) {
        if self.live {
            self.bar.set_message(numbers(status));
            self.bar.set_position(status.step);
        } else if self.due(status) {
            self.last.set(Some(Instant::now()));
            let (step, total, numbers) = (status.step, status.total, numbers(status));
            let times = format!("{} gone, {} left", clock(status.seconds), clock(left(status)));
            let parts = [format!("step {step}/{total}"), numbers, times];
            out::note(&parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("  "));
        }
    }

    fn end(&self) {
        self.bar.disable_steady_tick();
        // The bar stays as the last thing that was said about the loop.
        self.bar.abandon();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn opened(&self) {
        self.opened.set(true);
    }

    fn table(&self, table: &Table) {
        self.note(&table::lines(table).join("\n"));
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| out::note(text));
    }

    fn hold(&self) {
        self.bar.disable_steady_tick();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn go_on(&self) {
        if self.live {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(TICK);
        }
    }

    /// Waits a moment for `p`, which may have been pressed before.
    fn wants_pause(&self) -> bool {
        asks() && self.bar.suspend(|| pressed('p', PATIENCE))
    }

    fn print(&self, text: &str) {
        let read = self.bar.suspend(|| out::line(text));
        if !read {
            self.closed.store(true, Ordering::Relaxed);
            // What only prints has nobody left to print for; a run has its folder.
            if !self.opened.get() {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Whether `key` is the next to be pressed; the terminal is as it was afterwards.
fn pressed(key: char, patience: Duration) -> bool {
    if terminal::enable_raw_mode().is_err() {
        return false;
    }
    let until = Instant::now() + patience;
    let found = loop {
        let left = until.saturating_duration_since(Instant::now());
        match event::poll(left).and_then(|there| if there { event::read().map(Some) } else { Ok(None) }) {
            Ok(Some(Event::Key(pressed))) => break pressed.code == KeyCode::Char(key) && pressed.modifiers.is_empty(),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break false,
        }
    };
    // What cannot be put back here cannot be put back anywhere.
    let _ = terminal::disable_raw_mode();
    found
}

fn style() -> ProgressStyle {
    let template = "step {pos}/{len} {bar:24} {msg}  {elapsed} gone, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `reward 0.531  divergence 0.0021`
fn numbers(status: &Status) -> String {
    let reward = status.reward.map(|x| format!("reward {x:.3}"));
    let divergence = status.divergence.map(|x| format!("divergence {x:.4}"));
    reward.into_iter().chain(divergence).collect::<Vec<_>>().join("  ")
}

/// Seconds that the remaining steps take at the speed so far.
fn left(status: &Status) -> f64 {
    let steps = status.total.saturating_sub(status.step) as f64;
    status.seconds / status.done.max(1) as f64 * steps
}

/// `4.2s`, `3m05s`, `1h02m`.
fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!([clock(4.23), clock(185.0), clock(3725.0)], ["4.2s", "3m05s", "1h02m"]);
    }

    #[test]
    fn what_is_left_follows_the_speed_of_this_loop() {
        let status = Status { step: 30, total: 40, seconds: 5.0, done: 10, reward: Some(0.5), divergence: None };
        assert_eq!(left(&status), 5.0);
        assert_eq!(numbers(&status), "reward 0.500");
    }
}
