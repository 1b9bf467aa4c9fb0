//! What is said between two steps of a run: what it changes, what is kept of it, and what becomes of slips.
#![cfg(unix)]

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const LOOP: &str = "let cfg = args(#{ steps: 4, clip: 0.2 });\nlet run = open_run(cfg);\nlet list = [1.0];\n\
                    for step in run.steps(cfg.steps) {\n    let doubled = step * 2;\n    run.log(#{ begun: 1.0 });\n    \
                    run.log(#{ clip: cfg.clip, first: list[0], own: own(step) });\n}\nrun.log(#{ after: 1.0 });\n\
                    fn own(x) { x }\n";

/// Runs rhopo in `dir` with these lines on its standard input; its exit code, and all that it says.
fn rhopo(dir: &Path, args: &[&str], lines: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(args).env("RHOPO_HISTORY", dir.join("history"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rhopo starts");
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    let done = child.wait_with_output().expect("it ends");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.code(), said)
}

/// A run of `script` that pauses.
fn paused(dir: &Path, script: &str, lines: &[&str]) -> (Option<i32>, String) {
    fs::write(dir.join("own.rhai"), script).expect("written");
    rhopo(dir, &["run", "own", "--pause", "--out", "out"], lines)
}

fn metrics(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("out/metrics.jsonl")).expect("metrics");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| !line["event"].is_string()).collect()
}

/// What was edited: the step, what happened, and the file that has it.
fn events(dir: &Path) -> Vec<(u64, String, String)> {
    let text = fs::read_to_string(dir.join("out/metrics.jsonl")).expect("metrics");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let events = lines.filter(|line| line["event"].is_string());
    events.map(|line| (line["step"].as_u64().expect("a step"), text(&line["event"]), text(&line["file"]))).collect()
}

fn numbers(dir: &Path, name: &str) -> Vec<Option<f64>> {
    metrics(dir).iter().map(|line| line[name].as_f64()).collect()
}

#[test]
fn what_is_changed_at_a_pause_is_kept_in_the_run_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let lines = ["cfg.clip", "cfg.clip = 0.5", "next", "doubled", "next", ":load edits", "continue"];
    fs::write(dir.join("edits.rhai"), "fn own(x) { x + 0.25 }\ncfg.clip = 0.75;\n").expect("written");
    let (code, said) = paused(dir, LOOP, &lines);
    assert_eq!(code, Some(0), "{said}");
    let kept = |step: u64| fs::read_to_string(dir.join(format!("out/pause-{step}.rhai"))).ok();
    assert_eq!(kept(1).as_deref(), Some("//! Said at the pause before step 1.\ncfg.clip = 0.5;\n"), "{said}");
    assert_eq!(kept(2), None, "a look changes nothing");
    assert_eq!(
        kept(3).as_deref(),
        Some("//! Said at the pause before step 3.\nfn own(x) { x + 0.25 }\ncfg.clip = 0.75;\n")
    );
    assert!(said.contains("pause-3.rhai in the run folder"), "{said}");
    assert_eq!(numbers(dir, "own"), [1.0, 2.0, 3.25, 4.25].map(Some));
    assert_eq!(numbers(dir, "clip"), [0.5, 0.5, 0.75, 0.75].map(Some));
    let event = |step: u64| (step, "edit".to_string(), format!("pause-{step}.rhai"));
    assert_eq!(events(dir), [event(1), event(3)]);
    assert_eq!(said.matches("written to ").count(), 1, "a file that is loaded does not end the run: {said}");
}

#[test]
fn a_function_that_fails_after_a_pause_is_turned_down() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let lines = ["fn own(x, y) { x }", "fn own(x) { x + nothing }", "next 3", "fn own(x) { x + 0.5 }", "continue"];
    let (code, said) = paused(dir, LOOP, &lines);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("`own` took 1 arguments when the run began, and takes 2 now"), "{said}");
    assert!(said.contains("there is no variable `nothing`"), "{said}");
    assert!(said.contains("step 1: the functions are back to their previous versions"), "{said}");
    assert!(said.contains("paused after step 1, before step 2"), "`next 3` does not run on: {said}");
    assert_eq!(numbers(dir, "own"), [1.0, 2.5, 3.5, 4.5].map(Some));
    let event = |step: u64, what: &str| (step, what.to_string(), format!("pause-{step}.rhai"));
    assert_eq!(events(dir), [event(1, "edit"), event(1, "refused"), event(2, "edit")]);
}

#[test]
fn a_step_that_fails_after_a_pause_comes_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let lines =
        ["next", "list = [];", "next", "doubled + 70", "list = [];", "next", "list = [3.0];", "next 2", "continue"];
    let (code, said) = paused(dir, LOOP, &lines);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("step 2 has failed and comes again").count(), 2, "{said}");
    assert!(said.contains("74"), "what the step made is there: {said}");
    let steps: Vec<_> = metrics(dir).iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [1, 2, 3, 4], "one line of each step");
    assert_eq!(numbers(dir, "first"), [1.0, 3.0, 3.0, 3.0].map(Some));
    assert_eq!(numbers(dir, "after").last(), Some(&Some(1.0)), "what follows the loop has run");
    assert_eq!(fs::read_to_string(dir.join("out/pause-2.rhai")).expect("kept").matches("list = ").count(), 3);
    assert_eq!(
        events(dir),
        [(2, "edit".to_string(), "pause-2.rhai".to_string())],
        "a step that comes again has one mark"
    );
}

