//! Deferred measurements: log-probs, entropies, divergences and values `[B,T]`, scores `[B,1]`, computed now, whose
//! backward pass runs when a loss asks for it.
//!
//! A `Forward` is one model at one version on some rows at one temperature; its planes (log-prob, entropy, divergences)
//! share one forward and one backward pass. Where the rows were sampled by that very model, the sampler's record is the
//! planes, and nothing runs before a gradient is asked for. Owns micro-batches and which activations are held; how many
//! fit is `room.rs`'s.

use super::divergence::{self, Asked, Beside};
use super::pack::{Measured, Pack, micro_batches};
use super::room::{Room, measured};
use super::rows::check_for;
use crate::engine::settings::Settings;
use crate::error::Result;
use crate::kernel::attention::attention;
use crate::kernel::awake::awake;
use crate::kernel::divergence::linear_divergence;
use crate::kernel::elementwise::gather;
use crate::kernel::gradients::ParameterGrads;
use crate::kernel::logprob::{Found, Stats, Targets, linear_logprob};
use crate::kernel::softmax::{Scored, Softmax};
use crate::kernel::tape::{Tape, Var};
use crate::kernel::value::Value;
use crate::model::decoder::Decoder;
use crate::model::rows::{Row, Rows};
use crate::model::{Head, Model};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// One forward pass over some rows, in micro-batches.
pub struct Forward {
    pub model: Arc<Model>,
    version: u64,
    rows: Arc<Rows>,
    temperature: f64,
    settings: Arc<Settings>,
    count: Arc<Count>,
    micro: Vec<Range<usize>>,
    measured: Measured,
    /// Columns of the values: T, or 1 for scores.
    pub(super) width: usize,
    /// Row-major values of each plane: log-probs and entropies, or values, or scores.
    planes: Vec<Vec<f32>>,
    /// Whether the planes are what the sampler recorded.
    recorded: bool,
    /// What the head's softmaxes of each micro-batch came to: its product is not run for them twice.
    found: Vec<Found>,
    /// Micro-batches whose activations are held, by index; others are recomputed.
    passes: Mutex<Vec<Option<Pass>>>,
    /// What was asked for beside the planes.
    beside: Mutex<Vec<divergence::Found>>,
}

struct Pass {
    tape: Tape,
    out: Var,
    /// The hidden states that are measured, `[U,H]`.
    scored: Var,
    /// One for each of what the forward has beside its planes, where the activations are held.
    beside: Vec<Var>,
    pack: Arc<Pack>,
}

/// Planes of a language model's pass; a value or a score without one is alone in its own.
pub(super) const LOGPROB: usize = 0;
pub(super) const ENTROPY: usize = 1;
/// What is measured beside them comes behind them.
pub(super) const BESIDE: usize = 2;

/// How many micro-batches were run, since the engine was made.
#[derive(Default)]
pub(super) struct Count {
    /// For values alone.
    pub(super) values: AtomicU64,
    /// For a backward pass.
    pub(super) recording: AtomicU64,
}

/// Forward passes whose planes somebody still holds: what is asked twice is computed once.
pub(super) struct Passes {
    settings: Arc<Settings>,
    pub(super) count: Arc<Count>,
    live: Mutex<Vec<Weak<Forward>>>,
}

