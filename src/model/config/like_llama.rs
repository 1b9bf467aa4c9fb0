//! Families that are built like Llama: RMSNorm, rotary embedding, a gated MLP. Each says how it differs.

use super::families::{PLAIN, divide, layers};
use super::keys::{Keys, shown, unsupported};
use super::rope::{self, LongRope, Spelling};
use crate::error::{Error, Result};
use crate::kernel::attention::Heads;
use crate::kernel::elementwise::{Gate, Gelu};
use crate::kernel::rms_norm::Rms;
use crate::model::trunk::names::{LLAMA, NORMS_AFTER};
use crate::model::trunk::{Activation, Block, Mlp, Names, Norm, Norms, Projection, QkNorm, Rotation, Trunk};
use serde_json::Value;

/// What families that are built like Llama differ in: RMSNorm, rotary embedding, a gated MLP.
struct Like {
    names: &'static Names,
    /// Where the file does not say: key heads (as many as query heads), the width of a head (hidden_size / heads).
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    max_positions: usize,
    eps: f64,
    tied: bool,
    /// The key of the gate's function, and which it is where the file does not say.
    activation: (&'static str, Gate),
    /// Query, key and value have biases; or all four maps of attention, or the MLP's, where a key says so.
    qkv_bias: bool,
    attention_bias_key: bool,
    mlp_bias_key: bool,
    norms: Norms,
    qk_norm: QkNorm,
    /// Added to every norm's weight.
    norm_offset: f32,
    /// Query, key and value are one weight, and so are gate and up.
    joint: bool,
    windows: fn(&mut Keys, usize) -> Result<Vec<Option<usize>>>,
    /// By the width of a head: one rotation, or that of layers without a window and that of those with one.
    rotations: fn(&mut Keys, usize) -> Result<Vec<Rotation>>,
}

const LIKE_LLAMA: Like = Like {
    names: &LLAMA,
    kv_heads: None,
    head_dim: None,
    max_positions: 2048,
    eps: 1e-6,
    tied: false,
    activation: ("hidden_act", Gate::Silu),
    qkv_bias: false,
    attention_bias_key: false,
    mlp_bias_key: false,
    norms: Norms::Before,
    qk_norm: QkNorm::None,
    norm_offset: 0.0,
    joint: false,
    windows: |keys, layers| windows(keys, layers, None, &|_| false),
    rotations: |keys, head_dim| Ok(vec![rope::read(keys, &Spelling::default())?.rotation(head_dim)]),
};

fn llama_like(keys: &mut Keys, like: &Like) -> Result<Trunk> {
    let (heads, hidden_size) = (keys.size("num_attention_heads")?, keys.size("hidden_size")?);
    let kv_heads = keys.optional_size("num_key_value_heads")?.or(like.kv_heads).unwrap_or(heads);
    let head_dim = match keys.optional_size("head_dim")?.or(like.head_dim) {
        Some(dim) => dim,
        None => divide(hidden_size, heads, "hidden_size", "num_attention_heads")?,
    };
    let layers = layers(keys, "num_hidden_layers")?;
    let attention_bias = if like.attention_bias_key { keys.flag("attention_bias", false)? } else { false };
    let mlp_bias = if like.mlp_bias_key { keys.flag("mlp_bias", false)? } else { false };
    let (key, gate) = like.activation;
    let gate = keys.text(key)?.map_or(Ok(gate), |name| gate_named(key, name))?;
    let rotations = (like.rotations)(keys, head_dim)?;
    let block = Block {
        heads: Heads::new(heads, kv_heads, head_dim),
        projection: if like.joint { Projection::Joint } else { Projection::Separate },
        qk_norm: like.qk_norm,
        rotation: Some(0),
        qkv_bias: attention_bias || like.qkv_bias,
        out_bias: attention_bias,
        mlp: Mlp {
            width: keys.size("intermediate_size")?,
            activation: Activation::Gated(gate),
            joint: like.joint,
            bias: mlp_bias,
        },
        norms: like.norms,
        parallel: false,
        residual_scale: 1.0,
    };
    let local = rotations.len() - 1;
    let in_layer = |window: Option<usize>| Block {
        heads: Heads { window, ..block.heads },
        rotation: Some(if window.is_some() { local } else { 0 }),
        ..block.clone()
    };
    Ok(Trunk {
        names: like.names,
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        max_positions: keys.optional_size("max_position_embeddings")?.unwrap_or(like.max_positions),
        blocks: (like.windows)(keys, layers)?.into_iter().map(in_layer).collect(),
        norm: Norm::Rms(Rms { eps: keys.number("rms_norm_eps")?.unwrap_or(like.eps), offset: like.norm_offset }),
        tied: keys.flag("tie_word_embeddings", like.tied)?,
        rotations,
        ..PLAIN
    })
}

pub(super) fn llama(keys: &mut Keys) -> Result<Trunk> {
    llama_like(keys, &Like { attention_bias_key: true, mlp_bias_key: true, ..LIKE_LLAMA })
}

pub(super) fn qwen2(keys: &mut Keys) -> Result<Trunk> {
    llama_like(keys, &Like { qkv_bias: true, max_positions: 32768, windows: windows_of_qwen, ..LIKE_LLAMA })
}

pub(super) fn qwen3(keys: &mut Keys) -> Result<Trunk> {
    llama_like(
        keys,
        &Like {
            head_dim: Some(128),
            max_positions: 32768,
            attention_bias_key: true,
            qk_norm: QkNorm::PerHead,
            windows: windows_of_qwen,
            ..LIKE_LLAMA
        },
    )
}

pub(super) fn mistral(keys: &mut Keys) -> Result<Trunk> {
    let windows = |keys: &mut Keys, layers| {
        // transformers' default, for files that leave the key out; null switches the window off.
        let size = keys.size_or("sliding_window", 4096)?;
        windows(keys, layers, size, &|_| true)
    };
    llama_like(keys, &Like { kv_heads: Some(8), max_positions: 131_072, windows, ..LIKE_LLAMA })
}

/// What Gemma 2 and 3 share: norms around attention and MLP, their weights counted from one, GeGLU, scaled embeddings.
const LIKE_GEMMA: Like = Like {
    names: &NORMS_AFTER,
    kv_heads: Some(4),
    head_dim: Some(256),
    tied: true,
    activation: ("hidden_activation", Gate::Gelu(Gelu::Tanh)),
    attention_bias_key: true,
    norms: Norms::Sandwich,
    norm_offset: 1.0,
    ..LIKE_LLAMA
};

fn gemma(keys: &mut Keys, like: &Like) -> Result<Trunk> {
    keys.off("use_bidirectional_attention", "false (a decoder)")?;
    let mut trunk = llama_like(keys, like)?;
    trunk.embedding_scale = (trunk.hidden_size as f64).sqrt() as f32;
    let scalar = keys.positive("query_pre_attn_scalar", 256.0)?;
    trunk.blocks.iter_mut().for_each(|block| block.heads.scale = scalar.powf(-0.5) as f32);
    Ok(trunk)
}

pub(super) fn gemma2(keys: &mut Keys) -> Result<Trunk> {
    let windows = |keys: &mut Keys, layers| {
        let size = keys.size_or("sliding_window", 4096)?;
        windows(keys, layers, size, &|layer| layer % 2 == 0)
    };
    let mut trunk = gemma(keys, &Like { max_positions: 8192, windows, ..LIKE_GEMMA })?;
    let softcap = keys.softcap("attn_logit_softcapping", Some(50.0))?;
    trunk.blocks.iter_mut().for_each(|block| block.heads.softcap = softcap);
    trunk.logit_softcap = keys.softcap("final_logit_softcapping", Some(30.0))?;
    Ok(trunk)
}

pub(super) fn gemma3(keys: &mut Keys) -> Result<Trunk> {
    let windows = |keys: &mut Keys, layers| {
        let size = keys.size_or("sliding_window", 4096)?;
        if size.is_none() {
            return Err(unsupported("sliding_window", "null", "a size: it tells local layers from global ones"));
        }
        // transformers 5 writes the pattern with an underscore beside the `layer_types` that came of it.
        let written = keys.optional_size("_sliding_window_pattern")?;
        let pattern = keys.optional_size("sliding_window_pattern")?.or(written).unwrap_or(6).max(1);
        windows(keys, layers, size, &|layer| (layer + 1) % pattern != 0)
    };
    keys.absent("attn_logit_softcapping", "null: transformers does not apply it in Gemma 3")?;
    let rotations = |keys: &mut Keys, head_dim| Ok(rope::read_pair(keys)?.map(|rope| rope.rotation(head_dim)).into());
    let like = Like { max_positions: 131_072, qk_norm: QkNorm::PerHead, windows, rotations, ..LIKE_GEMMA };
    let logit_softcap = keys.softcap("final_logit_softcapping", None)?;
    Ok(Trunk { logit_softcap, ..gemma(keys, &like)? })
}

/// Phi-3 and Phi-4: joint projections. With LongRoPE, rows as long as pretraining's.
pub(super) fn phi3(keys: &mut Keys) -> Result<Trunk> {
    let windows = |keys: &mut Keys, layers| {
        let size = keys.optional_size("sliding_window")?;
        windows(keys, layers, size, &|_| true)
    };
    let rotations = |keys: &mut Keys, head_dim| {
        let max = keys.optional_size("max_position_embeddings")?.unwrap_or(4096);
        let original = keys.optional_size("original_max_position_embeddings")?.unwrap_or(4096);
        let spelling = Spelling { longrope: Some(LongRope { original, max }), ..Spelling::default() };
        Ok(vec![rope::read(keys, &spelling)?.rotation(head_dim)])
    };
    let like = Like { max_positions: 4096, eps: 1e-5, joint: true, windows, rotations, ..LIKE_LLAMA };
    let mut trunk = llama_like(keys, &like)?;
    let original = keys.optional_size("original_max_position_embeddings")?.unwrap_or(4096);
    if trunk.rotations[0].scaling.by_factors() && trunk.max_positions > original {
        trunk.max_positions = original;
        keys.note(format!("rows hold {original} tokens at most: for longer ones LongRoPE turns by other factors"));
    }
    Ok(trunk)
}

/// OLMo 2: norms behind attention and MLP, and of all queries and all keys of a token.
pub(super) fn olmo2(keys: &mut Keys) -> Result<Trunk> {
    llama_like(
        keys,
        &Like {
            names: &NORMS_AFTER,
            eps: 1e-5,
            attention_bias_key: true,
            norms: Norms::After,
            qk_norm: QkNorm::Whole,
            ..LIKE_LLAMA
        },
    )
}

/// SmolLM3: every fourth layer knows no positions.
pub(super) fn smollm3(keys: &mut Keys) -> Result<Trunk> {
    let windows = |keys: &mut Keys, layers| {
        let size = if keys.flag("use_sliding_window", false)? { keys.optional_size("sliding_window")? } else { None };
        let turned = turned_layers(keys, layers)?;
        windows(keys, layers, size, &|layer| !turned[layer])
    };
    let rotations = |keys: &mut Keys, head_dim| {
        Ok(vec![rope::read(keys, &Spelling { theta: 2e6, ..Spelling::default() })?.rotation(head_dim)])
    };
    let like = Like {
        kv_heads: Some(4),
        max_positions: 32768,
        tied: true,
        attention_bias_key: true,
        mlp_bias_key: true,
        windows,
        rotations,
        ..LIKE_LLAMA
    };
    let mut trunk = llama_like(keys, &like)?;
    let turned = turned_layers(keys, trunk.blocks.len())?;
    trunk.blocks.iter_mut().zip(turned).for_each(|(block, turned)| block.rotation = turned.then_some(0));
    Ok(trunk)
}

/// Which layers rotate queries and keys.
fn turned_layers(keys: &mut Keys, layers: usize) -> Result<Vec<bool>> {
    let interval = keys.optional_size("no_rope_layer_interval")?.unwrap_or(4).max(1);
    let Some(listed) = keys.value("no_rope_layers") else {
        return Ok((0..layers).map(|layer| (layer + 1) % interval != 0).collect());
    };
    let one = |v: &Value| v.as_u64().filter(|n| *n <= 1).map(|n| n == 1);
    let list: Option<Vec<bool>> = listed.as_array().and_then(|list| list.iter().map(one).collect());
    list.filter(|list| list.len() == layers).ok_or_else(|| {
        Error::model(format!(
            "config.json: no_rope_layers is {}, expected a list of {layers} numbers, 0 or 1",
            shown(listed)
        ))
        .hint("1 for a layer with positions, 0 for one without")
    })
}

/// Granite: Llama with multipliers.
pub(super) fn granite(keys: &mut Keys) -> Result<Trunk> {
    let mut trunk = llama_like(keys, &Like { attention_bias_key: true, mlp_bias_key: true, ..LIKE_LLAMA })?;
    trunk.embedding_scale = keys.positive("embedding_multiplier", 1.0)? as f32;
    trunk.logit_scale = (1.0 / keys.positive("logits_scaling", 1.0)?) as f32;
    let (scale, residual) = (keys.positive("attention_multiplier", 1.0)?, keys.positive("residual_multiplier", 1.0)?);
    for block in &mut trunk.blocks {
        (block.heads.scale, block.residual_scale) = (scale as f32, residual as f32);
    }
    Ok(trunk)
}

fn windows_of_qwen(keys: &mut Keys, layers: usize) -> Result<Vec<Option<usize>>> {
    let size = keys.optional_size("sliding_window")?;
    if !keys.flag("use_sliding_window", false)? {
        return windows(keys, layers, None, &|_| false);
    }
    let from = keys.optional_size("max_window_layers")?.unwrap_or(28);
    windows(keys, layers, size, &|layer| layer >= from)
}

/// How far back each layer sees: `size` tokens where `layer_types` says that it slides, or else where `slides` does.
fn windows(
    keys: &mut Keys,
    layers: usize,
    size: Option<usize>,
    slides: &dyn Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let Some(types) = keys.value("layer_types") else {
        return Ok((0..layers).map(|layer| size.filter(|_| slides(layer))).collect());
    };
    let kinds = "one of `full_attention` and `sliding_attention` for each layer";
    let types = types.as_array().filter(|types| types.len() == layers).ok_or_else(|| {
        Error::model(format!("config.json: layer_types is {}, expected a list of {layers}", shown(types))).hint(kinds)
    })?;
    let one = |kind: &Value| match (kind.as_str(), size) {
        (Some("full_attention"), _) => Ok(None),
        (Some("sliding_attention"), Some(size)) => Ok(Some(size)),
        (Some("sliding_attention"), None) => {
            Err(Error::model("config.json: layer_types has `sliding_attention`, but there is no sliding_window")
                .hint("give sliding_window a size (and use_sliding_window true, where the family has it)"))
        }
        _ => Err(unsupported("layer_types", &format!("`{}`", kind.as_str().unwrap_or("?")), kinds)),
    };
    types.iter().map(one).collect()
}

/// The function of a gated MLP.
fn gate_named(key: &str, name: &str) -> Result<Gate> {
    match name {
        "silu" | "swish" => Ok(Gate::Silu),
        // Only Gemma's key knows other functions: elsewhere no published model has one, and no fixture shows it right.
        "gelu_pytorch_tanh" | "gelu_new" if key == "hidden_activation" => Ok(Gate::Gelu(Gelu::Tanh)),
        "gelu" if key == "hidden_activation" => Ok(Gate::Gelu(Gelu::Exact)),
        other if key == "hidden_activation" => {
            Err(unsupported(key, &format!("`{other}`"), "`gelu_pytorch_tanh`, `gelu`, `silu`"))
        }
        other => Err(unsupported(key, &format!("`{other}`"), "`silu`")),
    }
}