/// Both the line of an edit and its mark survive: a run that was killed has those of one that was not.
#[test]
fn what_was_said_at_a_pause_is_still_marked_after_a_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    fs::write(dir.join("own.rhai"), LOOP).expect("written");
    let lines = ["next", "next", "cfg.clip = 0.5", "continue"];
    let (code, said) = rhopo(dir, &["run", "own", "--pause", "--checkpoint", "1", "--out", "out"], &lines);
    assert_eq!(code, Some(0), "{said}");
    let whole = (metrics(dir).len(), numbers(dir, "clip"), events(dir));
    let dashes =
        |name: &str| fs::read_to_string(dir.join("out").join(name)).expect(name).matches("stroke-dasharray").count();
    let marked = (dashes("curves.svg"), dashes("report.html"));
    assert!(marked.0 > 0 && marked.0 == marked.1, "{marked:?}");
    fs::remove_file(dir.join("out/status.json")).expect("as if it had been killed");
    let (code, said) = rhopo(dir, &["run", "--resume", "out"], &["continue"]);
    assert!(code == Some(0) && said.contains("continuing after step 3"), "{said}");
    assert_eq!((metrics(dir).len(), numbers(dir, "clip"), events(dir)), whole);
    assert_eq!((dashes("curves.svg"), dashes("report.html")), marked);
    assert_eq!(whole.2, [(3, "edit".to_string(), "pause-3.rhai".to_string())]);
    let page = fs::read_to_string(dir.join("out/report.html")).expect("a report");
    assert!(page.contains("Step 3: said at the pause") && page.contains("cfg.clip = 0.5;"), "{page}");
}

#[test]
fn a_step_in_a_function_that_fails_after_a_pause_leaves_a_prompt() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "let cfg = args(#{ steps: 4 });\nlet run = open_run(cfg);\nfn all(run, cfg) {\n    let list = [1.0];\n    \
                  for step in run.steps(cfg.steps) {\n        run.log(#{ first: list[0] });\n    }\n}\nall(run, cfg);\n";
    let (code, said) = paused(dir.path(), script, &["next", "list = [];", "next", "40 + 2", "next"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("its loop cannot be entered again") && said.contains("42"), "{said}");
}

#[test]
fn an_unknown_hyper_parameter_is_refused_at_a_pause() {
    let dir = tempfile::tempdir().expect("a folder");
    let lines = ["cfg.clipp = 2", "cfg.clip = \"much\"", "cfg[\"clip\"] = 1", "cfg", "continue"];
    let (code, said) = paused(dir.path(), LOOP, &lines);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("unknown hyper-parameter `clipp`") && said.contains("did you mean `clip`?"), "{said}");
    assert!(said.contains("`clip` is the float 0.2, and cannot become"), "{said}");
    assert_eq!(numbers(dir.path(), "clip"), [Some(1.0); 4]);
    let kept = fs::read_to_string(dir.path().join("out/pause-1.rhai")).expect("kept");
    assert_eq!(kept.lines().skip(1).collect::<Vec<_>>(), ["cfg[\"clip\"] = 1;"]);
}

#[test]
fn a_pause_says_which_step_is_done_and_which_is_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, said) = paused(dir.path(), LOOP, &["next", "`step is ${step}, ${doubled}`", "stop"]);
    assert!(said.contains("paused before step 1:") && !said.contains("step 0"), "{said}");
    assert!(said.contains("paused after step 1, before step 2:") && said.contains("step is 2, 2"), "{said}");
}

#[test]
fn a_replay_asks_nobody() {
    let dir = tempfile::tempdir().expect("a folder");
    let (code, said) = paused(dir.path(), LOOP, &["continue"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = rhopo(dir.path(), &["replay", "out"], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("paused") && said.contains("numbers match"), "{said}");
}

#[test]
fn a_script_that_opens_a_run_is_not_loaded_unasked() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), LOOP).expect("written");
    let (_, said) = rhopo(dir.path(), &["repl"], &[":load own", ":load own functions", "own(4100) + 11"]);
    assert!(said.contains("own opens a run") && said.contains(":load own functions"), "{said}");
    assert!(said.contains("4111") && !dir.path().join("runs").exists(), "{said}");
}

#[test]
fn repeats_of_a_time_do_not_know_the_value_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, said) = rhopo(dir.path(), &["repl"], &["6000", ":time 5 ans + 1", "ans + 10"]);
    assert!(said.contains("median of 5;") && said.contains("6011"), "{said}");
}
