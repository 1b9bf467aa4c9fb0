//! Between two steps of a run: an evaluation and a checkpoint where they are due, files that changed are read again, and a
//! pause gives a prompt in the middle of the loop.
//!
//! The step loop only says that a step begins; the first variable that is read after it is where the loop's own
//! variables are in reach.

use crate::run::{Phase, Session, Verdict};
use crate::script::bind::tracked::Tracked;
use crate::script::lang::diagnostics::Diagnostic;
use crate::script::lang::functions::{CallStack, Fallible};
use crate::script::lang::host_state::HostState;
use crate::script::lang::loader::{Loader, Source};
use crate::script::lang::render::render;
use crate::script::live::console::bounds::Bounds;
use crate::script::live::console::{Console, Repl};
use crate::script::live::evaluation::Evaluations;
use crate::script::live::hot_reload::{CALL, HotReload};
use crate::script::live::stored::StoredLoop;
use rhai::{
    AST, Array, Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, GlobalRuntimeState, ImmutableString, Module,
    NativeCallContext, Position, Scope, Stmt, StmtBlock,
};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Whoever talks to a person while a run pauses.
pub trait Frontend {
    fn talk(&self, repl: &mut Repl<'_, '_>, occasion: Occasion) -> Verdict;
}

/// Why a run pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It was asked for.
    Asked,
    /// What was said at the pause before has failed: the person is asked again, whatever they said of further steps.
    Failed,
    /// A step has failed whose loop cannot be entered again.
    Left,
}

/// What waits for the next step.
pub struct PauseLoop {
    session: Rc<Session>,
    calls: CallStack,
    evaluations: Evaluations,
    stored: StoredLoop,
    state: OnceCell<Rc<HostState>>,
    frontend: RefCell<Option<Rc<dyn Frontend>>>,
    pause: RefCell<Option<Pause>>,
    live: RefCell<Option<Rc<HotReload>>>,
    /// What inputs at a pause must leave as it is.
    bounds: RefCell<Option<Rc<Bounds>>>,
    /// The step that was taken from a pause last.
    taken: Cell<u64>,
    /// What the loop's body saw then, without what was said.
    body: RefCell<Option<GlobalRuntimeState>>,
    /// A step that was taken from a pause has failed.
    failed: Cell<bool>,
    /// How many variables there are outside of the loop's body.
    outside: Cell<usize>,
    /// Those of the body as they were when one was last read: they are gone when its end is reached.
    inside: RefCell<BTreeMap<String, Dynamic>>,
}

/// What stays from one pause to the next.
struct Pause {
    console: Console,
    global: GlobalRuntimeState,
    /// Variables that were made at the prompt.
    own: Vec<(String, Dynamic)>,
    /// Functions as they were when the last pause began.
    sound: AST,
    /// The step before which it pauses, and how many inputs there were when it first did.
    begun: (u64, usize),
}

impl PauseLoop {
    pub fn new(session: &Rc<Session>, calls: &CallStack, tracked: &Tracked, loader: &Rc<Loader>) -> Rc<Self> {
        Rc::new(Self {
            session: session.clone(),
            calls: calls.clone(),
            evaluations: Evaluations::new(session, tracked),
            stored: StoredLoop::new(session, tracked, loader),
            state: OnceCell::new(),
            frontend: RefCell::default(),
            pause: RefCell::default(),
            live: RefCell::default(),
            bounds: RefCell::default(),
            taken: Cell::new(0),
            body: RefCell::default(),
            failed: Cell::new(false),
            outside: Cell::new(0),
            inside: RefCell::default(),
        })
    }

    pub(in crate::script) fn set_state(&self, state: &Rc<HostState>) {
        // A second time changes nothing: an engine has one.
        let _ = self.state.set(state.clone());
    }

    /// Who talks when the run pauses.
    pub fn set_frontend(&self, frontend: Rc<dyn Frontend>) {
        *self.frontend.borrow_mut() = Some(frontend);
    }

    // Rhai marks the hook as volatile by calling it deprecated; its version is pinned by the lock file.
    #[allow(deprecated)]
    pub(in crate::script) fn install(self: &Rc<Self>, engine: &mut Engine, module: &mut Module) {
        let own = self.clone();
        engine.on_var(move |name, _, context| {
            let steps = own.session.step_loop();
            match steps.phase() {
                Phase::Before(_) if own.stored.reaches(&context) => own.turn(context)?,
                // Asked again by every loop around this one, until the step loop is over.
                Phase::Leaving => return Err(leave_loop()),
                // A person may ask for a pause after the last read of a step as well.
                Phase::In(_) if steps.wants_pause() || steps.ends() || own.may_be_last(name) => own.remember(&context),
                Phase::Outside if steps.is_broken() => steps.follow(),
                _ => {}
            }
            Ok(None)
        });
        let own = self.clone();
        module.set_native_fn(CALL, move |ctx: NativeCallContext, name: ImmutableString, values: Array| {
            let live = own.live.borrow().clone();
            match (live, own.state.get()) {
                (Some(live), Some(with)) => live.call(&ctx, &own.calls, with, &name, values),
                _ => Err(EvalAltResult::ErrorFunctionNotFound(CALL.into(), Position::NONE).into()),
            }
        });
    }

