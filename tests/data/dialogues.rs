//! Going on from the middle of rows, and dialogues: ids that only grow, masks, log-probs, users of every kind.

use crate::common::{fixtures, host};
use rhopo::data::Batch;

/// The value of a script's last expression.
fn eval(text: &str) -> Result<rhai::Dynamic, String> {
    let host = host();
    let source = host.loader().keep("test".into(), text.into());
    host.eval(&source).map_err(|e| e.message)
}

fn batches(text: &str) -> Vec<Batch> {
    let values = eval(text).unwrap_or_else(|e| panic!("{e}")).try_cast::<rhai::Array>().expect("an array");
    values.into_iter().map(|value| value.try_cast::<Batch>().expect("a batch")).collect()
}

fn refused(text: &str) -> String {
    eval(text).expect_err("must be refused")
}

fn cells(b: &Batch, name: &str) -> Vec<Vec<f64>> {
    b.tensor(name).and_then(|t| t.to_rows()).expect(name)
}

/// `old_logprob` of what the policy said is what `logprob` gives, in every batch of the script's last array, whose
/// last entry is `logprob` of the first.
const ON_POLICY: &str = r#"
fn off(policy, b) {
    max(seq_sum(abs(logprob(policy, b) - b.old_logprob), b.mask)).item()
}
"#;

