//! A run as it goes: a bar on a terminal, plain lines elsewhere. Everything but the script's own `print` goes to
//! standard error.

use crate::run::quote::masked;
use crate::run::{Launch, Log, Reporter, Status, Table};
use crate::ui::terminal::{asks, columns};
use crate::ui::{out, table};
use crossterm::event::{self, Event, KeyCode};
use crossterm::terminal;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use unicode_width::UnicodeWidthStr;

/// Plain lines per run, about.
const LINES: u64 = 20;
/// A plain line comes at least this often.
const SILENCE: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(250);
/// Columns of the bar's line beside the numbers, and where nobody knows how many there are.
const FRAME: usize = 50;
const COLUMNS: usize = 80;
/// Columns for the numbers of a plain line.
const PLAIN: usize = 72;
/// Lines that wait for a run to keep them.
const BEFORE: usize = 1000;
/// Letters of a name that are shown.
const NAME: usize = 24;
/// How long the end of a step waits for a key, once Ctrl-C was pressed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows a run on the terminal.
pub struct Progress {
    bar: ProgressBar,
    live: bool,
    last: Cell<Option<Instant>>,
    closed: Arc<AtomicBool>,
    /// Of the run that is open; what was told before it opened waits for it.
    log: RefCell<Option<Log>>,
    before: RefCell<Vec<String>>,
    stop: Arc<AtomicBool>,
    /// A step loop is under way.
    looping: Cell<bool>,
    /// What stands in the bar's line while nothing is evaluated.
    message: RefCell<String>,
}

impl Progress {
    /// `live`: standard error is a terminal. `stop` is set when nobody reads standard output any more and no run is open.
    fn new(live: bool, stop: Arc<AtomicBool>) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        Self {
            bar,
            live,
            last: Cell::new(None),
            closed: Arc::default(),
            log: RefCell::default(),
            before: RefCell::default(),
            stop,
            looping: Cell::new(false),
            message: RefCell::default(),
        }
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

