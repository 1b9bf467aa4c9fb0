//! A run that is killed at any moment and goes on ends with the bytes of one that was not.
//!
//! `RHOPO_KILLS=25 cargo test --release --features emulate --test scripts resume -- --nocapture` kills each script so often,
//! 200 times in all; without it each is killed twice.

use crate::signals::{self, wait_for_line};
use rhopo::run::names;
use rhopo::tensor::rng::Key;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A replay pool, a closure that counts, a copy of the policy, an optimizer and data that the loop makes anew; a gradient, a
/// snapshot, a reference that is mixed, and a tensor that is trained.
const OWN: &str = r#"
import "std/optim" as optim;
let cfg = args(#{ steps: 9, lr: 1e-3, seed: 0 });
let run = open_run(cfg);
let task = load_task("arithmetic");
let policy = load_model("tiny");
let opt = adamw(policy, #{ lr: cfg.lr });
run.track(#{ policy: policy, opt: opt, task: task });
let pool = [];
let seen = 0;
let count = |n| { seen += n; seen };
let older = policy;
let data = ();
let slow = policy.frozen();
let pull = ();
let anchor = ();
let best = #{ reward: -1.0, at: (), "left": "to right" };
let level = optim::adamw(tensor([0.5, 0.1]), #{ lr: 0.05 });
for step in run.steps(cfg.steps) {
    let b = sample(policy, task.prompts(4), #{ n: 2, max_tokens: 4 });
    b.reward = task.score(b);
    pool.push(b);
    if pool.len() > 3 { pool.remove(0); }
    if step % 4 == 1 {
        older = policy.frozen();
        data = load_data(b.text.map(|text| #{ prompt: `${text}?`, completion: " 4" }));
    }
    if step == 5 { opt = adamw(policy, #{ lr: cfg.lr / 2.0, weight_decay: 0.1 }); }
    cfg.lr *= 0.9;
    opt.lr = cfg.lr;
    let old = pool[step % pool.len()];
    let logp = logprob(policy, old);
    let near = token_mean(abs(logp - logprob(older, old)), old.mask);
    let stat = opt.step(0.1 * near - token_mean(logp * (old.reward - 0.5), old.mask));
    slow.mix(policy, 0.2);
    if step % 4 == 2 {
        anchor = policy.snapshot();
        pull = gradient(-token_mean(logprob(policy, b), b.mask), policy) / 2;
    }
    if step % 4 == 0 && step > 0 { policy.shift(pull, -1e-3); }
    if step == 7 { policy.restore(anchor); }
    run.log(#{ slow: token_mean(kl::full(policy, slow, b), b.mask) });
    let more = encode(policy, data.demos(2));
    let also = opt.step(-token_mean(logprob(policy, more), more.mask));
    let reached = mean(b.reward).item();
    if reached > best.reward { best = #{ reward: reached, at: step, row: rand([2, 3]) }; }
    run.log(#{ loss: stat.loss, also: also.loss, seen: count.call(b.rows), pooled: pool.len(), near: near });
    level = optim::step(level, sum(square(level.x - reached)));
    run.log(#{ best: best.reward, drawn: sum(rand([3])), level: level.loss });
}
run.save(policy);
"#;

const SCRIPTS: [(&str, &[&str]); 8] = [
    ("own.rhai", &[]),
    ("ppo_penalty", &["steps=7", "prompts=8", "minibatch=4"]),
    ("dpo", &["steps=7", "prompts=64", "pairs=8"]),
    ("dapo", &["steps=6", "prompts=8", "group=4"]),
    ("ppo", &["steps=6", "prompts=8", "minibatch=4"]),
    ("grpo_lora", &["steps=6", "prompts=4", "group=4"]),
    ("rest", &["steps=3", "grows=2", "prompts=16", "batch=8", "thresholds=[0.0, 0.5]"]),
    ("spin", &["steps=4", "iterations=2", "demos=16", "pairs=4"]),
];

/// A folder with the script of this file in it, in which runs are started.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("own.rhai"), OWN).expect("written");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        command.arg("run").args(words).args(["--device", "cpu"]).current_dir(self.dir.path());
        command
    }

    fn begin(&self, script: &str, sets: &[&str], out: &str, checkpoint: &str) -> Command {
        let mut command = self.command(&[script, "--seed", "3", "--out", out, "--checkpoint", checkpoint]);
        if !sets.is_empty() {
            command.arg("--set").args(sets);
        }
        command
    }

    fn resume(&self, out: &str, more: &[&str]) -> Command {
        self.command(&[&["--resume", out], more].concat())
    }

    /// Folders of the weights and the lines of two runs are the same, but for the time.
    fn assert_same(&self, one: &str, other: &str) {
        assert_eq!(lines(&self.path(one)), lines(&self.path(other)), "{one} and {other}");
        let samples = |name: &str| fs::read_to_string(self.path(name).join("samples.jsonl")).ok();
        assert_eq!(samples(one), samples(other), "samples of {one} and {other}");
        let (one, other) = (weights(&self.path(one)), weights(&self.path(other)));
        assert!(one.iter().any(|(name, _)| name == "README.md"), "a card among them");
        assert_eq!(
            one.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            other.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        for ((name, one), (_, other)) in one.iter().zip(&other) {
            assert!(one == other, "{name} has other bytes");
        }
    }
}

fn ran(mut command: Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines of metrics, without what a clock has written.
fn lines(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        line.as_object_mut().expect("an object").retain(|name, _| names::is_exact(name));
        line
    };
    text.lines().map(line).collect()
}

fn weights(run: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(run.join("model")).expect("a model");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(path).expect("a file"))
    };
    let mut files: Vec<_> = entries.map(read).collect();
    files.sort();
    files
}

/// Starts the command and kills it after a while, unless it has ended before; says whether it was killed.
fn killed(mut command: Command, after: Duration) -> bool {
    let mut child = signals::quiet(&mut command).spawn().expect("the program starts");
    std::thread::sleep(after);
    if child.try_wait().expect("a child").is_some() {
        return false;
    }
    child.kill().expect("killed");
    child.wait().expect("a child");
    true
}

#[test]
fn killed_runs_end_with_the_same_bytes() {
    let kills: usize = std::env::var("RHOPO_KILLS").map_or(2, |n| n.parse().expect("a number"));
    let bench = Bench::new();
    let mut all = 0;
    for (i, (script, sets)) in SCRIPTS.iter().enumerate() {
        let whole = format!("whole-{i}");
        let begun = std::time::Instant::now();
        ran(bench.begin(script, sets, &whole, "off"));
        let lasted = begun.elapsed();
        for round in 0..kills.div_ceil(2) {
            let out = format!("killed-{i}-{round}");
            let mut at = 0;
            let mut command = bench.begin(script, sets, &out, "1");
            // Twice on the way, at moments that differ from round to round; then it may end.
            for kill in 0..2_u64 {
                let share = Key::new(7).fold(i as u64).fold(round as u64).uniform(kill);
                at += usize::from(killed(command, lasted.mul_f64(0.15 + 0.8 * share)));
                if !bench.path(&out).join("config.json").is_file() {
                    break;
                }
                command = bench.resume(&out, if kill == 0 { &["--threads", "1"] } else { &[] });
            }
            all += at;
            if bench.path(&out).join("config.json").is_file() {
                ran(bench.resume(&out, &[]));
                bench.assert_same(&whole, &out);
            }
        }
    }
    println!("{all} kills over {} scripts, all resumed to the same bytes", SCRIPTS.len());
    assert!(all > 0, "nothing was killed");
}

#[test]
fn a_signal_stores_the_run_and_it_goes_on() {
    let bench = Bench::new();
    let sets = ["steps=40", "prompts=4", "group=4"];
    ran(bench.begin("grpo", &sets, "whole", "off"));
    let mut child = signals::quiet(&mut bench.begin("grpo", &sets, "ended", "1000")).spawn().expect("started");
    wait_for_line(&bench.path("ended").join("metrics.jsonl"), 12);
    signals::terminate(&child);
    assert_eq!(child.wait().expect("ended").code(), Some(143));
    let out = bench.path("ended");
    let status: Value =
        serde_json::from_str(&fs::read_to_string(out.join("status.json")).expect("a status")).expect("JSON");
    assert_eq!(status["status"], "interrupted");
    for left in ["model/model.safetensors", "curves.svg"] {
        assert!(out.join(left).is_file(), "{left}");
    }
    assert_eq!(fs::read_dir(out.join("checkpoints")).expect("checkpoints").count(), 1);
    // While it goes on, and after a kill, the folder does not say that it has ended.
    let done = lines(&out).len();
    let mut child = signals::quiet(&mut bench.resume("ended", &[])).spawn().expect("started");
    wait_for_line(&out.join("metrics.jsonl"), done + 3);
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(!out.join("status.json").exists());
    let told = text(&ran(bench.resume("ended", &[])));
    assert!(told.contains("continuing after step"), "{told}");
    bench.assert_same("whole", "ended");
    let told = text(&ran(bench.resume("ended", &[])));
    assert!(told.contains("ended after step 40: there is nothing left to do"), "{told}");
    bench.assert_same("whole", "ended");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let bench = Bench::new();
    let sets = ["steps=6", "prompts=4", "group=4"];
    ran(bench.begin("grpo", &sets, "whole", "2"));
    for (name, damage) in [("cut", 0), ("flipped", 1)] {
        ran(bench.begin("grpo", &sets, name, "2"));
        let out = bench.path(name);
        fs::remove_file(out.join("status.json")).expect("as if it had been killed");
        let newest = out.join("checkpoints/000004/model-0.safetensors");
        let mut bytes = fs::read(&newest).expect("weights");
        match damage {
            0 => bytes.truncate(bytes.len() / 2),
            _ => *bytes.last_mut().expect("bytes") ^= 1,
        }
        fs::write(&newest, bytes).expect("damaged");
        let told = text(&ran(bench.resume(name, &[])));
        assert!(
            told.contains("skipping the incomplete checkpoint")
                && told.contains("000004")
                && told.contains("after step 2"),
            "{told}"
        );
        let log = fs::read_to_string(out.join("log.txt")).expect("a log");
        for step in 1..=6 {
            let told = log.lines().filter(|line| line.starts_with(&format!("step {step}/6")));
            assert_eq!(told.count(), 1, "{log}");
        }
        assert!(log.contains("continuing after step 2"), "{log}");
        bench.assert_same("whole", name);
    }
}

/// Loops one after the other, a body that calls before it reads, bytes that are changed in place, a closure that takes
/// another's place: each once came back as the prologue had made it.
#[test]
fn what_loops_change_in_place_comes_back() {
    let bench = Bench::new();
    let begin = "let run = open_run(#{});\nlet policy = load_model(\"tiny\");\nlet opt = adamw(policy, #{ lr: 1e-3 });\n\
                 let n = 0;\nlet bytes = blob(4, 7);\nlet ways = [|x| x + 1, |x| x * 2];\nlet way = ways[0];\n\
                 fn nothing() { let x = 1; x }\n";
    let body = "{\n    nothing();\n    n += 1;\n    bytes.push(step % 7);\n    if step == 3 { way = ways[1]; }\n    \
                let b = encode(policy, [#{ prompt: `${step}+1=`, completion: \" 4\" }]);\n    \
                let stat = opt.step(-token_mean(logprob(policy, b), b.mask));\n    \
                run.log(#{ loss: stat.loss, n: n, bytes: bytes.len(), way: way.call(step) });\n}\n";
    let text = format!(
        "{begin}for step in run.steps(6) {body}let more = n * 10;\nn += more;\nfor step in run.steps(6) {body}run.save(policy);\n"
    );
    fs::write(bench.path("twice.rhai"), text).expect("written");
    ran(bench.begin("twice.rhai", &[], "whole", "off"));
    for (name, every, after) in [("first", "5", "after step 10"), ("second", "4", "after step 8")] {
        ran(bench.begin("twice.rhai", &[], name, every));
        fs::remove_file(bench.path(name).join("status.json")).expect("as if it had been killed");
        let told = text_of(&bench, name);
        assert!(told.contains(after), "{told}");
        bench.assert_same("whole", name);
    }
    ran(bench.begin("twice.rhai", &[], "early", "4"));
    fs::remove_file(bench.path("early/status.json")).expect("as if it had been killed");
    fs::remove_dir_all(bench.path("early/checkpoints/000008")).expect("the newest goes");
    assert!(text_of(&bench, "early").contains("after step 4"));
    bench.assert_same("whole", "early");
}

fn text_of(bench: &Bench, run: &str) -> String {
    text(&ran(bench.resume(run, &[])))
}

#[test]
fn rows_of_a_task_that_have_changed_are_refused() {
    let bench = Bench::new();
    let rows = |add: usize| {
        (0..24).map(|i| format!("{{\"prompt\": \"{i}+1=\", \"answer\": \"{}\"}}\n", i + add)).collect::<String>()
    };
    fs::write(bench.path("rows.jsonl"), rows(1)).expect("written");
    ran(bench.begin("grpo", &["steps=4", "prompts=4", "group=4", "data=rows.jsonl"], "run", "2"));
    fs::remove_file(bench.path("run/status.json")).expect("as if it had been killed");
    fs::write(bench.path("rows.jsonl"), rows(2)).expect("written");
    let output = bench.resume("run", &["--set", "lr=1e-5"]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("`task: its rows` holds other numbers"), "{}", text(&output));
    let config = fs::read_to_string(bench.path("run/config.json")).expect("there");
    assert!(!config.contains("lr=1e-5"), "a run that did not go on is as it was");
}

/// A module is taken as it was, also where it is gone.
#[test]
fn a_module_that_is_gone_is_read_from_the_checkpoint() {
    let bench = Bench::new();
    fs::write(bench.path("more.rhai"), "fn more(x) { x + 1 }\n").expect("written");
    let text = "import \"more\" as more;\nlet run = open_run(#{});\nlet policy = load_model(\"tiny\");\nlet n = 0;\n\
                for step in run.steps(4) { n = more::more(n); run.log(#{ n: n }); }\nrun.save(policy);\n";
    fs::write(bench.path("uses.rhai"), text).expect("written");
    ran(bench.begin("uses.rhai", &[], "whole", "off"));
    ran(bench.begin("uses.rhai", &[], "run", "2"));
    fs::remove_file(bench.path("run/status.json")).expect("as if it had been killed");
    fs::remove_file(bench.path("more.rhai")).expect("gone");
    text_of(&bench, "run");
    bench.assert_same("whole", "run");
}

/// A limit on the size of files stands for a full disk: the moments of `tiny` do not fit, its weights do.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_costs_a_warning() {
    let bench = Bench::new();
    let limited = "trap '' XFSZ; ulimit -f 6000; exec \"$0\" \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_rhopo"), "run", "grpo", "--device", "cpu", "--checkpoint", "1"]);
    command.args(["--out", "run", "--set", "steps=3", "prompts=4", "group=4"]).current_dir(bench.dir.path());
    let told = text(&ran(command));
    assert!(told.contains("no checkpoint after step 1") && told.contains("no checkpoint after step 2"), "{told}");
    assert!(bench.path("run/model/model.safetensors").is_file());
    assert_eq!(fs::read_dir(bench.path("run/checkpoints")).expect("a folder").count(), 0, "nothing half-written");
}

#[test]
fn replayed_steps_are_compared_number_by_number() {
    let bench = Bench::new();
    ran(bench.begin("dapo", &["steps=6", "prompts=8", "group=4"], "run", "2"));
    let replay = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        let output =
            command.args(["replay", "run"]).args(words).current_dir(bench.dir.path()).output().expect("started");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (words, steps) in
        [(&[][..], "5 to 6"), (&["--from", "2", "--steps", "1"], "3 to 3"), (&["--from", "0"], "1 to 6")]
    {
        let (code, said) = replay(words);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with(&format!("steps {steps}: all")), "{said}");
    }
    let path = bench.path("run/metrics.jsonl");
    let written = fs::read_to_string(&path).expect("metrics");
    let loss = lines(&bench.path("run")).last().expect("a line")["loss"].to_string();
    fs::write(&path, written.replace(&format!("\"loss\":{loss}"), "\"loss\":7.5")).expect("edited");
    let (code, said) = replay(&[]);
    assert_eq!((code, said.contains("step 6: loss was 7.5")), (Some(1), true), "{said}");
}

#[test]
fn a_prologue_that_came_out_differently_is_refused() {
    let bench = Bench::new();
    let rows = |n: usize| {
        (0..n).map(|i| format!("{{\"prompt\": \"{i}+1=\", \"completion\": \"{}\"}}\n", i + 1)).collect::<String>()
    };
    fs::write(bench.path("rows.jsonl"), rows(12)).expect("written");
    ran(bench.begin("sft", &["steps=4", "data=rows.jsonl", "batch=4"], "run", "2"));
    fs::remove_file(bench.path("run/status.json")).expect("as if it had been killed");
    let before = lines(&bench.path("run"));
    fs::write(bench.path("rows.jsonl"), rows(11)).expect("written");
    let output = bench.resume("run", &[]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("gave a different result") && text(&output).contains("11 rows"),
        "{}",
        text(&output)
    );
    assert_eq!(lines(&bench.path("run")), before, "nothing is lost");
}

#[test]
fn a_run_without_a_checkpoint_begins_again() {
    let bench = Bench::new();
    let sets = ["steps=3", "prompts=4", "group=4"];
    ran(bench.begin("grpo", &sets, "whole", "off"));
    ran(bench.begin("grpo", &sets, "run", "off"));
    fs::remove_file(bench.path("run/status.json")).expect("as if it had been killed");
    let told = text(&ran(bench.resume("run", &[])));
    assert!(told.contains("has no complete checkpoint: starting again from the beginning"), "{told}");
    bench.assert_same("whole", "run");
}

#[test]
fn hyper_parameters_can_change_and_are_recorded() {
    let bench = Bench::new();
    ran(bench.begin("grpo", &["steps=4", "prompts=4", "group=4"], "run", "2"));
    fs::remove_file(bench.path("run/status.json")).expect("as if it had been killed");
    ran(bench.resume("run", &["--set", "steps=6", "lr=1e-5"]));
    assert_eq!(lines(&bench.path("run")).last().expect("lines")["step"], 6);
    let config: Value =
        serde_json::from_str(&fs::read_to_string(bench.path("run/config.json")).expect("there")).expect("JSON");
    assert_eq!(config["resumed"][0]["step"], 2);
    let output = bench.resume("run", &["--set", "nonsense=6"]).output().expect("started");
    assert!(text(&output).contains("there is nothing left to do"), "{}", text(&output));
}

#[test]
fn a_run_whose_hyper_parameters_were_edited_goes_on() {
    let bench = Bench::new();
    // What is derived before the loop stays as it was in the run: only its new value could be made again.
    for (derived, code) in [("", Some(0)), ("let twice = 2.0 * cfg.k;", Some(1))] {
        let own = |k: f64| {
            format!(
                "let cfg = args(#{{ steps: 60, k: {k:?} }});\nlet run = open_run(cfg);\n{derived}\n\
                 for step in run.steps(cfg.steps) {{\n    run.log(#{{ mine: cfg.k }});\n    sleep(0.05);\n}}\n"
            )
        };
        let (script, out) = (bench.path("edited.rhai"), bench.path("out"));
        fs::write(&script, own(1.0)).expect("written");
        let mut command = bench.command(&["edited", "--watch", "--checkpoint", "1", "--out", "out"]);
        let mut child = signals::quiet(&mut command).spawn().expect("started");
        wait_for_line(&out.join("metrics.jsonl"), 3);
        fs::write(bench.path("new"), own(2.0)).and_then(|()| fs::rename(bench.path("new"), &script)).expect("edited");
        let begun = Instant::now();
        while !lines(&out).iter().any(|line| line["mine"] == 2.0) {
            assert!(begun.elapsed() < Duration::from_secs(30), "the edit was not taken");
            std::thread::sleep(Duration::from_millis(20));
        }
        signals::terminate(&child);
        assert_eq!(child.wait().expect("ended").code(), Some(143));
        let output = bench.resume("out", &[]).output().expect("started");
        assert_eq!(output.status.code(), code, "{}", text(&output));
        if code == Some(1) {
            assert!(text(&output).contains("`twice` comes of what was edited"), "{}", text(&output));
            ran(bench.resume("out", &["--set", "k=2.0"]));
        }
        let mine: Vec<f64> = lines(&out).iter().filter_map(|line| line["mine"].as_f64()).collect();
        assert_eq!(mine.len(), 60);
        assert!(mine.is_sorted() && mine[0] == 1.0 && mine[59] == 2.0, "{mine:?}");
        fs::remove_dir_all(&out).expect("removed");
    }
}

#[test]
fn what_cannot_be_stored_is_refused_by_name_and_line() {
    let bench = Bench::new();
    let nested =
        "let run = open_run(#{});\nfor round in 0..2 {\n    for step in run.steps(2) { run.log(#{ x: step }); }\n}\n";
    let made = "let run = open_run(#{});\nlet other = ();\nlet policy = load_model(\"tiny\");\n\
                for step in run.steps(2) { other = load_model(\"tiny\", #{ random: true }); }\n";
    let shifted = "let run = open_run(#{});\nlet judge = load_model(\"tiny\", #{ head: \"score\" });\nlet other = judge;\n\
                   for step in run.steps(2) { other = judge.shifted(1.0); }\n";
    for (script, expected) in [
        (nested, "inside another loop (line 3)"),
        (made, "`other`: the loop has opened"),
        (shifted, "`other`: the loop has opened"),
    ] {
        fs::write(bench.path("odd.rhai"), script).expect("written");
        let output = bench.begin("odd.rhai", &[], "odd", "1").output().expect("started");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(expected), "{}", text(&output));
        fs::remove_dir_all(bench.path("odd")).expect("removed");
        // Where nobody asked for checkpoints, such a run goes on without.
        ran(bench.command(&["odd.rhai", "--out", "odd"]));
        fs::remove_dir_all(bench.path("odd")).expect("removed");
    }
}

/// A loop in a function is stored by what is tracked and by `run.state`.
#[test]
fn a_loop_in_a_function_goes_on_by_its_state() {
    let bench = Bench::new();
    let text = "fn train(run, task, policy, opt) {\n    let state = run.state(#{ best: -1.0, pool: [] });\n    \
                for step in run.steps(8) {\n        let b = sample(policy, task.prompts(4), #{ n: 2, max_tokens: 4 });\n        \
                b.reward = task.score(b);\n        let pool = state.get(\"pool\");\n        pool.push(b);\n        state.set(\"pool\", pool);\n        \
                state.set(\"best\", max(state.get(\"best\"), mean(b.reward).item()));\n        let old = state.get(\"pool\")[step / 2];\n        \
                let stat = opt.step(-token_mean(logprob(policy, old) * old.reward, old.mask));\n        \
                run.log(#{ loss: stat.loss, best: state.get(\"best\"), pooled: state.get(\"pool\").len() });\n    }\n}\n\
                let run = open_run(#{});\nlet task = load_task(\"arithmetic\");\nlet policy = load_model(\"tiny\");\n\
                let opt = adamw(policy, #{ lr: 1e-3 });\nrun.track(#{ policy: policy, opt: opt, task: task });\n\
                train(run, task, policy, opt);\nrun.save(policy);\n";
    fs::write(bench.path("inside.rhai"), text).expect("written");
    ran(bench.begin("inside.rhai", &[], "whole", "off"));
    ran(bench.begin("inside.rhai", &[], "again", "3"));
    fs::remove_file(bench.path("again/status.json")).expect("as if it had been killed");
    let told = text_of(&bench, "again");
    assert!(told.contains("continuing after step 6"), "{told}");
    bench.assert_same("whole", "again");
}

#[test]
fn two_processes_do_not_write_into_one_folder() {
    let bench = Bench::new();
    let mut child = signals::quiet(&mut bench.begin("grpo", &["steps=400", "prompts=4", "group=4"], "run", "1"))
        .spawn()
        .expect("started");
    wait_for_line(&bench.path("run").join("metrics.jsonl"), 3);
    let output = bench.resume("run", &[]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("another process is writing into"), "{}", text(&output));
    child.kill().expect("killed");
    child.wait().expect("ended");
}
