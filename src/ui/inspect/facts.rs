//! What there is to say of a model from its configuration, whatever file that is from; how numbers are written.

use crate::kernel::elementwise::{Gate, Gelu};
use crate::kernel::rotary::Scaling;
use crate::model::trunk::{Activation, Norm, Norms, QkNorm};
use crate::model::{Config, Head};
use std::collections::BTreeSet;

/// Label and text of one line.
pub(super) type Facts = Vec<(String, String)>;

pub(super) fn fact(label: &str, text: impl Into<String>) -> (String, String) {
    (label.to_string(), text.into())
}

/// Told from the trunk; blocks differ in windows and positions alone.
pub(super) fn model_facts(c: &Config) -> Facts {
    let block = &c.blocks[0];
    let bias = [("q, k, v", block.qkv_bias), ("output", block.out_bias), ("MLP", block.mlp.bias)];
    let biased: Vec<&str> = bias.into_iter().filter(|(_, biased)| *biased).map(|(name, _)| name).collect();
    let count = c.parameter_count() as u64;
    let kind = match c.norm {
        Norm::Rms(_) => "RMSNorm",
        Norm::Layer { .. } => "LayerNorm",
    };
    let place = match block.norms {
        Norms::Before => "",
        Norms::After => " after attention and MLP",
        Norms::Sandwich => " before and after attention and MLP",
    };
    let also = match block.qk_norm {
        QkNorm::None => "",
        QkNorm::PerHead => ", also of queries and keys",
        QkNorm::Whole => ", also of all queries and all keys together",
    };
    let mlp = match block.mlp.activation {
        Activation::Gated(Gate::Silu) => "SwiGLU",
        Activation::Gated(Gate::Gelu(Gelu::Exact)) => "GeGLU",
        Activation::Gated(Gate::Gelu(Gelu::Tanh)) => "GeGLU (tanh)",
        Activation::Gelu(Gelu::Exact) => "GELU",
        Activation::Gelu(Gelu::Tanh) => "GELU (tanh)",
    };
    let head = match c.head {
        Head::LmValue if c.tied => "language model, tied to the embedding, and value of each token",
        Head::LmValue => "language model and value of each token",
        Head::Lm if c.tied => "language model, tied to the embedding",
        Head::Lm => "language model",
        Head::Value => "value of each token",
        Head::Score => "score of each row",
    };
    let side_by_side = if block.parallel { ", attention and MLP in parallel" } else { "" };
    let heads = block.heads;
    let mut facts = vec![
        fact("architecture", &c.architecture),
        fact("family", c.family.model_type),
        fact("head", head),
        fact("parameters", format!("{count} ({})", short(count))),
        fact("layers", format!("{}{side_by_side}", c.blocks.len())),
        fact("width", c.hidden_size.to_string()),
        fact("heads", format!("{} of {} dimensions, {} for keys and values", heads.query, heads.dim, heads.key)),
        fact("MLP", format!("{}, {mlp}", block.mlp.width)),
        fact("norms", format!("{kind}{place}{also}")),
        fact("biases", if biased.is_empty() { "none".to_string() } else { biased.join(", ") }),
        fact("vocabulary", format!("{} tokens", c.vocab_size)),
        fact("context", format!("{} tokens", c.max_positions)),
        fact("window", windows(c)),
        fact("positions", positions(c)),
    ];
    facts.extend(multipliers(c).map(|text| fact("multipliers", text)));
    facts.extend(softcaps(c).map(|text| fact("soft caps", text)));
    facts.extend(c.notes.iter().map(|note| fact("note", note)));
    facts
}

/// What is multiplied by something else than a family's usual.
fn multipliers(c: &Config) -> Option<String> {
    let block = &c.blocks[0];
    let usual = 1.0 / (block.heads.dim as f32).sqrt();
    let all = [
        ("embedding", c.embedding_scale, 1.0),
        ("attention", block.heads.scale, usual),
        ("residual", block.residual_scale, 1.0),
        ("logits", c.logit_scale, 1.0),
    ];
    let named: Vec<String> =
        all.into_iter().filter(|(_, by, usual)| by != usual).map(|(name, by, _)| format!("{name} {by}")).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn softcaps(c: &Config) -> Option<String> {
    let all = [("attention", c.blocks[0].heads.softcap), ("logits", c.logit_softcap)];
    let named: Vec<String> = all.into_iter().filter_map(|(name, by)| by.map(|by| format!("{name} {by}"))).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// How far back the layers see.
fn windows(c: &Config) -> String {
    let all: Vec<usize> = c.blocks.iter().filter_map(|block| block.heads.window).collect();
    let sizes: BTreeSet<usize> = all.iter().copied().collect();
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    match all.len() {
        0 => "none".to_string(),
        n if n == c.blocks.len() => format!("{} tokens", sizes.join(", ")),
        n => format!("{} tokens in {n} of {} layers", sizes.join(", "), c.blocks.len()),
    }
}

/// How tokens get their positions: by one rotation, by several in so many layers each, in some layers not at all.
fn positions(c: &Config) -> String {
    let layers = c.blocks.len();
    let with = |rotation: Option<usize>| c.blocks.iter().filter(|block| block.rotation == rotation).count();
    let rotation = |i: usize| {
        let rotation = &c.rotations[i];
        let scaling = match &rotation.scaling {
            Scaling::None => String::new(),
            Scaling::Linear { factor } => format!(", scaled linearly by {factor}"),
            Scaling::Llama3 { factor, original_max_positions, .. } => {
                format!(", scaled as in Llama 3 by {factor} from {original_max_positions} tokens")
            }
            Scaling::Factors { .. } => ", scaled by LongRoPE".to_string(),
        };
        let (dims, dim, base) = (rotation.dims, c.blocks[0].heads.dim, rotation.theta);
        let some =
            if with(Some(i)) == layers { String::new() } else { format!(" in {} of {layers} layers", with(Some(i))) };
        format!("rotary, {dims} of {dim} dimensions, base {base}{scaling}{some}")
    };
    let mut all: Vec<String> = (0..c.rotations.len()).filter(|&i| with(Some(i)) > 0).map(rotation).collect();
    if c.learned_positions {
        all.push("learned".to_string());
    } else if with(None) > 0 {
        all.push(format!("none in {} of {layers}", with(None)));
    }
    all.join("; ")
}

/// Bytes in a unit that suits them: `1.2 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        (scaled, unit) = (scaled / 1024.0, unit + 1);
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// A count as people say it: `494.0 M`.
pub(super) fn short(count: u64) -> String {
    match count as f64 {
        n if n >= 999.95e6 => format!("{:.2} B", n / 1e9),
        n if n >= 999.95e3 => format!("{:.1} M", n / 1e6),
        n => format!("{:.1} K", n / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_in_a_unit_that_suits_them() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_576, "1.0 MiB"), (5_905_580_032, "5.5 GiB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((short(84_720), short(999_040), short(494_032_768), short(1_543_714_304)).3, "1.54 B");
        assert_eq!(
            (short(84_720).as_str(), short(999_960).as_str(), short(494_032_768).as_str()),
            ("84.7 K", "1.0 M", "494.0 M")
        );
    }
}
