//! Tasks as scripts use them: every task evaluated and learned from by the built-in model, dialogues with the scripted
//! user, prompts from a file, and what is said about options that cannot be.

use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, script: &str) -> Output {
    fs::write(dir.join("own.rhai"), script).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["run", "own.rhai"]).output().expect("rhopo starts")
}

/// Runs a script whose assertions must hold.
fn holds(dir: &Path, script: &str) {
    let out = run(dir, script);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn refused(dir: &Path, script: &str) -> String {
    let out = run(dir, script);
    assert!(!out.status.success(), "{script} must fail");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn tiny_reads_and_learns_from_every_task() {
    let dir = tempfile::tempdir().unwrap();
    holds(
        dir.path(),
        r#"
        let model = load_model("tiny", #{ random: true });
        for name in ["arithmetic", "countdown", "reverse", "tldr", "guess"] {
            let task = load_task(name);
            let b = encode(model, task.demos(16));
            assert(b.length.max().item() <= task.max_tokens, name);
            for prompt in b.prompt {
                if type_of(prompt) == "string" {
                    assert_eq(model.detokenize(model.tokenize(prompt)), prompt);
                }
            }
            let pairs = encode_pairs(model, task.pairs(8));
            assert_eq([pairs.rows, encode(model, task.test_demos(4)).rows], [16, 4]);
            if name != "guess" {
                assert_eq(mean(task.score(b)).item(), 1.0);
                assert(pair_diff(task.score(pairs)).min().item() > 0.0, name);
            }
            let reward = task.evaluate(model, #{ n: 4, max_tokens: 3 });
            assert(reward >= 0.0 && reward <= 1.0, name);
            assert_eq(task.test_prompts(3).len(), 3);
        }
        "#,
    );
}

#[test]
fn a_dialogue_with_the_scripted_user_is_scored() {
    let dir = tempfile::tempdir().unwrap();
    holds(
        dir.path(),
        r#"
        let model = load_model("tiny", #{ random: true });
        let task = load_task("guess", #{ discount: 0.5 });
        let d = converse(model, task.user(), task.prompts(16), #{ turns: task.turns, max_tokens: task.max_tokens });
        let reward = task.score(d);
        assert_eq(reward.shape, [16, 1]);
        for i in 0..16 {
            let said = d.messages[i].filter(|m| m.role == "assistant");
            let heard = d.messages[i].filter(|m| m.role == "user");
            assert(said.len() >= 1 && said.len() <= 5 && said.len() + 1 >= heard.len());
            for reply in heard.extract(1) {
                assert(["higher", "lower", "a number, please"].contains(reply.content));
            }
        }
        // One guess that is right is worth everything, whoever made it.
        let asked = task.test_prompts(4).to_array();
        let rows = asked.map(|p| #{ prompt: p.prompt, completion: `${p.secret}`, secret: p.secret });
        assert_eq(mean(task.score(encode(model, rows))).item(), 1.0);
        "#,
    );
}

/// A model that has learned to say 9 first, and 3 after `lower`, finds 3 in its second turn.
#[test]
fn evaluation_of_a_dialogue_counts_all_its_turns() {
    let dir = tempfile::tempdir().unwrap();
    let rows = (1..=20).map(|i| {
        let asked = json!([{"role": "user", "content": "?".repeat(i)}]);
        json!({"prompt": asked, "secret": 3}).to_string()
    });
    fs::write(dir.path().join("threes.jsonl"), rows.collect::<Vec<_>>().join("\n")).unwrap();
    holds(
        dir.path(),
        r#"
        let model = load_model("tiny", #{ random: true });
        let opt = adamw(model, #{ lr: 3e-3 });
        let nine = #{ role: "assistant", content: "9" };
        let lower = #{ role: "user", content: "lower" };
        for step in 0..20 {
            let rows = [];
            for content in ["?", "??????????", "????????????????????"] {
                let ask = #{ role: "user", content: content };
                rows += [#{ prompt: [ask], completion: "9" }, #{ prompt: [ask, nine, lower], completion: "3" }];
            }
            let b = encode(model, rows);
            opt.step(-token_mean(logprob(model, b), b.mask));
        }
        let found = [1, 2].map(|turns| load_task("guess", #{ turns: turns, data: "threes.jsonl" }).evaluate(model));
        assert(found[0] < 0.2 && found[1] > 0.8, `${found}`);
        "#,
    );
}

#[test]
fn prompts_from_a_file_are_scored_by_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let rows = (0..40).map(|i| json!({"prompt": format!("{i} plus 1 is"), "answer": i + 1}).to_string());
    fs::write(dir.path().join("sums.jsonl"), rows.collect::<Vec<_>>().join("\n")).unwrap();
    let posts = [
        json!({"prompt": "Ada wrote the first program in 1843. TL;DR:", "facts": ["Ada", "1843"],
            "chosen": "Ada; 1843", "rejected": "programs"}),
        json!({"prompt": "Bob sold 3 cars. TL;DR:", "facts": ["Bob", "3"], "chosen": "Bob; 3", "rejected": "cars"}),
    ];
    fs::write(dir.path().join("posts.jsonl"), posts.map(|row| row.to_string()).join("\n")).unwrap();
    holds(
        dir.path(),
        r#"
        let model = load_model("tiny", #{ random: true });
        let task = load_task("arithmetic", #{ data: "sums.jsonl" });
        let b = sample(model, task.prompts(6), #{ n: 2, max_tokens: 3 });
        assert_eq(task.score(b).shape, [12, 1]);
        b.text = b.answer.map(|answer| ` ${answer}`);
        assert_eq(mean(task.score(b)).item(), 1.0);
        let reward = task.evaluate(model);
        assert(reward >= 0.0 && reward <= 1.0);
        let held = task.test_prompts(100).to_array().map(|p| p.prompt);
        for p in task.prompts(100).to_array() { assert(!held.contains(p.prompt)); }

        let task = load_task("tldr", #{ data: "posts.jsonl" });
        let pairs = encode_pairs(model, task.pairs(3) + task.test_pairs(1));
        assert(pair_diff(task.score(pairs)).min().item() > 0.0);
        assert_eq(load_task("arithmetic", #{ data: "" }).prompts(1).len(), 1);
        "#,
    );
    let e = refused(dir.path(), r#"load_task("countdown", #{ data: "sums.jsonl" });"#);
    assert!(e.contains("sums.jsonl: row 1 has no `numbers`, which the reward of countdown reads"), "{e}");
    let e = refused(dir.path(), r#"load_task("arithmetic", #{ data: "sums.jsonl" }).demos(1);"#);
    assert!(e.contains("sums.jsonl: the rows have `prompt`, expected `prompt` and `completion`"), "{e}");
    let e = refused(dir.path(), r#"load_task("arithmetic", #{ data: "none.jsonl" });"#);
    assert!(e.contains("none.jsonl"), "{e}");
}

#[test]
fn what_a_task_cannot_do_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (script, expected) in [
        (r#"load_task("arithmetic").user();"#, "arithmetic: one answer ends the task, so there is no user"),
        (r#"load_task("reverse", #{ length: [8, 4] });"#, "reverse: the shortest length is 8, expected 1 to 4"),
        (r#"load_task("reverse", #{ length: [1, 2, 3] });"#, "must be a whole number or two"),
        (r#"load_task("guess", #{ facts: 3 });"#, "unknown option of `load_task`: `facts`"),
        (r#"load_task("tldr", #{ facts: 9 });"#, "tldr: facts is 9, expected 2 to 4"),
        (r#"load_task("tldr").prompts(0);"#, "`prompts`: n is 0, expected at least 1"),
        (r#"load_task("guess").score(batch(#{ text: ["7"] }));"#, "unknown column `secret`"),
        (r#"load_task("countdown").pairs(-1);"#, "`pairs`: n must not be negative, found -1"),
        (
            r#"load_task("arithmetic").evaluate(load_model("tiny"), #{ max_token: 2 });"#,
            "unknown option of `evaluate`: `max_token`",
        ),
    ] {
        let e = refused(dir.path(), script);
        assert!(e.contains(expected), "{script}: {e}");
    }
}

#[test]
fn a_prompt_that_is_too_long_is_named_before_it_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let task = r#"
        fn items() {
            let long = "1";
            for i in 0..14 { long += long; }
            let all = [];
            for i in 0..50 { all += [#{ prompt: if i == 4 || i == 19 { long } else { `${i}+1=` }, answer: i + 1 }]; }
            all
        }
        fn score(b) { b.text.map(|t| 0.0) }
    "#;
    fs::write(dir.path().join("t.rhai"), task).unwrap();
    let long = "1".repeat(1 << 14);
    let row = |i: usize| json!({"prompt": if i == 2 { long.clone() } else { format!("{i}+1=") }, "answer": i + 1});
    let lines: Vec<String> = (0..40).map(|i| row(i).to_string()).collect();
    fs::write(dir.path().join("q.jsonl"), lines.join("\n")).unwrap();
    let model = "let policy = load_model(\"tiny\");";
    let opens = ["load_task(\"t.rhai\")", "load_task(\"arithmetic\", #{ data: \"q.jsonl\" })"];
    let places =
        ["items of t.rhai: row 5: the prompt has 16384 tokens", "q.jsonl, line 3: the prompt has 16384 tokens"];
    for (open, place) in opens.iter().zip(places) {
        for first in ["sample(policy, task.prompts(1), #{ max_tokens: 4 })", "task.evaluate(policy, #{ n: 1 })"] {
            let e = refused(dir.path(), &format!("let task = {open};\n{model}\n{first};"));
            assert!(e.contains(place) && e.contains("context"), "{e}");
        }
    }
    let e = refused(dir.path(), &format!("let task = {};\n{model}\ntask.evaluate(policy);", opens[0]));
    assert!(e.contains("; so do 1 more rows"), "{e}");
    // What a script has picked by itself is no longer the task's list.
    let picked = "let p = task.prompts(8).to_array().filter(|p| p.prompt.len() < 9);";
    let script =
        format!("let task = load_task(\"t.rhai\");\n{model}\n{picked}\nsample(policy, p, #{{ max_tokens: 4 }});");
    holds(dir.path(), &script);
}
