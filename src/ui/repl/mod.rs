//! The prompt: reads inputs, has them evaluated and draws the answers, on its own or in the middle of a run.

mod commands;
mod plot;
mod typist;

use crate::engine::Settings;
use crate::error::Error;
use crate::run::interrupt::Interrupt;
use crate::run::{Launch, Session, device};
use crate::script::between::{Prompt, Verdict};
use crate::script::console::show::Shown;
use crate::script::console::{Desk, Workbench};
use crate::script::diagnostics::Diagnostic;
use crate::script::host::Host;
use crate::script::loader::Loader;
use crate::ui::limits::{EngineArgs, LimitArgs};
use crate::ui::progress::Progress;
use crate::ui::run::{colours, report, threads};
use crate::ui::thread::on_engine_thread;
use crate::ui::{out, table};
use commands::Done;
use rustyline::Editor;
use rustyline::config::{BellStyle, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use typist::Typist;

/// Entries that the history keeps.
const HISTORY: usize = 10_000;
/// Columns where standard output is no terminal.
const WIDTH: usize = 100;

/// Options of `rhopo repl`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplArgs {
    /// A script to run first; its variables and functions stay
    #[arg(value_name = "NAME|FILE")]
    pub script: Option<String>,
    /// Seed of all random numbers [default: a script's, else 0]
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Talks until the person leaves.
pub fn repl(args: ReplArgs) -> ExitCode {
    on_engine_thread(move || {
        let loader = Loader::new(args.engine.stdlib.clone());
        match session(&args).map(|session| (begin(&args, &session, &loader), session)) {
            Ok((mut bench, _)) => {
                let talker = Talker::new();
                talker.greet();
                if let Some(script) = &args.script {
                    talker.attempt(&mut bench.desk(), |desk| desk.load(script));
                }
                talker.converse(&mut bench.desk(), Place::Session);
                talker.attempt(&mut bench.desk(), |desk| Ok(desk.end_run()?));
                u8::from(talker.failed.get() && !std::io::stdin().is_terminal())
            }
            Err(e) => {
                report(&e.into(), &loader);
                1
            }
        }
    })
}

fn session(args: &ReplArgs) -> Result<Rc<Session>, Error> {
    let settings = Settings::default();
    let reporter = Rc::new(Progress::new(std::io::stderr().is_terminal(), settings.stop.clone()));
    let interrupt = Interrupt::new(settings.stop.clone());
    interrupt.install(|_| {})?;
    let (device, threads) = (device::parse(&args.engine.device)?, threads(args.engine.threads)?);
    let scripts: Vec<String> = args.script.iter().cloned().collect();
    let access = args.limits.access(&scripts, None, &[], args.engine.stdlib.as_deref());
    Ok(Session::launch(Launch {
        access,
        threads,
        interrupt,
        reporter,
        seed: args.seed,
        ..Launch::new(device, settings)
    }))
}

fn begin(args: &ReplArgs, session: &Rc<Session>, loader: &Rc<Loader>) -> Workbench {
    session.set_interactive();
    Workbench::new(Host::new(session, loader, &args.limits.enforce()))
}

/// Where a prompt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On its own.
    Session,
    /// Between two steps of a run.
    Pause,
}

/// Reads lines and draws answers.
pub(super) struct Talker {
    editor: RefCell<Option<Editor<Typist, FileHistory>>>,
    history: Option<PathBuf>,
    /// Whether an input failed: what is piped in has an exit code.
    failed: Cell<bool>,
}

impl Talker {
    pub(super) fn new() -> Self {
        Self { editor: RefCell::default(), history: history(), failed: Cell::new(false) }
    }

