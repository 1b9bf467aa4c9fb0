//! Whole runs on the emulated device against the same runs on the CPU.

use rhopo::run::names;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// The metrics of each step.
fn metrics(script: &str, sets: &[&str], flags: &[&str]) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.args(["run", script, "--out", dir.path().to_str().expect("a path")]).args(flags);
    sets.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    let done = command.output().expect("it starts");
    assert!(done.status.success(), "{script} {flags:?}: {}", String::from_utf8_lossy(&done.stderr));
    let config: Value =
        serde_json::from_slice(&fs::read(dir.path().join("config.json")).expect("a file")).expect("JSON");
    assert_eq!(config["device"], flags[1], "{script}");
    assert!(dir.path().join("model").is_dir(), "{script} saves what it trained");
    let lines = fs::read_to_string(dir.path().join("metrics.jsonl")).expect("metrics");
    lines.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// The largest gap of all metrics but the time, relative where a number is above 1.
fn gap(a: &[Value], b: &[Value]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut largest = 0.0_f64;
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a.as_object().expect("an object"), b.as_object().expect("an object"));
        let exact = |line: &serde_json::Map<String, Value>| {
            line.keys().filter(|name| names::is_exact(name)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(exact(a), exact(b));
        for (name, x) in a.iter().filter(|(name, _)| names::is_exact(name)) {
            let (x, y) = (x.as_f64().expect("a number"), b[name].as_f64().expect("a number"));
            assert!(x.is_finite() && y.is_finite(), "{name}: {x} and {y}");
            largest = largest.max((x - y).abs() / x.abs().max(1.0));
        }
    }
    largest
}

const SCRIPTS: [(&str, &[&str]); 3] = [
    ("grpo", &["steps=2", "prompts=6", "group=4", "minibatch=12"]),
    ("grpo_lora", &["steps=2", "prompts=6", "group=4", "minibatch=12"]),
    ("dpo", &["steps=2", "prompts=24", "pairs=8"]),
];

#[test]
fn runs_in_f32_have_the_metrics_of_the_cpu() {
    for (script, sets) in SCRIPTS {
        let host = metrics(script, sets, &["--device", "cpu"]);
        let device = metrics(script, sets, &["--device", "emulated", "--dtype", "f32"]);
        let gap = gap(&host, &device);
        println!("{script}: metrics differ by {gap:.1e} at most");
        assert!(gap < 2e-5, "{script}: {gap:.1e}: {host:?} and {device:?}");
    }
}

/// The same draws choose other tokens once probabilities differ in the third digit; so much of one step is compared.
#[test]
fn a_run_in_bf16_stays_close_to_the_cpu() {
    let sets = ["steps=1", "prompts=6", "group=4"];
    let host = metrics("grpo", &sets, &["--device", "cpu"]);
    let device = metrics("grpo", &sets, &["--device", "emulated"]);
    let gap = gap(&host, &device);
    println!("grpo in bf16: metrics differ by {gap:.1e} at most");
    assert!(gap < 0.2, "{gap}: {host:?} and {device:?}");
}