    /// Makes a script follow its file, if the session asked for that: its functions are looked up at every call.
    pub(in crate::script) fn follow(&self, engine: &Engine, source: &Source, ast: AST) -> AST {
        self.stored.read(&ast);
        let attended = self.session.step_loop().attended();
        *self.bounds.borrow_mut() = Some(Rc::new(Bounds::of(&ast, attended)));
        if !attended {
            return ast;
        }
        match HotReload::begin(engine, &self.session, &self.calls, source, &ast) {
            Ok(Some((live, ast))) => {
                *self.live.borrow_mut() = Some(Rc::new(live));
                ast
            }
            // A script that does not evaluate says so itself when it runs.
            Ok(None) | Err(_) => ast,
        }
    }

    fn turn(&self, mut context: EvalContext) -> Fallible<()> {
        let steps = self.session.step_loop();
        if !self.session.look() {
            return Ok(());
        }
        self.outside.set(context.scope().len());
        self.keep(&mut context)?;
        if steps.phase() == Phase::Leaving {
            return Err(leave_loop());
        }
        self.refresh(&mut context)?;
        if steps.pause() {
            let step = self.session.step() + 1;
            *self.body.borrow_mut() = Some(context.global_runtime_state().clone());
            let occasion = if self.failed.take() { Occasion::Failed } else { Occasion::Asked };
            let engine = context.engine();
            let verdict = self.talk(engine, context.scope_mut(), occasion);
            steps.resume(verdict);
            self.taken.set(step);
        }
        self.inside.borrow_mut().clear();
        if steps.phase() == Phase::Leaving {
            return Err(leave_loop());
        }
        Ok(self.session.begin_step()?)
    }

    /// What is due between two steps without a person: a continued run gets its variables back; else an evaluation, and a
    /// checkpoint, after which a loop that is to end is left.
    fn keep(&self, context: &mut EvalContext) -> Fallible<()> {
        let (session, steps) = (&self.session, self.session.step_loop());
        if session.repeats() {
            return Ok(self.stored.restore(context)?);
        }
        let done = session.step();
        if session.stores() && steps.plan().is_some_and(|plan| plan.first == done + 1) {
            self.stored.enter(context)?;
        }
        self.evaluations.between(context)?;
        let ends = steps.ends() && !steps.wants_pause();
        if session.stores() && (ends || session.checkpoint_is_due(done + 1)) {
            self.stored.store(context)?;
        }
        if ends {
            session.checkpoints().close();
            steps.leave_before();
        }
        Ok(())
    }

