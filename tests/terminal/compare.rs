//! `rhopo compare`: objectives on one frozen batch.

use super::commands::{rhopo, well};
use std::fs;

/// The numbers of a line of `compare` behind its first word.
fn numbers_of(out: &str, after: &str, first: &str) -> Vec<f64> {
    let mut lines = out.lines().skip_while(|line| !line.starts_with(after));
    let line = lines.find(|line| line.split(' ').next() == Some(first));
    let words = line.unwrap_or_else(|| panic!("no {first}: {out}")).split_whitespace().skip(1);
    words.map_while(|word| word.parse().ok()).collect()
}

/// Minimum, median and maximum of p/p_old, and the share of the tokens outside of the clip range.
fn ratios(out: &str) -> Vec<f64> {
    let line = out.lines().find(|line| line.starts_with("ratios p/p_old: ")).unwrap_or_else(|| panic!("{out}"));
    line.split([' ', ',', ';']).filter_map(|word| word.parse().ok()).take(4).collect()
}

#[test]
fn like_objectives_are_found_alike() {
    let dir = tempfile::tempdir().expect("a folder");
    let script =
        "fn loss(logp, b, cfg) { 2.0 * mean(seq_sum(logp * b.advantage, b.mask)) }\nlet cfg = args(#{ a: 1 });\n";
    fs::write(dir.path().join("against.rhai"), script).expect("written");
    let said = rhopo(dir.path(), &["compare", "reinforce", "against.rhai", "ppo_ptx"]);
    // The others are compared and drawn, and the exit status tells of the one that was not.
    assert!(said.code == 1 && said.err.contains("not compared, for the error above: ppo_ptx"), "{}", said.err);
    // Twice the objective with the other sign.
    let cosines = ["reinforce", "against.rhai"].map(|name| numbers_of(&said.out, "cosines", name));
    assert_eq!(cosines, [[1.0, -1.0], [-1.0, 1.0]], "{}", said.out);
    assert!(said.out.contains("ppo_ptx: ") && said.out.contains("∂loss/∂logp of row 0: "), "{}", said.out);
    let svg = fs::read_to_string(dir.path().join("compare.svg")).expect("drawn");
    assert!(svg.contains(">1  reinforce<") && svg.contains(">2  against<"), "{svg}");
    let said = rhopo(dir.path(), &["compare", "ppo_ptx"]);
    assert!(said.code == 1 && said.err.contains("none of the objectives could be compared"), "{}", said.err);
}

#[test]
fn a_loss_that_fails_is_told_in_words_and_by_the_exit_status() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "fn loss(logp, b, cfg) { -mean(seq_sum(clip(logp, -cfg.clip, 0.0), b.mask)) }\n";
    fs::write(dir.path().join("mine.rhai"), script).expect("written");
    let said = rhopo(dir.path(), &["compare", "rloo", "mine.rhai"]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.out.contains("mine.rhai: Property not found: clip") && !said.out.contains("#{"), "{}", said.out);
    assert!(said.err.contains("needs them declared: let cfg = args(#{ clip: 0.2 });"), "{}", said.err);
    fs::write(dir.path().join("mine.rhai"), format!("let cfg = args(#{{ clip: 0.2 }});\n{script}")).expect("written");
    well(dir.path(), &["compare", "rloo", "mine.rhai"]);
}

#[test]
fn ratios_are_not_1_unless_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    // On-policy, with one aggregation, both are the policy gradient.
    let out = well(dir.path(), &["compare", "a2c", "dapo", "--stale", "0"]);
    assert_eq!(ratios(&out), [1.0, 1.0, 1.0, 0.0], "{out}");
    assert_eq!(numbers_of(&out, "cosines", "a2c"), [1.0, 1.0], "{out}");
    let out = well(dir.path(), &["compare", "a2c", "dapo"]);
    let [min, median, max, outside] = ratios(&out)[..] else { panic!("{out}") };
    assert!(min < 0.8 && median > min && max > 1.2 && max > median && outside > 1.0, "{out}");
    let cosines = numbers_of(&out, "cosines", "a2c");
    assert!(cosines[0] == 1.0 && cosines[1] < 0.99, "{out}");
    assert!(out.contains("tiny is compared 4 optimizer steps later"), "{out}");
    assert_eq!(rhopo(dir.path(), &["compare", "a2c", "--stale", "1001"]).code, 2);
}

