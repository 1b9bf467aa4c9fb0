//! GGUF files in scripts and under `rhopo inspect`: asked as other models are, they answer as the model of the same
//! numbers does.

use crate::common::{fixtures, host, json, max_gap};
use crate::gguf::write::Gguf;
use crate::gguf::{Written, write};
use crate::inspect::{inspect, snapshot};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::{Value as Json, json};

/// Fixture, and the architecture that its GGUF file has: those with a chat template.
const MODELS: [(&str, &str); 5] =
    [("qwen2", "qwen2"), ("qwen3", "qwen3"), ("llama2", "llama"), ("llama3", "llama"), ("mistral", "llama")];

/// What a script comes to, with `judge` the file and `model` the folder of the same numbers in f32.
fn eval(written: &Written, fixture: &str, script: &str) -> Json {
    let folder = fixtures().join("models").join(fixture);
    let text = format!(
        "let judge = load_frozen(`{}`);\nlet model = load_model(`{}`);\n{script}",
        written.path.display(),
        folder.display()
    );
    let made = host().eval(&Source { label: "frozen.rhai".into(), text });
    to_json(&made.unwrap_or_else(|e| panic!("{fixture}: {e:?}")))
}

#[test]
fn texts_and_rows_are_those_of_the_model() {
    for (name, family) in MODELS {
        let written = write(&Gguf::fixture(name, family), GgmlDType::F32);
        let script = r#"
            let said = [#{ role: "user", content: "What is 12 + 30?" }];
            let demos = [#{ prompt: "12 + 30 =", completion: " 42" }, #{ prompt: said, completion: [#{ role: "assistant", content: "42" }] }];
            let pairs = [#{ prompt: "12 + 30 =", chosen: " 42", rejected: " 41" }];
            let ids = model.tokenize("12 + 30", #{ begin: true });
            let each = [];
            for m in [judge, model] {
                let b = encode(m, demos);
                let p = encode_pairs(m, pairs);
                each.push([m.chat(said, #{ generate: true }), m.tokenize("12 + 30", #{ begin: true }), m.detokenize(ids),
                           b.mask.to_array(), b.text, p.length.to_array(), m.trainable && m.trained > 0]);
            }
            let b = encode(judge, demos);
            let same = [logprob(judge, b) - logprob(model, encode(model, demos)), entropy(judge, b) - entropy(model, encode(model, demos))];
            [each[0].extract(0, 6) == each[1].extract(0, 6), each[0][6], same.map(|gap| max(seq_sum(abs(gap), b.mask)).item() < 1e-4)]
        "#;
        assert_eq!(eval(&written, name, script), json!([true, false, [true, true]]), "{name}");
    }
}

#[test]
fn a_policys_answers_are_those_of_the_same_numbers() {
    let written = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::F32);
    let script = r#"
        let asked = ["12 + 30 =", "7 - 2 ="];
        let options = #{ n: 3, max_tokens: 6, seed: 5 };
        let a = sample(judge, asked, options);
        let b = sample(model, asked, options);
        let on = reset(a, [1, 1, 1, 1, 1, 1]);
        [a.text == b.text, max(seq_sum(abs(a.old_logprob - b.old_logprob), a.mask)).item() < 1e-4,
         max(seq_sum(abs(logprob(judge, a) - a.old_logprob), a.mask)).item() < 1e-4, sample(judge, on, #{ max_tokens: 2 }).rows]
    "#;
    assert_eq!(eval(&written, "qwen2", script), json!([true, true, true, 6]));
}

/// Of quantised weights, against the f32 model of the numbers that the file holds.
#[test]
fn answers_are_weighed_as_by_the_same_numbers_in_f32() {
    let gguf = Gguf::random("qwen3", 256, [4, 2], 64, 512);
    for format in [GgmlDType::Q8_0, GgmlDType::Q4K] {
        let (own, plain) = (write(&gguf, format), write(&gguf.rounded(format), GgmlDType::F32));
        let text = format!(
            "let asked = [\"12 + 30 =\", \"Is 7 a prime? Answer:\"];\n\
             let words = [\" yes\", \" no\", \" certainly not\"];\n\
             let a = logprob_of(load_frozen(`{}`), asked, words);\n\
             let b = logprob_of(load_frozen(`{}`), asked, words);\n\
             [a.shape, max(abs(a - b)).item(), max(a).item() < 0.0]",
            own.path.display(),
            plain.path.display()
        );
        let out =
            to_json(&host().eval(&Source { label: "weigh.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}")));
        assert_eq!((&out[0], &out[2]), (&json!([2, 3]), &json!(true)), "{format:?}");
        assert!(out[1].as_f64().is_some_and(|gap| gap < 1e-4), "{format:?}: {out}");
    }
}

#[test]
fn answers_are_weighed_as_logprob_weighs_encoded_rows() {
    for (name, family) in MODELS {
        let written = write(&Gguf::fixture(name, family), GgmlDType::F32);
        let script = r#"
            let dialogue = [#{ role: "user", content: "Is 7 a prime?" }];
            let asked = ["12 + 30 =", "Say yes or no:", dialogue];
            let words = ["42", " yes", " certainly not"];
            let largest = 0.0;
            for m in [judge, model] {
                for end in [false, true] {
                    let given = logprob_of(m, asked, words, #{ end: end });
                    let own = logprob_of(m, asked, asked.map(|prompt| words), #{ end: end });
                    for i in 0..3 {
                        for j in 0..3 {
                            let answer = if i == 2 { [#{ role: "assistant", content: words[j] }] } else { words[j] };
                            let b = encode(m, [#{ prompt: asked[i], completion: answer }]);
                            let token = logprob(m, b).to_array()[0];
                            if !end { token.pop(); }
                            let sum = token.reduce(|sum, x| sum + x, 0.0);
                            largest = max(largest, max(abs(given[i][j].item() - sum), abs(own[i][j].item() - sum)));
                        }
                    }
                }
            }
            largest
        "#;
        let gap = eval(&written, name, script);
        assert!(gap.as_f64().is_some_and(|gap| gap < 1e-4), "{name}: off by {gap}");
    }
}

/// A file that the gguf package wrote, against transformers with the numbers that the package reads back.
#[test]
fn answers_are_weighed_as_transformers_does_with_the_files_numbers() {
    let reference = json("gguf/quantised.json");
    let text = format!(
        "let judge = load_frozen(`{}`);\n\
         let asked = parse_json(`{}`);\n\
         [judge.chat(asked[2], #{{ generate: true }}), logprob_of(judge, asked, parse_json(`{}`)).to_array()]",
        fixtures().join("gguf/quantised.gguf").display(),
        reference["prompts"],
        reference["words"]
    );
    let out = to_json(&host().eval(&Source { label: "judge.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}")));
    assert_eq!(out[0], reference["rendered"]);
    let numbers = |rows: &Json| -> Vec<f64> {
        let rows = rows.as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap())).collect()
    };
    let (own, want) = (numbers(&out[1]), numbers(&reference["logprobs"]));
    assert_eq!(own.len(), 12);
    let gap = max_gap(&own, &want);
    println!("log-probs of answers: off by {gap:.1e} at most");
    assert!(gap < 1e-4, "{own:?}, expected {want:?}");
}

/// The weights, and the keys and values of both prompts' tokens and of all answers'.
#[test]
fn memory_states_the_samplers_cache() {
    let written = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::Q8_0);
    let script = r#"
        let b = encode_ids([[5, 6, 7], [5, 6, 7], [9]], [[1, 2], [3], [4, 4, 4]]);
        [memory(judge, b), memory(model, b), memory(model.frozen(), b)].map(|held| [held.keys(), held.cache, held.activations])
    "#;
    let out = eval(&written, "qwen2", script);
    let config = json("models/qwen2/config.json");
    let number = |key: &str| config[key].as_u64().unwrap();
    let width = number("hidden_size") / number("num_attention_heads") * number("num_key_value_heads");
    let cache = (3 + 1 + 6) * 2 * 4 * width * number("num_hidden_layers");
    let names = json!(["activations", "cache", "gradients", "moments", "packed", "weights"]);
    assert_eq!(out[0], json!([names, cache, 0]));
    assert_eq!((&out[1][0], &out[1][1], &out[2]), (&names, &json!(cache), &json!([names, cache, 0])));
    assert!(out[1][2].as_u64().unwrap() > 0, "a model that is trained keeps activations");
}

#[test]
fn what_is_asked_wrongly_is_named() {
    let written = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::F32);
    let what = |call: &str| {
        let script = format!("let said = \"\";\ntry {{ {call}; }} catch (e) {{ said = e.to_string(); }}\nsaid");
        eval(&written, "qwen2", &script).as_str().unwrap().to_string()
    };
    let is = |call: &str, expected: &str| {
        let said = what(call);
        assert!(said.contains(expected), "{call}: {said}");
    };
    is("logprob_of(judge, [\"a\"], [])", "there are no completions, expected at least one");
    is("logprob_of(judge, [\"a\", \"b\"], [\"c\", \"\"])", "logprob_of: prompt 0, completion 1: `completion` is empty");
    is("logprob_of(judge, [\"a\"], [[\"c\"], [\"d\"]])", "there are 1 prompts, but completions for 2");
    is(
        "logprob_of(judge, [\"a\", \"b\"], [[\"c\"], [\"d\", \"e\"]])",
        "prompt 1 has 2 completions, but prompt 0 has 1",
    );
    is(
        "logprob_of(judge, [\"a\"], [3])",
        "completions must be texts, or an array of texts for each prompt, found the int 3",
    );
    is("logprob_of(judge, [\"a\"], [\"c\"], #{ ends: true })", "`ends`");
    is("logprob_of(judge, [], [\"c\"])", "`logprob_of`: there are no prompts");
    is("logprob_of(model, [[]], [\"c\"])", "`logprob_of`: prompt 0");
    is(
        "let long = \"\"; for i in 0..300 { long += \"12 \"; } logprob_of(judge, [long], [\"c\"])",
        "the model's context holds 256",
    );
    is(
        "logprob_of(load_model(\"tiny\", #{ head: \"score\" }), [\"1\"], [\"2\"])",
        "logprob_of needs a language-model head",
    );
    is("judge.chat([])", "messages");
    is("judge.detokenize([400])", "expected token ids below 384, found");
}

#[test]
fn inspect_tells_what_a_file_holds() {
    let mut gguf = Gguf::random("llama", 256, [4, 2], 64, 512);
    gguf.set("general.name", Value::String("A judge".into()));
    let written = write(&gguf, GgmlDType::Q4K);
    snapshot!("gguf", inspect(written.folder.path(), "model.gguf", 0));
    // A folder that holds nothing else stands for it.
    let folder = inspect(written.folder.path().parent().unwrap(), written.folder.path().to_str().unwrap(), 0);
    assert!(folder.contains("A judge"), "{folder}");
}

#[test]
fn inspect_tells_what_it_can_of_a_file_that_is_not_supported() {
    let mut gguf = Gguf::fixture("qwen2", "qwen2");
    gguf.set("general.architecture", Value::String("mamba".into()));
    let written = write(&gguf, GgmlDType::Q8_0);
    snapshot!("gguf_that_is_not_supported", inspect(written.folder.path(), "model.gguf", 1));
    std::fs::write(&written.path, "GGML").unwrap();
    snapshot!("gguf_that_is_none", inspect(written.folder.path(), "model.gguf", 1));
}
