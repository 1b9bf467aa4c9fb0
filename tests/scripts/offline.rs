//! Scripts that learn from answers with rewards: the loss of the first step against numbers made by hand.

use crate::common::host;
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Prompt, completion, reward, and what the answer's log-probability was.
type Row = (&'static str, &'static str, f64, f64);

/// Two prompts of three answers.
const ROWS: [Row; 6] = [
    ("1+2=", "3", 1.0, -0.25),
    ("1+2=", "4", 0.0, -3.0),
    ("1+2=", "12", 0.25, -9.0),
    ("20+3=", "23", 2.0, -1.0),
    ("20+3=", "5", -1.0, -6.0),
    ("20+3=", "24", 1.0, -40.0),
];

fn row((prompt, completion, reward, logprob): &Row, weighed: bool) -> Value {
    match weighed {
        true => json!({ "prompt": prompt, "completion": completion, "reward": reward, "logprob": logprob }),
        false => json!({ "prompt": prompt, "completion": completion, "reward": reward }),
    }
}

fn write(dir: &Path, rows: &[Row], weighed: bool) {
    let lines: String = rows.iter().map(|one| row(one, weighed).to_string() + "\n").collect();
    fs::write(dir.join("answers.jsonl"), lines).expect("written");
}

/// The first line that a run of one step logs with a loss.
fn first_step(dir: &Path, name: &str, set: &[&str]) -> Value {
    let out = dir.join(name);
    let _ = fs::remove_dir_all(&out);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", name, "--out", name, "--seed", "1", "--set", "steps=1"]);
    command.args((!set.iter().any(|one| one.starts_with("pretrain="))).then_some("data=answers.jsonl"));
    let run = command.args(set).output().expect("it starts");
    assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    let lines = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.find(|line| line["loss"].is_number()).unwrap_or_else(|| panic!("{name} logged no loss"))
}

fn refused(dir: &Path, name: &str, set: &[&str]) -> String {
    let _ = fs::remove_dir_all(dir.join("refused"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", name, "--out", "refused", "--set", "data=answers.jsonl", "steps=1"]);
    let run = command.args(set).output().expect("it starts");
    assert!(!run.status.success(), "{name} is to refuse this");
    String::from_utf8_lossy(&run.stderr).into_owned()
}

/// log p of each answer with its end under the built-in model.
fn logprobs() -> Vec<f64> {
    let rows: Vec<String> = ROWS
        .iter()
        .map(|(prompt, completion, ..)| format!("#{{ prompt: {prompt:?}, completion: {completion:?} }}"))
        .collect();
    let text = format!(
        "let model = load_model(\"tiny\");\nlet b = encode(model, [{}]);\nseq_sum(logprob(model, b), b.mask).to_array().map(|row| row[0])",
        rows.join(", ")
    );
    let made = host().eval(&Source { label: "logprobs.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}"));
    to_json(&made).as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// The reward minus the mean of the three answers to the prompt.
fn advantages() -> Vec<f64> {
    let mean = |group: &[Row]| group.iter().map(|row| row.2).sum::<f64>() / 3.0;
    ROWS.chunks(3).flat_map(|group| group.iter().map(|row| row.2 - mean(group)).collect::<Vec<_>>()).collect()
}

fn close(name: &str, line: &Value, key: &str, expected: f64) {
    let found = line[key].as_f64().unwrap_or_else(|| panic!("{name}: {line} has no {key}"));
    assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name}: {key} is {found}, expected {expected}");
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

#[test]
fn awr_weighs_given_answers_by_their_advantage() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &ROWS, false);
    let (logp, a) = (logprobs(), advantages());
    let line = first_step(dir.path(), "awr", &["prompts=2", "group=3", "minibatch=6", "beta=0.5", "max_weight=3.0"]);
    let weighed = logp.iter().zip(&a).map(|(logp, a)| -logp * (a / 0.5).exp().min(3.0));
    close("awr", &line, "loss", mean(weighed));
    close("awr", &line, "reward", mean(ROWS.iter().map(|row| row.2)));
    close("awr", &line, "capped", mean(a.iter().map(|a| f64::from(u8::from((a / 0.5).exp() > 3.0)))));
    assert!(
        line.get("approx_kl").is_none() && line.get("sampled").is_none_or(|n| n == 0),
        "nothing is sampled: {line}"
    );
}

#[test]
fn alol_weighs_the_better_answers_by_the_policy_that_gave_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let (logp, a) = (logprobs(), advantages());
    let above: Vec<usize> = (0..6).filter(|&i| a[i] > 0.0).collect();
    assert_eq!(above.len(), 3, "{a:?}");
    write(dir.path(), &ROWS, true);
    let line = first_step(dir.path(), "alol", &["clip=0.9"]);
    let weight = |i: usize| (logp[i] - ROWS[i].3).exp().clamp(0.1, 1.9);
    close("alol", &line, "loss", mean(above.iter().map(|&i| -a[i] * weight(i) * logp[i])));
    close("alol", &line, "weight", mean(above.iter().map(|&i| weight(i))));
    // Without their log-probs the answers count as the reference's, and the ratio is 1.
    write(dir.path(), &ROWS, false);
    let line = first_step(dir.path(), "alol", &["clip=0.9"]);
    close("alol", &line, "loss", mean(above.iter().map(|&i| -a[i] * logp[i])));
}

