//! The decoder: one definition of the forward pass for all families and all kinds of weights, for training, scoring and
//! decoding.
//!
//! Owns the order of operations. What a block consists of is the trunk's to say, how a weight is kept and multiplied by
//! its `LinearMap`'s (`dense.rs`, `gguf`), and how tokens see each other the caller's: it passes the attention of a
//! packed batch or of a KV cache.

mod dense;

pub use dense::Dense;

use super::trunk::{Activation, Block, Linear, Norm, Part, Projection, Slot, Trunk};
use crate::error::Result;
use crate::kernel::attention::Heads;
use crate::kernel::elementwise::{Columns, add, columns, gated, gelu, scale};
use crate::kernel::layer_norm::layer_norm;
use crate::kernel::rms_norm::rms_norm;
use crate::kernel::rotary::{Angles, frequencies, rotary};
use crate::kernel::softcap::softcap;
use crate::kernel::tape::{Tape, Var};
use crate::kernel::value::Value;
use candle_core::Tensor;
use std::sync::Arc;

/// A matrix that rows are multiplied by, however it is kept.
pub trait LinearMap {
    /// x `[N,in]` → `[N,out]`.
    fn apply(&self, tape: &mut Tape, x: &Var) -> Result<Var>;

    /// As `apply`, in f32 on a device too.
    fn apply_f32(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        self.apply(tape, x)
    }

    /// As `apply`, added to `residual` `[N,out]`.
    fn add_to(&self, tape: &mut Tape, x: &Var, residual: &Var) -> Result<Var> {
        let y = self.apply(tape, x)?;
        add(tape, residual, &y)
    }

    /// Rows `ids` of the weight: embeddings `[N,H]`.
    fn rows(&self, tape: &mut Tape, ids: Arc<[u32]>) -> Result<Var>;
}

/// Where a decoder's weights come from.
pub trait Source {
    type Map: LinearMap;

    fn linear(&mut self, linear: &Linear) -> Result<Self::Map>;
    /// The matrix `name` `[rows,width]`, of which rows are looked up.
    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<Self::Map>;
    fn norm(&mut self, name: &str, width: usize, biased: bool) -> Result<NormWeights>;
    /// What stands on the hidden states; `embedding` where the two are tied.
    fn head(&mut self, trunk: &Trunk, embedding: &Self::Map) -> Result<Self::Map>;
    /// The value head beside a language model's, where there is one.
    fn beside(&mut self, _: &Trunk) -> Result<Option<Self::Map>> {
        Ok(None)
    }
}

/// Numbers that an operation reads as they are.
pub struct Weight {
    value: Value,
    /// The place among a model's parameters, and whether it is trained; none for a constant.
    parameter: Option<(usize, bool)>,
}

impl Weight {
    /// One that belongs to no trainable model.
    pub fn constant(tensor: Tensor) -> Self {
        Self { value: tensor.into(), parameter: None }
    }

    fn var(&self, tape: &Tape) -> Var {
        match self.parameter {
            Some((place, trains)) => tape.parameter(&self.value, place, trains),
            None => tape.constant(self.value.clone()),
        }
    }
}

/// A norm's weight, and its bias where it is a LayerNorm.
pub struct NormWeights {
    pub weight: Weight,
    pub bias: Option<Weight>,
}

/// A model's weights looked up once, ready to run.
pub struct Decoder<M = Dense> {
    trunk: Arc<Trunk>,
    embedding: M,
    positions: Option<M>,
    /// Of each rotation, `[dims/2]`.
    frequencies: Vec<Vec<f32>>,
    layers: Vec<Layer<M>>,
    norm: NormWeights,
    head: M,
    beside: Option<M>,
}

struct Layer<M> {
    attention_norm: Option<NormWeights>,
    /// Query, key and value, or one for all three.
    qkv: Vec<M>,
    q_norm: Option<NormWeights>,
    k_norm: Option<NormWeights>,
    out: M,
    attention_out_norm: Option<NormWeights>,
    mlp_norm: Option<NormWeights>,
    /// Gate and up, both in one, or up alone.
    up: Vec<M>,
    down: M,
    mlp_out_norm: Option<NormWeights>,
}

/// Attention of one layer: (tape, layer, q `[N,heads*dim]`, k and v `[N,kv_heads*dim]`, rotated) → `[N,heads*dim]`.
pub type Attend<'a> = dyn FnMut(&mut Tape, usize, [Var; 3]) -> Result<Var> + 'a;

