//! Every fused operation against its plain composition, values and gradients, over random ragged shapes; the plain
//! compositions against finite differences in f64.

use super::attention::{self, Heads, attention};
use super::elementwise::{add, gather, swiglu, swiglu_plain};
use super::linear::{self, linear, linear_add};
use super::logprob::{self, Targets, linear_logprob};
use super::rms_norm::{self, rms_norm};
use super::rotary::{self, Angles, rotary};
use super::segments::{Segment, Segments};
use super::tape::{Packs, ParameterGrads, Tape, Var, plain_backward};
use crate::error::Result;
use crate::tensor::rng::Key;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

fn random(dims: &[usize], key: Key) -> Tensor {
    let data: Vec<f32> = (0..dims.iter().product::<usize>()).map(|i| key.normal(i as u64) as f32).collect();
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

fn gap(a: &Tensor, b: &Tensor) -> f32 {
    let most = |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    assert_eq!(a.dims(), b.dims());
    most(&(a - b).unwrap()) / most(b).max(1e-3)
}

/// Runs `op` fused and plain on the same inputs as parameters, and compares values and gradients.
fn fused_equals_plain(name: &str, inputs: &[Tensor], op: impl Fn(&mut Tape, &[Var]) -> Result<Var>) {
    let run = |mut tape: Tape| {
        let vars: Vec<Var> = inputs.iter().enumerate().map(|(i, t)| tape.parameter(t, i, true)).collect();
        let out = op(&mut tape, &vars).unwrap();
        let upstream = random(out.value.dims(), Key::new(99));
        let mut grads = ParameterGrads::default();
        tape.backward(&out, upstream, &mut grads).unwrap();
        let grads: Vec<Tensor> = (0..inputs.len()).map(|i| grads.get(i).expect("a gradient").clone()).collect();
        (out.value, grads)
    };
    let (fused, fused_grads) = run(Tape::recording(Packs::new(0)));
    let (plain, plain_grads) = run(Tape::recording(Packs::new(0)).plain());
    assert!(gap(&fused, &plain) < 2e-5, "{name}: value off by {}", gap(&fused, &plain));
    for (i, (f, p)) in fused_grads.iter().zip(&plain_grads).enumerate() {
        assert!(gap(f, p) < 1e-4, "{name}: gradient {i} off by {}", gap(f, p));
    }
}

/// A forest of prompts with answers of random lengths, and some sequences on their own.
fn ragged(key: Key) -> Segments {
    let (mut segments, mut at, mut draw) = (Vec::new(), 0, 0);
    let mut below = |n: u64| {
        draw += 1;
        key.below(draw, n) as usize
    };
    let mut push = |len: usize, context: Vec<std::ops::Range<usize>>, segments: &mut Vec<Segment>| {
        segments.push(Segment { start: at, len, context });
        at += len;
        at - len..at
    };
    for _ in 0..3 {
        let prompt = push(1 + below(70), Vec::new(), &mut segments);
        for answer in 0..below(4) {
            let first = push(1 + below(40), vec![prompt.clone()], &mut segments);
            if answer == 1 {
                push(1 + below(9), vec![prompt.clone(), first], &mut segments);
            }
        }
    }
    Segments::new(segments).unwrap()
}

#[test]
fn fused_operations_equal_their_plain_compositions() {
    for case in 0..6u64 {
        let key = Key::new(case);
        let n = 1 + key.below(0, 90) as usize;
        let t = |dims: &[usize], stream: u64| random(dims, key.fold(stream));
        fused_equals_plain("linear", &[t(&[n, 40], 1), t(&[33, 40], 2), t(&[33], 3)], |tape, v| {
            linear(tape, &v[0], &v[1], Some(&v[2]))
        });
        fused_equals_plain("linear_add", &[t(&[n, 40], 1), t(&[33, 40], 2), t(&[n, 33], 3)], |tape, v| {
            linear_add(tape, &v[0], &v[1], None, &v[2])
        });
        fused_equals_plain("rms_norm", &[t(&[n, 48], 1), t(&[48], 2)], |tape, v| rms_norm(tape, &v[0], &v[1], 1e-6));
        fused_equals_plain("swiglu", &[t(&[n, 30], 1), t(&[n, 30], 2)], |tape, v| swiglu(tape, &v[0], &v[1]));
        fused_equals_plain("add", &[t(&[n, 30], 1), t(&[n, 30], 2)], |tape, v| add(tape, &v[0], &v[1]));
        let positions: Vec<u32> = (0..n as u32).map(|i| i * 3).collect();
        let (full, partial) = (Angles::new(&positions, 8, 1e4), Angles::new(&positions, 4, 1e4));
        fused_equals_plain("rotary", &[t(&[n, 24], 1)], |tape, v| rotary(tape, &v[0], &full, 8));
        fused_equals_plain("partial rotary", &[t(&[n, 24], 1)], |tape, v| rotary(tape, &v[0], &partial, 8));
        let ids: Arc<[u32]> = (0..n).map(|i| key.below(i as u64, 12) as u32).collect();
        fused_equals_plain("gather", &[t(&[12, 20], 1)], |tape, v| gather(tape, &v[0], ids.clone()));
        let segments = Arc::new(ragged(key));
        let (tokens, heads) = (segments.tokens(), Heads { query: 4, key: 2, dim: 16 });
        fused_equals_plain("attention", &[t(&[tokens, 64], 1), t(&[tokens, 32], 2), t(&[tokens, 32], 3)], |tape, v| {
            attention(tape, &v[0], &v[1], &v[2], &segments, heads)
        });
        let rows: Arc<[u32]> = (0..n as u32).flat_map(|r| vec![r; 1 + r as usize % 3]).collect();
        let tokens: Arc<[u32]> = (0..rows.len()).map(|i| key.below(i as u64, 50) as u32).collect();
        let targets = Targets { rows, tokens, temperature: 0.7 };
        fused_equals_plain("logprob", &[t(&[n, 24], 1), t(&[50, 24], 2)], |tape, v| {
            linear_logprob(tape, &v[0], &v[1], &targets)
        });
    }
}

#[test]
fn logprobs_over_several_chunks_equal_the_plain_composition() {
    let key = Key::new(5);
    let targets = Targets {
        rows: Arc::from((0..300).collect::<Vec<u32>>()),
        tokens: (0..300).map(|i| i * 30 % 9001).collect(),
        temperature: 1.3,
    };
    fused_equals_plain("logprob", &[random(&[300, 12], key.fold(1)), random(&[9001, 12], key.fold(2))], |tape, v| {
        linear_logprob(tape, &v[0], &v[1], &targets)
    });
}

/// The gradient of Σ f·upstream by candle against central differences, in f64.
fn matches_finite_differences<const N: usize>(
    name: &str,
    inputs: [Tensor; N],
    f: impl Fn(&[Tensor; N]) -> Result<Tensor>,
) {
    let inputs = inputs.map(|t| t.to_dtype(DType::F64).unwrap());
    let out = f(&inputs).unwrap();
    let upstream = random(out.dims(), Key::new(7)).to_dtype(DType::F64).unwrap();
    let grads = plain_backward(std::array::from_fn(|i| &inputs[i]), &upstream, &f).unwrap();
    let value =
        |inputs: &[Tensor; N]| (f(inputs).unwrap() * &upstream).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    for (i, input) in inputs.iter().enumerate() {
        let flat: Vec<f64> = input.flatten_all().unwrap().to_vec1().unwrap();
        let grad: Vec<f64> = grads[i].flatten_all().unwrap().to_vec1().unwrap();
        for at in (0..flat.len()).step_by(1 + flat.len() / 25) {
            let moved = |by: f64| {
                let mut flat = flat.clone();
                flat[at] += by;
                let mut inputs = inputs.clone();
                inputs[i] = Tensor::from_vec(flat, input.dims(), &Device::Cpu).unwrap();
                value(&inputs)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (slope - grad[at]).abs() < 1e-6 * (1.0 + slope.abs()),
                "{name} {i}[{at}]: {} for {slope}",
                grad[at]
            );
        }
    }
}

#[test]
fn plain_compositions_match_finite_differences() {
    let key = Key::new(11);
    let t = |dims: &[usize], stream: u64| random(dims, key.fold(stream));
    matches_finite_differences("linear", [t(&[5, 6], 1), t(&[4, 6], 2), t(&[4], 3)], |[x, w, b]| {
        linear::plain(x, w, Some(b))
    });
    matches_finite_differences("rms_norm", [t(&[5, 6], 1), t(&[6], 2)], |[x, w]| rms_norm::plain(x, w, 1e-6));
    matches_finite_differences("swiglu", [t(&[5, 6], 1), t(&[5, 6], 2)], |[g, u]| swiglu_plain(g, u));
    let angles = Angles::new(&[0, 3, 9], 4, 100.0);
    matches_finite_differences("rotary", [t(&[3, 12], 1)], |[x]| rotary::plain(x, &angles, 6));
    let prompt = || std::iter::once(0..3).collect();
    let segments = Segments::new(vec![
        Segment { start: 0, len: 3, context: vec![] },
        Segment { start: 3, len: 2, context: prompt() },
        Segment { start: 5, len: 2, context: prompt() },
        Segment { start: 7, len: 1, context: vec![] },
    ])
    .unwrap();
    let heads = Heads { query: 2, key: 1, dim: 4 };
    matches_finite_differences("attention", [t(&[8, 8], 1), t(&[8, 4], 2), t(&[8, 4], 3)], |[q, k, v]| {
        attention::plain(q, k, v, &segments, heads)
    });
    let targets = Targets { rows: Arc::from([0, 0, 1, 3]), tokens: Arc::from([2, 4, 0, 6]), temperature: 0.8 };
    matches_finite_differences("logprob", [t(&[4, 5], 1), t(&[7, 5], 2)], |[h, w]| logprob::plain(h, w, &targets));
}

#[test]
fn frozen_operands_get_no_gradient_and_a_tape_can_be_walked_twice() {
    let key = Key::new(2);
    let mut tape = Tape::recording(Packs::new(0));
    let x = tape.parameter(&random(&[3, 4], key.fold(1)), 0, true);
    let frozen = tape.parameter(&random(&[5, 4], key.fold(2)), 1, false);
    let y = linear(&mut tape, &x, &frozen, None).unwrap();
    let walk = || {
        let mut grads = ParameterGrads::default();
        tape.backward(&y, random(&[3, 5], key.fold(3)), &mut grads).unwrap();
        assert!(grads.get(1).is_none());
        grads.get(0).unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(walk(), walk());
}
