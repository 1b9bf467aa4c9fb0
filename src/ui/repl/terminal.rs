//! Reads lines, has them evaluated and draws the answers, on its own or in the middle of a run.

use super::commands::{self, Done, Person};
use super::draw::{draw, width};
use super::indent::{self, Indent};
use super::line_helper::{LONGEST, LineHelper, Place};
use crate::error::Error;
use crate::files::{self, history};
use crate::run::Verdict;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::live::console::Repl;
use crate::script::live::pause_loop::{Frontend, Occasion};
use crate::ui::out;
use crate::ui::terminal::{colours, report};
use rustyline::config::{BellStyle, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Cmd, Editor, EventHandler, KeyEvent, Movement};
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IsTerminal};
use std::path::PathBuf;

/// Entries that the history keeps.
const HISTORY: usize = 10_000;

/// Reads lines and draws answers.
pub struct Terminal {
    editor: RefCell<Option<Editor<LineHelper, FileHistory>>>,
    history: Option<PathBuf>,
    /// Whether an input failed: what is piped in has an exit code.
    failed: Cell<bool>,
    /// Steps that run before the next pause talks, as `next N` says.
    passing: Cell<u64>,
}

impl Terminal {
    pub fn new() -> Self {
        Self { editor: RefCell::default(), history: history(), failed: Cell::new(false), passing: Cell::new(0) }
    }

    /// Whether an input failed.
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    /// Most runs never talk, so the terminal is looked at when the first line is read.
    fn open(&self) -> rustyline::Result<Editor<LineHelper, FileHistory>> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .bell_style(BellStyle::None)
            .history_ignore_space(true)
            .max_history_size(HISTORY)?
            .build();
        let mut editor = Editor::with_config(config)?;
        // What was typed goes, and what was typed ahead stays: an interruption of the editor would lose it.
        editor.bind_sequence(KeyEvent::ctrl('c'), Cmd::Kill(Movement::WholeBuffer));
        let indent = Indent::default();
        for key in indent::KEYS {
            editor.bind_sequence(key, EventHandler::Conditional(Box::new(indent.clone())));
        }
        editor.set_helper(Some(LineHelper::new(colours(&std::io::stdout()), indent)));
        if let Some(path) = &self.history {
            history::load(editor.history_mut(), path);
        }
        Ok(editor)
    }

    pub fn greet(&self) {
        if std::io::stdin().is_terminal() {
            out::line(&format!("rhopo {}   (:help for help, Ctrl-D to leave)", env!("CARGO_PKG_VERSION")));
        }
    }

    /// Reads and answers until the person leaves.
    pub fn converse(&self, repl: &mut Repl<'_, '_>, place: Place) -> Verdict {
        loop {
            let line = match self.read(repl, place) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Io(e)) if e.kind() == ErrorKind::InvalidData => {
                    // What comes next may be text again.
                    self.refuse(
                        repl,
                        Error::value("the input is not valid text (UTF-8)").hint("the line was left out"),
                    );
                    continue;
                }
                Err(_) => {
                    if self.unfinished() && !std::io::stdin().is_terminal() {
                        let e = Error::value("the input ends inside a bracket, a string or a comment");
                        self.refuse(repl, e.hint("close it: incomplete input is not run"));
                    }
                    break;
                }
            };
            // What some editors put before a text is none of it.
            match (place, line.trim_start_matches('\u{feff}').trim()) {
                (_, "") => {}
                (Place::Pause, "continue") => return Verdict::Continue,
                (Place::Pause, next) if steps(next).is_some() => {
                    self.passing.set(steps(next).unwrap_or(1).saturating_sub(1));
                    return Verdict::Step;
                }
                (Place::Pause, "stop") => return Verdict::Stop,
                (_, command) if command.starts_with(':') => {
                    if self.command(repl, command) == Done::Leave {
                        break;
                    }
                }
                (_, input) if input.len() > LONGEST => {
                    let e = Error::value(format!("an input of {} bytes, and at most {LONGEST} are read", input.len()));
                    self.refuse(repl, e.hint("put it into a file: :load FILE"));
                }
                (_, input) => self.answer(repl, input),
            }
        }
        // Whoever leaves a pause does not want the run to go on alone.
        Verdict::Stop
    }

    fn read(&self, repl: &Repl<'_, '_>, place: Place) -> Result<String, ReadlineError> {
        let label = match place {
            Place::Session => "rhopo> ".to_string(),
            Place::Pause => match repl.session().step() {
                0 => "before step 1> ".to_string(),
                done => format!("after step {done}> "),
            },
        };
        let mut editor = self.editor.borrow_mut();
        let editor = match &mut *editor {
            Some(editor) => editor,
            none => none.insert(self.open()?),
        };
        // Completions and hints are for who types: of what is piped in, looking at all variables takes longer each time.
        if std::io::stdin().is_terminal()
            && let Some(line_helper) = editor.helper_mut()
        {
            line_helper.update(repl, place);
        }
        let line = editor.readline(&label)?;
        // What is piped in was typed by nobody.
        if std::io::stdin().is_terminal()
            && !line.trim().is_empty()
            && editor.add_history_entry(line.trim_end()).unwrap_or(false)
            && let Some(path) = &self.history
        {
            history::append(editor.history_mut(), path);
        }
        Ok(line)
    }

    /// Whether the last input was broken off.
    fn unfinished(&self) -> bool {
        self.editor.borrow().as_ref().and_then(Editor::helper).is_some_and(LineHelper::unfinished)
    }

    /// Says what is wrong with the input.
    fn refuse(&self, repl: &Repl<'_, '_>, e: Error) {
        self.failed.set(true);
        report(&e.into(), repl.loader());
    }

    fn answer(&self, repl: &mut Repl<'_, '_>, input: &str) {
        let width = width();
        self.attempt(repl, |repl| repl.eval(input, width).map(|answer| answer.value.iter().for_each(draw)));
    }

    /// Does something that may fail or be interrupted, and says how it ended.
    pub fn attempt(&self, repl: &mut Repl<'_, '_>, work: impl FnOnce(&mut Repl<'_, '_>) -> Result<(), Diagnostic>) {
        let session = repl.session().clone();
        session.launched().interrupt.reset();
        let done = work(repl);
        session.launched().interrupt.reset();
        match done {
            Ok(()) => {}
            Err(e) if e.interrupted => out::note("interrupted"),
            Err(e) => {
                self.failed.set(true);
                report(&e, repl.loader());
            }
        }
    }

    fn command(&self, repl: &mut Repl<'_, '_>, line: &str) -> Done {
        let mut done = Done::Stay;
        self.attempt(repl, |repl| {
            done = commands::run(repl, line, self)?;
            Ok(())
        });
        done
    }
}

