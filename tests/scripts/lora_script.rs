//! GRPO on an adapter, from dialogues in a file to a folder that opens again.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn rhopo(dir: &Path, args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_rhopo")).current_dir(dir).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn metrics(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The shipped script's loss on a reward of one's own: answers are to hold the letter that the row asks for.
const SCRIPT: &str = r#"
let cfg = args(#{ model: "", data: "", steps: 25, clip: 0.2, beta: 0.001, seed: 0 });
let run = open_run(cfg);
let data = load_data(cfg.data);
let policy = load_model(cfg.model, #{ lora: #{ rank: 8, alpha: 16 } });
let base = policy.reference();
let opt = adamw(policy, #{ lr: 1e-2 });
let grpo = script("grpo_lora");
run.track(#{ policy: policy, opt: opt, data: data });
for step in run.steps(cfg.steps) {
    let b = sample(policy, data.prompts(8), #{ n: 8, max_tokens: 8 });
    let reward = [];
    for i in 0..b.rows { reward += [if b.text[i].contains(b.letter[i]) { 1.0 } else { 0.0 }]; }
    b.reward = reward;
    b.advantage = advantage::group(b.reward, 8);
    b.ref_logprob = logprob(base, b);
    for mb in b.minibatches(32, 1) { opt.step(grpo.call("loss", [logprob(policy, mb), mb, cfg])); }
    run.log(#{ reward: mean(b.reward) });
}
run.save(policy);
"#;

#[test]
fn grpo_with_an_adapter_learns_from_dialogues_and_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let row = |i: usize| {
        let content = format!("Question {i}: say something with an e.");
        serde_json::json!({"prompt": [{"role": "user", "content": content}], "letter": "e"}).to_string()
    };
    fs::write(dir.path().join("questions.jsonl"), (0..12).map(row).collect::<Vec<_>>().join("\n")).unwrap();
    fs::write(dir.path().join("own.rhai"), SCRIPT).unwrap();
    let model = format!("model={}", fixtures().join("models/qwen2").display());
    rhopo(dir.path(), &["run", "own.rhai", "--out", "made", "--set", &model, "data=questions.jsonl"]);
    let rewards: Vec<f64> =
        metrics(&dir.path().join("made/metrics.jsonl")).iter().filter_map(|line| line["reward"].as_f64()).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&rewards[..5]), mean(&rewards[rewards.len() - 5..]));
    assert!(last > first + 0.2, "{first} became {last}: {rewards:?}");
    for file in ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"] {
        assert!(dir.path().join("made/model").join(file).exists(), "{file}");
    }
    fs::write(dir.path().join("again.rhai"), "print(load_model(\"made/model\"));\n").unwrap();
    // The model that the adapter names lies outside: a file grants nothing.
    let base = fixtures().join("models/qwen2").display().to_string();
    let said = rhopo(dir.path(), &["run", "again.rhai", "--allow", &base]);
    assert!(said.contains("lora rank 8"), "{said}");
}

#[test]
fn the_shipped_script_runs_on_a_model_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let model = format!("model={}", fixtures().join("models/qwen2").display());
    rhopo(dir.path(), &["run", "grpo_lora", "--out", "made", "--set", &model, "steps=2", "prompts=4", "group=4"]);
    assert_eq!(metrics(&dir.path().join("made/metrics.jsonl")).len(), 3);
    assert!(dir.path().join("made/model/adapter_model.safetensors").exists());
}
