//! Deferred measurements: log-probs, entropies, divergences and values `[B,T]`, scores `[B,1]`, computed now, whose
//! backward pass runs when a loss asks for it.
//!
//! A `Forward` is one model at one version on some rows at one temperature; its leaves (log-prob, entropy, divergences)
//! share one forward and one backward pass. Owns micro-batches and the memory of activations; `update` walks them back.

use super::divergence::Divergence;
use super::memory::Memory;
use super::pack::{Measured, Pack, micro_batches};
use super::settings::Settings;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::kernel::attention::attention;
use crate::kernel::elementwise::gather;
use crate::kernel::host;
use crate::kernel::logprob::linear_logprob;
use crate::kernel::tape::{ParameterGrads, Tape, Var};
use crate::model::decoder::Decoder;
use crate::model::rows::Rows;
use crate::model::{Config, Head, Model};
use crate::tensor::Tensor;
use candle_core::Tensor as Data;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// What a leaf measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Logprob,
    Entropy,
    Value,
    Score,
    /// From the reference at this place among the pass's divergences.
    Divergence(usize),
}

impl Kind {
    /// The script's function.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logprob => "logprob",
            Self::Entropy => "entropy",
            Self::Value => "value",
            Self::Score => "score",
            Self::Divergence(_) => "kl::full",
        }
    }

    fn head(self) -> Head {
        match self {
            Self::Logprob | Self::Entropy | Self::Divergence(_) => Head::Lm,
            Self::Value => Head::Value,
            Self::Score => Head::Score,
        }
    }

    /// Which column of a pass's output this is; divergences come behind them.
    pub(super) fn plane(self) -> usize {
        match self {
            Self::Logprob | Self::Value | Self::Score => 0,
            Self::Entropy => 1,
            Self::Divergence(index) => 2 + index,
        }
    }
}

/// One leaf of a script's graph; the origin that `tape::Gradients::sources` hands back.
pub struct Leaf {
    pub forward: Arc<Forward>,
    pub kind: Kind,
    /// The place in the script that asked for it, for errors: `grpo.rhai:57`.
    pub site: String,
}

impl Leaf {
    /// Whether all its values are numbers.
    pub fn finite(&self) -> bool {
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        match self.kind {
            Kind::Divergence(index) => finite(&locked(&self.forward.divergences)[index].values),
            kind => finite(&self.forward.planes[kind.plane()]),
        }
    }

    /// Whether all weights that its values were computed from are still the same.
    pub(super) fn current(&self) -> bool {
        let reference = |index: usize| locked(&self.forward.divergences)[index].current();
        self.forward.current() && if let Kind::Divergence(index) = self.kind { reference(index) } else { true }
    }
}

/// One forward pass over some rows, in micro-batches.
pub struct Forward {
    pub model: Arc<Model>,
    version: u64,
    pub(super) rows: Arc<Rows>,
    temperature: f64,
    pub(super) settings: Settings,
    pub(super) micro: Vec<Range<usize>>,
    measured: Measured,
    /// Columns of the values: T, or 1 for scores.
    pub(super) width: usize,
    /// Row-major values of each plane (`Kind::plane`).
    planes: Vec<Vec<f32>>,
    /// Micro-batches whose activations are held, by index; others are recomputed.
    pub(super) passes: Mutex<Vec<Option<Pass>>>,
    /// From one reference each.
    pub(super) divergences: Mutex<Vec<Divergence>>,
}

pub(super) struct Pass {
    pub(super) tape: Tape,
    out: Var,
    /// The hidden states that are measured, `[U,H]`.
    pub(super) scored: Var,
    /// One for each of the forward's divergences, where the activations are held.
    pub(super) divergences: Vec<Var>,
    pub(super) pack: Arc<Pack>,
}

/// Forward passes that some tensor still refers to.
static LIVE: Mutex<Vec<Weak<Forward>>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<Weak<Forward>>> {
    locked(&LIVE)
}

/// What a mutex guards, also after a panic elsewhere: nothing here is left half-changed.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// log π(token) of every completion token, `[B,T]` in nats; cells past a row's end are 0. Differentiable where the
/// model is trainable.
pub fn logprob(
    model: &Arc<Model>,
    rows: &Arc<Rows>,
    temperature: f64,
    settings: &Settings,
    site: &str,
) -> Result<Tensor> {
    measure(model, rows, temperature, settings, Kind::Logprob, site)
}

/// The entropy of the distribution at every completion token, `[B,T]` in nats; otherwise as `logprob`.
pub fn entropy(
    model: &Arc<Model>,
    rows: &Arc<Rows>,
    temperature: f64,
    settings: &Settings,
    site: &str,
) -> Result<Tensor> {
    measure(model, rows, temperature, settings, Kind::Entropy, site)
}

/// The value of the state before every completion token, `[B,T]`; otherwise as `logprob`.
pub fn value(model: &Arc<Model>, rows: &Arc<Rows>, settings: &Settings, site: &str) -> Result<Tensor> {
    measure(model, rows, 1.0, settings, Kind::Value, site)
}

