//! What everything in one program run shares: device, limits, seed, the streams of random numbers, and what the
//! command line asked for. Owns no run folder (`handle.rs`), no state of the loop
//! (`step_loop.rs`) and draws no numbers itself: it only hands out keys.

use crate::budget::{self, memory};
use crate::engine::{Engine, MixtureRequest, SampleRequest, Samples, Settings};
use crate::error::{Error, Result};
use crate::gpu::{DType, Place};
use crate::model::ModelInfo;
use crate::run::access::Access;
use crate::run::checkpoint::Checkpoints;
use crate::run::checkpoint::state::RunState;
use crate::run::handle::Run;
use crate::run::launch::Launch;
use crate::run::meter::{Meter, Metered};
use crate::run::options::RunOptions;
use crate::run::report::{Reporter, Silent};
use crate::run::step_loop::{Phase, StepLoop};
use crate::run::suspect::Suspect;
use crate::tensor::{Device, Tensor, rng::Key};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Who draws: each has random numbers of its own, so that one more draw here never changes another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Sample,
    Evaluate,
    Prompts,
    Shuffle,
    Rand,
    Init,
    Data,
    Generate,
}

const STREAMS: usize = 8;
/// Stands where a step's number does in keys that outlive steps.
const EVERY_STEP: u64 = u64::MAX;

/// The script that runs.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Short, for the run folder: `grpo`.
    pub name: String,
    /// What errors call it.
    pub label: String,
    pub text: String,
}

/// The state of one program run.
pub struct Session {
    launch: Launch,
    engine: Metered,
    meter: Rc<Meter>,
    program: RefCell<Program>,
    seed: Cell<u64>,
    calls: Cell<[u64; STREAMS]>,
    /// Those of the step that has come, while somebody looks before it.
    early: Cell<[u64; STREAMS]>,
    arguments: RefCell<Option<Vec<String>>>,
    options: RefCell<RunOptions>,
    run: RefCell<Option<Rc<Run>>>,
    suspect: RefCell<Option<Suspect>>,
    sampled: Cell<u64>,
    place: RefCell<Place>,
    /// One of each vocabulary that was opened first: by its tokenizer and chat template texts become tokens of rows.
    readers: RefCell<Vec<ModelInfo>>,
    steps: StepLoop,
    checkpoints: Checkpoints,
}

impl Session {
    /// A session without a command line: silent, nothing overridden.
    pub fn new(place: Place, settings: Settings, seed: u64) -> Rc<Self> {
        Self::launch(Launch { seed: Some(seed), ..Launch::new(place, settings) })
    }

    /// The work of this thread obeys its interruption from here on.
    pub fn launch(launch: Launch) -> Rc<Self> {
        budget::obey(&launch.stop());
        let meter = Rc::new(Meter::default());
        Rc::new(Self {
            engine: Metered::new(launch.engine.clone(), meter.clone()),
            meter,
            program: RefCell::default(),
            seed: Cell::new(launch.seed.unwrap_or(0)),
            calls: Cell::default(),
            early: Cell::default(),
            arguments: RefCell::default(),
            options: RefCell::default(),
            run: RefCell::default(),
            suspect: RefCell::default(),
            sampled: Cell::new(0),
            place: RefCell::new(launch.place.clone()),
            readers: RefCell::default(),
            steps: StepLoop::new(launch.interrupt.clone()),
            checkpoints: Checkpoints::new(launch.checkpoint, launch.continued.as_ref()),
            launch,
        })
    }

    /// Where script tensors lie: on the host, always.
    pub fn device(&self) -> Device {
        Device::Cpu
    }

    /// Where models are.
    pub fn place(&self) -> Place {
        self.place.borrow().clone()
    }

    /// The type that a device computes in, where a script does not say.
    pub fn compute(&self) -> DType {
        self.launch.compute
    }

    /// Models opened from here on are there.
    pub fn set_place(&self, place: Place) {
        *self.place.borrow_mut() = place;
    }

    /// A model was opened.
    pub fn opened(&self, model: &ModelInfo) {
        let mut readers = self.readers.borrow_mut();
        if model.tokenizer.is_some() && !readers.iter().any(|known| known.vocabulary() == model.vocabulary()) {
            readers.push(model.clone());
        }
    }

    /// The first model of this run whose tokenizer made rows of this vocabulary.
    pub fn reader(&self, vocabulary: Option<u64>) -> Option<ModelInfo> {
        self.readers.borrow().iter().find(|known| vocabulary.is_some() && known.vocabulary() == vocabulary).cloned()
    }