#[test]
fn rows_go_on_from_where_they_were_cut() {
    let made = batches(&format!(
        r#"{ON_POLICY}
        let policy = load_model("tiny");
        let prompts = [#{{ prompt: "12+34=", answer: "46" }}, #{{ prompt: "5+7=", answer: "12" }}];
        let b = sample(policy, prompts, #{{ n: 2, max_tokens: 6, temperature: 1.5 }});
        b.mark = ["a", "b", "c", "d"];
        let same = sample(policy, reset(b, 0), #{{ n: 1, max_tokens: 6, temperature: 1.5, seed: 3 }});
        let flat = sample(policy, ["12+34=", "12+34=", "5+7=", "5+7="], #{{ max_tokens: 6, temperature: 1.5, seed: 3 }});
        let cut = sample(policy, reset(b, [1, 0, 1, 1]), #{{ n: 3, max_tokens: 5, temperature: 0.7 }});
        let again = sample(policy, reset(cut, tensor([[1]] + [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1].map(|x| [x]))), #{{ max_tokens: 3 }});
        assert(off(policy, cut) < 1e-6, `${{off(policy, cut)}}`);
        assert(off(policy, again) < 1e-6, `${{off(policy, again)}}`);
        [b, same, flat, cut, again]"#
    ));
    let [b, same, flat, cut, again] = &made[..] else { panic!("five") };
    let rows = |b: &Batch| b.rows().expect("tokens").iter().cloned().collect::<Vec<_>>();
    assert_eq!(rows(same), rows(flat), "after 0 tokens it is the prompt");
    assert_eq!(cells(same, "old_logprob"), cells(flat, "old_logprob"));
    assert_eq!(same.list("text").unwrap(), flat.list("text").unwrap());
    assert_eq!(
        cut.list("answer").unwrap()[..6],
        [["46"; 3], ["46"; 3]].concat()[..].iter().map(|&t| t.into()).collect::<Vec<serde_json::Value>>()[..]
    );
    assert_eq!((cut.len(), cut.group()), (12, Some(3)));
    let (first, second) = (rows(b), rows(cut));
    for (i, row) in second.iter().enumerate() {
        let (from, kept) = (&first[i / 3], [1, 0, 1, 1][i / 3]);
        assert_eq!(row.prompt, from.prompt, "the original prompt's ids");
        assert_eq!(row.completion[..kept], from.completion[..kept], "kept tokens are the same ids");
        let new = row.completion.len() - kept;
        assert!((1..=5).contains(&new));
        for (t, ((mask, rollin), old)) in
            cells(cut, "mask")[i].iter().zip(&cells(cut, "rollin")[i]).zip(&cells(cut, "old_logprob")[i]).enumerate()
        {
            let expected = if t < kept { [1.0, 0.0] } else { [0.0, f64::from(u8::from(t < kept + new))] };
            assert_eq!([*rollin, *mask], expected, "row {i}, token {t}");
            assert!(*mask == 1.0 || *old == 0.0);
        }
        assert_eq!(cells(cut, "length")[i], [new as f64]);
        let told = cut.list("text").unwrap()[i].as_str().unwrap().to_string();
        let begun = b.list("text").unwrap()[i / 3].as_str().unwrap().chars().take(kept).collect::<String>();
        assert!(told.starts_with(&begun), "{told:?} begins with {begun:?}");
        assert_eq!(again.rows().unwrap()[i].completion[0], row.completion[0]);
    }
}

#[test]
fn demonstrations_are_gone_on_from_and_what_cannot_be_kept_is_refused() {
    let policy = "let policy = load_model(\"tiny\");\nlet b = encode(policy, [#{ prompt: \"1+2=\", completion: \"3\" }, #{ prompt: \"5+7=\", completion: \"12\" }]);\n";
    let made = batches(&format!(
        "{ON_POLICY}{policy}let s = sample(policy, reset(b, [1, 2]), #{{ n: 2, max_tokens: 4, greedy: true }});\n\
         assert(off(policy, s) < 1e-6); [b, s]"
    ));
    for (i, row) in made[1].rows().unwrap().iter().enumerate() {
        let kept = [1, 2][i / 2];
        assert_eq!(row.completion[..kept], made[0].rows().unwrap()[i / 2].completion[..kept]);
    }
    let refuse = |at: &str| refused(&format!("{policy}sample(policy, reset(b, {at}))"));
    assert_eq!(refuse("[1, 4]"), "reset: row 1 has 3 completion tokens, but 4 are to be kept");
    assert_eq!(refuse("[1, 3]"), "reset: row 1 ends with its token 3: nothing follows it");
    assert_eq!(refuse("[1]"), "reset: `at` has 1 entries, but the batch has 2 rows");
    assert_eq!(refuse("-1"), "`reset`: at must be whole numbers, 0 or more, found the int -1");
    assert_eq!(refuse("tensor([[0.5], [1]])"), "`reset`: at must be whole numbers, 0 or more, found 0.5");
    assert_eq!(refuse("tensor([0, 1])"), "`reset`: at has shape [2], expected [2,1]");
    assert_eq!(refuse("#{ turns: 1 }"), "unknown option of `reset`: `turns`");
    assert_eq!(refuse("#{}"), "`reset`: the option `turn` is not there");
    assert!(refuse("#{ turn: 1 }").starts_with("reset: the batch holds no dialogues"));
    let ended =
        "let b = sample(load_model(\"tiny\"), [\"1+2=\"], #{ greedy: true });\nassert_eq!(b.finished.item(), 1.0);";
    let ended = ended.replace("assert_eq!", "assert_eq");
    let e = refused(&format!("{ended}\nreset(b, b.length)"));
    assert!(e.starts_with("reset: row 0 ended with its token ") && e.ends_with(": nothing follows it"), "{e}");
    let e = refused(&format!("{policy}converse(policy, |m| (), reset(b, 1), #{{ max_tokens: 4 }})"));
    assert_eq!(e, "converse: row 0 was not reset by turn");
}

/// Checks what holds of every dialogue, and that the ids of `messages` make the row as the template renders them.
fn check_dialogue(b: &Batch, prompt_messages: usize) {
    let (mask, turn, old) = (cells(b, "mask"), cells(b, "turn"), cells(b, "old_logprob"));
    for (i, row) in b.rows().expect("tokens").iter().enumerate() {
        let turns = cells(b, "turns")[i][0];
        let n = row.completion.len();
        assert!(turn[i][n..].iter().chain(&mask[i][n..]).all(|&x| x == 0.0));
        assert!(turn[i][..n].windows(2).all(|w| w[0] == w[1] || w[1] == w[0] + 1.0), "{:?}", turn[i]);
        assert_eq!((turn[i][0], turn[i][n - 1]), (1.0, turns));
        assert!(mask[i].iter().zip(&old[i]).all(|(m, o)| *m == 1.0 || *o == 0.0));
        assert_eq!(cells(b, "length")[i][0], mask[i].iter().sum::<f64>());
        let messages = b.list("messages").expect("a list")[i].as_array().expect("messages").clone();
        assert_eq!(messages.len(), prompt_messages + 2 * turns as usize - 1, "{messages:?}");
        assert_eq!(messages.last().unwrap()["content"], b.list("text").unwrap()[i]);
    }
}

#[test]
fn dialogues_of_every_template_grow_by_the_templates_own_text() {
    for name in ["tiny", "qwen2", "qwen3", "llama3", "llama2", "mistral", "gpt2", "gpt_neox", "gemma2", "smollm3"] {
        let path =
            if name == "tiny" { name.into() } else { fixtures().join("models").join(name).display().to_string() };
        let made = batches(&format!(
            r#"{ON_POLICY}
            let policy = load_model("{path}");
            let prompts = [#{{ prompt: [#{{ role: "user", content: "1+2=" }}], secret: 7 }}, #{{ prompt: "4+4=", secret: 8 }}];
            let user = |messages, prompt| if messages.len() < 6 {{ `${{prompt.secret}}+${{messages.len()}}=` }};
            let d = converse(policy, user, prompts, #{{ turns: 5, n: 2, max_tokens: 4, temperature: 0.9 }});
            assert(off(policy, d) < 1e-6, `${{off(policy, d)}}`);
            let e = converse(policy, user, reset(d, #{{ turn: [1, 2, 3, 3] }}), #{{ turns: 4, n: 2, max_tokens: 4 }});
            assert(off(policy, e) < 1e-6, `${{off(policy, e)}}`);
            [d, e]"#
        ));
        let [d, e] = &made[..] else { panic!("two") };
        check_dialogue(d, 1);
        check_dialogue(e, 1);
        assert!(cells(d, "turns").iter().flatten().all(|&turns| turns == 3.0), "{name}: the user ends it");
        // The whole row is what the template renders, where answers ended by themselves or the end token was put.
        let model = rhopo::model::Model::open(
            &rhopo::files::anywhere(&path),
            &rhopo::model::OpenOptions::new(rhopo::tensor::rng::Key::new(0)),
            &rhopo::gpu::Place::Host,
        )
        .unwrap();
        let tokenizer = model.tokenizer.as_ref().unwrap();
        for (i, row) in d.rows().unwrap().iter().enumerate() {
            let messages = d.list("messages").unwrap()[i].as_array().unwrap().clone();
            // Tokens that decode to nothing that encodes back are no matter here: the texts are compared, trimmed as
            // some templates trim.
            let ids = [&*row.prompt, &*row.completion].concat();
            let shown = tokenizer.decode_special(&ids);
            let rendered = model.chat.as_ref().unwrap().render(&messages, false).unwrap();
            // Python's templates strip the separators of ASCII as well.
            let space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
            let squeezed = |text: &str| text.chars().filter(|&c| !space(c)).collect::<String>();
            assert!(squeezed(&rendered).starts_with(&squeezed(&shown)), "{name}: {shown:?} begins {rendered:?}");
        }
        // What a reset keeps are the same ids; the rest is new.
        for (i, row) in e.rows().unwrap().iter().enumerate() {
            let (from, turn) = (i / 2, [1.0, 2.0, 3.0, 3.0][i / 2]);
            let old = &d.rows().unwrap()[from];
            let kept = cells(d, "turn")[from].iter().position(|&t| t == turn).unwrap();
            assert_eq!((&row.prompt, &row.completion[..kept]), (&old.prompt, &old.completion[..kept]), "{name}");
            for (t, (rollin, mask)) in cells(e, "rollin")[i].iter().zip(&cells(e, "mask")[i]).enumerate() {
                assert_eq!(*rollin == 1.0, t < kept);
                assert!(t >= kept || *mask == 0.0);
            }
        }
    }
}

#[test]
fn answers_that_are_cut_off_get_their_end_token_and_others_none_twice() {
    let made = batches(
        r#"let policy = load_model("tiny");
        let short = converse(policy, |m| "7+8=", ["12+34="], #{ turns: 3, max_tokens: 1 });
        let whole = converse(policy, |m| "7+8=", ["12+34="], #{ turns: 3, max_tokens: 40, temperature: 0.5 });
        [short, whole]"#,
    );
    let (short, whole) = (&made[0], &made[1]);
    let ends = |b: &Batch| b.rows().unwrap()[0].completion.iter().filter(|&&id| id == 1).count();
    let finished = cells(whole, "finished")[0][0];
    // A first token may be an end token itself; then nothing was cut off.
    assert_eq!((ends(short), cells(short, "turns")[0][0]), (2, 3.0), "the last answer gets none");
    assert_eq!(ends(whole) as f64, 2.0 + finished);
    let mask = &cells(short, "mask")[0];
    let completion = &short.rows().unwrap()[0].completion;
    let put = completion.iter().zip(mask).filter(|(id, mask)| **id == 1 && **mask == 0.0).count();
    assert_eq!(put, 2 - mask.iter().zip(&completion[..]).filter(|(m, id)| **m == 1.0 && **id == 1).count());
}

#[test]
fn dialogues_end_at_once_or_for_want_of_room() {
    let made = batches(
        r#"let policy = load_model("tiny");
        let once = converse(policy, |messages| (), ["1+2=", "3+4="], #{ turns: 4, max_tokens: 5 });
        let one = converse(policy, |messages| throw "never asked", ["1+2="], #{ turns: 1, max_tokens: 5 });
        let alone = sample(policy, [[#{ role: "user", content: "1+2=" }], [#{ role: "user", content: "3+4=" }]], #{ max_tokens: 5, seed: 4 });
        let seeded = converse(policy, |messages| (), ["1+2=", "3+4="], #{ turns: 4, max_tokens: 5, seed: 4 });
        let asked = [];
        let long = "";
        for i in 0..30 { long += "123456789+"; }
        let full = converse(policy, |messages| long, ["1+2="], #{ turns: 9, max_tokens: 100 });
        [once, one, alone, seeded, full]"#,
    );
    for b in &made[..2] {
        check_dialogue(b, 1);
        assert!(cells(b, "turns").iter().flatten().all(|&turns| turns == 1.0));
    }
    let lengths = |b: &Batch| b.rows().unwrap().iter().map(|row| row.prompt.clone()).collect::<Vec<_>>();
    assert_eq!(lengths(&made[2]), lengths(&made[3]), "a text is what the user says");
    check_dialogue(&made[4], 1);
    let row = &made[4].rows().unwrap()[0];
    assert!(cells(&made[4], "turns")[0][0] < 3.0 && row.prompt.len() + row.completion.len() <= 512);
}

#[test]
fn a_dialogue_says_the_same_whichever_others_there_are() {
    let made = batches(
        r#"let policy = load_model("tiny");
        let user = |messages, prompt| if messages.len() < prompt.most { "2+2=" };
        let prompts = |a, b| [#{ prompt: "1+2=", most: a }, #{ prompt: "3+4=", most: b }];
        let options = #{ turns: 4, max_tokens: 6, temperature: 1.5, seed: 9 };
        [converse(policy, user, prompts.call(8, 8), options), converse(policy, user, prompts.call(2, 8), options)]"#,
    );
    assert_eq!(made[0].rows().unwrap()[1], made[1].rows().unwrap()[1]);
    assert_eq!(cells(&made[1], "turns"), [[1.0], [4.0]]);
}

#[test]
fn a_model_is_a_user() {
    let made = batches(
        &format!(
            r#"{ON_POLICY}
        let policy = load_model("tiny");
        let user = load_model("tiny", #{{ random: true }});
        let d = converse(policy, user.frozen(), ["1+2=", "3+4="], #{{ turns: 3, max_tokens: 4, n: 2 }});
        assert(off(policy, d) < 1e-6);
        let self = converse(policy, policy, ["1+2="], #{{ turns: 2, max_tokens: 6 }});
        assert(off(policy, self) < 1e-6);
        [d, self]"#
        )
        .replace("let self", "let own")
        .replace("policy, self", "policy, own")
        .replace("[d, self]", "[d, own]"),
    );
    check_dialogue(&made[0], 1);
    check_dialogue(&made[1], 1);
    assert!(cells(&made[0], "turns").iter().flatten().all(|&turns| turns == 3.0));
}

#[test]
fn wrong_uses_are_named() {
    let policy = "let policy = load_model(\"tiny\");\n";
    let refuse = |call: &str| refused(&format!("{policy}{call}"));
    let e = refuse("converse(policy, |m| (), [\"1+2=\"], #{ turn: 2 })");
    assert_eq!(e, "unknown option of `converse`: `turn`");
    assert_eq!(
        refuse("converse(policy, |m| (), [\"1+2=\"], #{ turns: 0 })"),
        "converse: turns must be at least 1, found 0"
    );
    assert_eq!(
        refuse("converse(policy, |m| 3, [\"1+2=\"], #{ max_tokens: 4 })"),
        "`converse`: the user must return a text, or () to end the dialogue, found the int 3"
    );
    assert_eq!(
        refuse("converse(policy, |a, b, c| (), [\"1+2=\"], #{ max_tokens: 4 })"),
        "`converse`: the user takes 3 parameters, expected 1 or 2"
    );
    assert_eq!(
        refuse("converse(policy, 3, [\"1+2=\"])"),
        "`converse`: the user must be a closure, a model or a task's user, found the int 3"
    );
    let said = "[[#{ role: \"user\", content: \"1\" }, #{ role: \"assistant\", content: \"2\" }]]";
    assert_eq!(
        refuse(&format!("converse(policy, |m| (), {said})")),
        "converse: prompt 0 ends with the assistant's message"
    );
    let e = refuse("converse(policy, |m| m.nothing_there(), [\"1+2=\"], #{ max_tokens: 4 })");
    assert!(e.contains("nothing_there"), "{e}");
    let d = "let d = converse(policy, |m| \"1+1=\", [\"1+2=\", \"3+4=\"], #{ turns: 2, max_tokens: 4 });\n";
    let refuse = |call: &str| refused(&format!("{policy}{d}{call}"));
    assert_eq!(refuse("reset(d, #{ turn: [1, 3] })"), "reset: row 1 has turns 1 to 2, found 3");
    assert_eq!(refuse("reset(d, #{ turn: 0 })"), "reset: row 0 has turns 1 to 2, found 0");
    assert_eq!(
        refuse("converse(policy, |m| (), reset(d, #{ turn: 2 }), #{ turns: 1, max_tokens: 4 })"),
        "converse: row 0 keeps 1 turns, and turns is 1"
    );
    let e = refuse("let f = 5; generate(policy.frozen(), reset(d, #{ turn: 1 }))");
    assert!(!e.is_empty());
}

#[test]
fn a_template_that_rewrites_earlier_turns_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let from = fixtures().join("models/qwen2");
    for file in std::fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|e| e != "jinja" && e != "py") {
            std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    let template = "{{ messages|length }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let path = dir.path().display();
    let e =
        refused(&format!("converse(load_model(\"{path}\"), |m| \"more\", [\"say\"], #{{ turns: 2, max_tokens: 4 }})"));
    assert!(e.contains("changes what stands before the assistant's turn 1 when the turn follows it"), "{e}");
}
