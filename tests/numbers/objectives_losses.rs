//! The `loss` of shipped scripts against the reference numbers of `fixtures/objectives.json` (PyTorch, float64):
//! value and gradient, in f64 and f32, and that neither cells outside the mask nor the order of rows change them.

use crate::common::{host, json, largest, max_gap};
use rhopo::script::host::Host;
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use serde_json::Value;
use std::collections::BTreeMap;

/// Scripts whose rows belong together in pairs (2k, 2k+1).
const PAIRED: &[&str] = &[
    "apo_down",
    "apo_zero",
    "cdpo",
    "cpl",
    "cpo",
    "discopop",
    "dpo",
    "ema_dpo",
    "gro",
    "ipo",
    "ipo_md",
    "orpo",
    "rebel",
    "refuel",
    "reward_model",
    "rso",
    "simpo",
    "slic",
    "spin",
];

/// Runs `script(NAME).call(CALL, …)` on a case's numbers, rounded to `dtype`. Returns the loss and the gradient. Where
/// `spoiled`, every cell outside the mask is NaN.
fn run(host: &Host, case: &Value, dtype: &str, spoiled: bool) -> (f64, Vec<f64>) {
    let text = format!(
        "let given = parse_json(`{case}`);\n\
         let b = if given.columns.is_empty() {{ #{{ }} }} else {{ batch(given.columns) }};\n\
         for name in given.columns.keys() {{ b[name] = tensor(given.columns[name], \"{dtype}\"); }}\n\
         let x = tensor(given.logp, \"{dtype}\");\n\
         if {spoiled} && given.columns.contains(\"mask\") {{\n\
             let nan = 0.0 / 0.0;\n\
             x = where(b.mask, x, nan);\n\
             for name in b.columns() {{\n\
                 if !name.ends_with(\"mask\") && b[name].shape == b.mask.shape {{ b[name] = where(b.mask, b[name], nan); }}\n\
             }}\n\
         }}\n\
         let x = x.with_grad();\n\
         let loss = script(given.script).call(given[\"call\"], [x, b, given.cfg]);\n\
         [loss.item(), grad(loss, x).to_array()]",
    );
    let source = Source { label: "case.rhai".into(), text };
    let out = host.eval(&source).unwrap_or_else(|e| panic!("{}: {e:?}", case["name"]));
    let out = to_json(&out);
    (out[0].as_f64().unwrap(), numbers(&out[1]))
}

fn numbers(rows: &Value) -> Vec<f64> {
    rows.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect()
}

/// Every case, with errors up to `tolerance` of the loss and of the largest gradient. Prints the largest of each script.
fn check(dtype: &str, tolerance: f64) {
    let host = host();
    let mut checked = 0;
    let mut worst = BTreeMap::<String, (f64, f64)>::new();
    for case in json("objectives.json")["losses"].as_array().unwrap() {
        let (loss, grad) = run(&host, case, dtype, false);
        // Of gro the gradient alone is fixed: its loss has a constant of its own.
        let (want, want_grad) = (case["loss"].as_f64().unwrap_or(loss), numbers(&case["grad"]));
        assert!((loss - want).abs() < tolerance * want.abs().max(1.0), "{}: loss {loss}, not {want}", case["name"]);
        let gap = max_gap(&grad, &want_grad);
        let of = worst
            .entry(format!("{}.{}", case["script"].as_str().unwrap(), case["call"].as_str().unwrap()))
            .or_default();
        of.0 = of.0.max((loss - want).abs() / want.abs().max(1.0));
        of.1 = of.1.max(gap / largest(&want_grad).max(1e-3));
        assert!(gap <= tolerance * largest(&want_grad).max(1e-3), "{}: gradient off by {gap}", case["name"]);
        assert_eq!(run(&host, case, dtype, true), (loss, grad), "{}: cells outside the mask count", case["name"]);
        checked += 1;
    }
    for (name, (loss, grad)) in worst {
        println!("{dtype} {name}: loss off by {loss:.1e}, gradient by {grad:.1e} of its largest");
    }
    assert_eq!(checked, 594);
}

#[test]
fn losses_of_shipped_scripts_match_the_reference_in_f64() {
    check("f64", 1e-8);
}

#[test]
fn losses_of_shipped_scripts_match_the_reference_in_f32() {
    check("f32", 1e-4);
}

