//! What the engine's tests share: fixture models, ragged rows and comparisons.
#![allow(dead_code)] // each test program uses a part

pub mod solo;
pub mod terminal;

use rhopo::gpu::Place;
use rhopo::model::rows::{Row, Rows};
use rhopo::model::{Config, Model};
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Device, Tensor, ops};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One of each family, in single files and shards, f32 and bf16, with the keys of transformers 4 and of 5.
pub const MODELS: [&str; 13] = [
    "qwen2", "qwen3", "llama2", "llama3", "mistral", "gpt_neox", "gpt2", "gemma2", "gemma3", "phi3", "olmo2",
    "smollm3", "granite",
];

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(path)).unwrap()).unwrap()
}

/// The numbers of a safetensors file of f32, by name.
pub fn tensors(path: &str) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(fixtures().join(path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let number = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
    let numbers = |name: &str| file.tensor(name).unwrap().data().chunks_exact(4).map(number).collect();
    file.names().into_iter().map(|name| (name.to_string(), numbers(name))).collect()
}

/// The rows that a fixture model's reference read.
pub fn inputs(name: &str) -> Arc<Rows> {
    let inputs = json(&format!("models/{name}/inputs.json"));
    let lengths = inputs["prompt_lens"].as_array().unwrap();
    let row = |(ids, prompt): (&serde_json::Value, &serde_json::Value)| {
        let ids: Vec<u32> = ids.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
        let (prompt, completion) = ids.split_at(prompt.as_u64().unwrap() as usize);
        Row::new(prompt, completion)
    };
    Rows::new(inputs["ids"].as_array().unwrap().iter().zip(lengths).map(row).collect())
}

pub fn fixture_model(name: &str) -> Arc<Model> {
    Arc::new(Model::load(&rhopo::files::anywhere(fixtures().join("models").join(name)), &Place::Host).unwrap())
}

/// A copy of a fixture model's folder, to be changed.
pub fn copied(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("models").join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Changes a JSON file of such a copy.
pub fn edit_json(dir: &std::path::Path, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.join(name);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// A small random Qwen2 without a tokenizer.
pub fn random_model(vocabulary: usize, hidden: usize, layers: usize, key: u64) -> Arc<Model> {
    let config = serde_json::json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "initializer_range": 0.2,
    });
    let config = Config::from_json(&config).unwrap();
    Arc::new(Model::random(config, None, Key::new(key), &Place::Host).unwrap())
}

/// `groups` prompts of 1 to 9 tokens with `n` completions of 1 to 17 each.
pub fn ragged_rows(groups: usize, n: usize, vocabulary: u64, key: Key) -> Arc<Rows> {
    let mut draw = 0;
    let mut tokens = |len: usize| -> Arc<[u32]> {
        (0..len)
            .map(|_| {
                draw += 1;
                key.below(draw, vocabulary) as u32
            })
            .collect()
    };
    let mut rows = Vec::new();
    for g in 0..groups as u64 {
        let prompt = tokens(1 + key.fold(1).below(g, 9) as usize);
        for i in 0..n as u64 {
            let completion = tokens(1 + key.fold(2).below(g * 100 + i, 17) as usize);
            rows.push(Row::new(prompt.clone(), completion));
        }
    }
    Rows::new(rows)
}

/// The same tokens, without what a sampler recorded of them.
pub fn unrecorded(rows: &Rows) -> Arc<Rows> {
    Rows::of(rows.iter().map(|row| Row::new(row.prompt.clone(), row.completion.clone())).collect(), rows.vocabulary())
}

/// 1 on completion tokens, `[B,T]`.
pub fn mask(rows: &Rows) -> Tensor {
    let width = rows.width();
    let cells = rows.iter().flat_map(|r| (0..width).map(|t| f32::from(t < r.completion.len()))).collect();
    Tensor::from_vec(cells, &[rows.len(), width], &Device::Cpu).unwrap()
}

pub fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    ops::MUL.on(a, b).unwrap()
}

pub fn sub(a: &Tensor, b: &Tensor) -> Tensor {
    ops::SUB.on(a, b).unwrap()
}

pub fn max_gap(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

pub fn largest(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// A host without a command line, on the CPU.
pub fn host() -> rhopo::script::host::Host {
    rhopo::script::builder::HostBuilder::new().build()
}
