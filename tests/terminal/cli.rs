//! The program from outside: exit codes, streams, and what a run leaves behind.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LOOP: &str = "let cfg = args(#{ steps: 3, lr: 0.1, name: \"x\", seed: 4 });\n\
    print(`lr ${cfg.lr}`);\n\
    let run = open_run(cfg);\n\
    run.log(#{ eval: 0.25 });\n\
    for step in run.steps(cfg.steps) {\n\
        run.log(#{ reward: 1.0 / step, kl_ref: 0.5 });\n\
        run.log(#{ kl_ref: 1.5 });\n\
    }\n\
    run.log(#{ eval: 0.75 });\n";

fn folder(script: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), script).expect("written");
    dir
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(args);
    command
}

fn rhopo(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("rhopo starts")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn a_run_leaves_its_folder() {
    let dir = folder(LOOP);
    let out =
        rhopo(dir.path(), &["run", "own", "--set", "lr=2", "name=y", "--seed", "9", "--out", "out", "--threads", "1"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "lr 2.0\nout\n", "what is printed, and at the end where the run is");
    assert!(text(&out.stderr).contains("step 3/3") && text(&out.stderr).contains("written to out"));
    let out = dir.path().join("out");
    let config: Value =
        serde_json::from_str(&fs::read_to_string(out.join("config.json")).expect("config")).expect("JSON");
    assert_eq!(config["args"], serde_json::json!({ "lr": 2.0, "name": "y", "seed": 9, "steps": 3 }));
    assert_eq!((&config["seed"], &config["threads"], &config["device"]), (&9.into(), &1.into(), &"cpu".into()));
    assert!(config["token_budget"].is_u64() && config["versions"]["rhai"].is_string());
    assert_eq!(fs::read_to_string(out.join("script.rhai")).expect("script"), LOOP);
    assert!(fs::read_to_string(out.join("curves.svg")).expect("curves").contains("reward"));
    let lines = lines(&out.join("metrics.jsonl"));
    let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [0, 1, 2, 3]);
    assert_eq!((&lines[0]["eval"], &lines[3]["eval"]), (&0.25.into(), &0.75.into()));
    assert_eq!(lines[2]["kl_ref"], 1.0, "two values of a step are averaged");
}

#[test]
fn runs_get_folders_of_their_own() {
    let dir = folder(LOOP);
    for _ in 0..2 {
        assert_eq!(rhopo(dir.path(), &["run", "own.rhai"]).status.code(), Some(0));
    }
    let names: Vec<_> =
        fs::read_dir(dir.path().join("runs")).expect("runs").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with("own-")), "{names:?}");
}

#[test]
fn a_folder_in_use_is_not_overwritten() {
    let dir = folder(LOOP);
    assert_eq!(rhopo(dir.path(), &["run", "own", "--out", "out"]).status.code(), Some(0));
    let before = fs::read_to_string(dir.path().join("out/metrics.jsonl")).expect("metrics");
    let again = rhopo(dir.path(), &["run", "own", "--out", "out"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("the run folder out is not empty"), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(dir.path().join("out/metrics.jsonl")).expect("metrics"), before);
}

#[test]
fn a_calculation_leaves_nothing() {
    let dir = folder("print(6 * 7);");
    let out = rhopo(dir.path(), &["run", "own"]);
    assert_eq!((out.status.code(), text(&out.stdout).as_str(), text(&out.stderr).as_str()), (Some(0), "42\n", ""));
    assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 1);
}

#[test]
fn wrong_usage_is_code_2_and_errors_are_code_1() {
    let dir = folder("throw \"no\";");
    for args in [&["run"][..], &["rnu", "own"], &["run", "own", "--sed", "1"], &["run", "own", "--set", "lr"]] {
        assert_eq!(rhopo(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
    for args in
        [&["run", "own"][..], &["run", "none"], &["run", "own", "--device", "cpx"], &["run", "own", "--stdlib", "no"]]
    {
        assert_eq!(rhopo(dir.path(), args).status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn scripts_are_found_in_the_scripts_folder_and_modules_beside_them() {
    let dir = folder("");
    fs::create_dir(dir.path().join("scripts")).expect("made");
    let write = |name: &str, text: &str| fs::write(dir.path().join("scripts").join(name), text).expect("written");
    write("mine.rhai", "//! a script of my own\nimport \"part\" as part;\nprint(part::twice(21));");
    write("part.rhai", "fn twice(x) { x * 2 }");
    assert_eq!(text(&rhopo(dir.path(), &["run", "mine"]).stdout), "42\n");
    let list = text(&rhopo(dir.path(), &["list"]).stdout);
    assert!(list.contains("mine") && list.contains("a script of my own"), "{list}");
    assert!(list.contains("arithmetic") && list.contains("tiny"), "{list}");
}

#[test]
fn functions_of_another_script_see_their_own_file() {
    let dir = folder(
        "let s = script(\"other\");\n\
         let k = 5;\n\
         print(s.call(\"f\", [2, |x| x + k]));\n\
         let rows = s.call(\"rows\", []);\n\
         print(rows.a.call(1));",
    );
    let other = "import \"part\" as part;\nconst TEN = 10;\nthrow \"the body must not run\";\n\
        fn f(x, g) { part::twice(x) * global::TEN + g.call(x) }\n\
        fn rows() { #{ a: |x| helper(x) + global::TEN } }\n\
        fn helper(x) { x + 100 }";
    fs::write(dir.path().join("other.rhai"), other).expect("written");
    fs::write(dir.path().join("part.rhai"), "fn twice(x) { x * 2 }").expect("written");
    let out = rhopo(dir.path(), &["run", "own"]);
    assert_eq!(text(&out.stdout), "47\n111\n", "{}", text(&out.stderr));
}

#[test]
fn an_edited_script_is_read_again() {
    let dir = folder(
        "let s = script(\"other\");\nprint(s.call(\"f\", []));\nprint(\"edit\");\n\
         let n = 0;\nwhile s.call(\"f\", []) == 1 && n < 10_000_000 { n += 1; }\nprint(s.call(\"f\", []));",
    );
    fs::write(dir.path().join("other.rhai"), "fn f() { 1 }").expect("written");
    let mut child = command(dir.path(), &["run", "own"]).stdout(Stdio::piped()).spawn().expect("rhopo starts");
    wait_for(|| true, Duration::from_millis(300));
    // Renamed into place, so that no half-written file is ever read.
    fs::write(dir.path().join("new"), "fn f() { 2 }").expect("written");
    fs::rename(dir.path().join("new"), dir.path().join("other.rhai")).expect("renamed");
    let out = child.wait_with_output_or_kill();
    assert_eq!(out, "1\nedit\n2\n");
}

trait Finish {
    fn wait_with_output_or_kill(&mut self) -> String;
}

impl Finish for std::process::Child {
    fn wait_with_output_or_kill(&mut self) -> String {
        let ended = wait_for(|| self.try_wait().expect("a status").is_some(), Duration::from_secs(60));
        if !ended {
            self.kill().expect("killed");
        }
        let mut text = String::new();
        let mut pipe = self.stdout.take().expect("piped");
        std::io::Read::read_to_string(&mut pipe, &mut text).expect("UTF-8");
        text
    }
}

fn wait_for(mut done: impl FnMut() -> bool, limit: Duration) -> bool {
    let start = Instant::now();
    let least = limit.min(Duration::from_millis(300));
    while start.elapsed() < limit {
        if start.elapsed() >= least && done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[cfg(unix)]
fn interrupt(child: &std::process::Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_step_and_runs_the_rest() {
    let dir = folder(
        "let run = open_run(#{});\n\
         for step in run.steps(1_000_000) {\n\
             run.log(#{ reward: 1 });\n\
             let n = 0;\n\
             while n < 100_000 { n += 1; }\n\
         }\n\
         print(\"after the loop\");",
    );
    let mut child = command(dir.path(), &["run", "own", "--out", "out"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rhopo starts");
    let metrics = dir.path().join("out/metrics.jsonl");
    assert!(wait_for(|| fs::metadata(&metrics).is_ok_and(|m| m.len() > 0), Duration::from_secs(60)), "steps are made");
    interrupt(&child);
    assert_eq!(child.wait_with_output_or_kill(), "after the loop\nout\n");
    let log = fs::read_to_string(dir.path().join("out/log.txt")).expect("a log");
    let step = lines(&metrics).len();
    assert!(
        log.contains(&format!("interrupted at step {step} of 1000000; `rhopo run --resume out` continues")),
        "{log}"
    );
    assert_eq!(child.wait().expect("a status").code(), Some(130));
    assert!(dir.path().join("out/curves.svg").is_file());
    let steps = lines(&metrics);
    assert_eq!(steps.last().expect("a line")["step"], steps.len(), "every step has its line");
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_a_script_without_steps_at_once() {
    let dir = folder("print(\"on\");\nwhile true { }");
    let mut child = command(dir.path(), &["run", "own"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rhopo starts");
    wait_for(|| true, Duration::from_secs(1));
    interrupt(&child);
    assert_eq!(child.wait_with_output_or_kill(), "on\n");
    assert_eq!(child.wait().expect("a status").code(), Some(130));
}

/// A model, a step loop whose step never ends, and no `run.save` that could be reached.
const STUCK: &str = "let run = open_run(#{});\n\
    let policy = load_model(\"tiny\", #{ random: true });\n\
    run.track(#{ policy: policy, base: policy.frozen() });\n\
    for step in run.steps(2) {\n\
        run.log(#{ reward: 1 });\n\
        if step == 2 { while true { } }\n\
    }\n\
    print(\"never\");";

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_stops_at_once_and_saves_what_is_tracked() {
    let dir = folder(STUCK);
    let mut child = command(dir.path(), &["run", "own", "--out", "out"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rhopo starts");
    let metrics = dir.path().join("out/metrics.jsonl");
    assert!(wait_for(|| fs::metadata(&metrics).is_ok_and(|m| m.len() > 0), Duration::from_secs(60)), "a step is made");
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("a status").is_none(), "the first one waits for the step");
    interrupt(&child);
    assert_eq!(child.wait_with_output_or_kill(), "out\n", "where the run is, and nothing else");
    assert_eq!(child.wait().expect("a status").code(), Some(130));
    assert!(dir.path().join("out/model/config.json").is_file(), "the trained model is saved");
    assert!(!dir.path().join("out/model.part").exists());
}

#[test]
fn an_error_after_a_step_saves_what_is_tracked() {
    let dir = folder(
        "let policy = load_model(\"tiny\");\nlet run = open_run(#{});\nrun.track(#{ policy: policy });\n\
         for step in run.steps(3) { if step == 2 { throw \"enough\"; } }",
    );
    let out = rhopo(dir.path(), &["run", "own", "--out", "out"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(dir.path().join("out/model/model.safetensors").is_file(), "{}", text(&out.stderr));
}

#[test]
fn a_model_is_saved_in_the_layout_that_is_read_again() {
    let dir = folder(
        "let run = open_run(#{});\nlet policy = load_model(\"tiny\", #{ random: true });\n\
         run.save(policy, #{ dtype: \"f16\" });\nload_model(\"out/model\");\nprint(\"read\");",
    );
    let out = rhopo(dir.path(), &["run", "own", "--out", "out"]);
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(0), "read\nout\n"), "{}", text(&out.stderr));
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let dir = folder("loop { print(\"line\"); }");
    let mut child = command(dir.path(), &["run", "own"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rhopo starts");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("it ends");
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
}

#[test]
fn recursion_through_scripts_ends_with_an_error() {
    let dir = folder("let s = script(\"own2\");\ns.call(\"f\", [1]);");
    fs::write(dir.path().join("own2.rhai"), "fn f(n) { script(\"own2\").call(\"f\", [n + 1]) }").expect("written");
    let out = rhopo(dir.path(), &["run", "own"]);
    assert_eq!(out.status.code(), Some(1), "no crash: {}", text(&out.stderr));
    assert!(text(&out.stderr).contains("too deeply"), "{}", text(&out.stderr));
}

#[test]
fn threads_are_a_few_for_each_core_at_most() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), "print(1);\n").expect("written");
    for (threads, code) in [("1", 0), ("0", 2), ("100000", 2), ("-1", 2), ("many", 2)] {
        let out = rhopo(dir.path(), &["run", "own", &format!("--threads={threads}")]);
        let err = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{threads}: {err}");
        assert!(code == 0 || err.contains("expected 1 to "), "{threads}: {err}");
    }
}

#[test]
fn scripts_may_begin_with_a_byte_order_mark() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), format!("\u{feff}{text}")).expect("written");
    write("part.rhai", "fn half(x) { x / 2.0 }\n");
    write(
        "own.rhai",
        "import \"part\" as part;\nprint(part::half(7.0));\nfn test_half() { assert_eq(part::half(3.0), 1.5); }\n",
    );
    let asked: [(&[&str], &str); 4] = [
        (&["run", "own"], "3.5"),
        (&["check", "own.rhai"], "no problems found"),
        (&["test", "own.rhai"], "1 passed"),
        (&["test"], "1 passed"),
    ];
    for (args, expected) in asked {
        let out = rhopo(dir.path(), args);
        let said = format!("{}{}", text(&out.stdout), text(&out.stderr));
        assert!(out.status.success() && said.contains(expected), "{args:?}: {said}");
    }
    // Errors name the line and the column as an editor counts them.
    write("wrong.rhai", "nothing + 1\n");
    let said = text(&rhopo(dir.path(), &["run", "wrong"]).stderr);
    assert!(said.contains("wrong.rhai:1:1"), "{said}");
}

#[test]
fn names_that_every_line_of_metrics_has_are_not_logged_by_scripts() {
    for name in ["step", "seconds", "sampled"] {
        let dir = folder(&format!("let run = open_run(#{{}});\nrun.log(#{{ reward: 1, {name}: 2 }});\n"));
        let out = rhopo(dir.path(), &["run", "own", "--out", "out"]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("`{name}`")) && said.contains(&format!("my_{name}")), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_before_the_first_step_saves_no_untrained_model() {
    let dir = folder(
        "let policy = load_model(\"tiny\", #{ random: true });\nlet run = open_run(#{});\n\
         run.track(#{ policy: policy });\nwhile true { }\nfor step in run.steps(3) { }",
    );
    let mut child = command(dir.path(), &["run", "own", "--out", "out"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rhopo starts");
    assert!(wait_for(|| dir.path().join("out/config.json").is_file(), Duration::from_secs(60)), "it has begun");
    std::thread::sleep(Duration::from_millis(500));
    interrupt(&child);
    assert_eq!(child.wait_with_output_or_kill(), "out\n", "where the run is, and nothing else");
    assert_eq!(child.wait().expect("a status").code(), Some(130));
    assert!(!dir.path().join("out/model").exists(), "nothing was learned");
}