/// The score of every row at its last token, `[B,1]`; differentiable where the model is trainable.
pub fn score(model: &Arc<Model>, rows: &Arc<Rows>, settings: &Settings, site: &str) -> Result<Tensor> {
    measure(model, rows, 1.0, settings, Kind::Score, site)
}

fn measure(
    model: &Arc<Model>,
    rows: &Arc<Rows>,
    temperature: f64,
    settings: &Settings,
    kind: Kind,
    site: &str,
) -> Result<Tensor> {
    model.require_head(kind.head(), kind.name())?;
    let forward = Forward::of(model, rows, temperature, settings)?;
    let width = forward.width;
    let values = Data::from_slice(&forward.planes[kind.plane()], (rows.len(), width), model.device())?;
    let tensor = if model.trainable() {
        Tensor::source(values, Arc::new(Leaf { forward, kind, site: site.into() }))
    } else {
        Tensor::new(values)
    };
    Ok(tensor.with_tokens(width > 1))
}

impl Forward {
    /// The pass that is still there for the same model, version, rows and temperature, or a new one.
    pub(super) fn of(model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64, settings: &Settings) -> Result<Arc<Self>> {
        let same = |f: &Arc<Forward>| {
            f.model.id() == model.id() && f.current() && f.rows.id() == rows.id() && f.temperature == temperature
        };
        if let Some(found) = live().iter().filter_map(Weak::upgrade).find(same) {
            return Ok(found);
        }
        check_for(rows, model)?;
        let forward = Arc::new(Self::run(model, rows, temperature, settings)?);
        let mut live = live();
        live.retain(|f| f.strong_count() > 0);
        live.push(Arc::downgrade(&forward));
        Ok(forward)
    }

    fn run(model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64, settings: &Settings) -> Result<Self> {
        let (width, planes) = match model.config.head {
            Head::Lm => (rows.width(), 2),
            Head::Value => (rows.width(), 1),
            Head::Score => (1, 1),
        };
        let measured = measured(&model.config);
        let micro = micro_batches(rows, settings.token_budget, measured, settings.share_prefixes);
        let mut forward = Self {
            model: model.clone(),
            version: model.version(),
            rows: rows.clone(),
            temperature,
            settings: settings.clone(),
            measured,
            width,
            planes: vec![vec![0.0; rows.len() * width]; planes],
            passes: Mutex::default(),
            divergences: Mutex::default(),
            micro,
        };
        let per_token = Memory::training(&model.config, model.adapter.as_ref()).activations_per_token;
        let (mut held, mut passes) = (0, Vec::new());
        for range in forward.micro.clone() {
            settings.check()?;
            let Some(pack) = forward.pack(range)? else {
                passes.push(None);
                continue;
            };
            let bytes = pack.ids.len() as u64 * per_token;
            let keep = model.trainable() && held + bytes <= settings.keep_bytes;
            let pass = forward.pass(Arc::new(pack), keep)?;
            let out = pass.out.value.to_dtype(candle_core::DType::F32)?.to_vec2::<f32>()?;
            for ((row, t), values) in pass.pack.cells.iter().zip(out) {
                for (plane, value) in forward.planes.iter_mut().zip(values) {
                    plane[row * width + t] = value;
                }
            }
            held += if keep { bytes } else { 0 };
            passes.push(keep.then_some(pass));
        }
        forward.passes = Mutex::new(passes);
        Ok(forward)
    }

    pub(super) fn pack(&self, range: Range<usize>) -> Result<Option<Pack>> {
        Pack::new(&self.rows, range, self.measured, self.temperature, self.settings.share_prefixes)
    }

