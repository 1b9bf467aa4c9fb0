//! The decoder: one definition of the forward pass for all families, for training, scoring and decoding.
//!
//! Owns the order of operations. How tokens see each other is the caller's: it passes the attention of a packed batch
//! or of a KV cache. Where weights are kept is `config::layout`'s.

use super::config::{Attention, Config, Head, Layout, Linear as Shape, Mlp, Norm, Position};
use super::{Adapter, Model, lora};
use crate::error::Result;
use crate::kernel::attention::Heads;
use crate::kernel::elementwise::{Columns, Gate, add, columns, gated, gather, gelu, scale};
use crate::kernel::layer_norm::layer_norm;
use crate::kernel::linear::{linear, linear_add};
use crate::kernel::logprob::LmHead;
use crate::kernel::rms_norm::{Rms, rms_norm};
use crate::kernel::rotary::{Angles, frequencies, rotary};
use crate::kernel::tape::{Tape, Var};
use candle_core::Tensor;
use std::sync::Arc;

/// A model's weights looked up once, ready to run.
pub struct Decoder<'m> {
    config: &'m Config,
    embedding: Weight,
    positions: Option<Weight>,
    /// Of the rotary embedding, `[rotary_dim/2]`; empty without one.
    frequencies: Vec<f32>,
    layers: Vec<Layer>,
    norm: Normal,
    head: Weight,
    head_bias: Option<Weight>,
}

struct Weight {
    tensor: Tensor,
    place: usize,
    trains: bool,
}

/// A norm's weight, and its bias where it is a LayerNorm.
struct Normal {
    weight: Weight,
    bias: Option<Weight>,
}

struct Linear {
    weight: Weight,
    bias: Option<Weight>,
    layout: Layout,
    lora: Option<Lora>,
}

/// s·B·A beside a weight.
struct Lora {
    a: Weight,
    b: Weight,
    scale: f32,
}

struct Layer {
    attention_norm: Normal,
    /// Query, key and value, or one for all three.
    qkv: Vec<Linear>,
    q_norm: Option<Weight>,
    k_norm: Option<Weight>,
    out: Linear,
    mlp_norm: Normal,
    /// Gate and up, or up alone.
    up: Vec<Linear>,
    down: Linear,
}

/// Attention of one layer: (tape, layer, q `[N,heads*dim]`, k and v `[N,kv_heads*dim]`, rotated) → `[N,heads*dim]`.
pub type Attend<'a> = dyn FnMut(&mut Tape, usize, [Var; 3]) -> Result<Var> + 'a;

impl<'m> Decoder<'m> {
    pub fn new(model: &'m Model) -> Result<Self> {
        let config = &model.config;
        let weight = |name: &str| Weight::of(model, &format!("{name}.weight"));
        let head = match config.head {
            Head::Lm if config.tied => config.names.embedding,
            Head::Lm => config.names.lm_head,
            Head::Score => config.names.score_head,
            Head::Value => config.names.value_head,
        };
        let head_bias = match config.head {
            Head::Value => Some(Weight::of(model, &format!("{head}.bias"))?),
            Head::Lm | Head::Score => None,
        };
        let (positions, frequencies) = match &config.position {
            Position::Rotary { dims, rope } => (None, frequencies(*dims, rope.theta, &rope.scaling)),
            Position::Learned => (config.names.positions.map(weight).transpose()?, Vec::new()),
        };
        Ok(Self {
            config,
            embedding: weight(config.names.embedding)?,
            positions,
            frequencies,
            layers: (0..config.layers).map(|i| Layer::of(model, i)).collect::<Result<_>>()?,
            norm: Normal::of(model, config.names.norm)?,
            head: weight(head)?,
            head_bias,
        })
    }

    /// How the heads of a layer attend.
    pub fn heads(&self, layer: usize) -> Heads {
        let c = self.config;
        Heads { window: c.windows[layer], ..Heads::new(c.heads, c.kv_heads, c.head_dim) }
    }