    /// What runs the models; what it is asked counts as the step's.
    pub fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    /// What the step under way has cost.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Does what is not the step's, and may take a while: an evaluation.
    pub fn apart<T>(&self, what: impl FnOnce() -> T) -> T {
        self.reporter().evaluating(true);
        let done = self.meter.apart(what);
        self.reporter().evaluating(false);
        done
    }

    /// The numbers that the run adds to the line of the step that is over, by their names in the table.
    pub(super) fn own_numbers(&self) -> Vec<(&'static str, f64)> {
        let mut own = self.meter.close();
        own.extend(memory::peak().map(|bytes| ("peak_bytes", bytes as f64)));
        own.extend(self.place().gpu().map(|gpu| ("peak_bytes/device", gpu.counters().most as f64)));
        own.extend((self.sampled() > 0).then(|| ("sampled", self.sampled() as f64)));
        own
    }

    /// Samples for the policy's sake: its tokens count among those that methods are compared by; an evaluation's or a
    /// judge's do not.
    ///
    /// # Errors
    /// Those of [`Engine::sample`].
    pub fn sample(&self, request: &SampleRequest) -> Result<Samples> {
        self.counted(self.engine().sample(request)?)
    }

    /// As `sample`, of a mixture.
    ///
    /// # Errors
    /// Those of [`Engine::sample_mixture`].
    pub fn sample_mixture(&self, request: &MixtureRequest) -> Result<Samples> {
        self.counted(self.engine().sample_mixture(request)?)
    }

    fn counted(&self, samples: Samples) -> Result<Samples> {
        let finished = samples.finished.iter().filter(|finished| **finished).count();
        self.count_sampled(samples.tokens(), samples.finished.len(), finished);
        Ok(samples)
    }

    /// What the command line asked for.
    pub fn launched(&self) -> &Launch {
        &self.launch
    }

    /// What scripts may read and write.
    pub fn access(&self) -> &Access {
        &self.launch.access
    }

    /// Who is told; nobody while what was told before is done again.
    pub fn reporter(&self) -> &dyn Reporter {
        if self.repeats() { &Silent } else { &*self.launch.reporter }
    }

    /// Whether everything so far repeats what a run did before its checkpoint: it is neither told nor written again.
    pub fn repeats(&self) -> bool {
        self.checkpoints.pending().is_some()
    }

