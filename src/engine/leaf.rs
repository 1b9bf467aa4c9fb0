//! Deferred log-probs: `[B,T]` values computed now, whose backward pass runs when a loss asks for it.
//!
//! A `Forward` is one model at one version on some rows at one temperature; its leaves (log-prob, entropy) share one
//! forward and one backward pass. Owns micro-batches and the memory of activations; `update` walks them back.

use super::pack::{Pack, micro_batches};
use super::settings::Settings;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::kernel::attention::attention;
use crate::kernel::elementwise::gather;
use crate::kernel::host;
use crate::kernel::logprob::linear_logprob;
use crate::kernel::tape::{ParameterGrads, Tape, Var};
use crate::model::Model;
use crate::model::decoder::Decoder;
use crate::model::rows::Rows;
use crate::tensor::Tensor;
use candle_core::Tensor as Data;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// What a leaf measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Logprob,
    Entropy,
}

/// One leaf of a script's graph; the origin that `tape::Gradients::sources` hands back.
pub struct Leaf {
    pub forward: Arc<Forward>,
    pub kind: Kind,
    /// The place in the script that asked for it, for errors: `grpo.rhai:57`.
    pub site: String,
}

/// One forward pass over some rows, in micro-batches.
pub struct Forward {
    pub model: Arc<Model>,
    version: u64,
    rows: Arc<Rows>,
    temperature: f64,
    settings: Settings,
    micro: Vec<Range<usize>>,
    /// `[B,T]` each, row-major.
    logprob: Vec<f32>,
    entropy: Vec<f32>,
    /// Micro-batches whose activations are held, by index; others are recomputed.
    passes: Mutex<Vec<Option<Pass>>>,
}

struct Pass {
    tape: Tape,
    out: Var,
    pack: Arc<Pack>,
}

