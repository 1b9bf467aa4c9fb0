//! Input at the edge of what makes sense: it either works or is refused in one clear error, and never panics.

use rhopo::script::lang::loader::{self, Source};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Methods that compare the answers to one prompt.
const GROUPED: &[&str] = &[
    "cispo",
    "cpi",
    "dapo",
    "dppo",
    "dr_grpo",
    "dual_clip",
    "gmpo",
    "gro",
    "grpo",
    "grpo_lora",
    "grpo_plus",
    "gspo",
    "max_rl",
    "reinforce_pp_baseline",
    "rloo",
    "sapo",
];
/// What keeps a run short, wherever a script has it.
const SMALL: &[(&str, &str)] = &[
    ("steps", "1"),
    ("prompts", "4"),
    ("group", "4"),
    ("grows", "1"),
    ("thresholds", "[0.0]"),
    ("demos", "4"),
    ("most", "4"),
    ("iterations", "1"),
    ("lessons", "1"),
    ("minibatch", "64"),
    ("pool", "4"),
];

/// Scripts that sample answers to prompts, from a file if they are given one.
fn samplers() -> Vec<Source> {
    loader::list(&rhopo::run::access::Access::reading(&[]))
        .into_iter()
        .filter(|source| source.text.contains("// a file of prompts"))
        .collect()
}

/// Runs a script with `sets` going before `SMALL`.
fn run(dir: &Path, source: &Source, sets: &[&str]) -> Output {
    let (name, set) = (source.stem(), |set: &&str| set.split_once('=').expect("name=value").0.to_string());
    let given: Vec<String> = sets.iter().map(set).collect();
    let has = |key: &str| source.text.contains(&format!("\n    {key}: ")) || source.text.contains(&format!(" {key}: "));
    let small = SMALL.iter().filter(|(key, _)| has(key) && !given.iter().any(|name| name == key));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", &name, "--out", "out", "--set"]).args(sets);
    command.args(small.map(|(key, value)| format!("{key}={value}"))).output().expect("rhopo starts")
}

/// The lines of `metrics.jsonl` of a run that must succeed.
fn lines(source: &Source, sets: &[&str], data: Option<&str>) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a folder");
    if let Some(text) = data {
        fs::write(dir.path().join("data.jsonl"), text).expect("written");
    }
    let out = run(dir.path(), source, sets);
    assert!(out.status.success(), "{} {sets:?}: {}", source.stem(), String::from_utf8_lossy(&out.stderr));
    let text = fs::read_to_string(dir.path().join("out/metrics.jsonl")).expect("metrics");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for line in &lines {
        assert!(line.as_object().expect("an object").values().all(Value::is_number), "{}: {line}", source.stem());
    }
    lines
}

/// What a run that must fail says.
fn complaint(dir: &Path, source: &Source, sets: &[&str]) -> String {
    let out = run(dir, source, sets);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{} {sets:?}: {said}", source.stem());
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn one_sample_per_prompt_is_refused_by_group_methods() {
    let dir = tempfile::tempdir().expect("a folder");
    for source in samplers().iter().filter(|source| GROUPED.contains(&source.stem().as_str())) {
        let said = complaint(dir.path(), source, &["group=1"]);
        assert!(said.contains("n must be at least 2, found 1"), "{}: {said}", source.stem());
        fs::remove_dir_all(dir.path().join("out")).expect("the run's folder");
    }
}

#[test]
fn one_prompt_is_enough() {
    for source in samplers() {
        lines(&source, &["prompts=1"], None);
    }
}

/// A reward that no answer earns: in every group all rewards are equal.
#[test]
fn groups_without_contrast_change_nothing_or_are_left_out() {
    let row = |i: usize| format!("{}\n", json!({"prompt": format!("1{i}+23="), "completion": "35", "answer": "never"}));
    let data: String = (0..9).map(row).collect();
    // `guess` cannot be asked from texts alone.
    for source in samplers().iter().filter(|source| source.stem() != "refuel") {
        let methods: &[&str] = if source.stem() == "gro" { &["grpo", "dpo", "kto", "cpl", "proposal"] } else { &[] };
        let methods: Vec<String> = methods.iter().map(|name| format!("method={name}")).collect();
        let plain = ["data=data.jsonl", "task=arithmetic"];
        let each: Vec<Vec<&str>> = match &methods[..] {
            [] => vec![plain.to_vec()],
            methods => methods.iter().map(|method| [&plain[..], &[method]].concat()).collect(),
        };
        for sets in each {
            let rewards: Vec<f64> =
                lines(source, &sets, Some(&data)).iter().filter_map(|line| line["reward"].as_f64()).collect();
            assert!(rewards.iter().all(|&reward| reward == 0.0), "{}: {rewards:?}", source.stem());
        }
    }
}

#[test]
fn answers_that_are_all_cut_off_are_still_rows() {
    for source in samplers() {
        let found = lines(&source, &["max_tokens=1"], None);
        let lengths: Vec<f64> = found.iter().filter_map(|line| line["length"].as_f64()).collect();
        let longest = if source.stem() == "refuel" { 5.0 } else { 1.0 };
        assert!(lengths.iter().all(|&length| length <= longest), "{}: {lengths:?}", source.stem());
    }
}

/// Where no given answer is better than what the reference earns there is nothing to learn from.
#[test]
fn given_answers_that_are_all_worth_the_same_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = |name: &str| {
        loader::list(&rhopo::run::access::Access::reading(&[]))
            .into_iter()
            .find(|source| source.stem() == name)
            .expect("it is shipped")
    };
    let said = complaint(dir.path(), &script("alol"), &["max_tokens=1"]);
    assert!(said.contains("no answer is better than its prompt's mean: expected rewards that differ"), "{said}");
    // One demonstration, which the opponent may well answer alike: then the run ends early, and well.
    let found = lines(&script("spin"), &["demos=1"], None);
    assert!(found.iter().all(|line| line["eval"].is_number() || line["loss"].is_number()), "{found:?}");
}

