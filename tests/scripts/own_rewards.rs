//! Tasks and rewards of one's own with shipped scripts, unedited: files, a model with a score head, a program.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Prompts are listed, and what an answer is worth changes with every letter.
const TASK: &str = r#"
fn items() {
    let items = [];
    for a in 10..70 { items.push(#{ prompt: `${a}+11=`, answer: a + 11 }); }
    items
}

fn score(b) {
    b.text.map(|text| {
        let sum = 0;
        for letter in text { sum += letter.to_int(); }
        sum % 10
    })
}

fn max_tokens() { 6 }
"#;
/// What an answer is worth depends on a field of its row.
const REWARD: &str = r#"
const SCALE = 10.0;

fn score(b) {
    let rewards = [];
    for i in 0..b.rows { rewards.push(if b.text[i].contains(`${b.answer[i]}`[0]) { global::SCALE } else { 0.0 }); }
    tensor(rewards).reshape([-1, 1])
}
"#;
const SMALL: [&str; 6] = ["steps=2", "prompts=48", "minibatch=64", "max_tokens=6", "pairs=4", "group=4"];

fn write(dir: &Path, files: &[(&str, &str)]) {
    files.iter().for_each(|(name, text)| fs::write(dir.join(name), text).expect("written"));
}

/// Runs a shipped script with what of `SMALL` it knows.
fn run(dir: &Path, script: &str, sets: &[&str], more: &[&str]) -> Output {
    let known = rhopo::script::lang::loader::list(&rhopo::run::access::Access::reading(&[]))
        .into_iter()
        .find(|known| known.stem() == script);
    let text = known.expect("a shipped script").text;
    let small = SMALL.iter().filter(|set| text.contains(&format!("\n    {}:", set.split('=').next().expect("a name"))));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", script, "--out", script]).args(more).arg("--set").args(small).args(sets);
    command.output().expect("rhopo starts")
}

fn metrics(dir: &Path, script: &str, out: &Output) -> Vec<Value> {
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    let text = fs::read_to_string(dir.join(script).join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn numbers(lines: &[Value], name: &str) -> Vec<f64> {
    lines.iter().filter_map(|line| line[name].as_f64()).collect()
}

/// That it learned from something: losses of two steps, and a gradient.
fn trained(script: &str, lines: &[Value]) {
    assert_eq!(numbers(lines, "loss").len(), 2, "{script}: {lines:?}");
    assert!(numbers(lines, "grad_norm").iter().any(|&norm| norm > 0.0), "{script}: {lines:?}");
}

#[test]
fn a_task_of_ones_own_runs_with_shipped_scripts() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &[("mine.rhai", TASK)]);
    for script in ["grpo", "ppo", "dpo", "rebel"] {
        let lines = metrics(dir.path(), script, &run(dir.path(), script, &["task=mine.rhai"], &[]));
        trained(script, &lines);
        // Three prompts are held out.
        let whole = |eval: &f64| (eval * 3.0 - (eval * 3.0).round()).abs() < 1e-6 && (0.0..=9.0).contains(eval);
        let eval = numbers(&lines, "eval");
        assert!(eval.len() == 2 && eval.iter().all(whole), "{script}: {eval:?}");
    }
}

#[test]
fn a_reward_of_ones_own_takes_the_place_of_the_tasks() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &[("worth.rhai", REWARD)]);
    for script in ["grpo", "ppo", "dpo", "rebel"] {
        let lines = metrics(dir.path(), script, &run(dir.path(), script, &["reward=worth.rhai"], &[]));
        trained(script, &lines);
        let most = numbers(&lines, "eval").into_iter().fold(0.0, f64::max);
        assert!((1.0..=10.0).contains(&most), "{script}: {most} is not the reward of the file");
        let config = fs::read_to_string(dir.path().join(script).join("config.json")).expect("its configuration");
        let config: Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config["args"]["reward"], "worth.rhai", "{script}");
    }
}

