//! A LoRA step on a model of 150 million parameters, and what the operating system says that it took.

use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Runs a script whose last line of output is an object, and returns it.
fn run(script: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 32000,
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 14, "num_attention_heads": 12,
        "num_key_value_heads": 12, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true,
    });
    fs::create_dir(dir.path().join("big")).unwrap();
    fs::write(dir.path().join("big/config.json"), config.to_string()).unwrap();
    fs::write(dir.path().join("own.rhai"), script).unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_rhopo"))
        .current_dir(dir.path())
        .args(["run", "own.rhai"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let peak = peak_of(program.id());
    let out = program.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut said: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    said["peak"] = peak.into();
    said
}

/// The most resident memory that a process had by its end, in bytes. The kernel keeps the mark; the script sleeps after
/// its step, so that it can be read.
fn peak_of(process: u32) -> u64 {
    let mut peak = 0;
    while let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) {
        let Some(line) = status.lines().find(|line| line.starts_with("VmHWM:")) else { break };
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        peak = kilobytes * 1024;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn a_lora_step_stays_below_one_and_a_half_times_weights_and_activations() {
    let said = run(r#"
let policy = load_model("big", #{ random: true, lora: #{ rank: 16 } });
let prompts = [];
let completions = [];
for i in 0..4 {
    prompts += [[1 + i, 2, 3, 4]];
    let tokens = [];
    for t in 0..60 { tokens += [(7919 * t + 104729 * i) % 32000]; }
    completions += [tokens];
}
let b = encode_ids(prompts, completions);
let opt = adamw(policy, #{ lr: 1e-4 });
for i in 0..2 { opt.step(-token_mean(logprob(policy, b), b.mask)); }
let held = memory(policy, b);
held.parameters = policy.parameters;
held.trained = policy.trained;
sleep(0.5);
print(held.to_json());
"#);
    let bytes = |key: &str| said[key].as_u64().unwrap();
    assert!(bytes("parameters") > 150_000_000 && bytes("trained") < 10_000_000, "{said}");
    let reported = bytes("weights") + bytes("activations");
    let ratio = bytes("peak") as f64 / reported as f64;
    println!("peak {:.0} MB, {ratio:.3} of weights and activations: {said}", bytes("peak") as f64 / 1e6);
    assert!(ratio < 1.5, "{ratio}: {said}");
    assert!(ratio > 0.9, "the report promises more than there is: {ratio}: {said}");
}
