//! Tasks in scripts: the shipped ones and those that stand in files, with the reward that each is to have.

mod file;
mod follow;
mod reward;
mod shipped;

use super::caller::Caller;
use super::convert::{AtLeastOne, Drawn};
use super::encode::{demo_map, pair_map};
use super::tracked::Tracked;
use crate::data::task::arithmetic::Arithmetic;
use crate::data::task::composed::Composed;
use crate::data::task::drawn::Family;
use crate::data::task::rows::Rows;
use crate::data::{Batch, Demo, Pair, Task, User};
use crate::engine::ModelHandle;
use crate::error::Result;
use crate::run::Stream;
use crate::run::evaluate::{self, Evaluation, Outcome, Sampling};
use crate::script::lang::functions::CallStack;
use crate::script::lang::loader::Loader;
use crate::script::lang::native::{Call, Fallible, Handle, IntoScript, Options, Registry, Typed, options};
pub use file::FUNCTIONS;
use file::TaskFile;
use follow::Followed;
use reward::RewardSource;
use rhai::{Array, Dynamic, EvalAltResult, Map};
use shipped::{Common, TaskOptions};
use std::rc::Rc;

/// A task in a script: copies of the variable are the same task.
#[derive(Clone)]
pub struct TaskHandle(Rc<OpenTask>);

/// Where its prompts and its reward are from.
struct OpenTask {
    base: Base,
    /// Prompts and answers in place of the base's own.
    rows: Option<Rows>,
    /// In place of the base's own.
    reward: Option<OwnReward>,
    /// By which files are read again.
    loader: Rc<Loader>,
    calls: CallStack,
}

enum Base {
    Shipped(Rc<dyn Task>),
    File(Box<OfFile>),
}

/// A task's file, and how it was opened.
struct OfFile {
    file: Followed<TaskFile>,
    path: String,
    options: Map,
}

struct OwnReward {
    source: Followed<RewardSource>,
    /// Of a file that may be edited: what it was opened by.
    path: Option<String>,
}

pub type UserHandle = Rc<dyn User>;

impl Handle for TaskHandle {
    const NAME: &'static str = "Task";
    const RECEIVER: &'static str = "task";
}

impl Handle for UserHandle {
    const NAME: &'static str = "User";
    const RECEIVER: &'static str = "user";
}

impl TaskHandle {
    /// Asks the task within a call: functions of its file are called from there.
    fn ask<T>(&self, call: &Call<'_>, question: impl Fn(&dyn Task) -> Result<T>) -> Fallible<T> {
        self.0.refresh(call)?;
        match self.0.answer(call, &question) {
            Err(e) if self.0.go_back(call, &e) => self.0.answer(call, &question),
            done => done,
        }
    }

    /// What the rows of its file come to, where it has one: another file gives another text.
    pub fn rows_digest(&self) -> Option<String> {
        self.0.rows.as_ref().map(Rows::digest)
    }

    /// The rewards of a model on held-out prompts.
    ///
    /// # Errors
    /// Those of the task and of sampling.
    pub fn evaluate(&self, call: &Call<'_>, model: &ModelHandle, evaluation: &Evaluation) -> Fallible<Outcome> {
        let session = call.session;
        session.apart(|| self.ask(call, |task| evaluate::evaluate(session.engine(), task, model, evaluation)))
    }
}

impl OpenTask {
    fn answer<T>(&self, call: &Call<'_>, question: impl Fn(&dyn Task) -> Result<T>) -> Fallible<T> {
        let caller = Caller::new(call.context);
        let file = self.base.file();
        let source = self.reward.as_ref().map(|reward| reward.source.now());
        let answer = {
            let within = file.as_ref().map(|file| file.within(&caller, call.session));
            let base: &dyn Task = match (&self.base, &within) {
                (Base::Shipped(task), _) => &**task,
                (Base::File(_), within) => within.as_ref().expect("a file was just taken into the call"),
            };
            let reward = source.as_ref().map(|source| source.within(&caller, call.session));
            question(&Composed { base, rows: self.rows.as_ref(), reward: reward.as_deref() })
        };
        caller.finish(answer)
    }

    /// Reads files again that were edited while the run follows them.
    fn refresh(&self, call: &Call<'_>) -> Fallible<()> {
        let Self { base, rows, reward, loader, calls } = self;
        if let Base::File(of) = base {
            let OfFile { file, path, options } = &**of;
            file.refresh(call, loader, || {
                let (file, _) = TaskFile::open(call, calls, &loader.file("task", path)?, options.clone())?;
                file.require(rows.is_some(), reward.is_some())?;
                Ok(file)
            })?;
        }
        if let Some(OwnReward { source, path: Some(path) }) = reward {
            source.refresh(call, loader, || RewardSource::open(call, loader, calls, path))?;
        }
        Ok(())
    }

