//! `std/optim` against torch.optim.AdamW: every step's tensor, loss and norm.

use crate::common::{host, json};
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::Value;

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

#[test]
fn tensors_of_a_script_step_as_pytorch_does() {
    for (dtype, tolerance) in [("f64", 1e-12), ("f32", 2e-6)] {
        let mut worst = 0.0_f64;
        for case in json("optim.json").as_array().unwrap() {
            let given = serde_json::json!({ "start": case["start"], "a": case["a"], "options": case["options"] });
            let text = format!(
                "import \"std/optim\" as optim;\n\
                 let given = parse_json(`{given}`);\n\
                 let a = tensor(given.a, \"{dtype}\");\n\
                 let opt = optim::adamw(tensor(given.start, \"{dtype}\"), given.options);\n\
                 let steps = [];\n\
                 for i in 0..7 {{\n\
                     opt = optim::step(opt, sum(square(opt.x - a)) + sum(exp(0.3 * opt.x)));\n\
                     steps.push(#{{ loss: opt.loss, grad_norm: opt.grad_norm, x: opt.x.to_array() }});\n\
                 }}\n\
                 steps"
            );
            let out = host().eval(&Source { label: "case.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}"));
            let out = to_json(&out);
            for (got, want) in out.as_array().unwrap().iter().zip(case["steps"].as_array().unwrap()) {
                for name in ["loss", "grad_norm", "x"] {
                    for (got, want) in flat(&got[name]).into_iter().zip(flat(&want[name])) {
                        let gap = (got - want).abs() / want.abs().max(1.0);
                        worst = worst.max(gap);
                        assert!(gap < tolerance, "{dtype}, {name}: {got}, not {want}");
                    }
                }
            }
        }
        println!("std/optim in {dtype}: within {worst:.1e} of torch.optim.AdamW");
    }
}

#[test]
fn options_that_are_none_are_refused() {
    for (options, said) in [
        ("#{ beta: 0.1 }", "optim::adamw has no option beta"),
        ("#{ lr: -1.0 }", "optim: lr is -1.0, expected a number of 0 or more, and finite"),
        ("#{ lr: 0.0 / 0.0 }", "optim: lr is NaN"),
        ("#{ eps: () }", "optim: eps is "),
        ("#{ max_norm: 0 }", "optim: max_norm is 0, expected a number above 0"),
        ("#{ betas: 0.9 }", "expected two numbers in [0, 1)"),
        ("#{ betas: [0.9, 0.0 / 0.0] }", "expected two numbers in [0, 1)"),
        ("#{ betas: [0.9, 1.0] }", "expected two numbers in [0, 1)"),
    ] {
        let text = format!("import \"std/optim\" as optim;\noptim::adamw(tensor([1.0]), {options})");
        let e = host().eval(&Source { label: "case.rhai".into(), text }).expect_err(options);
        assert!(e.message.contains(said), "{}", e.message);
    }
}

/// As `adamw(model)` has it: nothing is changed then, and a large gradient is no fault.
#[test]
fn a_loss_or_a_gradient_that_is_not_finite_is_refused() {
    let step = |loss: &str, then: &str| {
        let text = format!(
            "import \"std/optim\" as optim;\nlet opt = optim::adamw(tensor([1.0]), #{{ lr: 0.1 }});\n{then}\n\
             optim::step(opt, {loss}).x.item()"
        );
        host().eval(&Source { label: "case.rhai".into(), text })
    };
    for (loss, then, said) in [
        ("sum(exp(opt.x * 1000))", "", "optim::step: the loss is inf at step 1"),
        ("sum(log(opt.x - 10))", "", "optim::step: the loss is NaN at step 1"),
        ("sum(sqrt(opt.x - 1))", "", "optim::step: the gradient is not finite at step 1"),
        ("sum(opt.x)", "opt.lr = -1;", "optim: lr is -1"),
    ] {
        let e = step(loss, then).expect_err(loss);
        assert!(e.message.starts_with(said), "{loss}: {}", e.message);
    }
    let x = step("sum(opt.x * 1e30)", "").expect("a large gradient").as_float().expect("a number");
    assert!((x - 0.9).abs() < 1e-6, "{x}");
}
