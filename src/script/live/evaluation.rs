//! Evaluations that the command line asks for while a run goes on, and the best model by them.
//! Owns what is evaluated, by what the script has tracked; when is `run`'s.

use crate::run::evaluate::{Evaluation, Sampling};
use crate::run::{EVAL, Session, Stream};
use crate::script::bind::task::TaskHandle;
use crate::script::bind::tracked::Tracked;
use crate::script::lang::functions::{CallStack, Fallible};
use crate::script::lang::loader::Source;
use crate::script::lang::native::Call;
use rhai::{Engine, EvalContext, GlobalRuntimeState, NativeCallContext, Position};
use std::rc::Rc;

/// Held-out prompts of an evaluation, unless the command line says.
const EVALUATED: usize = 256;

/// What `--set eval_every`, `eval_n` and `keep` ask for.
pub(super) struct Evaluations {
    session: Rc<Session>,
    tracked: Tracked,
}

impl Evaluations {
    pub fn new(session: &Rc<Session>, tracked: &Tracked) -> Self {
        Self { session: session.clone(), tracked: tracked.clone() }
    }

    /// Between two steps.
    ///
    /// # Errors
    /// Before the first step, a script whose policy or task cannot be evaluated; those of the task and of sampling.
    pub fn between(&self, context: &EvalContext) -> Fallible<()> {
        let (session, done) = (&self.session, self.session.step());
        if done == 0 && session.run_options().eval_every.is_some() {
            self.tracked.task::<TaskHandle>()?;
            self.tracked.policy()?;
        }
        if session.evaluation_is_due(done) {
            self.evaluate(context.engine(), context.global_runtime_state())?;
        }
        self.keep_best(done)
    }

    /// The evaluation of the last step, which has none after it, unless the script has made its own.
    ///
    /// # Errors
    /// Those of the task and of sampling.
    pub fn at_end(&self, engine: &Engine, calls: &CallStack) -> Fallible<()> {
        let (session, done) = (&self.session, self.session.step());
        let Some(run) = session.run() else { return Ok(()) };
        if session.evaluation_is_due(done) && run.number(EVAL).is_none() {
            let nothing = Source { label: String::new(), text: String::new() };
            self.evaluate(engine, &*calls.read(engine, &nothing)?)?;
        }
        self.keep_best(done)
    }

    fn evaluate(&self, engine: &Engine, global: &GlobalRuntimeState) -> Fallible<()> {
        let session = &self.session;
        let Some(run) = session.run() else { return Ok(()) };
        let options = session.run_options();
        let (task, policy) = (self.tracked.task::<TaskHandle>()?, self.tracked.policy()?);
        let n = options.eval_n.unwrap_or(EVALUATED);
        let (max_tokens, key) = (options.max_tokens, session.key(Stream::Evaluate));
        let evaluation = Evaluation { n, max_tokens, key, sampling: Sampling::default() };
        let context = &NativeCallContext::new_with_all_fields(engine, "evaluate", None, global, Position::NONE);
        let value = task.evaluate(&Call { function: "evaluate", session, context }, &policy, &evaluation)?.mean;
        run.log(EVAL, value);
        session.tell_evaluation(&run, value);
        Ok(())
    }

    /// Keeps the policy if that was asked for and it is the best so far.
    fn keep_best(&self, done: u64) -> Fallible<()> {
        let session = &self.session;
        if let (Some(value), Some(run)) = (session.keeps(done), session.run())
            && session.keep(&run, EVAL, value, &self.tracked.policy()?)?
        {
            session.reporter().note(&format!("step {done}: {EVAL} {value:.3} is the best so far, saved in model-best"));
        }
        Ok(())
    }
}
