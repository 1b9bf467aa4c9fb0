//! Every shipped script runs for two small steps, logs finite numbers, and leaves a model.

use rhopo::run::names;
use rhopo::script::lang::loader::{self, Source};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What is made small, wherever a script has it among its hyper-parameters.
const SMALL: &[(&str, &str)] = &[
    ("batch", "8"),
    ("demos", "8"),
    ("eval_every", "2"),
    ("eval_prompts", "8"),
    ("group", "4"),
    ("grows", "1"),
    ("iterations", "1"),
    ("lessons", "2"),
    ("minibatch", "16"),
    ("pairs", "4"),
    ("pool", "16"),
    ("prompts", "16"),
    ("steps", "2"),
    ("test_pairs", "8"),
    ("thresholds", "[0.0]"),
];
/// Options that change which code runs, each run beside the defaults.
const VARIANTS: &[(&str, &str)] = &[
    ("rebel", "second=reference"),
    ("rebel", "second=best_worst"),
    ("dapo", "tries=1"),
    ("distill", "answers=demos"),
    ("distill", "soft_end=0.0"),
    ("gkd", "own=0.0"),
    ("gkd", "jsd=0.0"),
    ("gkd", "jsd=1.0"),
    ("ppo_penalty", "exact=true"),
    ("ppo_clip_kl", "exact=true"),
    ("gro", "method=alol"),
    ("gro", "method=awr"),
    ("gro", "method=contrast"),
    ("gro", "method=cpl"),
    ("gro", "method=dpo"),
    ("gro", "method=grpo"),
    ("gro", "method=kto"),
    ("gro", "method=proposal_token"),
    ("gro", "method=reinforce_pp"),
    ("gro", "method=remax"),
    ("gro", "method=rloo"),
    ("gro", "method=sft"),
    ("gro", "method=surrogate"),
];
/// Measures a model and trains none.
const EVALUATES: &[&str] = &["best_of_n"];

/// The names in the script's `args` map, one to a line.
fn hyper_parameters(source: &Source) -> Vec<&str> {
    let map = source.text.split_once("args(#{").expect("an args map").1.split_once("\n});").expect("its end").0;
    map.lines().filter_map(|line| Some(line.trim().split_once(':')?.0)).collect()
}

fn run(source: &Source, extra: &[&str]) -> Vec<Value> {
    run_in(tempfile::tempdir().expect("a folder").path(), source, extra)
}

fn run_in(dir: &Path, source: &Source, extra: &[&str]) -> Vec<Value> {
    let name = source.stem();
    let known = hyper_parameters(source);
    let sets = SMALL.iter().filter(|(key, _)| known.contains(key)).map(|(key, value)| format!("{key}={value}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", &name, "--out", "out", "--set"]).args(sets).args(extra);
    let out = command.output().expect("rhopo starts");
    assert!(out.status.success(), "{name} {extra:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(left_a_model(dir), !EVALUATES.contains(&name.as_str()), "{name}");
    lines(dir)
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("out/metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn left_a_model(dir: &Path) -> bool {
    dir.join("out/model/model.safetensors").is_file() || dir.join("out/model/adapter_model.safetensors").is_file()
}

fn check(name: &str, lines: &[Value]) {
    for line in lines {
        // NaN and infinity are null in the file.
        let finite = line.as_object().expect("an object").values().all(Value::is_number);
        assert!(finite, "{name}: {line}");
    }
    if !EVALUATES.contains(&name) {
        let moved = lines.iter().filter(|line| line["loss"].is_number() && line["grad_norm"].is_number()).count();
        assert!(moved >= 2, "{name}: {lines:?}"); // rest has more: rounds of steps
        let largest = lines.iter().filter_map(|line| line["grad_norm"].as_f64()).fold(0.0, f64::max);
        assert!(largest > 0.0, "{name}: no gradient: {lines:?}");
    }
}

/// The run as it would go on if it had been killed before its last step.
fn resume(dir: &Path) -> Vec<Value> {
    fs::remove_file(dir.join("out/status.json")).expect("a run that has ended");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let out = command.current_dir(dir).args(["run", "--resume", "out"]).output().expect("rhopo starts");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.contains("continuing after step"), "{said}");
    lines(dir)
}

#[test]
fn every_shipped_script_runs_and_can_be_resumed() {
    for source in loader::list(&rhopo::run::access::Access::reading(&[])) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut whole = run_in(dir.path(), &source, &["--checkpoint", "1"]);
        check(&source.stem(), &whole);
        let mut resumed = resume(dir.path());
        for line in whole.iter_mut().chain(&mut resumed) {
            line.as_object_mut().expect("an object").retain(|name, _| names::is_exact(name));
        }
        assert_eq!(whole, resumed, "{}", source.stem());
    }
}