impl<M: LinearMap> Decoder<M> {
    /// # Errors
    /// Weights that the source does not have.
    pub fn build(trunk: Arc<Trunk>, source: &mut impl Source<Map = M>) -> Result<Self> {
        let (names, hidden) = (trunk.names, trunk.hidden_size);
        let embedding = source.table(names.embedding, trunk.vocab_size, hidden)?;
        let positions = match trunk.learned_positions {
            true => Some(source.table(names.positions, trunk.max_positions, hidden)?),
            false => None,
        };
        let (head, beside) = (source.head(&trunk, &embedding)?, source.beside(&trunk)?);
        let layers = (0..trunk.blocks.len()).map(|i| Layer::build(&trunk, i, source)).collect::<Result<_>>()?;
        let norm = source.norm(names.norm, hidden, trunk.norm.biased())?;
        let frequencies = trunk.rotations.iter().map(|r| frequencies(r.dims, r.theta, &r.scaling)).collect();
        Ok(Self { trunk, embedding, positions, frequencies, layers, norm, head, beside })
    }

    pub fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    /// How the heads of a layer attend.
    pub fn heads(&self, layer: usize) -> Heads {
        self.trunk.blocks[layer].heads
    }

    /// Tokens `ids` at `positions`, both N → hidden states ready for the head `[N,H]`.
    pub fn hidden(&self, tape: &mut Tape, ids: Arc<[u32]>, positions: &[u32], attend: &mut Attend) -> Result<Var> {
        let trunk = &self.trunk;
        let rotations = self.frequencies.iter().zip(&trunk.rotations);
        let angles: Vec<Angles> =
            rotations.map(|(f, rotation)| Angles::new(positions, f, rotation.scaling.magnitude())).collect();
        let x = self.embedding.rows(tape, ids)?;
        let mut x = scaled(tape, x, trunk.embedding_scale)?;
        if let Some(table) = &self.positions {
            let learned = table.rows(tape, positions.into())?;
            x = add(tape, &x, &learned)?;
        }
        for i in 0..self.layers.len() {
            x = self.layer(tape, i, &x, &angles, attend)?;
        }
        let x = self.norm(tape, &x, Some(&self.norm))?;
        scaled(tape, x, trunk.logit_scale)
    }

    /// Hidden states `[N,H]` → logits `[N,V]`.
    pub fn logits(&self, tape: &mut Tape, hidden: &Var) -> Result<Var> {
        let logits = self.head.apply_f32(tape, hidden)?;
        match self.trunk.logit_softcap {
            Some(by) => softcap(tape, &logits, by),
            None => Ok(logits),
        }
    }

    /// A value or score head on hidden states `[N,H]` → `[N,1]`.
    pub fn measure(&self, tape: &mut Tape, hidden: &Var) -> Result<Var> {
        self.beside.as_ref().unwrap_or(&self.head).apply_f32(tape, hidden)
    }

    fn layer(&self, tape: &mut Tape, i: usize, x: &Var, angles: &[Angles], attend: &mut Attend) -> Result<Var> {
        let (block, l) = (&self.trunk.blocks[i], &self.layers[i]);
        let normed = self.norm(tape, x, l.attention_norm.as_ref())?;
        let [q, k, v] = qkv(tape, block, &l.qkv, &normed)?;
        let angles = block.rotation.map(|rotation| &angles[rotation]);
        let q = self.turn(tape, &q, l.q_norm.as_ref(), angles, block.heads.dim)?;
        let k = self.turn(tape, &k, l.k_norm.as_ref(), angles, block.heads.dim)?;
        let mixed = attend(tape, i, [q, k, v])?;
        let attended = self.join(tape, i, (&l.out, l.attention_out_norm.as_ref()), &mixed, x)?;
        let normed = self.norm(tape, if block.parallel { x } else { &attended }, l.mlp_norm.as_ref())?;
        let inner = inner(tape, block, &l.up, &normed)?;
        self.join(tape, i, (&l.down, l.mlp_out_norm.as_ref()), &inner, &attended)
    }

    /// residual + scale·norm(map(x)), with the norm and the scale that the block has.
    fn join(
        &self,
        tape: &mut Tape,
        layer: usize,
        (map, norm): (&M, Option<&NormWeights>),
        x: &Var,
        residual: &Var,
    ) -> Result<Var> {
        let by = self.trunk.blocks[layer].residual_scale;
        if norm.is_none() && by == 1.0 {
            return map.add_to(tape, x, residual);
        }
        let y = map.apply(tape, x)?;
        let y = self.norm(tape, &y, norm)?;
        let y = scaled(tape, y, by)?;
        add(tape, residual, &y)
    }

