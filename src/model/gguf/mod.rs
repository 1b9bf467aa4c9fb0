//! Frozen models from GGUF files: a decoder whose weights stay quantised, for judges and simulated users.
//!
//! Owns the forward pass over quantised weights, in the operations of `kernel/` and candle's quantised products. It is
//! never differentiated. Rows and the KV cache are `engine`'s, as for the trainable decoder.

mod facts;
mod file;
mod tokens;
mod walk;

pub use facts::{Architecture, Facts};

use super::decoder::Attend;
use super::{Head, ModelInfo};
use crate::error::Result;
use crate::kernel::elementwise::{Gate, add, gated};
use crate::kernel::rms_norm::{Rms, rms_norm};
use crate::kernel::rotary::{Angles, frequencies, rotary};
use crate::kernel::tape::{Tape, Var};
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use file::File;
use std::path::Path;
use std::sync::Arc;

/// A model that only answers and scores.
pub struct Frozen {
    /// What is known of it without its weights; the model is read as this.
    pub info: ModelInfo,
    pub facts: Facts,
    /// Radians per position, `[dim/2]`.
    frequencies: Vec<f32>,
    embedding: Arc<QTensor>,
    layers: Vec<Layer>,
    norm: Tensor,
    head: QMatMul,
}

impl std::ops::Deref for Frozen {
    type Target = ModelInfo;
    fn deref(&self) -> &ModelInfo {
        &self.info
    }
}

struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

struct Layer {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    /// Over each head's query and key, `[dim]` each.
    head_norms: Option<[Tensor; 2]>,
    mlp_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Frozen {
    /// Opens a GGUF file, or the only one of a folder. `tokenizer` is a `tokenizer.json` or its folder; without it the
    /// one beside the file is taken, else the one in the file's metadata.
    ///
    /// # Errors
    /// A file that is no GGUF file, is cut short, or holds an architecture, a feature or a format that is not supported;
    /// a missing key or tensor, a wrong shape; a tokenizer that cannot be made, or that belongs to another model.
    pub fn open(path: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Self> {
        let mut file = File::open(path)?;
        let facts = Facts::read(&file)?;
        let (tokenizer, eos) = tokens::read(&file, tokenizer, facts.vocabulary)?;
        let info = ModelInfo {
            name: path.display().to_string(),
            architecture: facts.family.clone(),
            head: Head::Lm,
            tokenizer: Some(Arc::new(tokenizer)),
            chat: tokens::chat(&file)?.map(Arc::new),
            eos,
            context: facts.context,
            vocab_size: facts.vocabulary,
            size: file.parameters(),
            trained: 0,
            rank: None,
            format: Some(format!("{:?}", file.format())),
            notes: Vec::new(),
            device: device.clone(),
        };
        let width = facts.width;
        let embedding = Arc::new(file.tensor("token_embd.weight", &[facts.vocabulary, width], None, device)?);
        let head = match file.has("output.weight") {
            true => Arc::new(file.tensor("output.weight", &[facts.vocabulary, width], None, device)?),
            false => embedding.clone(), // tied
        };
        let mut layers = Vec::new();
        for i in 0..facts.layers {
            layers.push(Layer::read(&mut file, i, &facts, device)?);
        }
        let norm = file.plain("output_norm.weight", &[width], None, device)?;
        let mut frequencies = frequencies(facts.heads.dim, facts.theta, &facts.scaling);
        if file.has("rope_freqs.weight") {
            let factors =
                file.plain("rope_freqs.weight", &[frequencies.len()], None, &Device::Cpu)?.to_vec1::<f32>()?;
            frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
        }
        file.finish()?;
        Ok(Self { info, frequencies, embedding, layers, norm, head: QMatMul::from_arc(head)?, facts })
    }

    /// Tokens `ids` at `positions`, both N → hidden states after the last norm `[N,H]`. `attend` as for
    /// [`super::decoder::Decoder::hidden`].
    pub fn hidden(&self, tape: &mut Tape, ids: &[u32], positions: &[u32], attend: &mut Attend) -> Result<Var> {
        let angles = Angles::new(positions, &self.frequencies, 1.0);
        let mut x = tape.constant(self.embedding.embedding(&Tensor::new(ids, &self.info.device)?)?);
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.layer(tape, i, layer, &x, &angles, attend)?;
        }
        rms_norm(tape, &x, &tape.constant(self.norm.clone()), Rms { eps: self.facts.eps, offset: 0.0 })
    }

    /// Hidden states `[N,H]` → logits `[N,V]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.head.forward(hidden)?)
    }

