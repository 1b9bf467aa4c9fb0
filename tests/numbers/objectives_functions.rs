//! Native functions against the reference numbers of `fixtures/objectives.json` (PyTorch, float64), in f64 and f32.

use rhopo::Result;
use rhopo::rl::{advantage, divergence, mask, pairs};
use rhopo::tensor::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;

/// Named arguments of one case, as tensors of one type.
struct Arguments<'a> {
    values: &'a Value,
    dtype: DType,
}

impl Arguments<'_> {
    fn tensor(&self, name: &str) -> Tensor {
        let rows: Vec<Vec<f64>> = serde_json::from_value(self.values[name].clone()).unwrap();
        let dims = [rows.len(), rows[0].len()];
        let x = Tensor::from_vec_f64(rows.concat(), &dims, &Device::Cpu).unwrap();
        // Per token, as the columns of a batch are: the functions must accept them.
        x.to_dtype(self.dtype).unwrap().with_tokens(dims[1] > 1)
    }

    fn number(&self, name: &str) -> f64 {
        self.values[name].as_f64().unwrap()
    }

    fn count(&self, name: &str) -> usize {
        self.values[name].as_u64().unwrap() as usize
    }
}

fn call(function: &str, a: &Arguments) -> Result<Vec<(&'static str, Tensor)>> {
    let one = |x: Tensor| vec![("", x)];
    let masked = |f: fn(&Tensor, &Tensor) -> Result<Tensor>| f(&a.tensor("x"), &a.tensor("mask")).map(one);
    let of_group = |f: fn(&Tensor, usize) -> Result<Tensor>| f(&a.tensor("reward"), a.count("n")).map(one);
    let divergence = |f: fn(&Tensor, &Tensor) -> Result<Tensor>| f(&a.tensor("logp"), &a.tensor("ref")).map(one);
    match function {
        "advantage::group" => of_group(advantage::group),
        "advantage::group_center" => of_group(advantage::group_center),
        "advantage::rloo" => of_group(advantage::rloo),
        "advantage::max_rl" => of_group(advantage::max_rl),
        "advantage::gae" => {
            let (gamma, lambda) = (a.number("gamma"), a.number("lambda"));
            let out = advantage::gae(&a.tensor("reward"), &a.tensor("value"), &a.tensor("mask"), gamma, lambda)?;
            Ok(vec![("advantage", out.advantage), ("return", out.ret)])
        }
        "advantage::to_go" => advantage::to_go(&a.tensor("reward"), &a.tensor("mask"), a.number("gamma")).map(one),
        "kl::k1" => divergence(divergence::k1),
        "kl::k2" => divergence(divergence::k2),
        "kl::k3" => divergence(divergence::k3),
        "seq_sum" => masked(mask::seq_sum),
        "seq_avg" => masked(mask::seq_avg),
        "seq_mean" => masked(mask::seq_mean),
        "token_mean" => masked(mask::token_mean),
        "whiten" => masked(mask::whiten),
        "const_mean" => mask::const_mean(&a.tensor("x"), &a.tensor("mask"), a.number("len")).map(one),
        "at_last" => mask::at_last(&a.tensor("r"), &a.tensor("mask")).map(one),
        "pair_first" => pairs::first(&a.tensor("x")).map(one),
        "pair_second" => pairs::second(&a.tensor("x")).map(one),
        "pair_diff" => pairs::diff(&a.tensor("x")).map(one),
        other => panic!("no function {other}"),
    }
}

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

/// Runs every case and returns how many there were of each function.
fn check(dtype: DType, tolerance: f64) -> BTreeMap<String, usize> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/objectives.json");
    let fixtures: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut counts = BTreeMap::new();
    for case in fixtures["functions"].as_array().unwrap() {
        let (name, function) = (case["name"].as_str().unwrap(), case["function"].as_str().unwrap());
        // A function of the script library, tested where scripts run.
        if function == "reward::overlong" {
            continue;
        }
        *counts.entry(function.to_string()).or_default() += 1;
        let arguments = Arguments { values: &case["args"], dtype };
        for (part, found) in call(function, &arguments).unwrap() {
            let expected = flat(if part.is_empty() { &case["value"] } else { &case["value"][part] });
            let found = found.to_vec().unwrap();
            assert_eq!(found.len(), expected.len(), "{name} {part}");
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = (found - expected).abs() / expected.abs().max(1.0);
                assert!(error <= tolerance, "{name} {part} cell {i}: {found} instead of {expected}");
            }
        }
    }
    counts
}

#[test]
fn functions_agree_with_the_reference_in_f64() {
    let counts = check(DType::F64, 1e-10);
    assert_eq!(counts.len(), 19, "{counts:?}");
    assert!(counts.iter().all(|(function, n)| *n >= if function == "advantage::gae" { 36 } else { 9 }), "{counts:?}");
}

#[test]
fn functions_agree_with_the_reference_in_f32() {
    check(DType::F32, 1e-5);
}

#[test]
fn rewards_that_are_not_numbers_name_their_row() {
    let reward = |values: &[f32]| Tensor::from_vec(values.to_vec(), &[values.len(), 1], &Device::Cpu).unwrap();
    let error = advantage::group(&reward(&[0.0, 1.0, f32::NAN, 0.0]), 2).err().unwrap();
    assert_eq!(error.what, "`advantage::group`: reward is NaN in row 2");
    let error = advantage::rloo(&reward(&[0.0, 1.0, 2.0]), 2).err().unwrap();
    assert_eq!(error.what, "`advantage::rloo`: 3 rows do not divide into groups of 2");
    let error = advantage::group_center(&reward(&[0.0, 1.0]), 1).err().unwrap();
    assert_eq!(error.what, "`advantage::group_center` compares answers within a group: n must be at least 2, found 1");
}

#[test]
fn a_group_of_equal_rewards_has_advantage_zero_exactly() {
    for value in [0.1, -1.0 / 3.0, 1e30] {
        let reward = Tensor::from_vec_f64(vec![value; 6], &[6, 1], &Device::Cpu).unwrap();
        for f in [advantage::group, advantage::rloo, advantage::group_center, advantage::max_rl] {
            let found = f(&reward, 3);
            assert_eq!(found.unwrap().to_vec().unwrap(), [0.0; 6]);
        }
    }
}