/// Forward passes that some tensor still refers to.
static LIVE: Mutex<Vec<Weak<Forward>>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<Weak<Forward>>> {
    LIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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

fn measure(
    model: &Arc<Model>,
    rows: &Arc<Rows>,
    temperature: f64,
    settings: &Settings,
    kind: Kind,
    site: &str,
) -> Result<Tensor> {
    let forward = Forward::of(model, rows, temperature, settings)?;
    let values = if kind == Kind::Logprob { &forward.logprob } else { &forward.entropy };
    let values = Data::from_slice(values, (rows.len(), rows.width()), model.device())?;
    let tensor = if model.trainable() {
        Tensor::source(values, Arc::new(Leaf { forward, kind, site: site.into() }))
    } else {
        Tensor::new(values)
    };
    Ok(tensor.with_tokens(rows.width() > 1))
}

impl Forward {
    /// The pass that is still there for the same model, version, rows and temperature, or a new one.
    fn of(model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64, settings: &Settings) -> Result<Arc<Self>> {
        let same = |f: &Arc<Forward>| {
            f.model.id() == model.id() && f.current() && f.rows.id() == rows.id() && f.temperature == temperature
        };
        if let Some(found) = live().iter().filter_map(Weak::upgrade).find(same) {
            return Ok(found);
        }
        check_rows(model, rows)?;
        let forward = Arc::new(Self::run(model, rows, temperature, settings)?);
        let mut live = live();
        live.retain(|f| f.strong_count() > 0);
        live.push(Arc::downgrade(&forward));
        Ok(forward)
    }

    fn run(model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64, settings: &Settings) -> Result<Self> {
        let micro = micro_batches(rows, settings.token_budget, settings.share_prefixes);
        let cells = rows.len() * rows.width();
        let mut forward = Self {
            model: model.clone(),
            version: model.version(),
            rows: rows.clone(),
            temperature,
            settings: settings.clone(),
            logprob: vec![0.0; cells],
            entropy: vec![0.0; cells],
            passes: Mutex::default(),
            micro,
        };
        let (mut held, mut passes) = (0, Vec::new());
        for range in forward.micro.clone() {
            settings.check()?;
            let Some(pack) = forward.pack(range)? else {
                passes.push(None);
                continue;
            };
            let bytes = pack.ids.len() as u64 * bytes_per_token(model);
            let keep = model.trainable() && held + bytes <= settings.keep_bytes;
            let pass = forward.pass(Arc::new(pack), keep)?;
            let out = pass.out.value.to_dtype(candle_core::DType::F32)?.to_vec2::<f32>()?;
            for ((row, t), pair) in pass.pack.cells.iter().zip(out) {
                forward.logprob[row * rows.width() + t] = pair[0];
                forward.entropy[row * rows.width() + t] = pair[1];
            }
            held += if keep { bytes } else { 0 };
            passes.push(keep.then_some(pass));
        }
        forward.passes = Mutex::new(passes);
        Ok(forward)
    }

    fn pack(&self, range: Range<usize>) -> Result<Option<Pack>> {
        Pack::new(&self.rows, range, self.temperature, self.settings.share_prefixes)
    }

    fn pass(&self, pack: Arc<Pack>, recording: bool) -> Result<Pass> {
        let decoder = Decoder::new(&self.model)?;
        let mut tape = self.settings.tape(self.model.packs(), recording);
        let heads = decoder.heads();
        let attend =
            &mut |tape: &mut Tape, _: usize, [q, k, v]: [Var; 3]| attention(tape, &q, &k, &v, &pack.segments, heads);
        let hidden = decoder.hidden(&mut tape, pack.ids.clone(), &pack.positions, attend)?;
        let scored = gather(&mut tape, &hidden, pack.scored.clone())?;
        let head = decoder.head(&tape);
        let out = linear_logprob(&mut tape, &scored, &head, &pack.targets)?;
        Ok(Pass { tape, out, pack })
    }

    /// Whether the model still has the weights that these values were computed from.
    pub fn current(&self) -> bool {
        self.version == self.model.version()
    }

    /// Adds to `grads` what the upstream gradients of the leaves (`[B,T]`, row-major) come to, micro-batch by
    /// micro-batch in row order. May be called again.
    pub fn backward(&self, logprob: Option<&[f32]>, entropy: Option<&[f32]>, grads: &mut ParameterGrads) -> Result<()> {
        let width = self.rows.width();
        let passes = self.passes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (range, pass) in self.micro.iter().zip(passes.iter()) {
            self.settings.check()?;
            let again;
            let pass = match pass {
                Some(pass) => pass,
                None => match self.pack(range.clone())? {
                    Some(pack) => {
                        again = self.pass(Arc::new(pack), true)?;
                        &again
                    }
                    None => continue,
                },
            };
            let at = |values: Option<&[f32]>, (row, t): (usize, usize)| values.map_or(0.0, |v| v[row * width + t]);
            let upstream: Vec<f32> = pass.pack.cells.iter().flat_map(|&c| [at(logprob, c), at(entropy, c)]).collect();
            let upstream = Data::from_vec(upstream, pass.out.value.dims(), self.model.device())?;
            pass.tape.backward(&pass.out, upstream, grads)?;
        }
        Ok(())
    }
}

/// Frees the activations of every pass of `model`: its weights have changed.
pub fn release(model: &Model) {
    for forward in live().iter().filter_map(Weak::upgrade).filter(|f| f.model.id() == model.id()) {
        forward.passes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }
}

/// About what a recorded forward pass holds per packed token.
fn bytes_per_token(model: &Model) -> u64 {
    let c = &model.config;
    let (query, key) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let layer = 5 * c.hidden_size + 3 * query + 4 * key + 3 * c.intermediate_size;
    4 * (c.layers * layer + 3 * c.hidden_size) as u64
}

fn check_rows(model: &Model, rows: &Rows) -> Result<()> {
    let vocabulary = model.config.vocab_size as u32;
    for (i, row) in rows.iter().enumerate() {
        if row.prompt.is_empty() {
            return Err(Error::value(format!("row {i} has an empty prompt: its first token has nothing to follow"))
                .hint("start the prompt with a begin-of-text token or any text"));
        }
        if let Some(id) = row.prompt.iter().chain(&*row.completion).find(|&&id| id >= vocabulary) {
            return Err(Error::value(format!(
                "row {i} holds token {id}, but the model's vocabulary has {vocabulary} tokens"
            ))
            .hint("encode the rows with this model's own tokenizer"));
        }
        let (length, most) = (row.prompt.len() + row.completion.len(), model.config.max_positions);
        if length > most {
            return Err(Error::new(
                ErrorKind::Value,
                format!("row {i} has {length} tokens, but the model's context holds {most}"),
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
