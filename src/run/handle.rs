//! An open run: its step loop, what is logged, shown and saved, and how it ends.
//! Owns no drawing and no file formats beyond `config.json`.

use crate::error::{Error, Result};
use crate::model::{Model, SaveDtype};
use crate::run::device;
use crate::run::folder::{Folder, versions};
use crate::run::metrics::Metrics;
use crate::run::plot;
use crate::run::report::Status;
use crate::run::session::Session;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// How many tables `show` prints over a run, the first and the last step's apart.
const TABLES: u64 = 8;

/// A run with its folder.
pub struct Run {
    folder: Folder,
    metrics: RefCell<Metrics>,
    models: RefCell<Vec<(String, Arc<Model>)>>,
    saved: Cell<bool>,
    steps: Cell<Option<Plan>>,
    /// Whether a step loop is under way.
    looping: Cell<bool>,
    /// The step that the loop has come to but not begun: somebody looks in between.
    ahead: Cell<Option<u64>>,
}

/// The step loop that is running or was the last to run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    first: u64,
    last: u64,
    started: Instant,
}

impl Run {
    /// Makes the folder with `config.json` and `script.rhai`. `hyper` are the hyper-parameters.
    pub fn open(session: &Session, hyper: &Value) -> Result<Rc<Self>> {
        session.make_room()?;
        if session.run().is_some() {
            return Err(Error::value("a run is open already").hint("a script opens one run: call `open_run` once"));
        }
        let (launch, program) = (session.launched(), session.program());
        let name = if program.name.is_empty() { "run" } else { &program.name };
        let folder = Folder::create(launch.out.as_deref(), name)?;
        let config = json!({
            "script": name,
            "args": hyper,
            "seed": session.seed(),
            "token_budget": launch.settings.token_budget,
            "device": device::name(&launch.device),
            "threads": launch.threads,
            "versions": versions(),
        });
        folder.write("config.json", &format!("{config:#}\n"))?;
        folder.write("script.rhai", &program.text)?;
        let run = Rc::new(Self {
            metrics: RefCell::new(Metrics::create(&folder.file("metrics.jsonl"))?),
            folder,
            models: RefCell::default(),
            saved: Cell::new(false),
            steps: Cell::new(None),
            looping: Cell::new(false),
            ahead: Cell::new(None),
        });
        session.set_run(run.clone());
        Ok(run)
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The next `n` steps: 1 to n, and on from there in a further loop.
    pub fn steps(self: &Rc<Self>, session: &Rc<Session>, n: u64) -> Steps {
        Steps { run: self.clone(), session: session.clone(), n }
    }

    /// Adds a number to the line of the current step.
    pub fn log(&self, name: &str, value: f64) {
        self.metrics.borrow_mut().log(name, value);
    }

    /// Whether the current step has a number of this name.
    pub fn has(&self, name: &str) -> bool {
        self.metrics.borrow().current().get(name).is_some()
    }

    /// Whether this step is one of those whose samples are worth a table.
    pub fn shows(&self, step: u64) -> bool {
        let Some(plan) = self.steps.get() else { return true };
        let every = ((plan.last - plan.first + 1) / TABLES).max(1);
        step == plan.first || step == plan.last || (step - plan.first + 1).is_multiple_of(every)
    }

    /// Remembers a model, so that an interruption can save it.
    pub fn track(&self, name: &str, model: Arc<Model>) {
        let mut models = self.models.borrow_mut();
        models.retain(|(known, _)| known != name);
        models.push((name.to_string(), model));
    }

    /// Remembers a model that a step has changed, unless the script tracks it under a name of its own.
    pub fn remember(&self, model: &Arc<Model>) {
        let mut models = self.models.borrow_mut();
        if !models.iter().any(|(_, known)| known.id() == model.id()) {
            let name = format!("{}-{}", model.name.replace(['/', '\\'], "-"), models.len() + 1);
            models.push((name, model.clone()));
        }
    }

    /// Writes the model into `model/`, whole or not at all.
    pub fn save(&self, model: &Model, dtype: SaveDtype) -> Result<()> {
        self.folder.replace("model", |dir| model.save(dir, dtype))?;
        self.saved.set(true);
        Ok(())
    }

    /// Writes what is not yet on disk. A run that was interrupted, or `failed` after its first step, and saved no model
    /// saves those it tracks: nothing that was learned is lost.
    pub fn finish(&self, session: &Session, failed: bool) -> Result<()> {
        self.close(session);
        self.metrics.borrow_mut().finish()?;
        plot::write(&self.metrics.borrow(), &self.folder.file("curves.svg"))?;
        let cut_short = session.launched().interrupt.asked() || (failed && session.step() > 0);
        if cut_short && !self.saved.get() {
            self.save_tracked()?;
        }
        session.reporter().note(&format!("written to {}", self.folder.path().display()));
        Ok(())
    }

    /// The only trainable model goes where `save` would have put it; several go side by side, by their names.
    fn save_tracked(&self) -> Result<()> {
        let models = self.models.borrow();
        let trained: Vec<_> = models.iter().filter(|(_, model)| model.trainable()).collect();
        if let [(_, model)] = trained[..] {
            return self.save(model, SaveDtype::F32);
        }
        for (name, model) in trained {
            self.folder.replace(&format!("model-{name}"), |dir| model.save(dir, SaveDtype::F32))?;
        }
        Ok(())
    }

    fn begin(&self, session: &Session, n: u64) -> Result<Plan> {
        if self.looping.replace(true) {
            return Err(Error::value("a step loop is under way already")
                .hint("a run counts its steps in one loop at a time: use a plain `for i in 0..n` inside it"));
        }
        session.launched().interrupt.expect_steps();
        let first = session.step() + 1;
        let plan = Plan { first, last: session.step() + n, started: Instant::now() };
        self.steps.set(Some(plan));
        session.reporter().begin(plan.last);
        Ok(plan)
    }

    /// Completes the line of the current step, if anything was logged in it.
    fn close(&self, session: &Session) {
        let mut metrics = self.metrics.borrow_mut();
        if session.sampled() > 0 && !metrics.current().is_empty() {
            metrics.log("sampled", session.sampled() as f64);
        }
    }

    /// Opens `step`: what was logged for the step before is complete now.
    fn advance(&self, session: &Session, step: u64) -> Result<()> {
        self.close(session);
        self.metrics.borrow_mut().advance(step)?;
        session.begin_step(step);
        Ok(())
    }

    /// Whether a step loop is under way.
    pub fn looping(&self) -> bool {
        self.looping.get()
    }

    /// Begins the step that the loop has come to.
    ///
    /// # Errors
    /// Metrics that cannot be written.
    pub fn begin_step(&self, session: &Session) -> Result<()> {
        match self.ahead.take() {
            Some(step) => self.advance(session, step),
            None => Ok(()),
        }
    }

    /// The loop ends here: the step that it has come to is not begun.
    pub fn call_off_step(&self) {
        self.ahead.set(None);
    }

    fn report(&self, session: &Session, plan: &Plan) {
        let metrics = self.metrics.borrow();
        let line = metrics.current();
        session.reporter().step(&Status {
            step: session.step(),
            total: plan.last,
            seconds: plan.started.elapsed().as_secs_f64(),
            done: session.step() + 1 - plan.first,
            reward: line.get("reward"),
            divergence: line.get("kl").or_else(|| line.get("divergence")),
        });
    }
}

/// A step loop that has not begun.
#[derive(Clone)]
pub struct Steps {
    run: Rc<Run>,
    session: Rc<Session>,
    n: u64,
}

impl IntoIterator for Steps {
    type Item = Result<u64>;
    type IntoIter = StepLoop;
    fn into_iter(self) -> StepLoop {
        StepLoop { steps: self, plan: None, over: false }
    }
}

/// A step loop: each `next` closes the step before.
pub struct StepLoop {
    steps: Steps,
    plan: Option<Plan>,
    over: bool,
}

impl Iterator for StepLoop {
    type Item = Result<u64>;