impl Person for Terminal {
    fn confirms(&self, question: &str) -> Option<bool> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let mut editor = self.editor.borrow_mut();
        let answer = editor.as_mut()?.readline(&format!("{question} [y/N] ")).unwrap_or_default();
        Some(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// `next` is one step, `next 5` are five.
fn steps(input: &str) -> Option<u64> {
    match input.strip_prefix("next")?.trim() {
        "" => Some(1),
        count if input.starts_with("next ") => count.parse().ok().filter(|n| *n > 0),
        _ => None,
    }
}

impl Frontend for Terminal {
    fn talk(&self, repl: &mut Repl<'_, '_>, occasion: Occasion) -> Verdict {
        if occasion == Occasion::Asked && self.passing.get() > 0 {
            self.passing.set(self.passing.get() - 1);
            return Verdict::Step;
        }
        self.passing.set(0);
        let done = repl.session().step();
        let next = format!("look at the variables, or type next [N] (runs step {}), continue or stop", done + 1);
        out::note(&match (occasion, done) {
            (Occasion::Left, _) => "look at the variables, save what you need (run.save), and stop".to_string(),
            (_, 0) => format!("paused before step 1: {next}"),
            (_, done) => format!("paused after step {done}, before step {}: {next}", done + 1),
        });
        self.converse(repl, Place::Pause)
    }
}

/// Where programs keep their state; none without a home folder.
pub fn state_folder() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(state.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?.join("rhopo"))
}

/// `$RHOPO_HISTORY`, else in the folder for state that programs keep.
fn history() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("RHOPO_HISTORY") {
        return Some(path.into());
    }
    let folder = state_folder()?;
    files::create_folder(&files::anywhere(&folder)).ok()?;
    Some(folder.join("history"))
}