    /// When the run is stored, and what it goes on from.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    pub fn program(&self) -> Program {
        self.program.borrow().clone()
    }

    pub fn set_program(&self, program: Program) {
        *self.program.borrow_mut() = program;
    }

    pub fn seed(&self) -> u64 {
        self.seed.get()
    }

    /// The script's seed; `--seed` goes before it. Keys handed out before keep theirs.
    pub fn set_seed(&self, seed: u64) {
        self.seed.set(self.launch.seed.unwrap_or(seed));
    }

    /// A new seed for what is drawn from here on, whatever the command line said.
    pub fn reseed(&self, seed: u64) {
        self.seed.set(seed);
        self.restart_streams();
    }

    /// Where the run stands between its first step and its last.
    pub fn step_loop(&self) -> &StepLoop {
        &self.steps
    }

    /// The current step: 0 before the first.
    pub fn step(&self) -> u64 {
        self.steps.step()
    }

    /// Begins the step that the loop has come to, if it has: the line of the step before is complete then.
    ///
    /// # Errors
    /// Metrics that cannot be written.
    pub fn begin_step(&self) -> Result<()> {
        let looked = matches!(self.steps.phase(), Phase::Refreshing(_));
        let Some(step) = self.steps.begin() else { return Ok(()) };
        self.calls.set(if looked { self.early.get() } else { Default::default() });
        let own = self.own_numbers();
        self.run().map_or(Ok(()), |run| run.advance(step, &own))
    }

    /// Somebody looks before the step that the loop has come to, if it has: what is drawn meanwhile is the step's before,
    /// and moves nothing of what the coming step draws.
    pub fn look(&self) -> bool {
        let looks = self.steps.look();
        if looks {
            self.early.set(self.calls.take());
        }
        looks
    }

    /// A step has come that does not begin yet: what is drawn is already its own.
    pub(super) fn restart_streams(&self) {
        self.calls.set(Default::default());
    }

    /// The step that draws: the one that has come, also before it has begun.
    fn drawing(&self) -> u64 {
        match self.steps.phase() {
            Phase::Before(step) => step,
            _ => self.step(),
        }
    }

    /// The key of the next call of `stream` in this step: a function of (seed, step, stream, call) alone.
    pub fn key(&self, stream: Stream) -> Key {
        let mut calls = self.calls.get();
        let call = calls[stream as usize];
        calls[stream as usize] += 1;
        self.calls.set(calls);
        Key::new(self.seed()).fold(self.drawing()).fold(stream as u64).fold(call)
    }

    /// A key for what goes on over many steps: a function of (seed, stream) alone. `seed` is the run's unless given.
    pub fn lasting_key(&self, stream: Stream, seed: Option<u64>) -> Key {
        Key::new(seed.unwrap_or(self.seed())).fold(EVERY_STEP).fold(stream as u64)
    }

    /// Looks at a column that was set: `[B,1]` or `[B,T]`, of which only cells inside `mask` count.
    ///
    /// # Errors
    /// Numbers that cannot be read from the device.
    pub fn watch(&self, column: &str, values: &Tensor, mask: Option<&Tensor>) -> Result<()> {
        if self.suspect.borrow().is_some() {
            return Ok(());
        }
        let inside = mask.filter(|m| m.dims() == values.dims()).map(Tensor::to_vec).transpose()?;
        let counts = |i: usize| inside.as_ref().is_none_or(|m| m[i] != 0.0);
        let values_of = values.to_vec()?;
        if let Some(i) = (0..values_of.len()).find(|&i| !values_of[i].is_finite() && counts(i)) {
            let row = i / values.dims().get(1).copied().unwrap_or(1).max(1);
            let suspect = Suspect { column: column.into(), row, value: values_of[i], step: self.step() };
            *self.suspect.borrow_mut() = Some(suspect);
        }
        Ok(())
    }

    /// Counts tokens that the policy has sampled, and its answers, of which so many ended by themselves; evaluation's are
    /// not among them.
    pub fn count_sampled(&self, tokens: u64, answers: usize, finished: usize) {
        self.sampled.set(self.sampled.get() + tokens);
        self.meter.answered(answers, finished);
    }

    /// Goes on as a run stood at a checkpoint.
    pub(super) fn set_progress(&self, state: &RunState) {
        self.seed.set(state.seed);
        self.sampled.set(state.sampled);
        self.meter.restore(state.spent.clone());
        *self.suspect.borrow_mut() = state.suspect.clone();
    }

    /// Tokens sampled so far: what methods are compared by.
    pub fn sampled(&self) -> u64 {
        self.sampled.get()
    }

    /// The first column that was set to something not finite, if any.
    pub fn suspect(&self) -> Option<Suspect> {
        self.suspect.borrow().clone()
    }

    /// An `Interrupted` error once the user asked to stop at once.
    pub fn check(&self) -> Result<()> {
        self.engine().settings().check()
    }

    /// The names that the script declared with `args`, if it did.
    pub fn arguments(&self) -> Option<Vec<String>> {
        self.arguments.borrow().clone()
    }

    /// Records what `args` declares; a script does that once.
    pub fn declare(&self, names: Vec<String>) -> Result<()> {
        match self.arguments.replace(Some(names)) {
            None => Ok(()),
            Some(_) => Err(Error::value("`args` was already called in this script")
                .hint("declare all hyper-parameters in one map, at the top")),
        }
    }

    /// The next script, or the next input at a prompt, may declare its own.
    pub fn forget_arguments(&self) {
        self.arguments.replace(None);
        self.options.replace(RunOptions::default());
    }

    /// What the command line says of every script's tasks.
    pub fn run_options(&self) -> RunOptions {
        self.options.borrow().clone()
    }

    /// Takes over what `args` found on the command line beside the script's own hyper-parameters.
    pub fn set_run_options(&self, options: RunOptions) {
        *self.options.borrow_mut() = options;
    }

    /// Every `--set` must have reached an `args`.
    pub fn check_sets(&self) -> Result<()> {
        match self.launch.sets.first() {
            Some((name, _)) if self.arguments.borrow().is_none() => {
                Err(Error::value(format!("--set {name}: the script declares no hyper-parameters"))
                    .hint("declare them with `let cfg = args(#{ name: value, … });`, or leave --set out"))
            }
            _ => Ok(()),
        }
    }

    /// The run that was opened, if one was.
    pub fn run(&self) -> Option<Rc<Run>> {
        self.run.borrow().clone()
    }

    /// Makes `run` the run of this session.
    pub(super) fn set_run(&self, run: Rc<Run>) {
        *self.run.borrow_mut() = Some(run);
    }

    /// No run is open any more, and steps count from 1 again.
    pub(super) fn forget_run(&self) {
        self.run.replace(None);
        self.steps.restart();
        self.restart_streams();
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
