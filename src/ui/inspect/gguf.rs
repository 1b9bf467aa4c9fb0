//! What `rhopo inspect` says of a GGUF file.

use super::facts::{Facts, fact, model_facts, short, size};
use crate::engine::memory::Memory;
use crate::model::Config;
use crate::model::gguf::summary::{Stored, Summary, Words};

/// What the metadata say of the model.
pub(super) fn model(summary: &Summary) -> Facts {
    let Summary { architecture, name, parameters, config, stretched, .. } = summary;
    let mut facts = vec![fact("architecture", architecture.as_deref().unwrap_or("not stated"))];
    facts.extend(name.as_deref().map(|name| fact("name", name)));
    // The class in transformers is none of the file's, and its tensors say how many numbers there are.
    let shown = |(label, text): (String, String)| match label.as_str() {
        "architecture" => None,
        "parameters" => Some((label, format!("{parameters} ({})", short(*parameters)))),
        "positions" if *stretched => Some((label, format!("{text}, divided by the factors in rope_freqs.weight"))),
        _ => Some((label, text)),
    };
    match config {
        Ok(config) => facts.extend(model_facts(config).into_iter().filter_map(shown)),
        Err(_) => facts.push(fact("parameters", format!("{parameters} ({})", short(*parameters)))),
    }
    facts
}

/// The tensors by format, and the file.
pub(super) fn weights(summary: &Summary) -> Facts {
    let line = |Stored { format, tensors, numbers, bytes, kinds }: &Stored| {
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let what = format!("{} numbers in {tensors} tensors, {}", short(*numbers), size(*bytes));
        fact(format, format!("{what}: {}", kinds.join(", ")))
    };
    let mut facts: Facts = summary.formats.iter().map(line).collect();
    let name = summary.path.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
    facts.push(fact("file", format!("{name}, {}", size(summary.size))));
    facts
}

/// The tokenizer and the tokens that it names.
pub(super) fn tokenizer(words: &Words) -> Facts {
    let Words { tokenizer, ends, kind, chat } = words;
    let named = |id: u32| format!("{id} {}", tokenizer.decode_special(&[id]));
    let none = || "none".to_string();
    vec![
        fact("kind", kind.clone().unwrap_or_else(|| "the tokenizer.json beside the file".into())),
        fact("size", format!("{} tokens", tokenizer.size())),
        fact("begin", tokenizer.bos().map_or_else(none, named)),
        fact("end", ends.iter().map(|&id| named(id)).collect::<Vec<_>>().join(", ")),
        fact("chat template", chat.as_ref().map_or_else(none, |chat| chat.places())),
    ]
}

/// Bytes of sampling and scoring; `weights` are those of the tensors.
pub(super) fn memory(config: &Config, weights: u64) -> Facts {
    let Memory { cache_per_token, logits, .. } = Memory::sampling(config, None);
    vec![
        fact("weights", format!("{}, as they are stored", size(weights))),
        fact("cache of 1000 tokens", size(1000 * cache_per_token)),
        fact("logits in flight", size(logits)),
    ]
}
