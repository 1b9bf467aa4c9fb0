//! The scripts that learn from pairs, run as a user runs them: dpo on a file and by itself, and rebel.

use crate::common::fixtures;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn rhopo(dir: &Path, script: &str, sets: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", script, "--out", "out", "--set"]).args(sets);
    command.output().expect("rhopo starts")
}

/// The lines of `metrics.jsonl` that have a loss.
fn steps(dir: &Path, out: &Output) -> Vec<Value> {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = fs::read_to_string(dir.join("out/metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["loss"].is_number()).collect()
}

/// A dozen questions with a good and a bad answer, as messages.
fn dialogues() -> String {
    let said = |role: &str, text: String| json!({ "role": role, "content": text });
    let pair = |i: i32| {
        json!({
            "prompt": [said("system", "Add.".into()), said("user", format!("What is {i} and 1?"))],
            "chosen": [said("assistant", format!("It is {}.", i + 1))],
            "rejected": [said("assistant", "I do not know.".into())],
        })
    };
    (0..12).map(|i| format!("{}\n", pair(i))).collect()
}

#[test]
fn dpo_learns_from_dialogues_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pairs.jsonl"), dialogues()).unwrap();
    let model = format!("model={}", fixtures().join("models/qwen2").display());
    let sets = ["data=pairs.jsonl", &model, "steps=3", "pairs=12", "lr=1e-3", "beta=0.1"];
    let steps = steps(dir.path(), &rhopo(dir.path(), "dpo", &sets));
    let loss: Vec<f64> = steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    // Every step sees all pairs, and at the first the policy is the reference.
    assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-6, "{loss:?}");
    assert!(loss[1] < loss[0] && loss[2] < loss[1], "{loss:?}");
    assert_eq!((&steps[0]["right"], &steps[2]["right"]), (&json!(0.0), &json!(1.0)));
    assert!(dir.path().join("out/model/tokenizer.json").is_file());
}

#[test]
fn dpo_names_the_pair_that_is_not_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pairs.jsonl"), dialogues().replacen("rejected", "refused", 1)).unwrap();
    let out = rhopo(dir.path(), "dpo", &["data=pairs.jsonl"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("pairs.jsonl, line 1: `rejected` is missing"), "{said}");
}

#[test]
fn dpo_and_rebel_run_by_themselves() {
    for (script, sets) in
        [("dpo", ["steps=2", "prompts=64", "pairs=8"]), ("rebel", ["steps=2", "prompts=16", "seed=1"])]
    {
        let dir = tempfile::tempdir().unwrap();
        let steps = steps(dir.path(), &rhopo(dir.path(), script, &sets));
        assert_eq!(steps.len(), 2, "{script}");
        assert!(steps.iter().all(|step| step["grad_norm"].as_f64().is_some_and(|norm| norm > 0.0)), "{script}");
    }
}