/// The rows of a case in another order: groups of `unit` rows from the last to the first.
fn permuted(case: &Value, unit: usize) -> Value {
    let turn = |rows: &mut Value| {
        let rows = rows.as_array_mut().unwrap();
        assert_eq!(rows.len() % unit, 0);
        *rows = rows.chunks(unit).rev().flatten().cloned().collect();
    };
    let mut case = case.clone();
    case["columns"].as_object_mut().unwrap().values_mut().for_each(turn);
    ["logp", "grad"].into_iter().for_each(|name| turn(&mut case[name]));
    case
}

#[test]
fn losses_of_shipped_scripts_do_not_depend_on_the_order_of_rows() {
    let host = host();
    for case in json("objectives.json")["losses"].as_array().unwrap() {
        let script = case["script"].as_str().unwrap();
        let group = case["cfg"]["group"].as_u64().map(|n| n as usize);
        let unit = group.unwrap_or(if PAIRED.contains(&script) { 2 } else { 1 });
        let other = permuted(case, unit);
        let ((before, grad), (after, found)) = (run(&host, case, "f64", false), run(&host, &other, "f64", false));
        assert!((before - after).abs() <= 1e-12 * before.abs().max(1.0), "{}: {before}, not {after}", case["name"]);
        // The gradient in the new order, taken back to the old one.
        let width = case["logp"][0].as_array().unwrap().len();
        let back: Vec<f64> = found.chunks(unit * width).rev().flatten().copied().collect();
        let gap = max_gap(&back, &grad);
        assert!(gap <= 1e-12 * largest(&grad), "{}: gradient off by {gap}", case["name"]);
    }
}

/// Distillation's loss has two arguments with a gradient: the tokens' log-probs and their divergences.
#[test]
fn the_loss_of_distill_matches_the_reference_in_both_its_targets() {
    let host = host();
    let mut worst = 0.0_f64;
    for case in json("objectives.json")["targets"].as_array().unwrap() {
        let text = format!(
            "let given = parse_json(`{case}`); let b = batch(#{{ mask: tensor(given.mask, \"f64\") }}); let nan = 0.0 / 0.0;\n\
             let x = where(b.mask, tensor(given.logp, \"f64\"), nan).with_grad();\n\
             let y = where(b.mask, tensor(given.apart, \"f64\"), nan).with_grad();\n\
             let loss = script(\"distill\").call(\"loss\", [x, b, given.cfg, y]);\n\
             [loss.item(), grad(loss, x).to_array(), grad(loss, y).to_array()]",
        );
        let out = host.eval(&Source { label: "case.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}"));
        let out = to_json(&out);
        let gaps = [
            (out[0].as_f64().unwrap() - case["loss"].as_f64().unwrap()).abs(),
            max_gap(&numbers(&out[1]), &numbers(&case["grad"])),
            max_gap(&numbers(&out[2]), &numbers(&case["grad_apart"])),
        ];
        assert!(gaps.iter().all(|gap| *gap < 1e-10), "{}: {gaps:?}", case["name"]);
        worst = gaps.into_iter().fold(worst, f64::max);
    }
    println!("f64 distill.loss: loss and both gradients off by {worst:.1e}");
}

/// PPO-ptx has no reference of its own: it is PPO's loss plus `ptx` times SFT's on other rows.
#[test]
fn the_loss_of_ppo_ptx_is_that_of_ppo_and_that_of_sft() {
    let host = host();
    let text = r#"
        let b = batch(#{ mask: [[1, 1, 1], [1, 1, 0]], old_logprob: [[-1.0, -2.0, -0.5], [-0.1, -3.0, 0.0]],
                         advantage: [[1.0, -1.0, 0.5], [2.0, -0.3, 0.0]] });
        let demos = batch(#{ mask: [[1, 1], [1, 0], [1, 1]] });
        let cfg = #{ clip: 0.2, ptx: 0.3 };
        let x = tensor([[-1.3, -1.8, -0.6], [-0.2, -2.5, 0.0]], "f64").with_grad();
        let y = tensor([[-1.0, -2.0], [-0.7, -9.0], [-3.0, -0.2]], "f64").with_grad();
        let ptx = script("ppo_ptx").call("loss", [x, b, cfg, y, demos]);
        let ppo = script("ppo").call("loss", [x, b, cfg]);
        let sft = script("sft").call("loss", [y, demos, cfg]);
        assert_close(ptx, (ppo + 0.3 * sft).item());
        assert_close(grad(ptx, x), grad(ppo, x).to_array());
        assert_close(grad(ptx, y), (0.3 * grad(sft, y)).to_array());
        assert(max(abs(grad(ptx, y))).item() > 0.05);
    "#;
    let source = Source { label: "case.rhai".into(), text: text.into() };
    let _ = host.eval(&source).unwrap_or_else(|e| panic!("{e:?}"));
}
