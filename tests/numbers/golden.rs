//! Ten optimizer steps of shipped scripts' losses on a fixture model, against the same steps in PyTorch.

use crate::common::{fixtures, host, json};
use rhopo::script::host::Host;
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::Value;

const MODELS: [&str; 3] = ["qwen2", "llama3", "gpt_neox"];
const SCRIPTS: [&str; 4] = ["sft", "grpo", "rebel", "dpo"];

/// How far ten steps may be from the reference's.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Of a loss, as a share of it where it is above 1.
    pub loss: f64,
    /// Of a gradient's norm, likewise.
    pub grad_norm: f64,
    /// Of a log-prob after the last step.
    pub logprob: f64,
}

/// What f32 sums in another order come to after ten steps.
pub const BOUNDS: Bounds = Bounds { loss: 2e-3, grad_norm: 2e-3, logprob: 1e-2 };

/// The steps of one case of `golden.json`, by a host that places the model and says what it computes in.
pub fn run(case: &Value, host: &Host, bounds: Bounds) {
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
    let source = Source { label: "golden.rhai".into(), text };
    let out = to_json(&host.eval(&source).unwrap_or_else(|e| panic!("{e:?}")));
    let name = format!("{} {}", case["model"], case["script"]);
    for (i, (got, want)) in out[0].as_array().unwrap().iter().zip(case["steps"].as_array().unwrap()).enumerate() {
        for (key, bound) in [("loss", bounds.loss), ("grad_norm", bounds.grad_norm)] {
            let (got, want) = (got[key].as_f64().unwrap(), want[key].as_f64().unwrap());
            let close = (got - want).abs() < bound * want.abs().max(1.0);
            assert!(close, "{name}: {key} of step {i}: {got}, not {want}");
        }
    }
    let cells = |v: &Value| -> Vec<f64> {
        v.as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect()
    };
    let mask = cells(&case["mask"]);
    for ((got, want), inside) in cells(&out[1]).iter().zip(cells(&case["final_logprob"])).zip(mask) {
        if inside != 0.0 {
            assert!((got - want).abs() < bounds.logprob, "{name}: a final log-prob is {got}, not {want}");
        }
    }
}

#[test]
fn ten_steps_match_the_reference() {
    let mut checked = 0;
    for case in json("golden.json").as_array().unwrap() {
        if MODELS.contains(&case["model"].as_str().unwrap()) && SCRIPTS.contains(&case["script"].as_str().unwrap()) {
            run(case, &host(), BOUNDS);
            checked += 1;
        }
    }
    assert_eq!(checked, MODELS.len() * SCRIPTS.len());
}