impl Passes {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, count: Arc::default(), live: Mutex::default() }
    }

    /// The pass that is still there for the same model, version, rows and temperature, or a new one.
    pub(super) fn of(&self, model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64) -> Result<Arc<Forward>> {
        let same = |f: &Arc<Forward>| {
            f.model.id == model.id && f.current() && f.rows.id() == rows.id() && f.temperature == temperature
        };
        if let Some(found) = locked(&self.live).iter().filter_map(Weak::upgrade).find(same) {
            return Ok(found);
        }
        check_for(rows, model)?;
        let forward = Arc::new(awake(model.place(), || self.run(model, rows, temperature))?);
        let mut live = locked(&self.live);
        live.retain(|f| f.strong_count() > 0);
        live.push(Arc::downgrade(&forward));
        Ok(forward)
    }

    fn run(&self, model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64) -> Result<Forward> {
        let (width, planes) = match model.config.head {
            Head::Lm | Head::LmValue => (rows.width(), 2),
            Head::Value => (rows.width(), 1),
            Head::Score => (1, 1),
        };
        let (settings, measured) = (&self.settings, measured(&model.config));
        let micro = micro_batches(rows, settings.token_budget, measured, settings.share_prefixes);
        let mut forward = Forward {
            model: model.clone(),
            version: model.version(),
            rows: rows.clone(),
            temperature,
            settings: settings.clone(),
            count: self.count.clone(),
            measured,
            width,
            planes: vec![vec![0.0; rows.len() * width]; planes],
            recorded: false,
            found: micro.iter().map(|_| Found::default()).collect(),
            passes: Mutex::new(micro.iter().map(|_| None).collect()),
            beside: Mutex::default(),
            micro,
        };
        if !forward.take_record() {
            forward.compute()?;
        }
        Ok(forward)
    }

    /// Frees the activations of every pass of `model`: its weights have changed.
    pub(super) fn release(&self, model: &Model) {
        for forward in locked(&self.live).iter().filter_map(Weak::upgrade).filter(|f| f.model.id == model.id) {
            locked(&forward.passes).clear();
        }
    }
}

