//! Runs that are looked into and changed while they go: `--watch`, `--pause`, `-i`.
#![cfg(unix)]

use crate::common::terminal::Terminal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// The shipped script with less to do a step, and a number in its log that only `fn loss` decides.
fn shipped(dir: &Path) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/grpo.rhai")).expect("shipped");
    let text = text.replace("prompts: 64,", "prompts: 4, ").replace("steps: 250,", "steps: 100000,");
    let text = text.replace("    run.show(b, 2);\n", "    run.log(#{ clip: cfg.clip });\n");
    fs::write(dir.join("own.rhai"), &text).expect("written");
    text
}

/// A run that ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn start(dir: &Path, options: &[&str]) -> Running {
    let error = fs::File::create(dir.join("said")).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", "own", "--watch", "--out", "out"]).args(options);
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(error).spawn().expect("rhopo starts"))
}

/// Waits for the first line of metrics of which `what` holds.
fn metric(dir: &Path, what: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(dir.join("out/metrics.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(found) = lines.into_iter().find(&what) {
            return found;
        }
        let said = fs::read_to_string(dir.join("said")).unwrap_or_default();
        assert!(
            begun.elapsed() < SOON,
            "it did not come; {} lines of metrics, and it said:\n{said}",
            text.lines().count()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn last_step(dir: &Path) -> u64 {
    let text = fs::read_to_string(dir.join("out/metrics.jsonl")).unwrap_or_default();
    let line = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    line.and_then(|line| line["step"].as_u64()).unwrap_or(0)
}

fn said(dir: &Path, text: &str) {
    let begun = Instant::now();
    while !fs::read_to_string(dir.join("said")).expect("a log").contains(text) {
        assert!(
            begun.elapsed() < SOON,
            "`{text}` was not said: {}",
            fs::read_to_string(dir.join("said")).expect("a log")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_edited_clip_range_and_an_edited_loss_take_effect_at_the_next_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let first = shipped(dir);
    let _running = start(dir, &["--set", "beta=0.5"]);
    metric(dir, |line| line["step"] == 3);

    // A hyper-parameter.
    let edited = first.replace("clip: 0.2,", "clip: 0.125,");
    let before = last_step(dir);
    fs::write(dir.join("own.rhai"), &edited).expect("written");
    let seen = metric(dir, |line| line["clip"] == 0.125);
    let step = seen["step"].as_u64().expect("a step");
    assert!(step > before && step <= last_step(dir).max(before + 2), "{before} {seen}");
    said(dir, "reloaded own.rhai: clip 0.2 → 0.125");
    assert_eq!(fs::read_to_string(dir.join(format!("out/script-{step}.rhai"))).expect("kept"), edited);
    let event = |line: &Value, what: &str| line["event"] == what && line["of"] == "own.rhai";
    let taken = metric(dir, |line| event(line, "edit"));
    assert_eq!((&taken["step"], &taken["file"]), (&seen["step"], &Value::from(format!("script-{step}.rhai"))));

    // An edit that does not compile, and one that changes the number of arguments: the old functions stay.
    let alive = last_step(dir);
    fs::write(dir.join("own.rhai"), edited.replace("seq_mean(cfg.beta", "seq_mean((cfg.beta")).expect("written");
    said(dir, "own.rhai keeps its previous version");
    fs::write(dir.join("own.rhai"), edited.replace("fn loss(logp, b, cfg)", "fn loss(logp, b)")).expect("written");
    said(dir, "`loss` took 3 arguments when the run began, and takes 2 now");
    metric(dir, |line| line["step"].as_u64() > Some(alive + 2));

    // An edit that fails when it is called, and one of another type: the run goes on as well.
    fs::write(dir.join("own.rhai"), edited.replace("clip(ratio, 1", "clipp(ratio, 1")).expect("written");
    said(dir, "there is no function `clipp(");
    said(dir, "own.rhai is back to its previous version");
    metric(dir, |line| event(line, "refused"));
    fs::write(dir.join("own.rhai"), edited.replace("clip: 0.125,", "clip: \"much\",")).expect("written");
    said(dir, "`clip` was the float 0.125 when it was read last");
    let alive = last_step(dir);
    metric(dir, |line| line["step"].as_u64() > Some(alive + 2));

    // A line of the loss.
    let before = last_step(dir);
    let line = "    seq_mean(cfg.beta * kl::k3(logp, b.ref_logprob) - gain, b.mask)\n";
    let edited = edited.replace(line, "    seq_mean(1000.0 + cfg.beta * kl::k3(logp, b.ref_logprob) - gain, b.mask)\n");
    fs::write(dir.join("own.rhai"), &edited).expect("written");
    let seen = metric(dir, |line| line["loss"].as_f64().is_some_and(|loss| loss > 900.0));
    let step = seen["step"].as_u64().expect("a step");
    assert!(step > before && step <= last_step(dir).max(before + 2), "{before} {seen}");
    assert_eq!(seen["clip"], 0.125, "what was edited before stays");
    said(dir, "reloaded own.rhai: `loss`");

    // The command line's overrides go before the file's, and what was made from a value does not change.
    fs::write(
        dir.join("own.rhai"),
        edited.replace("beta: 0.01,", "beta: 0.75,").replace("\"tiny\",  ", "\"other\",  "),
    )
    .expect("written");
    said(dir, "model is read when a run begins");
    assert!(!fs::read_to_string(dir.join("said")).expect("a log").contains("beta 0"), "it is set to 0.5");
}

/// Puts a whole file in the place of another: the run may read at any moment, also one that is only just begun.
fn put(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join("new"), text).and_then(|()| fs::rename(dir.join("new"), dir.join(name))).expect("written");
}

#[test]
fn modules_and_other_scripts_follow_as_well() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    put(dir, "part.rhai", "fn number() { 1 }\n");
    put(dir, "other.rhai", "import \"part\" as part;\nfn twice() { 2 * part::number() }\n");
    let text = "import \"part\" as part;\nlet cfg = args(#{ steps: 100000 });\nlet run = open_run(cfg);\n\
                let other = script(\"other\");\nfn own() { part::number() }\n\
                for step in run.steps(cfg.steps) {\n    run.log(#{ own: own(), body: part::number(), other: other.call(\"twice\", []) });\n    \
                sleep(0.02);\n}\n";
    put(dir, "own.rhai", text);
    let _running = start(dir, &[]);
    metric(dir, |line| line["own"] == 1.0 && line["other"] == 2.0);
    put(dir, "part.rhai", "fn number() { 10 }\n");
    metric(dir, |line| line["own"] == 10.0 && line["body"] == 10.0 && line["other"] == 20.0);
    let event = metric(dir, |line| line["event"] == "edit");
    let (step, kept) =
        (event["step"].as_u64().expect("a step"), |name: String| fs::read_to_string(dir.join("out").join(name)));
    assert_eq!(
        (&event["of"], &event["file"]),
        (&Value::from("part.rhai"), &Value::from(format!("module-{step}.rhai")))
    );
    assert_eq!(kept(format!("module-{step}.rhai")).expect("kept"), "fn number() { 10 }\n");
    assert_eq!(kept(format!("module-{step}-before.rhai")).expect("kept"), "fn number() { 1 }\n");
    let alive = last_step(dir);
    put(dir, "part.rhai", "fn number() { 10 \n");
    said(dir, "own.rhai keeps its previous version");
    metric(dir, |line| line["step"].as_u64() > Some(alive + 3));
    // A function that another script's caller needs is gone: the one that was there stays.
    put(dir, "other.rhai", "fn thrice() { 3 }\n");
    said(dir, "its functions stay as they were");
    put(dir, "other.rhai", "import \"part\" as part;\nfn twice() { 2 * part::number() }\n");
    put(dir, "part.rhai", "fn number() { 7 }\n");
    metric(dir, |line| line["own"] == 7.0 && line["other"] == 14.0);
}

const ASKING: &str = "let cfg = args(#{ task: \"t.rhai\", steps: 100000 });\nlet run = open_run(cfg);\n\
                      let task = load_task(cfg.task);\nfor step in run.steps(cfg.steps) {\n    \
                      let mark = task.prompts(2).to_array()[0].mark;\n    \
                      let b = batch(#{ prompt: [\"1+1=\", \"1+1=\"], text: [\"2\", \"3\"] });\n    \
                      run.log(#{ mark: mark, reward: mean(task.score(b)) });\n    sleep(0.02);\n}\n";

/// A task whose prompts have this mark, and whose answers are worth `score`.
fn task(mark: i32, score: &str) -> String {
    let prompts = "let all = []; for i in 0..n { all.push(#{ prompt: \"1+1=\", mark: MARK }); } all";
    let prompts = prompts.replace("MARK", &mark.to_string());
    format!("fn prompts(n) {{ {prompts} }}\nfn score(b) {{ {score} }}\n")
}

#[test]
fn an_edited_task_file_is_read_again_between_steps() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    fs::write(dir.join("own.rhai"), ASKING).expect("written");
    let write = |text: &str| fs::write(dir.join("t.rhai"), text).expect("written");
    write(&task(1, "b.text.map(|t| 1.0)"));
    let _running = start(dir, &[]);
    metric(dir, |line| line["mark"] == 1.0 && line["reward"] == 1.0);
    let edited = task(5, "b.text.map(|t| 2.0)");
    write(&edited);
    let seen = metric(dir, |line| line["mark"] == 5.0 && line["reward"] == 2.0);
    said(dir, "reloaded t.rhai (task-");
    let kept = fs::read_dir(dir.join("out"))
        .expect("a folder")
        .filter_map(|entry| entry.ok())
        .find(|entry| entry.file_name().to_string_lossy().starts_with("task-"));
    assert_eq!(fs::read_to_string(kept.expect("kept").path()).expect("text"), edited, "{seen}");
    // What does not parse, what lacks a function, and what fails when it is called: the old task stays.
    let goes_on = |reward: f64| {
        let alive = last_step(dir);
        metric(dir, |line| line["step"].as_u64() > Some(alive + 2) && line["reward"] == reward && line["mark"] == 5.0);
    };
    write("fn prompts(n) { [ }\nfn score(b) { 1 }\n");
    said(dir, "; it keeps its previous version");
    goes_on(2.0);
    write("fn prompts(n) { [] }\n");
    said(dir, "t.rhai has no reward; it keeps its previous version");
    goes_on(2.0);
    write(&task(6, "b.nothing"));
    said(dir, "t.rhai, line 2: ");
    said(dir, "; it is back to its previous version");
    goes_on(2.0);
    write(&task(6, "[1.0]"));
    goes_on(2.0);
    write(&task(5, "b.text.map(|t| 7.0)"));
    goes_on(7.0);
    let log = fs::read_to_string(dir.join("said")).expect("a log");
    assert!(!log.contains("own.rhai"), "the script itself was not edited: {log}");
}

#[test]
fn an_edited_reward_file_is_read_again_between_steps() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    fs::write(dir.join("own.rhai"), ASKING).expect("written");
    fs::write(dir.join("t.rhai"), task(1, "b.text.map(|t| 1.0)")).expect("written");
    let write = |score: &str| fs::write(dir.join("r.rhai"), format!("fn score(b) {{ {score} }}\n")).expect("written");
    write("b.text.map(|t| 4.0)");
    let _running = start(dir, &["--set", "reward=r.rhai"]);
    metric(dir, |line| line["reward"] == 4.0);
    write("b.text.map(|t| 8.0)");
    metric(dir, |line| line["reward"] == 8.0);
    said(dir, "reloaded r.rhai (reward-");
    write("b.text.map(|t| nothing)");
    said(dir, "r.rhai, line 1: ");
    let alive = last_step(dir);
    metric(dir, |line| line["step"].as_u64() > Some(alive + 2) && line["reward"] == 8.0);
}
const LOOP: &str = "let cfg = args(#{ steps: 5, clip: 0.2 });\nlet run = open_run(cfg);\n\
                    for step in run.steps(cfg.steps) {\n    let doubled = step * 2;\n    \
                    run.log(#{ clip: cfg.clip, doubled: doubled, own: own(step) });\n}\nrun.log(#{ after: 1.0 });\n\
                    for step in run.steps(5) { run.log(#{ second: 1.0 }); }\nfn own(x) { x }\n";

fn metrics(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("out/metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_pause_gives_a_prompt_in_the_loop() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), LOOP).expect("written");
    let mut t = Terminal::start(dir.path(), &["run", "own", "--pause", "--out", "out"]);
    t.expect("before step 1> ", SOON);
    t.answer("cfg.clip * 10.0 + 4000.0", "4002.0");
    t.answer("let mine = 4000; mine + step", "4001");
    t.answer("nothing", "there is no variable `nothing`");
    t.enter("cfg.clip = 0.5");
    t.enter("next");
    t.expect("after step 1> ", SOON);
    // What the step's body made is still there to be looked at.
    t.answer("doubled + 6000", "6002");
    t.answer("mine + 1", "4001");
    t.answer("run.log(#{ noted: 3.0 })", "after step 1> ");
    // A function that the loop calls is replaced by one of the prompt.
    t.enter("fn own(x) { x + 0.25 }");
    t.enter("next 2");
    t.expect("after step 3> ", SOON);
    t.enter("stop");
    assert_eq!(t.wait(SOON), 130, "{}", t.seen());
    let lines: Vec<Value> = metrics(dir.path()).into_iter().filter(|line| !line["event"].is_string()).collect();
    let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [1, 2, 3], "{lines:?}");
    assert_eq!((&lines[0]["clip"], &lines[0]["noted"]), (&Value::from(0.5), &Value::from(3.0)));
    assert_eq!((&lines[0]["own"], &lines[1]["own"]), (&Value::from(1.0), &Value::from(2.25)));
    assert_eq!(lines[2]["after"], 1.0, "what stands after the loop has run");
}

/// A run whose steps last, by a pause of 50 ms after `place`, is paused by Ctrl-C and p.
fn ctrl_c_and_p_pause_a_loop_that_sleeps_after(place: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let text = LOOP.replace("steps: 5", "steps: 100000").replacen(place, &format!("{place} sleep(0.05);"), 1);
    fs::write(dir.path().join("own.rhai"), text).expect("written");
    let mut t = Terminal::start(dir.path(), &["run", "own", "--out", "out"]);
    t.expect("step ", SOON);
    std::thread::sleep(Duration::from_millis(500));
    t.press('\u{3}');
    t.expect("p to pause", SOON);
    t.press('p');
    t.expect("paused after step", SOON);
    t.answer("cfg.steps + 1", "100001");
    t.answer("doubled / 2 + 1 == step", "true");
    t.answer("fn own(x) { 7 }", "`own` is a function of the run, which keeps its own");
    t.answer("fn helper(x) { x + 6000 } helper(5)", "6005");
    t.enter("continue");
    std::thread::sleep(Duration::from_millis(500));
    // Without the key the run ends as it always did.
    t.press('\u{3}');
    assert_eq!(t.wait(SOON), 130, "{}", t.seen());
}

#[test]
fn ctrl_c_and_p_pause_between_steps() {
    ctrl_c_and_p_pause_a_loop_that_sleeps_after("let doubled = step * 2;");
}

#[test]
fn what_a_step_made_is_there_if_ctrl_c_comes_after_its_last_read() {
    ctrl_c_and_p_pause_a_loop_that_sleeps_after("own: own(step) });");
}

#[test]
fn a_run_can_end_in_the_prompt() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), format!("{LOOP}fn half(x) {{ x / 2.0 }}\nlet kept = 8002;\n"))
        .expect("written");
    let mut t = Terminal::start(dir.path(), &["run", "own", "-i", "--out", "out"]);
    t.expect("rhopo> ", SOON);
    t.answer("half(kept)", "4001.0");
    t.enter(":quit");
    assert_eq!(t.wait(SOON), 0);
    assert_eq!(metrics(dir.path()).len(), 10);
    // An error leaves what there was.
    fs::write(dir.path().join("own.rhai"), "let kept = 8002;\nnothing + 1\n").expect("written");
    let mut t = Terminal::start(dir.path(), &["run", "own", "-i"]);
    t.expect("there is no variable `nothing`", SOON);
    t.answer("kept + 1", "8003");
}
