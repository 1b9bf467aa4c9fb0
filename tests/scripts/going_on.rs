//! What is said of a run that goes on, or is computed again, after it was interrupted or its folder was edited.

use super::signals::{quiet, wait_for_line};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn rhopo(dir: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rhopo")).args(words).current_dir(dir).output().expect("started")
}

fn interrupted(dir: &Path, more: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.args(["run", "grpo", "--device", "cpu", "--out", "run", "--checkpoint", "2"]);
    command.args(["--set", "steps=100000", "prompts=4", "group=4"]).args(more).current_dir(dir);
    let mut child = quiet(&mut command).spawn().expect("started");
    wait_for_line(&dir.join("run/metrics.jsonl"), 4);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    assert_eq!(child.wait().expect("ended").code(), Some(130));
}

/// After Ctrl-C the script goes on behind its loop, and evaluates; so does what is computed again.
#[test]
fn an_interrupted_run_is_replayed_with_what_follows_its_loop() {
    let dir = tempfile::tempdir().expect("a folder");
    interrupted(dir.path(), &[]);
    let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).expect("metrics");
    let last: Value = serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON");
    assert!(last["eval"].is_number(), "{last}");
    for words in [&["replay", "run"][..], &["replay", "run", "--from", "0"]] {
        let output = rhopo(dir.path(), words);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(" numbers match"), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0));
    }
}

/// `config.json` says how a run was begun, and sets nothing.
#[test]
fn what_was_edited_in_the_configuration_of_a_run_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    interrupted(dir.path(), &["clip=0.3"]);
    let path = dir.path().join("run/config.json");
    let text = fs::read_to_string(&path).expect("a configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let lr = config["args"]["lr"].clone();
    config["args"]["lr"] = 0.5.into();
    fs::write(&path, config.to_string()).expect("edited");
    let step = || {
        let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).expect("metrics");
        serde_json::from_str::<Value>(metrics.lines().last().expect("a line")).expect("JSON")["step"]
            .as_u64()
            .expect("a step")
    };
    let steps = format!("steps={}", step() + 1);
    let output = rhopo(dir.path(), &["run", "--resume", "run", "--set", &steps]);
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted =
        format!("config.json says lr = 0.5, and the run goes on with {lr}, as it began: --set lr=0.5 changes it");
    assert!(said.contains(&wanted), "{said}");
    assert_eq!(said.matches("config.json says").count(), 1, "{said}");
}
