//! A decoder block as a value: which norms stand where, how queries, keys and values are stored, how tokens are told
//! apart, which MLP follows, how both join the residual stream.
//!
//! Owns what a block consists of, as a list of parts; names are `names.rs`', numbers and order of operations the
//! decoder's.

use crate::kernel::attention::Heads;
use crate::kernel::elementwise::{Gate, Gelu};
pub use crate::kernel::linear::Layout;

/// One block. Blocks of a model may differ in how far they see and in how they tell positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    pub heads: Heads,
    pub projection: Projection,
    pub qk_norm: QkNorm,
    /// Which of the trunk's rotations turns queries and keys; none where the block knows no positions.
    pub rotation: Option<usize>,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp: Mlp,
    pub norms: Norms,
    /// Attention and MLP both read the block's input; otherwise the MLP reads what attention left.
    pub parallel: bool,
    /// What both are multiplied by before they are added to the residual stream.
    pub residual_scale: f32,
}

/// How query, key and value weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    Separate,
    /// One weight: all queries, then all keys, then all values.
    Joint,
    /// One weight: query, key and value of the first head, then of the second, …
    JointByHead,
}

/// Norms of queries and keys before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Of every head on its own.
    PerHead,
    /// Of all heads together.
    Whole,
}

/// Where the norms of attention and MLP stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// On what attention and MLP read.
    Before,
    /// On what they give, before it joins the residual stream.
    After,
    /// Both.
    Sandwich,
}

impl Norms {
    pub fn before(self) -> bool {
        self != Self::After
    }

    pub fn after(self) -> bool {
        self != Self::Before
    }
}

/// The MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mlp {
    /// Numbers between the way up and the way down.
    pub width: usize,
    pub activation: Activation,
    /// Gate and up are one weight: the gate's rows, then the others.
    pub joint: bool,
    pub bias: bool,
}

/// What an MLP does between its maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// f(gate) · up
    Gated(Gate),
    Gelu(Gelu),
}

impl Mlp {
    pub fn gated(&self) -> bool {
        matches!(self.activation, Activation::Gated(_))
    }
}

/// The place of a weight in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    AttentionNorm,
    Query,
    Key,
    Value,
    /// Query, key and value in one.
    QueryKeyValue,
    QueryNorm,
    KeyNorm,
    Out,
    /// Of what attention gives.
    AttentionOutNorm,
    MlpNorm,
    Gate,
    Up,
    /// Gate and up in one.
    GateUp,
    Down,
    /// Of what the MLP gives.
    MlpOutNorm,
}

/// A weight of a block, perhaps with a bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    /// Over so many numbers.
    Norm {
        width: usize,
    },
    Linear {
        outputs: usize,
        inputs: usize,
        bias: bool,
    },
}

impl Block {
    /// Numbers in all queries of a token, and in all its keys.
    pub fn widths(&self) -> (usize, usize) {
        (self.heads.query * self.heads.dim, self.heads.key * self.heads.dim)
    }

    /// Everything that it has weights for, in order of use; `hidden` is the width of the residual stream.
    pub fn parts(&self, hidden: usize) -> Vec<(Slot, Part)> {
        let ((queries, keys), inner) = (self.widths(), self.mlp.width);
        let norm = |slot, width| (slot, Part::Norm { width });
        let linear = |slot, outputs, inputs, bias| (slot, Part::Linear { outputs, inputs, bias });
        let mut parts = Vec::new();
        if self.norms.before() {
            parts.push(norm(Slot::AttentionNorm, hidden));
        }
        match self.projection {
            Projection::Separate => {
                for (slot, outputs) in [(Slot::Query, queries), (Slot::Key, keys), (Slot::Value, keys)] {
                    parts.push(linear(slot, outputs, hidden, self.qkv_bias));
                }
            }
            Projection::Joint | Projection::JointByHead => {
                parts.push(linear(Slot::QueryKeyValue, queries + 2 * keys, hidden, self.qkv_bias));
            }
        }
        let normed = match self.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some((self.heads.dim, self.heads.dim)),
            QkNorm::Whole => Some((queries, keys)),
        };
        if let Some((query, key)) = normed {
            parts.extend([norm(Slot::QueryNorm, query), norm(Slot::KeyNorm, key)]);
        }
        parts.push(linear(Slot::Out, hidden, queries, self.out_bias));
        if self.norms.after() {
            parts.push(norm(Slot::AttentionOutNorm, hidden));
        }
        if self.norms.before() {
            parts.push(norm(Slot::MlpNorm, hidden));
        }
        let bias = self.mlp.bias;
        match (self.mlp.gated(), self.mlp.joint) {
            (true, true) => parts.push(linear(Slot::GateUp, 2 * inner, hidden, bias)),
            (true, false) => {
                parts.extend([linear(Slot::Gate, inner, hidden, bias), linear(Slot::Up, inner, hidden, bias)]);
            }
            (false, _) => parts.push(linear(Slot::Up, inner, hidden, bias)),
        }
        parts.push(linear(Slot::Down, hidden, inner, bias));
        if self.norms.after() {
            parts.push(norm(Slot::MlpOutNorm, hidden));
        }
        parts
    }
}
