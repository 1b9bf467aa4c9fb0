//! The decoder: one definition of the forward pass for training, scoring and decoding.
//!
//! Owns the order of operations and the names of weights. How tokens see each other is the caller's: it passes the
//! attention of a packed batch or of a KV cache.

use super::{Config, Model};
use crate::error::Result;
use crate::kernel::attention::Heads;
use crate::kernel::elementwise::{gather, swiglu};
use crate::kernel::linear::{Layout, linear, linear_add};
use crate::kernel::rms_norm::rms_norm;
use crate::kernel::rotary::{Angles, Scaling, frequencies, rotary};
use crate::kernel::tape::{Tape, Var};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A model's weights looked up once, ready to run.
pub struct Decoder<'m> {
    config: &'m Config,
    trainable: bool,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Weight,
    head: Weight,
}

struct Weight {
    tensor: Tensor,
    index: usize,
}

struct Linear {
    weight: Weight,
    bias: Option<Weight>,
}

struct Layer {
    attention_norm: Weight,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    mlp_norm: Weight,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Attention of one layer: (tape, layer, q `[N,heads*dim]`, k and v `[N,kv_heads*dim]`, rotated) → `[N,heads*dim]`.
pub type Attend<'a> = dyn FnMut(&mut Tape, usize, [Var; 3]) -> Result<Var> + 'a;

impl<'m> Decoder<'m> {
    pub fn new(model: &'m Model) -> Result<Self> {
        let config = &model.config;
        let index: BTreeMap<&str, usize> = model.parameters().enumerate().map(|(i, (name, _))| (name, i)).collect();
        let weight = |name: String| -> Result<Weight> {
            let tensor = model.parameter(&name)?.detach();
            Ok(Weight { tensor, index: index[name.as_str()] })
        };
        let linear = |name: String, biased: bool| -> Result<Linear> {
            let bias = biased.then(|| weight(format!("{name}.bias"))).transpose()?;
            Ok(Linear { weight: weight(format!("{name}.weight"))?, bias })
        };
        let layer = |i: usize| -> Result<Layer> {
            let at = format!("model.layers.{i}");
            Ok(Layer {
                attention_norm: weight(format!("{at}.input_layernorm.weight"))?,
                q: linear(format!("{at}.self_attn.q_proj"), config.qkv_bias)?,
                k: linear(format!("{at}.self_attn.k_proj"), config.qkv_bias)?,
                v: linear(format!("{at}.self_attn.v_proj"), config.qkv_bias)?,
                out: linear(format!("{at}.self_attn.o_proj"), config.out_bias)?,
                mlp_norm: weight(format!("{at}.post_attention_layernorm.weight"))?,
                gate: linear(format!("{at}.mlp.gate_proj"), config.mlp_bias)?,
                up: linear(format!("{at}.mlp.up_proj"), config.mlp_bias)?,
                down: linear(format!("{at}.mlp.down_proj"), config.mlp_bias)?,
            })
        };
        let embedding = "model.embed_tokens.weight";
        let head = if config.tied { embedding } else { "lm_head.weight" };
        Ok(Self {
            config,
            trainable: model.trainable(),
            embedding: weight(embedding.into())?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: weight("model.norm.weight".into())?,
            head: weight(head.into())?,
        })
    }

    pub fn heads(&self) -> Heads {
        Heads { query: self.config.heads, key: self.config.kv_heads, dim: self.config.head_dim, window: None }
    }

    /// Tokens `ids` at `positions`, both N → hidden states after the last norm `[N,H]`.
    pub fn hidden(&self, tape: &mut Tape, ids: Arc<[u32]>, positions: &[u32], attend: &mut Attend) -> Result<Var> {
        let angles =
            Angles::new(positions, &frequencies(self.config.rotary_dim, self.config.rope_theta, &Scaling::None));
        let mut x = gather(tape, &self.var(tape, &self.embedding), ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.layer(tape, i, layer, &x, &angles, attend)?;
        }
        rms_norm(tape, &x, &self.var(tape, &self.norm), self.config.norm_eps)
    }

    /// The output head's weight `[V,H]`.
    pub fn head(&self, tape: &Tape) -> Var {
        self.var(tape, &self.head)
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
        let (dim, eps) = (self.config.head_dim, self.config.norm_eps);
        let normed = rms_norm(tape, x, &self.var(tape, &layer.attention_norm), eps)?;
        let q = self.linear(tape, &normed, &layer.q)?;
        let k = self.linear(tape, &normed, &layer.k)?;
        let v = self.linear(tape, &normed, &layer.v)?;
        let (q, k) = (rotary(tape, &q, angles, dim)?, rotary(tape, &k, angles, dim)?);
        let mixed = attend(tape, i, [q, k, v])?;
        let x = self.linear_add(tape, &mixed, &layer.out, x)?;
        let normed = rms_norm(tape, &x, &self.var(tape, &layer.mlp_norm), eps)?;
        let gate = self.linear(tape, &normed, &layer.gate)?;
        let up = self.linear(tape, &normed, &layer.up)?;
        let hidden = swiglu(tape, &gate, &up)?;
        self.linear_add(tape, &hidden, &layer.down, &x)
    }

    fn linear(&self, tape: &mut Tape, x: &Var, l: &Linear) -> Result<Var> {
        let (weight, bias) = (self.var(tape, &l.weight), l.bias.as_ref().map(|b| self.var(tape, b)));
        linear(tape, x, &weight, bias.as_ref(), Layout::OutIn)
    }

    fn linear_add(&self, tape: &mut Tape, x: &Var, l: &Linear, residual: &Var) -> Result<Var> {
        let (weight, bias) = (self.var(tape, &l.weight), l.bias.as_ref().map(|b| self.var(tape, b)));
        linear_add(tape, x, &weight, bias.as_ref(), residual, Layout::OutIn)
    }

    fn var(&self, tape: &Tape, weight: &Weight) -> Var {
        tape.parameter(&weight.tensor, weight.index, self.trainable)
    }
}