    /// Tokens `ids` at `positions`, both N → hidden states after the last norm `[N,H]`.
    pub fn hidden(&self, tape: &mut Tape, ids: Arc<[u32]>, positions: &[u32], attend: &mut Attend) -> Result<Var> {
        let angles = Angles::new(positions, &self.frequencies, 1.0);
        let mut x = gather(tape, &self.embedding.var(tape), ids)?;
        if let Some(table) = &self.positions {
            let learned = gather(tape, &table.var(tape), positions.into())?;
            x = add(tape, &x, &learned)?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.layer(tape, i, layer, &x, &angles, attend)?;
        }
        self.norm(tape, &x, &self.norm)
    }

    /// The language-model head.
    pub fn head(&self, tape: &Tape) -> LmHead {
        LmHead { weight: self.head.var(tape), softcap: None }
    }

    /// A value or score head on hidden states `[N,H]` → `[N,1]`.
    pub fn measure(&self, tape: &mut Tape, hidden: &Var) -> Result<Var> {
        let (weight, bias) = (self.head.var(tape), self.head_bias.as_ref().map(|b| b.var(tape)));
        linear(tape, hidden, &weight, bias.as_ref(), Layout::OutIn)
    }

    fn layer(
        &self,
        tape: &mut Tape,
        i: usize,
        l: &Layer,
        x: &Var,
        angles: &Angles,
        attend: &mut Attend,
    ) -> Result<Var> {
        let normed = self.norm(tape, x, &l.attention_norm)?;
        let [q, k, v] = self.qkv(tape, l, &normed)?;
        let (q, k) = (self.turn(tape, &q, &l.q_norm, angles)?, self.turn(tape, &k, &l.k_norm, angles)?);
        let mixed = attend(tape, i, [q, k, v])?;
        let attended = l.out.add_to(tape, &mixed, x)?;
        let normed = self.norm(tape, if self.config.parallel { x } else { &attended }, &l.mlp_norm)?;
        let up = l.up.iter().map(|up| up.apply(tape, &normed)).collect::<Result<Vec<_>>>()?;
        let inner = match self.config.mlp {
            Mlp::SwiGlu => gated(tape, &up[0], &up[1], Gate::Silu)?,
            Mlp::Gelu(kind) => gelu(tape, &up[0], kind)?,
        };
        l.down.add_to(tape, &inner, &attended)
    }

    /// Queries `[N,heads*dim]`, keys and values `[N,kv_heads*dim]`.
    fn qkv(&self, tape: &mut Tape, l: &Layer, x: &Var) -> Result<[Var; 3]> {
        let c = self.config;
        let (dim, queries, keys) = (c.head_dim, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let parts =
            match c.attention {
                Attention::Separate => {
                    return Ok([l.qkv[0].apply(tape, x)?, l.qkv[1].apply(tape, x)?, l.qkv[2].apply(tape, x)?]);
                }
                Attention::Fused => [(0, queries), (queries, keys), (queries + keys, keys)]
                    .map(|(start, width)| Columns { start, stride: width, width, count: 1 }),
                Attention::FusedByHead => {
                    [0, dim, 2 * dim].map(|start| Columns { start, stride: 3 * dim, width: dim, count: c.heads })
                }
            };
        let all = l.qkv[0].apply(tape, x)?;
        Ok([columns(tape, &all, parts[0])?, columns(tape, &all, parts[1])?, columns(tape, &all, parts[2])?])
    }

    /// Queries or keys normalised per head and rotated, where the family does so.
    fn turn(&self, tape: &mut Tape, x: &Var, norm: &Option<Weight>, angles: &Angles) -> Result<Var> {
        let normed = match norm {
            Some(weight) => &rms_norm(tape, x, &weight.var(tape), self.rms())?,
            None => x,
        };
        match self.config.position {
            Position::Rotary { .. } => rotary(tape, normed, angles, self.config.head_dim),
            Position::Learned => Ok(normed.clone()),
        }
    }

    fn norm(&self, tape: &mut Tape, x: &Var, norm: &Normal) -> Result<Var> {
        let weight = norm.weight.var(tape);
        match &norm.bias {
            Some(bias) => layer_norm(tape, x, &weight, &bias.var(tape), self.config.norm_eps),
            None => rms_norm(tape, x, &weight, self.rms()),
        }
    }

    fn rms(&self) -> Rms {
        Rms { eps: self.config.norm_eps, offset: 0.0 }
    }
}

impl Weight {
    fn of(model: &Model, name: &str) -> Result<Self> {
        let place = model.place(name)?;
        Ok(Self { tensor: model.parameter(name)?.detach(), place, trains: model.trains(place) })
    }