#[test]
fn every_variant_runs() {
    let scripts = loader::list(&rhopo::run::access::Access::reading(&[]));
    for (name, set) in VARIANTS {
        let source = scripts.iter().find(|source| source.stem() == *name).expect("a shipped script");
        check(name, &run(source, &[set]));
    }
}

/// What a method of GRO's table learns from, alone and beside samples.
#[test]
fn every_variant_learns_from_given_answers() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, answer: &str| {
        let row = |n: u32| {
            format!("{{\"prompt\": \"1{n}+20=\", \"answer\": \"3{n}\", {}}}\n", answer.replace('N', &n.to_string()))
        };
        let path = dir.path().join(name);
        fs::write(&path, (0..8).map(row).collect::<String>()).expect("written");
        format!("data={}", path.display())
    };
    let demos = file("demos.jsonl", "\"completion\": \"3N\"");
    let pairs = file("pairs.jsonl", "\"chosen\": \"3N\", \"rejected\": \"4N\"");
    let labels = file("labels.jsonl", "\"completion\": \"3N\", \"label\": true");
    let scripts = loader::list(&rhopo::run::access::Access::reading(&[]));
    let source = |name: &str| scripts.iter().find(|source| source.stem() == name).expect("a shipped script");
    let methods = [
        ("dpo", &pairs),
        ("cpl", &pairs),
        ("kto", &labels),
        ("sft", &demos),
        ("awr", &demos),
        ("proposal", &demos),
        ("proposal_token", &demos),
        ("alol", &demos),
    ];
    for (method, data) in methods {
        let method = format!("method={method}");
        let alone = run(source("gro"), &[&method, data]);
        check("gro", &alone);
        let sampled = |lines: &[Value]| lines.iter().any(|line| line["reward"].is_number());
        assert!(!sampled(&alone), "{method} was given answers: nothing is to be sampled");
        if method != "method=sft" {
            let mixed = run(source("gro"), &[&method, data, "share=0.5"]);
            check("gro", &mixed);
            assert!(sampled(&mixed), "{method} is to learn from samples too");
        }
    }
    for name in ["alol", "spin"] {
        check(name, &run(source(name), &[&demos]));
    }
}

#[test]
fn gro_refuses_a_second_update_without_a_ratio() {
    let dir = tempfile::tempdir().expect("a folder");
    let command = |set: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        command
            .current_dir(dir.path())
            .args(["run", "gro", "--out", "out", "--set"])
            .args(set)
            .output()
            .expect("it starts")
    };
    let out = command(&["method=rloo", "epochs=2"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("rloo has no ratio in w: a batch is used once, expected epochs=1"), "{said}");
    let small = ["method=surrogate", "epochs=2", "steps=1", "prompts=8", "group=2", "--seed", "0"];
    assert!(command(&small).status.success());
}

/// What a script's text promises: its form, its length, its header.
#[test]
fn every_shipped_script_keeps_the_form() {
    for source in loader::list(&rhopo::run::access::Access::reading(&[])) {
        let (name, lines) = (source.stem(), source.text.lines().collect::<Vec<_>>());
        assert!(lines.len() <= 80, "{name} has {} lines", lines.len());
        for (i, line) in lines.iter().enumerate() {
            assert!(line.chars().count() <= 130, "{name}, line {}: {} characters", i + 1, line.chars().count());
        }
        assert!(source.summary().contains(": ") || source.summary().contains(" on "), "{name}: {}", source.summary());
        assert!(source.text.contains(&format!("//! Run:  rhopo run {name}")), "{name} has no run line");
        assert!(source.text.contains("//! Axes: "), "{name} does not name its axes");
    }
}