    fn next(&mut self) -> Option<Result<u64>> {
        let Steps { run, session, n } = &self.steps;
        if self.over {
            return None;
        }
        // A body that looks at no variable leaves its step to be begun here.
        if let Err(e) = run.begin_step(session) {
            return Some(Err(e));
        }
        let plan = match self.plan {
            Some(plan) => {
                run.report(session, &plan);
                plan
            }
            None => match run.begin(session, *n) {
                Ok(plan) => *self.plan.insert(plan),
                Err(e) => {
                    self.over = true;
                    return Some(Err(e));
                }
            },
        };
        let step = session.step() + 1;
        // After the last step its line stays open: what is logged after the loop belongs to it.
        let interrupt = &session.launched().interrupt;
        if interrupt.asked() && !interrupt.decided() && step <= plan.last && session.reporter().wants_pause() {
            interrupt.reset();
            session.request_pause();
        }
        if step > plan.last || interrupt.asked() {
            self.over = true;
            run.looping.set(false);
            session.reporter().end();
            return None;
        }
        if session.attended() {
            run.ahead.set(Some(step));
            session.offer_turn();
            return Some(Ok(step));
        }
        Some(run.advance(session, step).map(|()| step))
    }
}

impl Drop for StepLoop {
    /// A loop left by `break` or an error ends its display as well.
    fn drop(&mut self) {
        if self.plan.is_some() && !self.over {
            self.steps.run.looping.set(false);
            self.steps.session.reporter().end();
        }
    }
}