    fn var(&self, tape: &Tape) -> Var {
        tape.parameter(&self.tensor, self.place, self.trains)
    }
}

impl Normal {
    fn of(model: &Model, name: &str) -> Result<Self> {
        let biased = model.config.norm == Norm::Layer;
        let bias = biased.then(|| Weight::of(model, &format!("{name}.bias"))).transpose()?;
        Ok(Self { weight: Weight::of(model, &format!("{name}.weight"))?, bias })
    }
}

impl Linear {
    fn of(model: &Model, shape: &Shape) -> Result<Self> {
        let bias = shape.bias.then(|| Weight::of(model, &format!("{}.bias", shape.name))).transpose()?;
        let lora = |adapter: &Adapter| -> Result<Lora> {
            let [a, b] = lora::names(&shape.name);
            Ok(Lora { a: Weight::of(model, &a)?, b: Weight::of(model, &b)?, scale: adapter.scale() as f32 })
        };
        let adapter = model.adapter.as_ref().filter(|adapter| adapter.adapts(&shape.name));
        Ok(Self {
            weight: Weight::of(model, &format!("{}.weight", shape.name))?,
            bias,
            layout: shape.layout,
            lora: adapter.map(lora).transpose()?,
        })
    }

    fn apply(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = (self.weight.var(tape), self.bias.as_ref().map(|b| b.var(tape)));
        let y = linear(tape, x, &weight, bias.as_ref(), self.layout)?;
        self.adapt(tape, x, y)
    }

    /// As `apply`, added to `residual`.
    fn add_to(&self, tape: &mut Tape, x: &Var, residual: &Var) -> Result<Var> {
        let (weight, bias) = (self.weight.var(tape), self.bias.as_ref().map(|b| b.var(tape)));
        let y = linear_add(tape, x, &weight, bias.as_ref(), residual, self.layout)?;
        self.adapt(tape, x, y)
    }

    /// y + s·B·(A·x)
    fn adapt(&self, tape: &mut Tape, x: &Var, y: Var) -> Result<Var> {
        let Some(lora) = &self.lora else { return Ok(y) };
        let low = linear(tape, x, &lora.a.var(tape), None, Layout::OutIn)?; // [N,rank]
        let low = scale(tape, &low, lora.scale)?;
        linear_add(tape, &low, &lora.b.var(tape), None, &y, Layout::OutIn)
    }
}

impl Layer {
    fn of(model: &Model, i: usize) -> Result<Self> {
        let (config, names) = (&model.config, model.config.names);
        let head_norm = |part: &str| {
            let name = format!("{}.weight", config.in_layer(i, part));
            config.qk_norm.then(|| Weight::of(model, &name)).transpose()
        };
        let mut linears =
            config.linears(i).iter().map(|shape| Linear::of(model, shape)).collect::<Result<Vec<_>>>()?.into_iter();
        let mut take = |count: usize| -> Vec<Linear> { linears.by_ref().take(count).collect() };
        let (qkv, mut out) = (take(names.qkv.len()), take(1));
        let (up, mut down) = (take(names.mlp.len() - 1), take(1));
        Ok(Self {
            attention_norm: Normal::of(model, &config.in_layer(i, names.attention_norm))?,
            qkv,
            q_norm: head_norm(names.q_norm)?,
            k_norm: head_norm(names.k_norm)?,
            out: out.pop().expect("a layer has an output map"),
            mlp_norm: Normal::of(model, &config.in_layer(i, names.mlp_norm))?,
            up,
            down: down.pop().expect("an MLP has a way down"),
        })
    }
}