    /// Whether an edit was on trial, which is taken back.
    fn go_back(&self, call: &Call<'_>, e: &EvalAltResult) -> bool {
        let file = match &self.base {
            Base::Shipped(_) => false,
            Base::File(of) => of.file.go_back(call, &self.loader, e),
        };
        self.reward.as_ref().is_some_and(|reward| reward.source.go_back(call, &self.loader, e)) || file
    }
}

impl OwnReward {
    fn open(call: &Call<'_>, loader: &Rc<Loader>, calls: &CallStack, text: &str) -> Fallible<Self> {
        let source = RewardSource::open(call, loader, calls, text)?;
        let label = source.file().map(str::to_string);
        let path = label.as_ref().map(|_| text.to_string());
        Ok(Self { source: Followed::new("reward", &label.unwrap_or_default(), loader, source), path })
    }
}

impl Base {
    fn file(&self) -> Option<Rc<TaskFile>> {
        match self {
            Base::Shipped(_) => None,
            Base::File(of) => Some(of.file.now()),
        }
    }
}

pub fn register(reg: &mut Registry, loader: &Rc<Loader>, calls: &CallStack, tracked: &Tracked) {
    reg.handle::<TaskHandle>(|task| match &task.0.base {
        Base::Shipped(task) => format!("Task({})", task.name()),
        Base::File(of) => format!("Task({})", of.file.now().label()),
    });
    reg.handle::<UserHandle>(|user| format!("User({user:?})"));
    let (loader, calls, tracked) = (loader.clone(), calls.clone(), tracked.clone());
    let load = move |call: &Call, name: String, options: TaskOptions| {
        let task = open(call, &loader, &calls, &name, options.0);
        task.inspect(|task| tracked.opened(task))
    };
    reg.function("load_task", ["name", "options"], load);
    train(reg);
    test(reg);
    reg.function("score", ["b"], |call: &Call, task: &mut TaskHandle, b: Batch| task.ask(call, |task| task.score(&b)));
    reg.function("user", [], |call: &Call, task: &mut TaskHandle| user(call, task));
    reg.property("turns", |task: &mut TaskHandle| match &task.0.base {
        Base::Shipped(task) => task.turns(),
        Base::File(of) => of.file.now().turns(),
    });
    reg.property("max_tokens", |task: &mut TaskHandle| match &task.0.base {
        Base::Shipped(task) => task.max_tokens(),
        Base::File(of) => of.file.now().max_tokens(),
    });
    reg.function(
        "evaluate",
        ["model", "options"],
        |call: &Call, task: &mut TaskHandle, model: ModelHandle, Options(options): Options<Evaluating>| {
            task.evaluate(call, &model, &options.with(call)).map(|outcome| outcome.mean)
        },
    );
    reg.function(
        "evaluation",
        ["model", "options"],
        |call: &Call, task: &mut TaskHandle, model: ModelHandle, Options(options): Options<Evaluating>| {
            task.evaluate(call, &model, &options.with(call))
        },
    );
}

/// A shipped task by its name, or the task of a file; the reward and the prompts as the options say.
fn open(call: &Call<'_>, loader: &Rc<Loader>, calls: &CallStack, text: &str, options: Map) -> Fallible<TaskHandle> {
    let session = call.session;
    let (base, common) = match file::split_path(text, options.clone())? {
        Some((path, options)) => {
            let (file, common) = TaskFile::open(call, calls, &loader.file("task", path)?, options.clone())?;
            let label = file.label().to_string();
            let file = Followed::new("task", &label, loader, file);
            (Base::File(Box::new(OfFile { file, path: path.to_string(), options })), common)
        }
        None => {
            let (name, options) = shipped::split_name(text, options)?;
            let (task, common) = shipped::open(name, options)?;
            (Base::Shipped(task), common)
        }
    };
    let Common { data, reward } = common;
    let wanted = reward.or_else(|| session.run_options().reward).filter(|reward| !reward.is_empty());
    let mut reward = wanted.map(|reward| OwnReward::open(call, loader, calls, &reward)).transpose()?;
    let rows = match data.filter(|data| !data.is_empty()) {
        Some(path) => Some(Rows::open(&session.access().read(&path)?)?),
        None => None,
    };
    match &base {
        Base::File(of) => of.file.now().require(rows.is_some(), reward.is_some())?,
        Base::Shipped(task) => {
            let reads = if reward.is_some() { &[] } else { task.reads() };
            rows.iter().try_for_each(|rows| rows.require(reads, task.name()))?;
            // Its own prompts are answered with the number alone; those of a file may be worked out in words.
            if rows.is_some() && reward.is_none() && task.name() == Arithmetic::NAME {
                let source = Followed::new("reward", "", loader, RewardSource::worked(call, loader, calls)?);
                reward = Some(OwnReward { source, path: None });
            }
        }
    }
    let (loader, calls) = (loader.clone(), calls.clone());
    Ok(TaskHandle(Rc::new(OpenTask { base, rows, reward, loader, calls })))
}