    /// What was told, for the run's log.
    fn log(&self, text: &str) {
        match &*self.log.borrow() {
            Some(log) => log(text),
            None => {
                let mut before = self.before.borrow_mut();
                if before.len() < BEFORE {
                    before.push(text.to_string());
                }
            }
        }
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
        self.looping.set(true);
        // Of the loop nothing is known yet, and an evaluation before it is over.
        self.message.borrow_mut().clear();
        self.bar.set_message("");
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
            *self.message.borrow_mut() =
                numbers(status, columns(&std::io::stderr()).unwrap_or(COLUMNS).saturating_sub(FRAME));
            self.bar.set_message(self.message.borrow().clone());
            self.bar.set_position(status.step);
        }
        if self.due(status) {
            self.last.set(Some(Instant::now()));
            let (step, total, numbers) = (status.step, status.total, numbers(status, PLAIN));
            let times = format!("{} elapsed, {} left", clock(status.seconds), clock(left(status)));
            let parts = [format!("step {step}/{total}"), numbers, times];
            let line = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("  ");
            self.log(&line);
            if !self.live {
                out::note(&line);
            }
        }
    }

    fn end(&self) {
        self.looping.set(false);
        self.bar.disable_steady_tick();
        // The bar stays as the last thing that was said about the loop.
        self.bar.abandon();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn evaluating(&self, begins: bool) {
        if !self.live {
            return;
        }
        match (begins, self.looping.get()) {
            (true, true) => self.bar.set_message(EVALUATING),
            (false, true) => self.bar.set_message(self.message.borrow().clone()),
            (true, false) => {
                self.bar.set_style(waiting());
                self.bar.reset();
                self.bar.set_message(EVALUATING);
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
                self.bar.enable_steady_tick(TICK);
            }
            (false, false) => {
                self.bar.disable_steady_tick();
                self.bar.finish_and_clear();
                self.bar.set_draw_target(ProgressDrawTarget::hidden());
            }
        }
    }

    fn opened(&self, log: Log) {
        self.before.take().iter().for_each(|text| log(text));
        *self.log.borrow_mut() = Some(log);
    }

    /// A person reads where it is; a program that has called this one finds the folder in the last line of the output.
    fn written(&self, folder: &Path) {
        self.note(&format!("written to {}", folder.display()));
        if !std::io::stdout().is_terminal() {
            out::line(&folder.display().to_string());
        }
    }

    fn table(&self, table: &Table) {
        self.note(&table::lines(table).join("\n"));
    }

    fn note(&self, text: &str) {
        self.log(text);
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
        self.log(text);
        let read = self.bar.suspend(|| out::line(text));
        if !read {
            self.closed.store(true, Ordering::Relaxed);
            // What only prints has nobody left to print for; a run has its folder.
            if self.log.borrow().is_none() {
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

/// What is shown while held-out prompts are answered.
const EVALUATING: &str = "evaluating: sampling…";

fn waiting() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}  {elapsed}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn style() -> ProgressStyle {
    let template = "step {pos}/{len} {bar:16} {msg}  {elapsed} elapsed{left}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Nothing is known of the time before a step is done.
    style.with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        if state.pos() > 0 {
            let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
        }
    })
}

/// `reward 0.531  kl_ref 0.0021`, as many as there is room for; the first always.
fn numbers(status: &Status, room: usize) -> String {
    let mut line = String::new();
    for (name, value) in &status.numbers {
        let name: String = masked(name, "").chars().take(NAME).collect();
        let more = format!("{name} {}", short(*value));
        if !line.is_empty() && line.width() + 2 + more.width() > room {
            break;
        }
        line += if line.is_empty() { "" } else { "  " };
        line += &more;
    }
    line
}

/// A number in a few characters: `0.531`, `0.0021`, `1.2e-5`, `12345`.
fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_string(),
        a if (1e3..1e7).contains(&a) => format!("{x:.0}"),
        a if (0.1..1e3).contains(&a) => format!("{x:.3}"),
        a if (1e-4..0.1).contains(&a) => format!("{x:.4}"),
        a if a.is_finite() => format!("{x:.1e}"),
        _ => x.to_string(),
    }
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
        let status = Status { step: 30, total: 40, seconds: 5.0, done: 10, numbers: vec![] };
        assert_eq!(left(&status), 5.0);
    }

    #[test]
    fn an_evaluation_before_the_loop_leaves_no_message_in_it() {
        let progress = Progress::new(true, Arc::default());
        progress.evaluating(true);
        assert_eq!(progress.bar.message(), EVALUATING);
        progress.evaluating(false);
        progress.begin(3);
        assert_eq!(progress.bar.message(), "");
        let numbers = vec![("loss".to_string(), 0.5)];
        progress.step(&Status { step: 1, total: 3, seconds: 1.0, done: 1, numbers });
        progress.evaluating(true);
        progress.evaluating(false);
        assert_eq!(progress.bar.message(), "loss 0.500");
        progress.end();
    }

    #[test]
    fn a_line_shows_as_many_numbers_as_it_has_room_for() {
        let named = [("reward", 0.5), ("kl_ref", 0.00213), ("loss", -1.3e-6), ("a\nname", 12345.0)];
        let numbers_of = |room| {
            let numbers = named.iter().map(|(name, x)| (name.to_string(), *x)).collect();
            super::numbers(&Status { step: 1, total: 2, seconds: 1.0, done: 1, numbers }, room)
        };
        assert_eq!(numbers_of(80), "reward 0.500  kl_ref 0.0021  loss -1.3e-6  a�name 12345");
        assert_eq!(numbers_of(30), "reward 0.500  kl_ref 0.0021");
        assert_eq!(numbers_of(0), "reward 0.500");
        assert_eq!([short(0.0), short(f64::NAN), short(-1e300)], ["0", "NaN", "-1.0e300"]);
    }
}
