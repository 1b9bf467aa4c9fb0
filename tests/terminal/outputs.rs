//! Standard output that takes nothing more: a full device is an error with exit status 1, a reader that went away is none. A run goes on either way.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn rhopo(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(words).stdin(Stdio::null()).env("HF_HUB_OFFLINE", "1");
    command
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A folder with a run, a script that prints, and tests.
fn laid() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    write("own.rhai", "let run = open_run(#{});\nfor s in run.steps(3) { run.log(#{ s: s }); print(`step ${s}`); }\n");
    write("loud.rhai", "for i in 0..100000 { print(`line ${i}`); }");
    write("tests.rhai", "fn test_one() { assert(true, \"\"); }\nfn test_two() { assert(true, \"\"); }\n");
    write("wrong.rhai", "let x = 1;\nnothing(x);\n");
    for out in ["a", "b"] {
        let done = rhopo(dir.path(), &["run", "own", "--out", out]).output().expect("rhopo starts");
        assert!(done.status.success(), "{}", said(&done));
    }
    dir
}

/// Every command that only prints, or says at its end where something is.
const PRINTING: [&[&str]; 24] = [
    &["--help"],
    &["--version"],
    &["help", "run"],
    &["run", "--help"],
    &["list"],
    &["doc"],
    &["doc", "logprob"],
    &["doc", "metrics"],
    &["doc", "--write", "pages"],
    &["definitions", "definitions"],
    &["inspect", "tiny"],
    &["runs", "."],
    &["runs", ".", "--json"],
    &["diff", "a", "b"],
    &["report", "a"],
    &["plot", "a", "b", "--y", "s"],
    &["completions", "bash"],
    &["man"],
    &["man", "pages"],
    &["gpu", "info"],
    &["test", "tests.rhai"],
    &["new", "mine"],
    &["run", "loud"],
    &["compare", "grpo", "reinforce", "--svg", "x.svg"],
];

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error_of_every_command_that_prints() {
    let dir = laid();
    for words in PRINTING {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let out = rhopo(dir.path(), words).stdout(full).output().expect("rhopo starts");
        let text = said(&out);
        let error = "Error: cannot write standard output: No space left on device";
        assert!(out.status.code() == Some(1) && text.contains(error), "{words:?}: {:?} {text}", out.status.code());
        assert_eq!(text.matches("Error: ").count(), 1, "{words:?}: {text}");
        fs::remove_file(dir.path().join("mine.rhai")).ok();
    }
}

#[test]
fn a_reader_that_went_away_is_no_error_of_any() {
    let dir = laid();
    for words in PRINTING {
        let mut child =
            rhopo(dir.path(), words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rhopo starts");
        drop(child.stdout.take());
        let out = child.wait_with_output().expect("it ends");
        assert!(out.status.success(), "{words:?}: {:?} {}", out.status.code(), said(&out));
        assert!(!said(&out).contains("Error: "), "{words:?}: {}", said(&out));
        fs::remove_file(dir.path().join("mine.rhai")).ok();
    }
}

/// What a command found wrong decides, and is said once.
#[cfg(target_os = "linux")]
#[test]
fn an_error_of_its_own_goes_before_that_of_the_output() {
    let dir = laid();
    for words in [&["check", "--json", "wrong.rhai"][..], &["run", "wrong"], &["replay", "none"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let out = rhopo(dir.path(), words).stdout(full).output().expect("rhopo starts");
        assert!(
            out.status.code() == Some(1) && said(&out).matches("standard output").count() == 0,
            "{words:?}: {}",
            said(&out)
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_goes_on_whatever_becomes_of_its_output() {
    let dir = laid();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let out = rhopo(dir.path(), &["run", "own", "--out", "full"]).stdout(full).output().expect("rhopo starts");
    assert!(
        out.status.code() == Some(1) && said(&out).contains("Error: cannot write standard output: "),
        "{}",
        said(&out)
    );
    let mut closed = rhopo(dir.path(), &["run", "own", "--out", "closed"]);
    let mut child = closed.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rhopo starts");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{}", said(&out));
    for run in ["full", "closed"] {
        let metrics = fs::read_to_string(dir.path().join(run).join("metrics.jsonl")).expect("metrics");
        assert_eq!(metrics.lines().count(), 3, "{run}");
        let log = fs::read_to_string(dir.path().join(run).join("log.txt")).expect("a log");
        assert!(log.contains("step 3"), "{run}: {log}");
        assert!(fs::read_to_string(dir.path().join(run).join("status.json")).expect("a status").contains("finished"));
    }
}
