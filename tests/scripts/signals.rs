//! Signals and pipes: a run ends in order when it is asked to, and never because nobody reads what it says.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing of what the program says is kept.
pub fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

pub fn terminate(child: &Child) {
    send(child, "TERM");
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// Waits until a run has written so many lines.
pub fn wait_for_line(metrics: &Path, n: usize) {
    let until = Instant::now() + Duration::from_secs(120);
    while fs::read_to_string(metrics).map_or(0, |text| text.lines().count()) < n {
        assert!(Instant::now() < until, "no {n} lines in {}", metrics.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn grpo(out: &Path, steps: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.args(["run", "grpo", "--device", "cpu", "--set", steps, "prompts=4", "group=4", "--out"]).arg(out);
    command
}

#[test]
fn every_signal_that_asks_ends_the_run_in_order() {
    for (signal, code) in [("TERM", 143), ("USR1", 138), ("HUP", 129), ("INT", 130)] {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("run");
        let mut child = quiet(&mut grpo(&out, "steps=100000")).spawn().expect("started");
        wait_for_line(&out.join("metrics.jsonl"), 3);
        send(&child, signal);
        assert_eq!(child.wait().expect("ended").code(), Some(code), "{signal}");
        let status: Value =
            serde_json::from_str(&fs::read_to_string(out.join("status.json")).expect("there")).expect("JSON");
        assert_eq!(status["status"], "interrupted");
        assert!(out.join("model/model.safetensors").is_file() && out.join("curves.svg").is_file(), "{signal}");
        let report = fs::read_to_string(out.join("report.html")).expect("a report");
        assert!(report.contains(">interrupted</span>") && report.contains("after step"), "{signal}");
        assert!(out.join("checkpoints").is_dir(), "{signal}");
        assert!(!out.join("lock").exists(), "{signal}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_no_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("run");
    let script = dir.path().join("prints.rhai");
    let text = "let run = open_run(#{});\nfor step in run.steps(300) { print(step); run.log(#{ x: step }); }\n";
    fs::write(&script, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.arg("run").arg(&script).arg("--out").arg(&out).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).expect("metrics").lines().count(), 300);
}

/// `model/` is exchanged whole: once a process that was killed at the wrong moment had left none.
#[test]
fn a_run_that_saves_at_every_step_always_has_a_whole_model() {
    let kills: u64 = std::env::var("RHOPO_KILLS").map_or(6, |_| 100);
    let dir = tempfile::tempdir().expect("a folder");
    let script = dir.path().join("saves.rhai");
    let text = "let run = open_run(#{});\nlet policy = load_model(\"tiny\");\n\
                for step in run.steps(100000) { run.save(policy); run.log(#{ x: step }); }\n";
    fs::write(&script, text).expect("written");
    for kill in 0..kills {
        let out = dir.path().join(format!("run-{kill}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        command.arg("run").arg(&script).arg("--out").arg(&out).args(["--checkpoint", "off", "--device", "cpu"]);
        let mut child = quiet(&mut command).spawn().expect("started");
        wait_for_line(&out.join("metrics.jsonl"), 1);
        std::thread::sleep(Duration::from_millis(7 * kill % 61));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let opened =
            Command::new(env!("CARGO_BIN_EXE_rhopo")).arg("inspect").arg(out.join("model")).output().expect("started");
        assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
        fs::remove_dir_all(&out).expect("removed");
    }
}
