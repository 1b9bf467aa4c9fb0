//! What a run leaves beside its metrics: samples, a log, curves of whatever was logged.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, script: &str, args: &[&str]) -> Output {
    fs::write(dir.join("own.rhai"), script).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", "own", "--out", "out"]).args(args).output().expect("rhopo starts")
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join("out").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SAMPLED: &str = r#"
let run = open_run(#{});
let b = batch(#{ prompt: ["1+1=", "2+2="], text: ["2", "five\x1b[31m<script>"], reward: [1.0, 0.0], answer: ["2", "4"] });
for step in run.steps(2) {
    run.log(#{ reward: mean(b.reward) });
    run.show(b, 1);
}
"#;

#[test]
fn samples_are_kept_as_the_command_line_says() {
    let rows = |args: &[&str]| {
        let dir = tempfile::tempdir().expect("a folder");
        let out = run(dir.path(), SAMPLED, args);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let file = fs::read_to_string(dir.path().join("out/samples.jsonl")).ok();
        let row = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        file.map(|file| file.lines().map(row).collect::<Vec<_>>())
    };
    let row = |step: u64, i: usize| {
        let (prompt, text, reward, answer) = [("1+1=", "2", 1.0, "2"), ("2+2=", "five\u{1b}[31m<script>", 0.0, "4")][i];
        json!({ "step": step, "prompt": prompt, "text": text, "reward": reward, "answer": answer })
    };
    assert_eq!(rows(&[]), Some(vec![row(1, 0), row(2, 0)]));
    assert_eq!(rows(&["--samples", "shown"]), Some(vec![row(1, 0), row(2, 0)]));
    assert_eq!(rows(&["--samples", "all"]), Some(vec![row(1, 0), row(1, 1), row(2, 0), row(2, 1)]));
    assert_eq!(rows(&["--samples", "none"]), None);
    let dir = tempfile::tempdir().expect("a folder");
    let out = run(dir.path(), SAMPLED, &["--samples", "some"]);
    let said = text(&out.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(out.status.code() == Some(2) && said.contains("expected all, shown or none"), "{said}");
}

#[test]
fn the_log_has_what_was_told_and_nothing_that_a_terminal_obeys() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = format!(
        "print(\"before\");\n{SAMPLED}print(\"\\x1b[31mred\\x1b[0m\");\nrun.log(#{{ eval: 0.5 }});\nnothing();\n"
    );
    let out = run(dir.path(), &script, &[]);
    assert_eq!(out.status.code(), Some(1));
    let log = read(dir.path(), "log.txt");
    for line in ["before\n", "\nred\n", "samples of step 1", "step 2/2  reward 0.500", "step 2: eval 0.500", "nothing"]
    {
        assert!(log.contains(line), "{line:?} is missing:\n{log}");
    }
    assert!(!log.contains('\u{1b}') && log.contains("own.rhai"), "{log}");
}

/// What a terminal would obey is shown to a person, and given as it is to a program.
#[cfg(unix)]
#[test]
fn control_sequences_that_a_script_prints_are_shown_on_a_terminal() {
    use crate::common::terminal::Terminal;
    let dir = tempfile::tempdir().expect("a folder");
    let script = "print(\"\\x1b[31mred\");\nlet run = open_run(#{});\nrun.log(#{ mine: 2 });\n";
    let out = run(dir.path(), script, &[]);
    assert_eq!(text(&out.stdout), "\u{1b}[31mred\nout\n");
    let t = Terminal::start(dir.path(), &["run", "own", "--out", "other"]);
    t.expect("\\x1b[31mred", std::time::Duration::from_secs(30));
    t.expect("written to other", std::time::Duration::from_secs(30));
}

#[test]
fn a_program_finds_the_folder_in_the_last_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = run(dir.path(), "print(1);\nlet run = open_run(#{});\nrun.log(#{ mine: 2 });\n", &[]);
    assert_eq!(text(&out.stdout), "1\nout\n");
    assert!(text(&out.stderr).contains("written to out"));
}

#[test]
fn names_of_ones_own_are_drawn_and_told_and_former_ones_get_a_note() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "let run = open_run(#{});\nfor step in run.steps(3) {\n    \
                  run.log(#{ accuracy: 0.25, \"part/a\": 1.0 / step, \"part/b\": step, kl: 0.5 });\n}\n";
    let out = run(dir.path(), script, &[]);
    let said = text(&out.stderr);
    assert!(said.contains("step 3/3  accuracy 0.250"), "{said}");
    assert_eq!(said.matches("run.log: `kl` is drawn by itself; the name for it is `kl_ref`").count(), 1, "{said}");
    let svg = read(dir.path(), "curves.svg");
    for drawn in ["accuracy", "part/…", "part/a", "part/b", "kl"] {
        assert!(svg.contains(drawn), "{drawn} is not drawn");
    }
}

#[test]
fn a_run_says_what_its_steps_cost() {
    let dir = tempfile::tempdir().expect("a folder");
    let sets = ["--set", "steps=2", "prompts=4", "group=4", "max_tokens=3", "--device", "cpu"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let out = command.current_dir(dir.path()).args(["run", "ppo", "--out", "out"]).args(sets).output().expect("starts");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let lines: Vec<Value> =
        read(dir.path(), "metrics.jsonl").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let number = |line: &Value, name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"));
    // Before the first step there is an evaluation, which is nobody's step.
    for name in ["lr", "truncated", "seconds/sample", "tokens_per_second"] {
        assert!(lines[0].get(name).is_none(), "{name}: {}", lines[0]);
    }
    let mut before = number(&lines[0], "seconds");
    for (step, line) in lines.iter().enumerate().skip(1) {
        // Of the policy, which steps before the critic, by the schedule of the script: five steps of warm-up.
        assert_eq!(number(line, "lr"), 2e-4 * (step as f64 / 6.0), "{line}");
        let parts: f64 =
            ["seconds/sample", "seconds/score", "seconds/update"].iter().map(|name| number(line, name)).sum();
        let lasted = number(line, "seconds") - before;
        before = number(line, "seconds");
        assert!(parts > 0.0 && parts <= lasted + 2e-3, "{parts} of {lasted}: {line}");
        assert!(number(line, "tokens_per_second") > 0.0 && number(line, "reward_std") >= 0.0);
        // Answers of at most three tokens: those that are shorter have ended.
        let truncated = number(line, "truncated");
        assert!((0.0..=1.0).contains(&truncated) && (truncated * 16.0).fract() == 0.0, "{line}");
    }
    #[cfg(target_os = "linux")]
    assert!(lines.iter().all(|line| number(line, "peak_bytes") > 1e6));
}
