//! Where a family keeps its weights: names in the Hugging Face layout, and the shapes that a configuration gives them.
//!
//! Three tables serve six families. Owns no numbers; the decoder looks its weights up by these names.

use super::{Attention, Config, Head, Mlp, Norm, Position};
pub use crate::kernel::linear::Layout;

/// Names of one layout. Layer names are relative to `layers.N.`.
#[derive(Debug)]
pub struct Names {
    /// What every name of the trunk begins with; checkpoints of the trunk alone leave it out.
    pub base: &'static str,
    pub embedding: &'static str,
    /// Learned positions.
    pub positions: Option<&'static str>,
    pub layers: &'static str,
    pub attention_norm: &'static str,
    /// Query, key and value; one name where they are one weight.
    pub qkv: &'static [&'static str],
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub out: &'static str,
    pub mlp_norm: &'static str,
    /// Gate (where there is one), up and down.
    pub mlp: &'static [&'static str],
    pub norm: &'static str,
    pub lm_head: &'static str,
    /// The heads of classification models: one label per row, one label per token.
    pub score_head: &'static str,
    pub value_head: &'static str,
    pub layout: Layout,
}

pub const LLAMA: Names = Names {
    base: "model.",
    embedding: "model.embed_tokens",
    positions: None,
    layers: "model.layers",
    attention_norm: "input_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    out: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    mlp: &["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    norm: "model.norm",
    lm_head: "lm_head",
    score_head: "score",
    value_head: "score",
    layout: Layout::OutIn,
};

pub const GPT_NEOX: Names = Names {
    base: "gpt_neox.",
    embedding: "gpt_neox.embed_in",
    positions: None,
    layers: "gpt_neox.layers",
    attention_norm: "input_layernorm",
    qkv: &["attention.query_key_value"],
    q_norm: "",
    k_norm: "",
    out: "attention.dense",
    mlp_norm: "post_attention_layernorm",
    mlp: &["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
    norm: "gpt_neox.final_layer_norm",
    lm_head: "embed_out",
    score_head: "score",
    value_head: "classifier",
    layout: Layout::OutIn,
};

pub const GPT2: Names = Names {
    base: "transformer.",
    embedding: "transformer.wte",
    positions: Some("transformer.wpe"),
    layers: "transformer.h",
    attention_norm: "ln_1",
    qkv: &["attn.c_attn"],
    q_norm: "",
    k_norm: "",
    out: "attn.c_proj",
    mlp_norm: "ln_2",
    mlp: &["mlp.c_fc", "mlp.c_proj"],
    norm: "transformer.ln_f",
    lm_head: "lm_head",
    score_head: "score",
    value_head: "classifier",
    layout: Layout::InOut,
};

/// A linear map of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Without `.weight`: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    pub outputs: usize,
    pub inputs: usize,
    pub bias: bool,
    pub layout: Layout,
}

impl Linear {
    /// The last part of the name, which adapters choose their targets by: `q_proj`.
    pub fn module(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    pub fn weight(&self) -> (String, Vec<usize>) {
        let shape = match self.layout {
            Layout::OutIn => vec![self.outputs, self.inputs],
            Layout::InOut => vec![self.inputs, self.outputs],
        };
        (format!("{}.weight", self.name), shape)
    }
}

impl Config {
    /// Where a layer keeps `part`: `model.layers.0.input_layernorm`.
    pub fn in_layer(&self, layer: usize, part: &str) -> String {
        format!("{}.{layer}.{part}", self.names.layers)
    }

    /// The linear maps of a layer: query, key, value (or all in one), output, then those of the MLP.
    pub fn linears(&self, layer: usize) -> Vec<Linear> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let one = |part: &str, outputs: usize, inputs: usize, bias: bool| Linear {
            name: self.in_layer(layer, part),
            outputs,
            inputs,
            bias,
            layout: self.names.layout,
        };
        let names = self.names;
        let mut all = match self.attention {
            Attention::Separate => {
                let outputs = [queries, keys, keys];
                names.qkv.iter().zip(outputs).map(|(part, out)| one(part, out, hidden, self.qkv_bias)).collect()
            }
            Attention::FusedByHead | Attention::Fused => {
                vec![one(names.qkv[0], queries + 2 * keys, hidden, self.qkv_bias)]
            }
        };
        all.push(one(names.out, hidden, queries, self.out_bias));
        let (down, up) = names.mlp.split_last().expect("an MLP has a way down");
        all.extend(up.iter().map(|part| one(part, inner, hidden, self.mlp_bias)));
        all.push(one(down, hidden, inner, self.mlp_bias));
        all
    }

    /// Name and shape of the output head's weight and of its bias; a tied language model has none of its own.
    pub fn head_parameters(&self) -> Vec<(String, Vec<usize>)> {
        let names = self.names;
        match self.head {
            Head::Lm if self.tied => Vec::new(),
            Head::Lm => vec![(format!("{}.weight", names.lm_head), vec![self.vocab_size, self.hidden_size])],
            Head::Score => vec![(format!("{}.weight", names.score_head), vec![1, self.hidden_size])],
            Head::Value => vec![
                (format!("{}.bias", names.value_head), vec![1]),
                (format!("{}.weight", names.value_head), vec![1, self.hidden_size]),
            ],
        }
    }

    /// Every parameter's name and shape as files hold them, sorted by name.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (names, hidden) = (self.names, self.hidden_size);
        let mut all = self.head_parameters();
        all.push((format!("{}.weight", names.embedding), vec![self.vocab_size, hidden]));
        if let (Position::Learned, Some(name)) = (&self.position, names.positions) {
            all.push((format!("{name}.weight"), vec![self.max_positions, hidden]));
        }
        let norm = |all: &mut Vec<(String, Vec<usize>)>, name: String, width: usize| {
            if self.norm == Norm::Layer {
                all.push((format!("{name}.bias"), vec![width]));
            }
            all.push((format!("{name}.weight"), vec![width]));
        };
        norm(&mut all, names.norm.to_string(), hidden);
        for layer in 0..self.layers {
            for part in [names.attention_norm, names.mlp_norm] {
                norm(&mut all, self.in_layer(layer, part), hidden);
            }
            if self.qk_norm {
                for part in [names.q_norm, names.k_norm] {
                    norm(&mut all, self.in_layer(layer, part), self.head_dim);
                }
            }
            for linear in self.linears(layer) {
                if linear.bias {
                    all.push((format!("{}.bias", linear.name), vec![linear.outputs]));
                }
                all.push(linear.weight());
            }
        }
        all.sort();
        all
    }

    /// How many numbers the parameters hold together.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// What the names of the trunk begin with: `model.`.
    pub fn base_prefix(&self) -> &'static str {
        self.names.base
    }

    /// Modules that an adapter may target: `q_proj`, … in order of use.
    pub fn modules(&self) -> Vec<String> {
        self.linears(0).iter().map(|linear| linear.module().to_string()).collect()
    }

    /// Whether the MLP multiplies by a gate.
    pub fn gated(&self) -> bool {
        self.mlp == Mlp::SwiGlu
    }
}