#[test]
fn hyper_parameters_are_set_where_there_are_such() {
    let dir = tempfile::tempdir().expect("a folder");
    let loss = |out: &str, name: &str| numbers_of(out, " ", name)[0];
    let before = well(dir.path(), &["compare", "grpo", "dpo"]);
    let said = rhopo(dir.path(), &["compare", "grpo", "dpo", "--set", "clip=0.01", "beta=0.2"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let lacks = "--set clip: dpo has no hyper-parameter `clip`";
    assert!(said.err.contains(lacks) && !said.err.contains("beta"), "{}", said.err);
    assert!(said.out.contains("outside of 0.99 to 1.01"), "{}", said.out);
    for name in ["grpo", "dpo"] {
        assert!((loss(&said.out, name) - loss(&before, name)).abs() > 1e-4, "{name}: {before}\n{}", said.out);
    }
    let refused = |set: &str| {
        let said = rhopo(dir.path(), &["compare", "grpo", "dpo", "--set", set]);
        assert_eq!(said.code, 1, "{}", said.out);
        said.err
    };
    assert!(refused("clpi=0.1").contains("did you mean `clip`?"));
    assert!(refused("clip=much").contains("--set clip=much: expected a number"));
    assert!(refused("group=4").contains("the batch is of pairs"));
    let said = rhopo(dir.path(), &["compare", "grpo", "--set", "steps=3"]);
    assert!(said.err.contains("the loss of grpo does not read `steps`, which changes nothing there"), "{}", said.err);
}

#[test]
fn columns_of_a_script_of_ones_own_are_filled() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "fn part(b) { b.quality }\nfn loss(logp, b, cfg) { -seq_mean(logp * part(b), b.mask) }\n\
                  fn other(b) { b.unused }\n";
    fs::write(dir.path().join("mine.rhai"), script).expect("written");
    let out = well(dir.path(), &["compare", "mine", "rloo", "--svg", "own.svg"]);
    assert!(out.contains("mine: quality filled at random"), "{out}");
    assert_eq!(numbers_of(&out, "cosines", "mine").len(), 2, "{out}");
    assert!(dir.path().join("own.svg").exists(), "{out}");
}

#[test]
fn a_batch_of_ones_own_is_compared_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let save = "let policy = load_model(\"tiny\");\n\
                let b = sample(policy, [\"1+1=\", \"2+3=\"], #{ n: 2, max_tokens: 4 });\n\
                b.reward = [1.0, 0.0, 0.0, 1.0];\nb.save(\"b.safetensors\");\n";
    fs::write(dir.path().join("save.rhai"), save).expect("written");
    well(dir.path(), &["run", "save"]);
    let out = well(dir.path(), &["compare", "rloo", "dpo", "--batch", "b.safetensors"]);
    assert_eq!(ratios(&out), [1.0, 1.0, 1.0, 0.0], "{out}");
    assert!(out.contains("rows of b.safetensors; tiny is compared as it is"), "{out}");
    let out = well(dir.path(), &["compare", "rloo", "--batch", "b.safetensors", "--stale", "2"]);
    assert!(ratios(&out)[0] < 1.0, "{out}");
}

#[test]
fn a_task_of_ones_own_gives_prompts_rewards_and_columns() {
    let dir = tempfile::tempdir().expect("a folder");
    let task = "fn options() { #{ most: 9 } }\n\
                fn prompts(n, options) { let all = []; for i in 0..n { let a = i % options.most;\n\
                all += [#{ prompt: `${a}+1=`, quality: a * 1.0 }]; } all }\n\
                fn score(b) { b.text.map(|t| t.len() * 1.0) }\nfn max_tokens() { 3 }\n";
    fs::create_dir(dir.path().join("tasks")).expect("made");
    fs::write(dir.path().join("tasks/t.rhai"), task).expect("written");
    fs::write(dir.path().join("mine.rhai"), "fn loss(logp, b, cfg) { -seq_mean(logp * b.quality, b.mask) }\n")
        .expect("written");
    let out = well(dir.path(), &["compare", "mine", "rloo", "--task", "tasks/t.rhai:most=4"]);
    assert!(out.contains("∂loss/∂logp of row 0: ") && out.contains("+1= → "), "{out}");
    assert!(!out.contains("filled at random") && !out.contains("4+1="), "{out}");
    let said = rhopo(dir.path(), &["compare", "mine", "--task", "t", "--batch", "b"]);
    assert_eq!(said.code, 2, "{}", said.err);
}