    fn layer(
        &self,
        tape: &mut Tape,
        i: usize,
        layer: &Layer,
        x: &Var,
        angles: &Angles,
        attend: &mut Attend,
    ) -> Result<Var> {
        let (dim, rms) = (self.facts.heads.dim, Rms { eps: self.facts.eps, offset: 0.0 });
        let norm = |tape: &mut Tape, x: &Var, w: &Tensor| rms_norm(tape, x, &tape.constant(w.clone()), rms);
        let normed = norm(tape, x, &layer.attention_norm)?;
        let (mut q, mut k) = (layer.q.on(tape, &normed)?, layer.k.on(tape, &normed)?);
        let v = layer.v.on(tape, &normed)?;
        if let Some([query, key]) = &layer.head_norms {
            (q, k) = (norm(tape, &q, query)?, norm(tape, &k, key)?);
        }
        let (q, k) = (rotary(tape, &q, angles, dim)?, rotary(tape, &k, angles, dim)?);
        let mixed = attend(tape, i, [q, k, v])?;
        let mixed = layer.out.on(tape, &mixed)?;
        let x = add(tape, x, &mixed)?;
        let normed = norm(tape, &x, &layer.mlp_norm)?;
        let (gate, up) = (layer.gate.on(tape, &normed)?, layer.up.on(tape, &normed)?);
        let inner = gated(tape, &gate, &up, Gate::Silu)?;
        let inner = layer.down.on(tape, &inner)?;
        add(tape, &x, &inner)
    }
}

impl Linear {
    /// With a bias where the file has one, or where there must be one.
    fn read(
        file: &mut File,
        name: &str,
        dims: [usize; 2],
        biased: bool,
        order: Order,
        device: &Device,
    ) -> Result<Self> {
        let weight = file.tensor(&format!("{name}.weight"), &dims, order, device)?;
        let bias = format!("{name}.bias");
        let biased = biased || file.has(&bias);
        let bias = biased.then(|| file.plain(&bias, &dims[..1], order, device)).transpose()?;
        Ok(Self { weight: QMatMul::from_qtensor(weight)?, bias })
    }

    fn on(&self, tape: &Tape, x: &Var) -> Result<Var> {
        let y = self.weight.forward(&x.value)?;
        Ok(tape.constant(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        }))
    }
}

/// Where each row of a matrix stands in the file, if not in its place.
type Order<'a> = Option<&'a dyn Fn(usize) -> usize>;

impl Layer {
    fn read(file: &mut File, i: usize, facts: &Facts, device: &Device) -> Result<Self> {
        let (width, inner, heads) = (facts.width, facts.inner, facts.heads);
        let (query, key) = (heads.query * heads.dim, heads.key * heads.dim);
        let at = |name: &str| format!("blk.{i}.{name}");
        let half = heads.dim / 2;
        // Pair j of a head is at rows 2j and 2j+1 of the file; here its parts are half a head apart.
        let interleaved = |row: usize| {
            let (head, place) = (row / heads.dim * heads.dim, row % heads.dim);
            head + 2 * (place % half) + place / half
        };
        let turned: Order = if facts.architecture == Architecture::Llama { Some(&interleaved) } else { None };
        let head_norms = match facts.architecture {
            Architecture::Qwen3 => Some([
                file.plain(&at("attn_q_norm.weight"), &[heads.dim], None, device)?,
                file.plain(&at("attn_k_norm.weight"), &[heads.dim], None, device)?,
            ]),
            _ => None,
        };
        let biased = facts.architecture == Architecture::Qwen2;
        let mut linear = |name: &str, dims: [usize; 2], biased: bool, order: Order| {
            Linear::read(file, &at(name), dims, biased, order, device)
        };
        Ok(Self {
            q: linear("attn_q", [query, width], biased, turned)?,
            k: linear("attn_k", [key, width], biased, turned)?,
            v: linear("attn_v", [key, width], biased, None)?,
            out: linear("attn_output", [width, query], false, None)?,
            gate: linear("ffn_gate", [inner, width], false, None)?,
            up: linear("ffn_up", [inner, width], false, None)?,
            down: linear("ffn_down", [width, inner], false, None)?,
            head_norms,
            attention_norm: file.plain(&at("attn_norm.weight"), &[width], None, device)?,
            mlp_norm: file.plain(&at("ffn_norm.weight"), &[width], None, device)?,
        })
    }
}
