//! Between two steps of a run: an evaluation and a checkpoint where they are due, files that changed are read again, and a
//! pause gives a prompt in the middle of the loop.
//!
//! The step loop only says that a step begins; the first variable that is read after it is where the loop's own
//! variables are in reach.

use crate::run::{Phase, Session, Verdict};
use crate::script::bind::tracked::Tracked;
use crate::script::lang::functions::{CallStack, Fallible};
use crate::script::lang::host_state::HostState;
use crate::script::lang::loader::{Loader, Source};
use crate::script::live::console::{Console, Repl};
use crate::script::live::evaluation::Evaluations;
use crate::script::live::hot_reload::{CALL, HotReload};
use crate::script::live::stored::StoredLoop;
use rhai::{
    AST, Array, Dynamic, Engine, EvalAltResult, EvalContext, ImmutableString, Module, NativeCallContext, Position,
};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Whoever talks to a person while a run pauses.
pub trait Frontend {
    fn talk(&self, repl: &mut Repl<'_, '_>) -> Verdict;
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
    /// How many variables there are outside of the loop's body.
    outside: Cell<usize>,
    /// Those of the body as they were when one was last read: they are gone when its end is reached.
    inside: RefCell<BTreeMap<String, Dynamic>>,
}

/// What stays from one pause to the next.
struct Pause {
    console: Console,
    global: rhai::GlobalRuntimeState,
    /// Variables that were made at the prompt.
    own: Vec<(String, Dynamic)>,
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
        engine.on_var(move |_, _, context| {
            let steps = own.session.step_loop();
            match steps.phase() {
                Phase::Before(_) if own.stored.reaches(&context) => own.turn(context)?,
                // Asked again by every loop around this one, until the step loop is over.
                Phase::Leaving => return Err(leave_loop()),
                Phase::In(_) if steps.wants_pause() => own.remember(&context),
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
        if !self.session.step_loop().attended() {
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
            let verdict = self.talk(&mut context);
            steps.resume(verdict);
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

    fn talk(&self, context: &mut EvalContext) -> Verdict {
        let (Some(frontend), Some(state)) = (self.frontend.borrow().clone(), self.state.get()) else {
            return Verdict::Continue;
        };
        let engine = context.engine();
        let mut pause = self.pause.borrow_mut();
        let pause = pause.get_or_insert_with(|| Pause {
            console: Console::new(state.clone()),
            global: context.global_runtime_state().clone(),
            own: Vec::new(),
        });
        let scope = context.scope_mut();
        let before = scope.len();
        let inside = self.inside.borrow();
        let gone =
            inside.iter().filter(|(name, _)| !scope.contains(name)).map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in gone.collect::<Vec<_>>().into_iter().chain(pause.own.drain(..)) {
            scope.push_dynamic(name, value);
        }
        drop(inside);
        let mut repl = Repl { engine, global: &mut pause.global, scope, console: &mut pause.console };
        self.session.reporter().hold();
        let verdict = frontend.talk(&mut repl);
        self.session.reporter().go_on();
        // The script finds its variables by their distance from the end: what was made at the prompt goes aside.
        // Newest first, as Rhai lists them.
        let made = scope.iter_raw().take(scope.len() - before);
        pause.own = made.map(|(name, _, value)| (name.to_string(), value.clone())).collect();
        pause.own.reverse();
        // What the loop made comes again with its next step.
        pause.own.retain(|(name, _)| !self.inside.borrow().contains_key(name));
        scope.rewind(before);
        if let Some(live) = &*self.live.borrow() {
            live.override_by(&pause.console.functions());
        }
        verdict
    }
}

/// Leaves the innermost loop.
fn leave_loop() -> Box<EvalAltResult> {
    EvalAltResult::LoopBreak(true, Dynamic::UNIT, Position::NONE).into()
}