    /// What is due when the script has come to its end.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub(in crate::script) fn end(&self, engine: &Engine) -> Fallible<()> {
        self.evaluations.at_end(engine, &self.calls)
    }

    /// Whether somebody could ask for a pause, and the step may read nothing more once it has read this name.
    fn may_be_last(&self, name: &str) -> bool {
        self.frontend.borrow().is_some() && self.stored.may_end_with(name)
    }

    /// Keeps the variables of the loop's body for a pause that comes after it.
    fn remember(&self, context: &EvalContext) {
        if context.global_runtime_state().level > 0 {
            return;
        }
        let scope = context.scope();
        let made = scope.iter_raw().take(scope.len().saturating_sub(self.outside.get()));
        // Newest first: of one name the newest counts.
        let mut inside = self.inside.borrow_mut();
        let mut fresh = BTreeMap::new();
        for (name, _, value) in made {
            fresh.entry(name.to_string()).or_insert_with(|| value.clone());
        }
        inside.extend(fresh);
    }

    /// Reads files again that have changed, and puts edited hyper-parameters into their variable.
    fn refresh(&self, context: &mut EvalContext) -> Fallible<()> {
        let (Some(live), Some(state)) = (self.live.borrow().clone(), self.state.get()) else {
            return Ok(());
        };
        live.refresh(context, &self.calls, state)
    }

    /// A script has ended with an error. If that came in a step taken from a pause, its loop is entered again at that step,
    /// before which the person finds the prompt; where it cannot be, they may look around once more, and nothing is returned.
    pub(in crate::script) fn again(&self, engine: &Engine, scope: &mut Scope, ast: &AST, e: &Diagnostic) -> Again {
        let (session, steps) = (&self.session, self.session.step_loop());
        let step = session.step();
        let (Some(state), Some(mut global)) = (self.state.get(), self.body.borrow().clone()) else { return None };
        if e.interrupted || !steps.is_broken() || self.taken.get() != step || self.frontend.borrow().is_none() {
            return None;
        }
        let reporter = session.reporter();
        let Some(at) = self.stored.statement(steps.number()) else {
            reporter.note(&format!("step {step} has failed, and its loop cannot be entered again: {}", e.message));
            self.talk(engine, scope, Occasion::Left);
            return None;
        };
        reporter.note(render(e, &state.loader, false).trim_end());
        reporter.note(&format!(
            "step {step} has failed and comes again; what it did before that stays: prompts it drew, weights it changed"
        ));
        if let Some(run) = session.run() {
            run.repeat_step();
        }
        steps.repeat_step();
        self.failed.set(true);
        global.scope_level = 0;
        state.begin();
        Some(rest(engine, &mut global, scope, &ast.statements()[at..]))
    }

    fn talk(&self, engine: &Engine, scope: &mut Scope, occasion: Occasion) -> Verdict {
        let (Some(frontend), Some(state)) = (self.frontend.borrow().clone(), self.state.get()) else {
            return Verdict::Continue;
        };
        let Some(global) = self.body.borrow().clone() else { return Verdict::Continue };
        let mut pause = self.pause.borrow_mut();
        let pause = pause.get_or_insert_with(|| Pause {
            console: Console::new(state.clone()),
            global,
            own: Vec::new(),
            sound: AST::empty(),
            begun: (0, 0),
        });
        let live = self.live.borrow().clone();
        let refused = live.as_ref().is_some_and(|live| live.take_refused());
        let occasion = if refused { Occasion::Failed } else { occasion };
        let (bounds, step) = (self.bounds.borrow().clone(), self.session.step() + 1);
        pause.console.bind(bounds.clone());
        if pause.begun.0 != step {
            pause.begun = (step, pause.console.taken());
        }
        let before = scope.len();
        let inside = self.inside.borrow();
        let gone =
            inside.iter().filter(|(name, _)| !scope.contains(name)).map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in gone.collect::<Vec<_>>().into_iter().chain(pause.own.drain(..)) {
            scope.push_dynamic(name, value);
        }
        drop(inside);
        let mut repl = Repl { engine, global: &mut pause.global, scope, console: &mut pause.console };
        if refused {
            repl.take_back(pause.sound.clone());
            let sound: Vec<String> = pause.sound.iter_functions().map(|f| f.name.to_string()).collect();
            state.origins.borrow_mut().retain(|name, _| sound.contains(name));
        }
        pause.sound = repl.console.functions();
        self.session.reporter().hold();
        let verdict = frontend.talk(&mut repl, occasion);
        self.session.reporter().go_on();
        // The script finds its variables by their distance from the end: what was made at the prompt goes aside.
        // Newest first, as Rhai lists them.
        let made = scope.iter_raw().take(scope.len() - before);
        pause.own = made.map(|(name, _, value)| (name.to_string(), value.clone())).collect();
        pause.own.reverse();
        // What the loop made comes again with its next step.
        pause.own.retain(|(name, _)| !self.inside.borrow().contains_key(name));
        scope.rewind(before);
        let kept = self.write_down(step, &pause.console.changes_since(pause.begun.1));
        if bounds.is_some_and(|bounds| bounds.take_defined())
            && let Some(live) = live
        {
            live.override_by(&pause.console.functions(), step, kept);
        }
        verdict
    }

    /// Keeps what was said before a step in the run folder, and says where.
    fn write_down(&self, step: u64, changes: &str) -> Option<String> {
        let run = self.session.run().filter(|_| !changes.is_empty())?;
        let kept = run.keep_said(step, &format!("//! Said at the pause before step {step}.\n{changes}"));
        self.session.reporter().note(&match &kept {
            Ok(name) => format!("step {step}: what was said is kept ({name} in the run folder)"),
            Err(e) => format!("what was said is not kept: {e}"),
        });
        kept.ok()
    }
}

/// What became of a script that went on after an error; nothing where it did not.
type Again = Option<Fallible<Dynamic>>;

/// Runs what is left of a script's body.
// Rhai marks the call as volatile by calling it deprecated; its version is pinned by the lock file.
#[allow(deprecated)]
fn rest(engine: &Engine, global: &mut GlobalRuntimeState, scope: &mut Scope, body: &[Stmt]) -> Fallible<Dynamic> {
    let mut caches = Caches::new();
    for statement in body {
        let block = Expr::Stmt(StmtBlock::new([statement.clone()], Position::NONE, Position::NONE).into());
        let mut context = EvalContext::new(engine, global, &mut caches, scope, None);
        match context.eval_expression_tree_raw(&(&block).into(), false).map_err(|e| *e) {
            Ok(_) => {}
            Err(EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _)) => return Ok(value),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Dynamic::UNIT)
}

/// Leaves the innermost loop.
fn leave_loop() -> Box<EvalAltResult> {
    EvalAltResult::LoopBreak(true, Dynamic::UNIT, Position::NONE).into()
}