#[test]
fn a_star_po_estimates_values_from_given_answers() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &ROWS, false);
    let line = first_step(dir.path(), "a_star_po", &["prompts=6", "value_beta=0.5"]);
    let value = |group: &[Row]| 0.5 * (group.iter().map(|row| (row.2 / 0.5).exp()).sum::<f64>() / 3.0).ln();
    let gaps: Vec<f64> =
        ROWS.chunks(3).flat_map(|group| group.iter().map(|row| row.2 - value(group)).collect::<Vec<_>>()).collect();
    // Before the first update the policy is the reference.
    close("a_star_po", &line, "loss", mean(gaps.iter().map(|gap| gap * gap)));
    close("a_star_po", &line, "above", mean(gaps.iter().map(|gap| f64::from(u8::from(*gap > 0.0)))));
    let singles: Vec<Row> = vec![ROWS[0], ROWS[3]];
    write(dir.path(), &singles, false);
    assert!(refused(dir.path(), "a_star_po", &["prompts=2"]).contains("no prompt has two answers among 2 rows"));
}

#[test]
fn kto_labels_by_the_mean_reward_of_a_prompt() {
    let dir = tempfile::tempdir().expect("a folder");
    // The third answer is just worth its prompt, and left out.
    let mut rows = ROWS;
    rows[2].2 = 0.5;
    write(dir.path(), &rows, false);
    let line = first_step(dir.path(), "kto", &["batch=5", "desirable=3.0", "undesirable=1.0"]);
    // Three are desirable and two are not; 1 - σ(0) is a half.
    close("kto", &line, "loss", (3.0 * 3.0 + 2.0) * 0.5 / 5.0);
}

#[test]
fn rso_pairs_given_candidates() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &ROWS, false);
    let line = first_step(dir.path(), "rso", &["pairs=4", "accepted=2", "tau=0.5"]);
    close("rso", &line, "loss", 1.0);
    let same: Vec<Row> = ROWS.iter().map(|row| (row.0, row.1, 1.0, row.3)).collect();
    write(dir.path(), &same, false);
    assert!(refused(dir.path(), "rso", &[]).contains("no pairs came of 2 prompts"));
}

#[test]
fn gro_takes_rewards_for_its_advantage() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &ROWS, true);
    let (logp, a) = (logprobs(), advantages());
    let line = first_step(dir.path(), "gro", &["method=awr", "prompts=6", "beta=0.5"]);
    close("gro awr", &line, "loss", mean(logp.iter().zip(&a).map(|(logp, a)| -logp * (a / 0.5).exp())));
    let line = first_step(dir.path(), "gro", &["method=alol", "prompts=6", "beta=1.0", "clip=0.9"]);
    let weight = |i: usize| (logp[i] - ROWS[i].3).exp().clamp(0.1, 1.9);
    close("gro alol", &line, "loss", mean((0..6).map(|i| -a[i].max(0.0) * weight(i) * logp[i])));
}

#[test]
fn a_row_that_says_too_much_or_too_little_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let lines = "{\"prompt\": \"1+2=\", \"completion\": \"3\", \"reward\": 1}\n{\"prompt\": \"1+2=\", \"completion\": \"4\", \"reward\": \"low\"}\n";
    fs::write(dir.path().join("answers.jsonl"), lines).expect("written");
    for name in ["awr", "alol", "a_star_po", "kto", "rso"] {
        let said = refused(dir.path(), name, &[]);
        assert!(
            said.contains("answers.jsonl, line 2: `reward` must be a number, found the text \"low\""),
            "{name}: {said}"
        );
    }
    let lines = "{\"prompt\": \"1+2=\", \"completion\": \"12\", \"reward\": 1, \"logprob\": [-1, -2, -3, -4]}\n{\"prompt\": \"1+2=\", \"completion\": \"4\", \"reward\": 0, \"logprob\": -1}\n";
    fs::write(dir.path().join("answers.jsonl"), lines).expect("written");
    let said = refused(dir.path(), "alol", &[]);
    let expected = "answers.jsonl, line 1: `logprob` has 4 numbers, but `completion` has 3 tokens with its end";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn texts_are_learned_by_sft_and_kept_likely_by_ppo_ptx() {
    let dir = tempfile::tempdir().expect("a folder");
    let lines: String = (0..8).map(|i| format!("{{\"text\": \"{i}+1={}\"}}\n", i + 1)).collect();
    fs::write(dir.path().join("answers.jsonl"), lines).expect("written");
    let text = "let model = load_model(\"tiny\");\n\
                let rows = []; for i in 0..8 { rows.push(#{ text: `${i}+1=${i + 1}` }); }\n\
                let b = encode(model, rows);\n\
                [token_mean(logprob(model, b), b.mask).item(), sum(b.length).item()]";
    let made =
        host().eval(&Source { label: "texts.rhai".into(), text: text.into() }).unwrap_or_else(|e| panic!("{e:?}"));
    let made = to_json(&made);
    // Of each five tokens and the end, but the first, which nothing stands before.
    assert_eq!(made[1].as_f64(), Some(8.0 * 5.0));
    let expected = -made[0].as_f64().expect("a number");
    close("sft", &first_step(dir.path(), "sft", &["batch=8"]), "loss", expected);
    let small = ["pretrain=answers.jsonl", "prompts=4", "group=2", "demos=8", "minibatch=8"];
    close("ppo_ptx", &first_step(dir.path(), "ppo_ptx", &small), "demo_loss", expected);
}
