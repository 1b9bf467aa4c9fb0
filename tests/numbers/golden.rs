//! Ten optimizer steps of shipped scripts' losses on a fixture model, against the same steps in PyTorch.

use crate::common::{fixtures, host, json};
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::Value;

const MODELS: [&str; 3] = ["qwen2", "llama3", "gpt_neox"];
const SCRIPTS: [&str; 4] = ["sft", "grpo", "rebel", "dpo"];

fn close(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() < 2e-3 * want.abs().max(1.0), "{what}: {got}, not {want}");
}

fn run(case: &Value) {
    let model = fixtures().join("models").join(case["model"].as_str().unwrap());
    let text = format!(
        "let given = parse_json(`{case}`);\n\
         let model = load_model(`{}`);\n\
         let b = encode_ids(given.rows.map(|r| r.prompt), given.rows.map(|r| r.completion));\n\
         b.old_logprob = logprob(model, b);\n\
         b.ref_logprob = logprob(model.frozen(), b);\n\
         b.reward = tensor(given.reward);\n\
         b.advantage = tensor(given.advantage);\n\
         let opt = adamw(model, #{{ lr: given.lr, weight_decay: given.weight_decay, max_norm: given.max_norm }});\n\
         let objective = script(given.script);\n\
         let steps = [];\n\
         for i in 0..given.steps.len() {{\n\
             steps += [opt.step(objective.call(\"loss\", [logprob(model, b), b, given.cfg]))];\n\
         }}\n\
         [steps, logprob(model, b).to_array()]",
        model.display()
    );
    let host = host();
    let source = Source { label: "golden.rhai".into(), text };
    let out = to_json(&host.eval(&source).unwrap_or_else(|e| panic!("{e:?}")));
    let name = format!("{} {}", case["model"], case["script"]);
    for (i, (got, want)) in out[0].as_array().unwrap().iter().zip(case["steps"].as_array().unwrap()).enumerate() {
        for key in ["loss", "grad_norm"] {
            close(got[key].as_f64().unwrap(), want[key].as_f64().unwrap(), &format!("{name}: {key} of step {i}"));
        }
    }
    let cells = |v: &Value| -> Vec<f64> {
        v.as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect()
    };
    let mask = cells(&case["mask"]);
    for ((got, want), inside) in cells(&out[1]).iter().zip(cells(&case["final_logprob"])).zip(mask) {
        if inside != 0.0 {
            assert!((got - want).abs() < 1e-2, "{name}: a final log-prob is {got}, not {want}");
        }
    }
}

#[test]
fn ten_steps_match_the_reference() {
    let mut checked = 0;
    for case in json("golden.json").as_array().unwrap() {
        if MODELS.contains(&case["model"].as_str().unwrap()) && SCRIPTS.contains(&case["script"].as_str().unwrap()) {
            run(case);
            checked += 1;
        }
    }
    assert_eq!(checked, MODELS.len() * SCRIPTS.len());
}