    pub(super) fn pass(&self, pack: Arc<Pack>, recording: bool) -> Result<Pass> {
        let decoder = Decoder::new(&self.model)?;
        let mut tape = self.settings.tape(self.model.packs(), recording);
        let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]| {
            attention(tape, &q, &k, &v, &pack.segments, decoder.heads(layer))
        };
        let hidden = decoder.hidden(&mut tape, pack.ids.clone(), &pack.positions, attend)?;
        let scored = gather(&mut tape, &hidden, pack.scored.clone())?;
        let out = match self.model.config.head {
            Head::Lm => {
                let head = decoder.head(&tape);
                linear_logprob(&mut tape, &scored, &head, &pack.targets)? // [P,2]
            }
            Head::Value | Head::Score => {
                let values = decoder.measure(&mut tape, &scored)?; // [U,1]
                gather(&mut tape, &values, pack.targets.rows.clone())? // [P,1]
            }
        };
        Ok(Pass { tape, out, scored, divergences: Vec::new(), pack })
    }

    /// Whether the model still has the weights that these values were computed from.
    pub fn current(&self) -> bool {
        self.version == self.model.version()
    }

    /// Adds to `grads` what the upstream gradients (row-major, by `Kind::plane`) come to, micro-batch by micro-batch in
    /// row order. May be called again.
    pub fn backward(&self, upstream: &[Option<Vec<f32>>], grads: &mut ParameterGrads) -> Result<()> {
        let given = |plane: usize| upstream.get(plane).and_then(Option::as_ref);
        let planes: Vec<Option<&Vec<f32>>> = (0..self.planes.len()).map(given).collect();
        let divergences = locked(&self.divergences);
        let reached: Vec<(usize, &Vec<f32>)> =
            (0..divergences.len()).filter_map(|i| Some((i, given(Kind::Divergence(i).plane())?))).collect();
        let passes = locked(&self.passes);
        for (range, pass) in self.micro.iter().zip(passes.iter()) {
            self.settings.check()?;
            let mut again;
            let (pass, outs) = match pass {
                Some(pass) => (pass, reached.iter().map(|&(i, _)| pass.divergences[i].clone()).collect()),
                None => match self.pack(range.clone())? {
                    Some(pack) => {
                        again = self.pass(Arc::new(pack), true)?;
                        let diverge = |&(i, _): &(usize, _)| self.diverge_pass(&mut again, &divergences[i].reference);
                        let outs: Vec<Var> = reached.iter().map(diverge).collect::<Result<_>>()?;
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
                from.push((&pass.out, Data::from_vec(upstream, pass.out.value.dims(), self.model.device())?));
            }
            for (out, (_, values)) in outs.iter().zip(&reached) {
                let upstream: Vec<f32> = cells().map(|cell| at(values, cell)).collect();
                from.push((out, Data::from_vec(upstream, out.value.dims(), self.model.device())?));
            }
            pass.tape.backward_from(from, grads)?;
        }
        Ok(())
    }
}

/// What a step of `model` over `rows` holds, by name, in bytes; a frozen model has no gradients, moments, activations.
///
/// # Errors
/// Rows that the model cannot take.
pub fn held(model: &Model, rows: &Rows, settings: &Settings) -> Result<[(&'static str, u64); 5]> {
    check_for(rows, model)?;
    let (config, adapter, measured) = (&model.config, model.adapter.as_ref(), measured(&model.config));
    let memory = if model.trainable() { Memory::training(config, adapter) } else { Memory::sampling(config, adapter) };
    let mut activations = 0;
    for range in micro_batches(rows, settings.token_budget, measured, settings.share_prefixes) {
        let Some(pack) = Pack::new(rows, range, measured, 1.0, settings.share_prefixes)? else { continue };
        let bytes = pack.ids.len() as u64 * memory.activations_per_token;
        // What does not fit is computed again, a micro-batch at a time.
        let fits = activations + bytes <= settings.keep_bytes;
        activations = if fits { activations + bytes } else { activations.max(bytes) };
    }
    let Memory { weights, packed, gradients, moments, .. } = memory;
    Ok([
        ("weights", weights),
        ("packed", packed),
        ("gradients", gradients),
        ("moments", moments),
        ("activations", activations),
    ])
}

fn measured(config: &Config) -> Measured {
    match config.head {
        Head::Lm | Head::Value => Measured::States,
        Head::Score => Measured::Last(config.unscored),
    }
}

/// Frees the activations of every pass of `model`: its weights have changed.
pub fn release(model: &Model) {
    for forward in live().iter().filter_map(Weak::upgrade).filter(|f| f.model.id() == model.id()) {
        locked(&forward.passes).clear();
    }
}

/// Rows that `model` can score.
pub(super) fn check_for(rows: &Rows, model: &Model) -> Result<()> {
    if let (Some(rows), Some(model_has)) = (rows.vocabulary(), model.vocabulary())
        && rows != model_has
    {
        return Err(Error::value(format!(
            "the rows hold token ids of another tokenizer than the model {}'s",
            model.name
        ))
        .hint(
            "a teacher, a judge or a reference needs the policy's vocabulary; or encode the texts anew with this model",
        ));
    }
    check_rows(rows, model.config.vocab_size, model.config.max_positions)
}

/// Rows that a model of this vocabulary and context can score.
pub(super) fn check_rows(rows: &Rows, vocabulary: usize, context: usize) -> Result<()> {
    for (i, row) in rows.iter().enumerate() {
        if row.prompt.is_empty() {
            return Err(Error::value(format!("row {i} has an empty prompt: its first token has nothing to follow"))
                .hint("start the prompt with a begin-of-text token or any text"));
        }
        if let Some(id) = row.prompt.iter().chain(&*row.completion).find(|&&id| id as usize >= vocabulary) {
            return Err(Error::value(format!(
                "row {i} holds token {id}, but the model's vocabulary has {vocabulary} tokens"
            ))
            .hint("encode the rows with this model's own tokenizer"));
        }
        let length = row.prompt.len() + row.completion.len();
        if length > context {
            return Err(Error::new(
                ErrorKind::Value,
                format!("row {i} has {length} tokens, but the model's context holds {context}"),
            )
            .hint("shorten the prompt or lower max_tokens"));
        }
    }
    Ok(())
}

/// The `[B,T]` gradient of a leaf as plain numbers.
pub fn upstream(grad: &Data) -> Result<Vec<f32>> {
    let grad = grad.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_device(&candle_core::Device::Cpu)?;
    Ok(host::read(&grad)?.to_vec())
}