    /// Most runs never talk, so the terminal is looked at when the first line is read.
    fn open(&self) -> rustyline::Result<Editor<Typist, FileHistory>> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .bell_style(BellStyle::None)
            .history_ignore_space(true)
            .max_history_size(HISTORY)?
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Typist::new(colours(&std::io::stdout()))));
        // The first time there is none.
        let _ = self.history.as_ref().map(|path| editor.load_history(path));
        Ok(editor)
    }

    fn greet(&self) {
        if std::io::stdin().is_terminal() {
            out::line(&format!("rhopo {}   :help shows what there is, Ctrl-D leaves", env!("CARGO_PKG_VERSION")));
        }
    }

    /// Reads and answers until the person leaves.
    pub(super) fn converse(&self, desk: &mut Desk<'_, '_>, place: Place) -> Verdict {
        loop {
            let line = match self.read(desk, place) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(_) => break,
            };
            match (place, line.trim()) {
                (_, "") => {}
                (Place::Pause, "continue") => return Verdict::Continue,
                (Place::Pause, "next") => return Verdict::Step,
                (Place::Pause, "stop") => return Verdict::Stop,
                (_, command) if command.starts_with(':') => {
                    if self.command(desk, command) == Done::Leave {
                        break;
                    }
                }
                (_, input) => self.answer(desk, input),
            }
        }
        // Whoever leaves a pause does not want the run to go on alone.
        Verdict::Stop
    }

    fn read(&self, desk: &Desk<'_, '_>, place: Place) -> Result<String, ReadlineError> {
        let prompt = match place {
            Place::Session => "rhopo> ".to_string(),
            Place::Pause => format!("after step {}> ", desk.session().step()),
        };
        let mut editor = self.editor.borrow_mut();
        let editor = match &mut *editor {
            Some(editor) => editor,
            none => none.insert(self.open()?),
        };
        if let Some(typist) = editor.helper_mut() {
            typist.know(desk, place);
        }
        let line = editor.readline(&prompt)?;
        // A history that cannot be kept is no reason to stop somebody's work.
        if !line.trim().is_empty()
            && editor.add_history_entry(line.trim_end()).unwrap_or(false)
            && let Some(path) = &self.history
        {
            let _ = editor.append_history(path);
        }
        Ok(line)
    }

    fn answer(&self, desk: &mut Desk<'_, '_>, input: &str) {
        let width = width();
        self.attempt(desk, |desk| desk.eval(input, width).map(|answer| answer.value.iter().for_each(draw)));
    }

    /// Does something that may fail or be interrupted, and says how it ended.
    pub(super) fn attempt(
        &self,
        desk: &mut Desk<'_, '_>,
        work: impl FnOnce(&mut Desk<'_, '_>) -> Result<(), Diagnostic>,
    ) {
        let session = desk.session().clone();
        session.launched().interrupt.reset();
        let done = work(desk);
        session.launched().interrupt.reset();
        match done {
            Ok(()) => {}
            Err(e) if e.interrupted => out::note("interrupted"),
            Err(e) => {
                self.failed.set(true);
                report(&e, desk.loader());
            }
        }
    }

    fn command(&self, desk: &mut Desk<'_, '_>, line: &str) -> Done {
        let mut done = Done::Stay;
        self.attempt(desk, |desk| {
            done = commands::run(desk, line, width())?;
            Ok(())
        });
        done
    }
}

impl Prompt for Talker {
    fn talk(&self, desk: &mut Desk<'_, '_>) -> Verdict {
        out::note(&format!(
            "paused after step {}: the loop's variables are here; next (one more step), continue, stop",
            desk.session().step()
        ));
        self.converse(desk, Place::Pause)
    }
}

fn draw(value: &Shown) {
    match value {
        Shown::Text(text) => {
            out::line(text);
        }
        Shown::Table(rows, left) => {
            table::lines(rows).iter().chain((!left.is_empty()).then_some(left)).for_each(|line| {
                out::line(line);
            });
        }
    }
}

fn width() -> usize {
    crossterm::terminal::size().map_or(WIDTH, |(columns, _)| usize::from(columns).max(40))
}

/// `$RHOPO_HISTORY`, else in the folder for state that programs keep.
fn history() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("RHOPO_HISTORY") {
        return Some(path.into());
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?.join("rhopo");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
