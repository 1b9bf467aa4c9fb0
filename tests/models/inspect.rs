//! `rhopo inspect`: what it prints about the fixtures, as snapshots.
//! After a change of wording: `INSTA_UPDATE=always cargo test --release --test models inspect`, and read the difference.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Standard output and standard error of `rhopo inspect`, seen from `dir`.
pub fn inspect(dir: &Path, model: &str, code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let out = command.current_dir(dir).args(["inspect", model]).output().expect("rhopo starts");
    let (stdout, stderr) =
        (String::from_utf8(out.stdout).expect("UTF-8"), String::from_utf8(out.stderr).expect("UTF-8"));
    assert_eq!(out.status.code(), Some(code), "{stdout}{stderr}");
    assert_eq!(stderr.is_empty(), code == 0, "{stderr}");
    if stderr.is_empty() { stdout } else { format!("{stdout}--- standard error\n{stderr}") }
}

/// A copy of a fixture model named `model`, changed.
fn changed(fixture: &str, change: impl FnOnce(&Path)) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("model");
    fs::create_dir(&model).expect("made");
    for file in fs::read_dir(fixtures().join("models").join(fixture)).expect("a fixture") {
        let file = file.expect("an entry").path();
        fs::copy(&file, model.join(file.file_name().expect("a name"))).expect("copied");
    }
    change(&model);
    dir
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

macro_rules! snapshot {
    ($($text:expr),+) => {
        insta::with_settings!({ omit_expression => true, snapshot_path => "snapshots/inspect", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($($text),+)
        })
    };
}
pub(crate) use snapshot;

#[test]
fn tiny() {
    snapshot!(inspect(&fixtures(), "tiny", 0));
}

#[test]
fn gpt2() {
    snapshot!(inspect(&fixtures().join("models"), "gpt2", 0));
}

#[test]
fn gpt_neox() {
    snapshot!(inspect(&fixtures().join("models"), "gpt_neox", 0));
}

#[test]
fn llama2() {
    snapshot!(inspect(&fixtures().join("models"), "llama2", 0));
}

#[test]
fn llama3() {
    snapshot!(inspect(&fixtures().join("models"), "llama3", 0));
}

#[test]
fn mistral() {
    snapshot!(inspect(&fixtures().join("models"), "mistral", 0));
}

#[test]
fn qwen2() {
    snapshot!(inspect(&fixtures().join("models"), "qwen2", 0));
}

#[test]
fn qwen3() {
    snapshot!(inspect(&fixtures().join("models"), "qwen3", 0));
}

#[test]
fn gemma2() {
    snapshot!(inspect(&fixtures().join("models"), "gemma2", 0));
}

#[test]
fn gemma3() {
    snapshot!(inspect(&fixtures().join("models"), "gemma3", 0));
}

#[test]
fn granite() {
    snapshot!(inspect(&fixtures().join("models"), "granite", 0));
}

#[test]
fn olmo2() {
    snapshot!(inspect(&fixtures().join("models"), "olmo2", 0));
}

#[test]
fn phi3() {
    snapshot!(inspect(&fixtures().join("models"), "phi3", 0));
}

#[test]
fn smollm3() {
    snapshot!(inspect(&fixtures().join("models"), "smollm3", 0));
}

#[test]
fn an_adapter_alone() {
    snapshot!(inspect(&fixtures().join("adapters"), "qwen2-lora", 0));
}

#[test]
fn an_unknown_name() {
    snapshot!(inspect(&fixtures(), "tinny", 1));
}

#[test]
fn a_folder_of_something_else() {
    snapshot!(inspect(&fixtures(), "models", 1));
}

#[test]
fn an_architecture_that_is_not_supported() {
    let dir = changed("qwen2", |model| {
        edit(&model.join("config.json"), |config| {
            (config["architectures"], config["model_type"]) = (json!(["MambaForCausalLM"]), json!("mamba"));
        });
    });
    snapshot!(inspect(dir.path(), "model", 1));
}

#[test]
fn several_things_wrong() {
    let dir = changed("qwen2", |model| {
        edit(&model.join("config.json"), |config| config["hidden_size"] = json!(64));
        edit(&model.join("tokenizer_config.json"), |config| config["eos_token"] = json!("<none>"));
    });
    snapshot!(inspect(dir.path(), "model", 1));
}

#[test]
fn weights_that_are_missing() {
    let dir = changed("qwen2", |model| {
        fs::rename(model.join("model.safetensors"), model.join("pytorch_model.bin")).expect("renamed");
        fs::remove_file(model.join("tokenizer.json")).expect("removed");
    });
    snapshot!(inspect(dir.path(), "model", 1));
}

#[test]
fn a_template_that_cannot_be_parsed() {
    let dir = changed("qwen2", |model| {
        fs::write(model.join("chat_template.jinja"), "{% for m in messages %}{{ m.content }").expect("written");
    });
    snapshot!(inspect(dir.path(), "model", 1));
}