/// A dialogue of one turn: it can be reset to its first turn alone.
#[test]
fn a_dialogue_that_ends_in_its_first_turn_can_be_regressed_on() {
    let refuel = samplers().into_iter().find(|source| source.stem() == "refuel").expect("it is shipped");
    let found = lines(&refuel, &["turns=1", "prompts=16"], None);
    assert!(found.iter().any(|line| line["turns"] == json!(1.0) && line["loss"].is_number()), "{found:?}");
}

/// An answer that is nothing but its end token has a log-probability and a gradient, and earns nothing.
#[test]
fn an_empty_answer_is_a_row_like_others() {
    let text = r#"
        let policy = load_model("tiny");
        let task = load_task("arithmetic");
        let b = sample(policy, task.prompts(8), #{ n: 500, max_tokens: 4, temperature: 4.0 });
        let empty = [];
        for i in 0..b.rows { if b.text[i] == "" && empty.len() < 4 { empty.push(i); } }
        assert_eq(empty.len(), 4);
        let b = b.select(empty);
        b.reward = task.score(b);
        assert_eq(b.reward.to_array(), [[0.0], [0.0], [0.0], [0.0]]);
        b.reward = [0.0, 1.0, 0.0, 1.0];
        b.advantage = advantage::group(b.reward, 4);
        b.ref_logprob = b.old_logprob;
        let grpo = script("grpo").call("loss", [logprob(policy, b), b, #{ clip: 0.2, beta: 0.1 }]);
        let simpo = script("simpo").call("loss", [logprob(policy, b), b, #{ beta: 2.0, gamma: 0.5 }]);
        assert(gradient(grpo + simpo, policy).norm() >= 0.0);
    "#;
    succeeds(text);
}

#[test]
fn rewards_that_are_not_numbers_name_the_row_and_show_its_text() {
    let said = fails(
        r#"let b = batch(#{ text: ["46", "47"], prompt: ["12+34=", "12+35="] });
           b.reward = [1.0, 0.0 / 0.0];"#,
    );
    assert!(said.contains("reward") && said.contains("row 1") && said.contains("47"), "{said}");
    let said = fails("let b = batch(#{ text: [\"46\", \"47\"] });\nb.reward = [1.0, 0.0, 1.0];");
    assert!(said.contains("reward") && said.contains('3') && said.contains('2'), "{said}");
}

fn own_script(text: &str) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir.path()).args(["run", "own.rhai"]).output().expect("rhopo starts")
}

fn succeeds(text: &str) {
    let out = own_script(text);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn fails(text: &str) -> String {
    let out = own_script(text);
    assert_eq!(out.status.code(), Some(1));
    String::from_utf8_lossy(&out.stderr).into_owned()
}