    /// Queries or keys normalised and rotated, where the block does so.
    fn turn(
        &self,
        tape: &mut Tape,
        x: &Var,
        norm: Option<&NormWeights>,
        angles: Option<&Angles>,
        head_dim: usize,
    ) -> Result<Var> {
        let normed = self.norm(tape, x, norm)?;
        match angles {
            Some(angles) => rotary(tape, &normed, angles, head_dim),
            None => Ok(normed),
        }
    }

    /// x itself where there is no norm.
    fn norm(&self, tape: &mut Tape, x: &Var, norm: Option<&NormWeights>) -> Result<Var> {
        let Some(norm) = norm else { return Ok(x.clone()) };
        let weight = norm.weight.var(tape);
        match self.trunk.norm {
            Norm::Layer { eps } => {
                let bias = norm.bias.as_ref().expect("a LayerNorm has a bias").var(tape);
                layer_norm(tape, x, &weight, &bias, eps)
            }
            Norm::Rms(rms) => rms_norm(tape, x, &weight, rms),
        }
    }
}

fn scaled(tape: &mut Tape, x: Var, by: f32) -> Result<Var> {
    if by == 1.0 { Ok(x) } else { scale(tape, &x, by) }
}

/// Queries `[N,heads*dim]`, keys and values `[N,kv_heads*dim]`.
fn qkv<M: LinearMap>(tape: &mut Tape, block: &Block, maps: &[M], x: &Var) -> Result<[Var; 3]> {
    let (dim, (queries, keys)) = (block.heads.dim, block.widths());
    let parts =
        match block.projection {
            Projection::Separate => {
                return Ok([maps[0].apply(tape, x)?, maps[1].apply(tape, x)?, maps[2].apply(tape, x)?]);
            }
            Projection::Joint => [(0, queries), (queries, keys), (queries + keys, keys)]
                .map(|(start, width)| Columns { start, stride: width, width, count: 1 }),
            Projection::JointByHead => {
                [0, dim, 2 * dim].map(|start| Columns { start, stride: 3 * dim, width: dim, count: block.heads.query })
            }
        };
    let all = maps[0].apply(tape, x)?;
    Ok([columns(tape, &all, parts[0])?, columns(tape, &all, parts[1])?, columns(tape, &all, parts[2])?])
}

/// What the MLP's way down reads, `[N,I]`.
fn inner<M: LinearMap>(tape: &mut Tape, block: &Block, maps: &[M], x: &Var) -> Result<Var> {
    let (width, mut up) = (block.mlp.width, Vec::with_capacity(2));
    for map in maps {
        up.push(map.apply(tape, x)?);
    }
    if block.mlp.joint {
        let part = |start| Columns { start, stride: width, width, count: 1 };
        up = vec![columns(tape, &up[0], part(0))?, columns(tape, &up[0], part(width))?];
    }
    match block.mlp.activation {
        Activation::Gated(f) => gated(tape, &up[0], &up[1], f),
        Activation::Gelu(form) => gelu(tape, &up[0], form),
    }
}

impl<M: LinearMap> Layer<M> {
    fn build(trunk: &Trunk, i: usize, source: &mut impl Source<Map = M>) -> Result<Self> {
        let (mut norms, mut maps) = (Vec::new(), Vec::new());
        for (slot, part) in trunk.blocks[i].parts(trunk.hidden_size) {
            if let Part::Norm { width } = part {
                norms.push((slot, source.norm(&trunk.names.in_layer(i, slot), width, trunk.norm.biased())?));
            }
        }
        for linear in trunk.linears(i) {
            maps.push((linear.slot, source.linear(&linear)?));
        }
        let mut norm = |slot| take(&mut norms, slot);
        Ok(Self {
            attention_norm: norm(Slot::AttentionNorm),
            q_norm: norm(Slot::QueryNorm),
            k_norm: norm(Slot::KeyNorm),
            attention_out_norm: norm(Slot::AttentionOutNorm),
            mlp_norm: norm(Slot::MlpNorm),
            mlp_out_norm: norm(Slot::MlpOutNorm),
            out: take(&mut maps, Slot::Out).expect("every block has an output map"),
            down: take(&mut maps, Slot::Down).expect("every MLP has a way down"),
            up: [Slot::Gate, Slot::Up, Slot::GateUp].into_iter().filter_map(|slot| take(&mut maps, slot)).collect(),
            // What is left is query, key and value, in order of use.
            qkv: maps.into_iter().map(|(_, map)| map).collect(),
        })
    }
}

/// The one in `slot`, taken out of the list.
fn take<T>(list: &mut Vec<(Slot, T)>, slot: Slot) -> Option<T> {
    let at = list.iter().position(|(found, _)| *found == slot)?;
    Some(list.remove(at).1)
}
