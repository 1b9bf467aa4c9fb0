//! What a person reads when a checkpoint cannot be used: the whole error output of the program, as snapshots.
//! After a change of wording: `INSTA_UPDATE=always cargo test --release --test models checkpoints`, and read the difference.

use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A copy of a fixture model, damaged by `harm`, and what is said when a script loads it.
fn broken(fixture: &str, harm: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("model");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(fixture);
    fs::create_dir(&model).expect("made");
    for file in fs::read_dir(source).expect("a fixture").map(|entry| entry.expect("an entry").path()) {
        fs::copy(&file, model.join(file.file_name().expect("a name"))).expect("copied");
    }
    harm(&model);
    fs::write(dir.path().join("load.rhai"), "let policy = load_model(\"model\");\n").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let out = command.current_dir(dir.path()).args(["run", "load"]).output().expect("rhopo starts");
    let text = String::from_utf8(out.stderr).expect("UTF-8");
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    text
}

/// Changes a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

/// Changes the header of the weights; the data stays.
fn edit_header(dir: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = dir.join(WEIGHTS);
    let bytes = fs::read(&path).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    change(&mut header);
    let text = serde_json::to_vec(&header).expect("text");
    fs::write(path, [&(text.len() as u64).to_le_bytes(), &text[..], &bytes[8 + length..]].concat()).expect("written");
}

macro_rules! snapshot {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true, snapshot_path => "snapshots/checkpoints", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($text)
        })
    };
}

#[test]
fn a_missing_shard() {
    snapshot!(broken("llama3", |dir| fs::remove_file(dir.join("model-00002-of-00003.safetensors")).expect("removed")));
}

#[test]
fn an_index_naming_an_absent_tensor() {
    snapshot!(broken("llama3", |dir| edit(&dir.join(INDEX), |index| {
        index["weight_map"]["model.layers.7.input_layernorm.weight"] = json!("model-00001-of-00003.safetensors");
    })));
}

#[test]
fn an_index_with_a_number_for_a_file() {
    snapshot!(broken("llama3", |dir| edit(&dir.join(INDEX), |index| {
        index["weight_map"]["model.norm.weight"] = json!(3);
    })));
}

#[test]
fn a_header_longer_than_the_file() {
    snapshot!(broken("qwen2", |dir| {
        let mut bytes = fs::read(dir.join(WEIGHTS)).expect("read");
        bytes[..8].copy_from_slice(&50_000_000u64.to_le_bytes());
        fs::write(dir.join(WEIGHTS), bytes).expect("written");
    }));
}

#[test]
fn a_negative_offset() {
    snapshot!(broken("qwen2", |dir| edit_header(dir, |header| {
        header["model.norm.weight"]["data_offsets"] = json!([-192, 0]);
    })));
}

#[test]
fn an_overlapping_offset() {
    snapshot!(broken("qwen2", |dir| edit_header(dir, |header| {
        let other = header["model.layers.0.input_layernorm.weight"]["data_offsets"].clone();
        header["model.norm.weight"]["data_offsets"] = other;
    })));
}

#[test]
fn a_quantised_tensor() {
    snapshot!(broken("qwen2", |dir| edit_header(dir, |header| {
        header["model.norm.weight"]["dtype"] = json!("I32");
    })));
}

#[test]
fn a_tokenizer_larger_than_the_embedding() {
    snapshot!(broken("qwen2", |dir| edit(&dir.join("tokenizer.json"), |tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().expect("a list");
        for i in 0..100 {
            let mut token = tokens[0].clone();
            (token["id"], token["content"]) = (json!(384 + i), json!(format!("<extra{i}>")));
            tokens.push(token);
        }
    })));
}

#[test]
fn a_tokenizer_that_is_cut_short() {
    snapshot!(broken("qwen2", |dir| {
        let bytes = fs::read(dir.join("tokenizer.json")).expect("read");
        fs::write(dir.join("tokenizer.json"), &bytes[..bytes.len() / 2]).expect("written");
    }));
}

#[test]
fn a_pickle_only() {
    snapshot!(broken("qwen2", |dir| {
        fs::rename(dir.join(WEIGHTS), dir.join("pytorch_model.bin")).expect("renamed");
        fs::write(dir.join("training_args.bin"), "").expect("written");
    }));
}

#[test]
fn an_unknown_architecture() {
    snapshot!(broken("qwen2", |dir| edit(&dir.join("config.json"), |config| {
        (config["architectures"], config["model_type"]) = (json!(["MambaForCausalLM"]), json!("mamba"));
    })));
}

#[test]
fn an_unsupported_rotary_scaling() {
    snapshot!(broken("qwen2", |dir| edit(&dir.join("config.json"), |config| {
        config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    })));
}

#[test]
fn an_unsupported_quantisation() {
    snapshot!(broken("qwen2", |dir| edit(&dir.join("config.json"), |config| {
        config["quantization_config"] = json!({"quant_method": "gptq", "bits": 4});
    })));
}