fn train(reg: &mut Registry) {
    reg.function("prompts", ["n"], |call: &Call, task: &mut TaskHandle, n: AtLeastOne| {
        let key = call.session.key(Stream::Prompts);
        task.ask(call, |task| task.prompts(n.0, key))
    });
    reg.function("demos", ["n"], |call: &Call, task: &mut TaskHandle, n: Drawn| {
        let key = call.session.key(Stream::Prompts);
        task.ask(call, |task| task.demos(n.0, key)).map(demos)
    });
    reg.function("pairs", ["n"], |call: &Call, task: &mut TaskHandle, n: Drawn| {
        let key = call.session.key(Stream::Prompts);
        task.ask(call, |task| task.pairs(n.0, key)).map(pairs)
    });
}

fn test(reg: &mut Registry) {
    reg.function("test_prompts", ["n"], |call: &Call, task: &mut TaskHandle, n: AtLeastOne| {
        task.ask(call, |task| task.test_prompts(n.0))
    });
    reg.function("test_demos", ["n"], |call: &Call, task: &mut TaskHandle, n: Drawn| {
        task.ask(call, |task| task.test_demos(n.0)).map(demos)
    });
    reg.function("test_pairs", ["n"], |call: &Call, task: &mut TaskHandle, n: Drawn| {
        task.ask(call, |task| task.test_pairs(n.0)).map(pairs)
    });
}

fn demos(demos: Vec<Demo>) -> Array {
    demos.iter().map(demo_map).collect()
}

fn pairs(pairs: Vec<Pair>) -> Array {
    pairs.iter().map(pair_map).collect()
}

/// Who answers: a task's own, or what the function of a file says.
struct AnyUser(Dynamic);

impl Typed for AnyUser {
    const TYPE: &'static str = "User | Fn";
}

impl IntoScript for AnyUser {
    fn write(self) -> Dynamic {
        self.0
    }
}

/// The user that a task has.
struct OfTask(Rc<dyn Task>);

impl std::fmt::Debug for OfTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.user().map_or(Ok(()), |user| user.fmt(f))
    }
}

impl User for OfTask {
    fn reply(
        &self,
        messages: &[serde_json::Value],
        fields: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Option<String>> {
        self.0.user()?.reply(messages, fields)
    }
}

fn user(call: &Call<'_>, task: &TaskHandle) -> Fallible<AnyUser> {
    match &task.0.base {
        Base::Shipped(shipped) => {
            drop(shipped.user()?);
            Ok(AnyUser((Rc::new(OfTask(shipped.clone())) as UserHandle).write()))
        }
        Base::File(of) => {
            task.0.refresh(call)?;
            let (file, caller) = (of.file.now(), Caller::new(call.context));
            let user = file.within(&caller, call.session).own_user();
            caller.finish(user).map(AnyUser)
        }
    }
}

options! {
    struct Evaluating {
        /// held-out prompts: always the same ones, all of them if there are fewer
        n: usize = 256,
        /// of an answer, or of one turn of it; task.max_tokens unless given
        max_tokens: Option<usize>,
        /// answers to each prompt
        samples: usize = 1,
        /// divides the logits
        temperature: f64 = 1.0,
        /// only the most probable tokens that together hold this share
        top_p: Option<f64>,
        /// the most probable token each time
        greedy: bool = false,
    }
}

impl Evaluating {
    fn with(self, call: &Call<'_>) -> Evaluation {
        let Self { n, max_tokens, samples, temperature, top_p, greedy } = self;
        let sampling = Sampling { samples, temperature, top_p, greedy };
        Evaluation { n, max_tokens, key: call.session.key(Stream::Evaluate), sampling }
    }
}

impl Typed for Outcome {
    const TYPE: &'static str = "#{ mean: float, se: float, pass: float }";
}

impl IntoScript for Outcome {
    fn write(self) -> Dynamic {
        let Self { mean, se, pass } = self;
        Map::from([("mean".into(), mean.into()), ("se".into(), se.into()), ("pass".into(), pass.into())]).into()
    }
}