/// What a mutex guards, also after a panic elsewhere: nothing here is left half-changed.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Forward {
    /// Takes the sampler's record for the planes, where it covers every token; says whether it does.
    fn take_record(&mut self) -> bool {
        // Plain compositions have an order of sums of their own.
        if !self.model.config.head.has(Head::Lm) || !self.settings.fused {
            return false;
        }
        let mut planes = self.planes.clone();
        for (i, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.completion.is_empty()) {
            let Some(tokens) = self.record_of(row) else { return false };
            for (at, token) in (i * self.width..).zip(tokens) {
                planes[LOGPROB][at] = token.logprob();
                planes[ENTROPY][at] = token.entropy();
            }
        }
        (self.planes, self.recorded) = (planes, true);
        true
    }

    fn record_of<'r>(&self, row: &'r Row) -> Option<&'r [Scored]> {
        row.recorded(self.model.id, self.version, self.temperature)
    }

    /// Runs every micro-batch for the planes; activations are kept while they fit.
    fn compute(&mut self) -> Result<()> {
        let (mut room, mut passes, mut outs) = (Room::of(&self.model, &self.settings)?, Vec::new(), Vec::new());
        for (i, range) in self.micro.iter().enumerate() {
            self.settings.check()?;
            let Some(pack) = self.pack(range.clone())? else {
                passes.push(None);
                continue;
            };
            let keep = room.take(&pack);
            let pass = self.pass(i, Arc::new(pack), keep)?;
            outs.push((pass.pack.clone(), pass.out.value.clone()));
            passes.push(keep.then_some(pass));
        }
        // Only now, so that a device is waited for once.
        let values: Vec<&Value> = outs.iter().map(|(_, out)| out).collect();
        for ((pack, _), out) in outs.iter().zip(Value::all_to_vec(&values)?) {
            for ((row, t), values) in pack.cells.iter().zip(out.chunks_exact(self.planes.len())) {
                for (plane, value) in self.planes.iter_mut().zip(values) {
                    plane[row * self.width + t] = *value;
                }
            }
        }
        self.passes = Mutex::new(passes);
        Ok(())
    }

    /// Runs what fits of a recorded forward's micro-batches and keeps it, as `compute` would have: for what the sampler has no
    /// record of.
    fn hold(&self, passes: &mut [Option<Pass>]) -> Result<()> {
        let mut room = Room::of(&self.model, &self.settings)?;
        for (i, (range, held)) in self.micro.iter().zip(passes).enumerate() {
            self.settings.check()?;
            match held {
                Some(pass) => drop(room.take(&pass.pack)),
                None => {
                    let pack = self.pack(range.clone())?.filter(|pack| room.take(pack));
                    *held = pack.map(|pack| self.pass(i, Arc::new(pack), true)).transpose()?;
                }
            }
        }
        Ok(())
    }

    fn pack(&self, range: Range<usize>) -> Result<Option<Pack>> {
        Pack::new(&self.rows, range, self.measured, self.temperature, self.settings.share_prefixes)
    }

    /// Runs micro-batch number `i`.
    fn pass(&self, i: usize, pack: Arc<Pack>, recording: bool) -> Result<Pass> {
        let count = if recording { &self.count.recording } else { &self.count.values };
        count.fetch_add(1, Ordering::Relaxed);
        let decoder = Decoder::new(&self.model)?;
        let mut tape = self.settings.tape(self.model.packs(), self.model.compute, recording);
        let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]| {
            attention(tape, &q, &k, &v, &pack.segments, decoder.heads(layer))
        };
        let hidden = decoder.hidden(&mut tape, pack.ids.clone(), &pack.positions, attend)?;
        let scored = gather(&mut tape, &hidden, pack.scored.clone())?;
        let out = match self.model.config.head {
            Head::Lm | Head::LmValue => {
                let head = decoder.head(&tape);
                if self.recorded {
                    self.found[i].get_or_init(|| self.stats(&pack));
                }
                linear_logprob(&mut tape, &scored, &head, &pack.targets, &self.found[i])? // [P,2]
            }
            Head::Value | Head::Score => {
                let values = decoder.measure(&mut tape, &scored)?; // [U,1]
                gather(&mut tape, &values, pack.targets.rows.clone())? // [P,1]
            }
        };
        Ok(Pass { tape, out, scored, beside: Vec::new(), pack })
    }

    /// What the sampler recorded of a pack's pairs and their rows.
    fn stats(&self, pack: &Pack) -> Stats {
        let unseen = Softmax { lse: f32::NAN, mean: f32::NAN };
        let mut stats = Stats { rows: vec![unseen; pack.scored.len()], target: Vec::with_capacity(pack.cells.len()) };
        for (&at, &(row, t)) in pack.targets.rows.iter().zip(&pack.cells) {
            let Scored { softmax, z } = self.record_of(&self.rows[row]).expect("every row has a record")[t];
            stats.rows[at as usize] = softmax;
            stats.target.push(z);
        }
        stats
    }

    /// The values of one of the planes that every pass has, row-major.
    pub(super) fn plane(&self, plane: usize) -> Vec<f32> {
        self.planes[plane].clone()
    }

    /// The values of one of those that the pass has beside its planes, row-major.
    pub(super) fn beside(&self, index: usize) -> Vec<f32> {
        locked(&self.beside)[index].values.clone()
    }

    /// The place of what is asked among those that the pass has beside its planes; computed where it is not there yet.
    pub(super) fn also(&self, asked: Beside) -> Result<usize> {
        let mut beside = locked(&self.beside);
        if let Some(found) = beside.iter().position(|found| found.answers(&asked)) {
            return Ok(found);
        }
        let mut values = vec![0.0; self.rows.len() * self.width];
        let mut passes = locked(&self.passes);
        if self.recorded && beside.is_empty() {
            self.hold(&mut passes)?;
        }
        let (mut outs, mut found) = (Vec::with_capacity(self.micro.len()), Vec::with_capacity(self.micro.len()));
        for (i, range) in self.micro.iter().enumerate() {
            self.settings.check()?;
            let mut again;
            let held = passes.get_mut(i).and_then(Option::as_mut);
            let kept = held.is_some();
            let pass = match held {
                Some(pass) => pass,
                None => match self.pack(range.clone())? {
                    Some(pack) => {
                        again = self.pass(i, Arc::new(pack), false)?;
                        &mut again
                    }
                    None => {
                        outs.push(None);
                        continue;
                    }
                },
            };
            let out = pass.also(&self.model, &asked, &self.settings)?;
            found.push((pass.pack.clone(), out.value.clone()));
            outs.push(kept.then_some(out));
        }
        let read: Vec<&Value> = found.iter().map(|(_, out)| out).collect();
        for ((pack, _), out) in found.iter().zip(Value::all_to_vec(&read)?) {
            for ((row, t), value) in pack.cells.iter().zip(out) {
                values[row * self.width + t] = value;
            }
        }
        // Only now: a pass that was interrupted half-way leaves no entry behind.
        for (pass, out) in passes.iter_mut().zip(outs) {
            if let (Some(pass), Some(out)) = (pass, out) {
                pass.beside.push(out);
            }
        }
        beside.push(divergence::Found::new(asked, values));
        Ok(beside.len() - 1)
    }

    /// Whether the model still has the weights that these values were computed from.
    pub fn current(&self) -> bool {
        self.version == self.model.version()
    }

    /// Adds to `grads` what the upstream gradients (row-major, by plane) come to, micro-batch by micro-batch in
    /// row order. May be called again.
    pub fn backward(&self, upstream: &[Option<Vec<f32>>], grads: &mut ParameterGrads) -> Result<()> {
        let given = |plane: usize| upstream.get(plane).and_then(Option::as_ref);
        let planes: Vec<Option<&Vec<f32>>> = (0..self.planes.len()).map(given).collect();
        let beside = locked(&self.beside);
        let reached: Vec<(usize, &Vec<f32>)> =
            (0..beside.len()).filter_map(|i| Some((i, given(BESIDE + i)?))).collect();
        let passes = locked(&self.passes);
        for (i, (range, pass)) in self.micro.iter().zip(passes.iter()).enumerate() {
            self.settings.check()?;
            let mut again;
            let (pass, outs) = match pass {
                Some(pass) => (pass, reached.iter().map(|&(i, _)| pass.beside[i].clone()).collect()),
                None => match self.pack(range.clone())? {
                    Some(pack) => {
                        again = self.pass(i, Arc::new(pack), true)?;
                        let also = |&(i, _): &(usize, _)| again.also(&self.model, &beside[i].asked, &self.settings);
                        let outs: Vec<Var> = reached.iter().map(also).collect::<Result<_>>()?;
                        (&again, outs)
                    }
                    None => continue,
                },
            };
            let at = |values: &[f32], (row, t): (usize, usize)| values[row * self.width + t];
            let cells = || pass.pack.cells.iter().copied();
            let mut from = Vec::with_capacity(1 + outs.len());
            if planes.iter().any(Option::is_some) {
                let of = |cell| planes.iter().map(move |plane| plane.map_or(0.0, |values| at(values, cell)));
                let upstream: Vec<f32> = cells().flat_map(of).collect();
                from.push((
                    &pass.out,
                    Value::at(self.model.place(), "an upstream gradient", &upstream, pass.out.value.dims())?,
                ));
            }
            for (out, (_, values)) in outs.iter().zip(&reached) {
                let upstream: Vec<f32> = cells().map(|cell| at(values, cell)).collect();
                from.push((out, Value::at(self.model.place(), "an upstream gradient", &upstream, out.value.dims())?));
            }
            pass.tape.backward_from(from, grads)?;
        }
        Ok(())
    }
}

impl Pass {
    /// What is asked of the pass's pairs, `[P,1]`, on the pass's own tape.
    fn also(&mut self, model: &Model, asked: &Beside, settings: &Settings) -> Result<Var> {
        let (Self { tape, scored, pack, .. }, decoder) = (self, Decoder::new(model)?);
        let Beside::Divergence(Asked { of, reference, under }) = asked else {
            let values = decoder.measure(tape, scored)?; // [U,1]
            return gather(tape, &values, pack.targets.rows.clone());
        };
        let head = decoder.head(tape);
        let Some(rows) = under else {
            let reference = divergence::hidden(reference, pack, settings)?;
            return linear_divergence(tape, (*of, &reference), scored, &head, &pack.targets);
        };
        // A state that several answers begin from has one for each of them: their prompts may differ there.
        let reference = divergence::hidden_under(reference, rows, &pack.cells, settings)?;
        let scored = gather(tape, scored, pack.targets.rows.clone())?;
        let targets = Targets { rows: (0..pack.cells.len() as u32).collect(), ..pack.targets.clone() };
        linear_divergence(tape, (*of, &reference), &scored, &head, &targets)
    }
}
