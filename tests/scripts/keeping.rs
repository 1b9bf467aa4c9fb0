//! Evaluations while a run goes on, and the best model so far: understood by every script without a line in it.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, script: &str, out: &str, sets: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.args(["run", script, "--device", "cpu", "--out", out, "--set"]).args(sets).current_dir(dir);
    command.output().expect("the program starts")
}

fn lines(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn scripts_evaluate_and_keep_the_best_without_a_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = ["steps=5", "prompts=16", "group=4"];
    let plain = run(dir.path(), "grpo", "plain", &small);
    assert!(plain.status.success(), "{}", told(&plain));
    let kept = run(dir.path(), "grpo", "kept", &[&small[..], &["eval_every=2", "eval_n=32", "keep=true"]].concat());
    assert!(kept.status.success(), "{}", told(&kept));
    let (plain, lines) = (lines(&dir.path().join("plain")), lines(&dir.path().join("kept")));
    let evaluated: Vec<u64> = lines
        .iter()
        .filter(|line| !line["eval"].is_null())
        .map(|line| line["step"].as_u64().expect("a step"))
        .collect();
    assert_eq!(evaluated, [0, 2, 4, 5]);
    for (plain, line) in plain.iter().zip(&lines) {
        for name in ["loss", "reward", "grad_norm", "sampled"] {
            assert_eq!(plain[name], line[name], "{name}: looking moves nothing");
        }
    }
    let best: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("kept/model-best/best.json")).expect("the best"))
            .expect("JSON");
    // The first evaluation is of the model as it was loaded.
    let largest = lines[1..].iter().filter_map(|line| line["eval"].as_f64()).fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(best["value"].as_f64(), Some(largest));
    assert_eq!(best["name"], "eval");
    assert!(dir.path().join("kept/model-best/model.safetensors").is_file());
    assert!(!dir.path().join("plain/model-best").exists());
}

#[test]
fn every_script_that_opens_a_task_understands_them() {
    let dir = tempfile::tempdir().expect("a folder");
    for (script, sets) in [
        ("dpo", &["steps=2", "prompts=16", "pairs=4"][..]),
        ("ppo", &["steps=2", "prompts=8", "minibatch=4"]),
        ("spin", &["steps=1", "iterations=2", "demos=8", "pairs=2"]),
        ("refuel", &["steps=2", "prompts=4"]),
    ] {
        let output = run(dir.path(), script, script, &[sets, &["eval_every=1", "eval_n=8", "keep=true"]].concat());
        assert!(output.status.success(), "{script}: {}", told(&output));
        assert!(
            lines(&dir.path().join(script)).iter().any(|line| line["step"] == 1 && !line["eval"].is_null()),
            "{script}"
        );
        assert!(dir.path().join(script).join("model-best/best.json").is_file(), "{script}");
    }
}

#[test]
fn a_task_of_ones_own_is_evaluated_between_two_steps() {
    let dir = tempfile::tempdir().expect("a folder");
    let task = "fn items() { let all = []; for i in 0..40 { all.push(#{ prompt: `${i % 10}+1=`, answer: `${i % 10 + 1}` }); } all }\n\
                fn score(b) { b.text.map(|text| if text == \"\" { 0.0 } else { 1.0 }) }\n";
    fs::write(dir.path().join("mine.rhai"), task).expect("written");
    let sets = ["task=mine.rhai", "steps=2", "prompts=4", "group=2", "eval_every=1", "eval_n=2"];
    let output = run(dir.path(), "grpo", "mine", &sets);
    assert!(output.status.success(), "{}", told(&output));
    assert!(lines(&dir.path().join("mine")).iter().all(|line| !line["eval"].is_null()));
}

#[test]
fn a_script_that_evaluates_by_itself_keeps_the_best_as_well() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = run(dir.path(), "sft", "sft", &["steps=3", "eval_every=1", "keep=true"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(dir.path().join("sft/model-best/best.json").is_file());
    let output = run(dir.path(), "sft", "none", &["eval_n=8"]);
    assert!(told(&output).contains("the script evaluates by itself"), "{}", told(&output));
}

#[test]
fn what_would_come_to_nothing_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("alone.rhai"), "let cfg = args(#{ n: 1 }); let run = open_run(cfg);").expect("written");
    for (script, set, expected) in [
        ("grpo", "keep=true", "nothing is evaluated during the run"),
        ("grpo", "eval_every=0", "expected 1 or more"),
        ("grpo", "eval_every=soon", "expected a whole number"),
        ("alone.rhai", "eval_every=2", "this script has no task"),
        ("reward_model", "eval_every=2", "which answers nothing"),
    ] {
        let output = run(dir.path(), script, "none", &[set]);
        assert_eq!(output.status.code(), Some(1));
        assert!(told(&output).contains(expected), "{}", told(&output));
        fs::remove_dir_all(dir.path().join("none")).ok();
    }
}