#[test]
fn a_model_with_a_score_head_gives_the_reward_of_tokens_and_of_texts() {
    let dir = tempfile::tempdir().expect("a folder");
    write(
        dir.path(),
        &[
            (
                "make.rhai",
                "load_model(\"tiny\", #{ head: \"score\" }).save(\"judge\"); load_model(\"tiny\").save(\"plain\");",
            ),
            (
                "same.rhai",
                r#"
                let task = load_task("arithmetic", #{ reward: "judge" });
                let judge = load_model("judge").frozen();
                let b = sample(load_model("tiny"), task.prompts(8), #{ n: 2, max_tokens: 6 });
                assert_eq(task.score(b), score(judge, b));
                let texts = batch(#{ prompt: ["1+1=", "2+2="], text: ["2", "5"] });
                let rows = encode(judge, [#{ prompt: "1+1=", completion: "2" }, #{ prompt: "2+2=", completion: "5" }]);
                assert_eq(task.score(texts), score(judge, rows));
                assert(max(abs(task.score(texts))).item() > 0.0);
                "#,
            ),
        ],
    );
    let own = |script: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        command.current_dir(dir.path()).args(["run", script]).output().expect("rhopo starts")
    };
    for script in ["make.rhai", "same.rhai"] {
        let out = own(script);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    trained("grpo", &metrics(dir.path(), "grpo", &run(dir.path(), "grpo", &["reward=judge"], &[])));
    let out = run(dir.path(), "ppo", &["reward=plain"], &[]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("the model plain has no score head"), "{said}");
}

/// Demonstrations score 0 on average, those of the task and, of a file, its preferred answers; the policy is trained on
/// that, and a critic that begins as the reward model foresees it.
#[test]
fn a_reward_model_counts_from_demonstrations_and_ppo_begins_its_critic_as_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let pairs: String = (1..=6)
        .map(|a| format!("{{\"prompt\":\"{a}+{a}=\",\"chosen\":\"{}\",\"rejected\":\"{}\"}}\n", 2 * a, 3 * a))
        .collect();
    let ranked: String =
        (1..=4).map(|a| format!("{{\"prompt\":\"{a}+1=\",\"ranked\":[\"{}\",\"0\",\"x\"]}}\n", a + 1)).collect();
    let same = r#"
        let mean_of = |name, rows| { let judge = load_model(`${name}/model`).frozen(); score(judge, encode(judge, rows)) };
        let pairs = load_data("pairs.jsonl", #{ shuffle: false }).rows(6);
        let good = pairs.map(|pair| #{ prompt: pair.prompt, completion: pair.chosen });
        assert_close(mean(mean_of.call("of_pairs", good)), 0.0, 1e-4);
        let ranked = load_data("ranked.jsonl", #{ shuffle: false }).rows(4);
        let best = ranked.map(|row| #{ prompt: row.prompt, completion: row.ranked[0] });
        assert_close(mean(mean_of.call("of_ranked", best)), 0.0, 1e-4);
        // Others than those that were averaged over, so within the error of both means.
        let demos = load_task("tldr").test_demos(256);
        let counted = mean_of.call("reward_model", demos);
        let plain = mean_of.call("as_it_comes", demos);
        assert(abs(mean(counted)).item() < 4.0 * sqrt(2.0 * variance(counted) / 256.0).item());
        let shift = counted - plain;
        assert(max(abs(shift - mean(shift))).item() < 1e-5);
        assert(abs(mean(shift)).item() > 1e-3);
    "#;
    write(dir.path(), &[("pairs.jsonl", &pairs), ("ranked.jsonl", &ranked), ("same.rhai", same)]);
    let small = ["test_pairs=16", "lr=1e-3"];
    for (out, more) in
        [("as_it_comes", &["demos=0"][..]), ("of_pairs", &["data=pairs.jsonl"]), ("of_ranked", &["data=ranked.jsonl"])]
    {
        let sets = [&small[..], more].concat();
        let lines = metrics(dir.path(), "reward_model", &run(dir.path(), "reward_model", &sets, &[]));
        trained("reward_model", &lines);
        fs::rename(dir.path().join("reward_model"), dir.path().join(out)).expect("the run's folder");
    }
    metrics(dir.path(), "reward_model", &run(dir.path(), "reward_model", &small, &[]));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let out = command.current_dir(dir.path()).args(["run", "same.rhai"]).output().expect("rhopo starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let sets = ["task=tldr", "reward=reward_model/model", "critic=reward_model/model"];
    trained("ppo", &metrics(dir.path(), "ppo", &run(dir.path(), "ppo", &sets, &[])));
}

/// Reads the whole of each row, keeps what it has seen, and answers in the order of the rows.
const GRADER: &str = r#"
import json, sys

seen = 0
for line in sys.stdin:
    row = json.loads(line)
    assert set(row) >= {"prompt", "text", "answer", "length", "finished"}, row
    seen += 1
    print(float(row["text"].strip() == row["answer"]) + len(row["text"]) / 100)
print("graded", seen, file=open("seen.txt", "w"))
"#;

#[test]
fn a_program_grades_256_rows_a_step() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &[("my grade.py", GRADER)]);
    let sets = ["reward=exec:grader", "prompts=64", "group=4", "minibatch=256"];
    let allow = ["--allow-exec", "grader=python3 'my grade.py'"];
    let lines = metrics(dir.path(), "grpo", &run(dir.path(), "grpo", &sets, &allow));
    trained("grpo", &lines);
    assert!(numbers(&lines, "reward").iter().all(|&reward| reward > 0.0), "{lines:?}");
    // One program for the whole run: two steps of 256 rows, and two evaluations of 256 prompts.
    assert_eq!(fs::read_to_string(dir.path().join("seen.txt")).expect("it ended by itself"), "graded 1024\n");
}

/// The blocks of the guide in this language, in order.
fn guide(language: &str) -> Vec<String> {
    let page = include_str!("../../docs/guide/own-rewards.md");
    let fence = format!("\n```{language}");
    // What follows on the fence's own line is the file's name.
    let block = |rest: &str| Some(rest.split_once('\n')?.1.split_once("```")?.0.to_string());
    page.split(&fence).skip(1).filter_map(block).collect()
}

#[test]
fn the_files_of_the_guide_are_tasks_and_rewards() {
    let dir = tempfile::tempdir().expect("a folder");
    let (rhai, python) = (guide("rhai"), guide("python"));
    write(
        dir.path(),
        &[("sums.rhai", &rhai[0]), ("worth.rhai", &rhai[1]), ("grade.py", &python[0]), ("look.rhai", &rhai[3])],
    );
    let grader = ["--allow-exec", "grader=python3 grade.py"];
    for (reward, allow) in [("reward=", &[][..]), ("reward=worth.rhai", &[]), ("reward=exec:grader", &grader)] {
        let out = run(dir.path(), "grpo", &["task=sums.rhai", reward], allow);
        trained("grpo", &metrics(dir.path(), "grpo", &out));
        fs::remove_dir_all(dir.path().join("grpo")).expect("the run's folder");
    }
    let program = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        let out = command.current_dir(dir.path()).args(args).output().expect("rhopo starts");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert!(program(&["run", "look.rhai"]).contains("Tensor [8,1]"));
    program(&["check", "sums.rhai", "worth.rhai"]);
    assert!(program(&["new", "begun", "--task"]).contains("begun.rhai"));
    program(&["check", "begun.rhai"]);
    trained("grpo", &metrics(dir.path(), "grpo", &run(dir.path(), "grpo", &["task=begun.rhai"], &[])));
}
