//! GPT-NeoX and GPT-2: LayerNorm, joint projections with biases, an MLP without a gate.

use super::families::{PLAIN, divide, layers};
use super::keys::{Keys, unsupported};
use super::rope::{self, Spelling};
use crate::error::Result;
use crate::kernel::attention::Heads;
use crate::kernel::elementwise::Gelu;
use crate::model::trunk::names::{GPT_NEOX, GPT2};
use crate::model::trunk::{Activation, Block, Mlp, Norm, Norms, Projection, QkNorm, Trunk};

/// GPT-NeoX and Pythia: LayerNorm, partial rotary embedding, GELU, attention and MLP side by side.
pub(super) fn gpt_neox(keys: &mut Keys) -> Result<Trunk> {
    let (heads, hidden_size) = (keys.size("num_attention_heads")?, keys.size("hidden_size")?);
    let head_dim = divide(hidden_size, heads, "hidden_size", "num_attention_heads")?;
    let layers = layers(keys, "num_hidden_layers")?;
    let spelling =
        Spelling { theta_key: "rotary_emb_base", share_key: "rotary_pct", share: 0.25, ..Spelling::default() };
    let rotation = rope::read(keys, &spelling)?.rotation(head_dim);
    let bias = keys.flag("attention_bias", true)?;
    let block = Block {
        heads: Heads::new(heads, heads, head_dim),
        projection: Projection::JointByHead,
        qk_norm: QkNorm::None,
        rotation: Some(0),
        qkv_bias: bias,
        out_bias: bias,
        mlp: gelu_mlp(keys, "hidden_act", "gelu", |keys| keys.size("intermediate_size"))?,
        norms: Norms::Before,
        parallel: keys.flag("use_parallel_residual", true)?,
        residual_scale: 1.0,
    };
    Ok(Trunk {
        names: &GPT_NEOX,
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        max_positions: keys.optional_size("max_position_embeddings")?.unwrap_or(2048),
        rotations: vec![rotation],
        blocks: vec![block; layers],
        norm: Norm::Layer { eps: keys.number("layer_norm_eps")?.unwrap_or(1e-5) },
        tied: keys.flag("tie_word_embeddings", false)?,
        ..PLAIN
    })
}

/// GPT-2: LayerNorm, learned positions, GELU, weights stored `[in,out]`.
pub(super) fn gpt2(keys: &mut Keys) -> Result<Trunk> {
    let (heads, hidden_size) = (keys.size("n_head")?, keys.size("n_embd")?);
    let layers = layers(keys, "n_layer")?;
    keys.off("scale_attn_by_inverse_layer_idx", "false")?;
    keys.off("add_cross_attention", "false (a decoder on its own)")?;
    if !keys.flag("scale_attn_weights", true)? {
        return Err(unsupported("scale_attn_weights", "false", "true"));
    }
    let width = |keys: &mut Keys| Ok(keys.optional_size("n_inner")?.unwrap_or(hidden_size.saturating_mul(4)));
    let block = Block {
        heads: Heads::new(heads, heads, divide(hidden_size, heads, "n_embd", "n_head")?),
        projection: Projection::Joint,
        qk_norm: QkNorm::None,
        rotation: None,
        qkv_bias: true,
        out_bias: true,
        mlp: gelu_mlp(keys, "activation_function", "gelu_new", width)?,
        norms: Norms::Before,
        parallel: false,
        residual_scale: 1.0,
    };
    Ok(Trunk {
        names: &GPT2,
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        max_positions: keys.optional_size("n_positions")?.unwrap_or(1024),
        learned_positions: true,
        blocks: vec![block; layers],
        norm: Norm::Layer { eps: keys.number("layer_norm_epsilon")?.unwrap_or(1e-5) },
        tied: keys.flag("tie_word_embeddings", true)?,
        ..PLAIN
    })
}

/// An MLP without a gate, with biases.
fn gelu_mlp(
    keys: &mut Keys,
    key: &'static str,
    default: &str,
    width: impl Fn(&mut Keys) -> Result<usize>,
) -> Result<Mlp> {
    let form = match keys.text(key)?.unwrap_or(default) {
        "gelu" | "gelu_python" => Gelu::Exact,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Gelu::Tanh,
        other => {
            let known = "`gelu`, `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`";
            return Err(unsupported(key, &format!("`{other}`"), known));
        }
    };
    Ok(Mlp { width: width(keys)?, activation: Activation::Gelu(form), joint: false, bias: true })
}
