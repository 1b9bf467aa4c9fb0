//! Every fused operation against its plain composition, values and gradients, over random ragged shapes; the plain
//! compositions against finite differences in f64.

use super::attention::{self, Heads, attention};
use super::decode::{KeyValues, attend_row};
use super::divergence::{self, Reference, linear_kl};
use super::elementwise::{
    Columns, Gate, Gelu, add, columns, columns_plain, gated, gated_plain, gather, gelu, gelu_plain, scale,
};
use super::gemm::{Mat, Packed};
use super::layer_norm::{self, layer_norm};
use super::linear::{self, Layout, linear, linear_add};
use super::logprob::{self, LmHead, Targets, linear_logprob};
use super::rms_norm::{self, Rms, rms_norm};
use super::rotary::{self, Angles, Scaling, frequencies, rotary};
use super::segments::{Segment, Segments};
use super::softcap::{self, softcap};
use super::tape::{Packs, ParameterGrads, Side, Tape, Var, plain_backward};
use crate::error::Result;
use crate::tensor::rng::Key;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

fn random(dims: &[usize], key: Key) -> Tensor {
    let data: Vec<f32> = (0..dims.iter().product::<usize>()).map(|i| key.normal(i as u64) as f32).collect();
    Tensor::from_vec(data, dims, &Device::Cpu).expect("as many numbers as the shape holds")
}

fn largest(t: &Tensor) -> candle_core::Result<f32> {
    t.abs()?.max_all()?.to_scalar()
}

/// Of the largest number in `b`.
fn gap(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let most = |t: &Tensor| largest(t).expect("an f32 tensor that is not empty");
    most(&(a - b).expect("equal shapes")) / most(b).max(1e-3)
}

/// Runs `op` fused and plain on the same inputs as parameters, and compares values and gradients.
fn fused_equals_plain(name: &str, inputs: &[Tensor], op: impl Fn(&mut Tape, &[Var]) -> Result<Var>) {
    let run = |mut tape: Tape| {
        let vars: Vec<Var> = inputs.iter().enumerate().map(|(i, t)| tape.parameter(t, i, true)).collect();
        let out = op(&mut tape, &vars).expect("the operation runs");
        let upstream = random(out.value.dims(), Key::new(99));
        let mut grads = ParameterGrads::default();
        tape.backward(&out, upstream, &mut grads).expect("walks back");
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

const HEADS: Heads = Heads { query: 4, key: 2, dim: 16, window: None, scale: 0.25, softcap: None };

/// A head without a soft cap, and with one.
fn lm_head(weight: &Var, softcap: Option<f32>) -> LmHead {
    LmHead { weight: weight.clone(), softcap }
}

/// Random queries, keys and values for `HEADS`.
fn qkv(tokens: usize, key: Key) -> [Tensor; 3] {
    [(64, 1), (32, 2), (32, 3)].map(|(width, stream)| random(&[tokens, width], key.fold(stream)))
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
    Segments::new(segments).expect("segments in order")
}

#[test]
fn fused_operations_equal_their_plain_compositions() {
    for case in 0..6u64 {
        let key = Key::new(case);
        let n = 1 + key.below(0, 90) as usize;
        let t = |dims: &[usize], stream: u64| random(dims, key.fold(stream));
        for (layout, w) in [(Layout::OutIn, t(&[33, 40], 2)), (Layout::InOut, t(&[40, 33], 2))] {
            fused_equals_plain("linear", &[t(&[n, 40], 1), w.clone(), t(&[33], 3)], |tape, v| {
                linear(tape, &v[0], &v[1], Some(&v[2]), layout)
            });
            fused_equals_plain("linear_add", &[t(&[n, 40], 1), w, t(&[n, 33], 3)], |tape, v| {
                linear_add(tape, &v[0], &v[1], None, &v[2], layout)
            });
        }
        for (width, offset) in [(48, 0.0), (16, 0.0), (48, 1.0), (16, 1.0)] {
            fused_equals_plain("rms_norm", &[t(&[n, 48], 1), t(&[width], 2)], |tape, v| {
                rms_norm(tape, &v[0], &v[1], Rms { eps: 1e-6, offset })
            });
        }
        fused_equals_plain("layer_norm", &[t(&[n, 45], 1), t(&[45], 2), t(&[45], 3)], |tape, v| {
            layer_norm(tape, &v[0], &v[1], &v[2], 1e-5)
        });
        for form in [Gelu::Exact, Gelu::Tanh] {
            let wide = (t(&[n, 30], 1) * 3.0).expect("the operation runs");
            fused_equals_plain("gelu", &[wide], |tape, v| gelu(tape, &v[0], form));
        }
        fused_equals_plain("scale", &[t(&[n, 30], 1)], |tape, v| scale(tape, &v[0], 0.37));
        fused_equals_plain("columns", &[t(&[n, 36], 1)], |tape, v| {
            // Parts of an activation, as of GPT-NeoX's joint projection: their gradients meet in one.
            let x = scale(tape, &v[0], 2.0)?;
            let part = |start| Columns { start, stride: 12, width: 4, count: 3 };
            let [q, k, v] = [part(0), part(4), part(8)].map(|part| columns(tape, &x, part));
            let y = gated(tape, &q?, &k?, Gate::Silu)?;
            let y = gated(tape, &v?, &y, Gate::Silu)?;
            let overlapping = columns(tape, &x, Columns { start: 5, stride: 1, width: 4, count: 3 })?;
            add(tape, &y, &overlapping)
        });
        for f in GATES {
            fused_equals_plain("gated", &[t(&[n, 30], 1), t(&[n, 30], 2)], |tape, v| gated(tape, &v[0], &v[1], f));
        }
        for by in [0.5, 4.0] {
            fused_equals_plain("softcap", &[t(&[n, 30], 1)], |tape, v| softcap(tape, &v[0], by));
        }
        fused_equals_plain("add", &[t(&[n, 30], 1), t(&[n, 30], 2)], |tape, v| add(tape, &v[0], &v[1]));
        let positions: Vec<u32> = (0..n as u32).map(|i| i * 3).collect();
        let angles = |dims, magnitude| Angles::new(&positions, &frequencies(dims, 1e4, &Scaling::None), magnitude);
        let (full, partial) = (angles(8, 1.0), angles(4, 1.3));
        fused_equals_plain("rotary", &[t(&[n, 24], 1)], |tape, v| rotary(tape, &v[0], &full, 8));
        fused_equals_plain("partial rotary", &[t(&[n, 24], 1)], |tape, v| rotary(tape, &v[0], &partial, 8));
        let ids: Arc<[u32]> = (0..n).map(|i| key.below(i as u64, 12) as u32).collect();
        fused_equals_plain("gather", &[t(&[12, 20], 1)], |tape, v| gather(tape, &v[0], ids.clone()));
        let segments = Arc::new(ragged(key));
        let tokens = segments.tokens();
        let ways = [None, Some(2), Some(13), Some(61), Some(1000)].map(|window| (window, 0.25, None));
        for (window, scale, softcap) in
            ways.into_iter().chain([(None, 0.1, None), (None, 0.3, Some(1.5)), (Some(13), 0.3, Some(4.0))])
        {
            let (inputs, heads) = (qkv(tokens, key), Heads { window, scale, softcap, ..HEADS });
            fused_equals_plain(&format!("attention, window {window:?}, soft cap {softcap:?}"), &inputs, |tape, v| {
                attention(tape, &v[0], &v[1], &v[2], &segments, heads)
            });
        }
        let rows: Arc<[u32]> = (0..n as u32).flat_map(|r| vec![r; 1 + r as usize % 3]).collect();
        let tokens: Arc<[u32]> = (0..rows.len()).map(|i| key.below(i as u64, 50) as u32).collect();
        let targets = Targets { rows, tokens, temperature: 0.7 };
        for softcap in [None, Some(3.0)] {
            fused_equals_plain("logprob", &[t(&[n, 24], 1), t(&[50, 24], 2)], |tape, v| {
                linear_logprob(tape, &v[0], &lm_head(&v[1], softcap), &targets)
            });
        }
        for softcap in [[None, None], [Some(3.0), None], [None, Some(3.0)], [Some(3.0), Some(5.0)]] {
            let reference = Reference { hidden: t(&[n, 18], 3), head: t(&[50, 18], 4), softcap: softcap[1] };
            fused_equals_plain("divergence", &[t(&[n, 24], 1), t(&[50, 24], 2)], |tape, v| {
                linear_kl(tape, &v[0], &lm_head(&v[1], softcap[0]), &reference, &targets)
            });
        }
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
    for softcap in [None, Some(4.0)] {
        fused_equals_plain(
            "logprob",
            &[random(&[300, 12], key.fold(1)), random(&[9001, 12], key.fold(2))],
            |tape, v| linear_logprob(tape, &v[0], &lm_head(&v[1], softcap), &targets),
        );
    }
}

#[test]
fn divergences_over_several_chunks_equal_the_plain_composition() {
    let key = Key::new(6);
    let rows = Arc::from((0..300).collect::<Vec<u32>>());
    let targets = Targets { rows, tokens: vec![0; 300].into(), temperature: 1.3 };
    let [h, w, hidden, head] = [(300, 12, 1), (9001, 12, 2), (300, 20, 3), (9001, 20, 4)]
        .map(|(rows, width, stream)| (random(&[rows, width], key.fold(stream)) * 0.5).expect("the operation runs"));
    for softcap in [None, Some(8.0)] {
        let apart = Reference { hidden: hidden.clone(), head: head.clone(), softcap };
        fused_equals_plain("divergence", &[h.clone(), w.clone()], |tape, v| {
            linear_kl(tape, &v[0], &lm_head(&v[1], softcap), &apart, &targets)
        });
        // From itself: exactly nothing, forward and backward.
        let mut tape = Tape::recording(Packs::new(0));
        let [hv, wv] = [&h, &w].map(|t| tape.parameter(t, usize::from(t.dims()[0] == 9001), true));
        let itself = Reference { hidden: h.clone(), head: w.clone(), softcap };
        let out = linear_kl(&mut tape, &hv, &lm_head(&wv, softcap), &itself, &targets).expect("the operation runs");
        let mut grads = ParameterGrads::default();
        tape.backward(&out, random(&[300, 1], key), &mut grads).expect("walks back");
        for t in [&out.value, grads.get(0).expect("a gradient"), grads.get(1).expect("a gradient")] {
            assert_eq!(largest(t).expect("an f32 tensor that is not empty"), 0.0);
        }
    }
}

/// The gradient of Σ f·upstream by candle against central differences, in f64.
fn matches_finite_differences<const N: usize>(
    name: &str,
    inputs: [Tensor; N],
    f: impl Fn(&[Tensor; N]) -> Result<Tensor>,
) {
    let inputs = inputs.map(|t| t.to_dtype(DType::F64).expect("of this type and shape"));
    let out = f(&inputs).expect("the operation runs");
    let upstream = random(out.dims(), Key::new(7)).to_dtype(DType::F64).expect("of this type and shape");
    let grads = plain_backward(std::array::from_fn(|i| &inputs[i]), &upstream, &f).expect("the operation runs");
    let value = |inputs: &[Tensor; N]| -> Result<f64> { Ok((f(inputs)? * &upstream)?.sum_all()?.to_scalar()?) };
    for (i, input) in inputs.iter().enumerate() {
        let flat: Vec<f64> = input.flatten_all().and_then(|flat| flat.to_vec1()).expect("an f64 tensor");
        let grad: Vec<f64> = grads[i].flatten_all().and_then(|flat| flat.to_vec1()).expect("an f64 tensor");
        for at in (0..flat.len()).step_by(1 + flat.len() / 25) {
            let moved = |by: f64| {
                let mut flat = flat.clone();
                flat[at] += by;
                let mut inputs = inputs.clone();
                inputs[i] =
                    Tensor::from_vec(flat, input.dims(), &Device::Cpu).expect("as many numbers as the shape holds");
                value(&inputs).expect("the operation runs")
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
    for (layout, w) in [(Layout::OutIn, t(&[4, 6], 2)), (Layout::InOut, t(&[6, 4], 2))] {
        matches_finite_differences("linear", [t(&[5, 6], 1), w, t(&[4], 3)], |[x, w, b]| {
            linear::plain(x, w, Some(b), layout)
        });
    }
    for (width, offset) in [(6, 0.0), (3, 0.0), (3, 1.0)] {
        let rms = Rms { eps: 1e-6, offset };
        matches_finite_differences("rms_norm", [t(&[5, 6], 1), t(&[width], 2)], |[x, w]| rms_norm::plain(x, w, rms));
    }
    matches_finite_differences("layer_norm", [t(&[5, 6], 1), t(&[6], 2), t(&[6], 3)], |[x, w, b]| {
        layer_norm::plain(x, w, b, 1e-5)
    });
    for form in [Gelu::Exact, Gelu::Tanh] {
        matches_finite_differences("gelu", [t(&[5, 6], 1)], |[x]| gelu_plain(x, form));
    }
    let part = Columns { start: 1, stride: 4, width: 3, count: 2 };
    matches_finite_differences("columns", [t(&[3, 8], 1)], |[x]| columns_plain(x, part));
    for f in GATES {
        matches_finite_differences("gated", [t(&[5, 6], 1), t(&[5, 6], 2)], |[g, u]| gated_plain(g, u, f));
    }
    matches_finite_differences("softcap", [t(&[5, 6], 1)], |[x]| softcap::plain(x, 1.5));
    let angles = Angles::new(&[0, 3, 9], &frequencies(4, 100.0, &Scaling::None), 1.3);
    matches_finite_differences("rotary", [t(&[3, 12], 1)], |[x]| rotary::plain(x, &angles, 6));
    let prompt = || std::iter::once(0..3).collect();
    let segments = Segments::new(vec![
        Segment { start: 0, len: 3, context: vec![] },
        Segment { start: 3, len: 2, context: prompt() },
        Segment { start: 5, len: 2, context: prompt() },
        Segment { start: 7, len: 1, context: vec![] },
    ])
    .expect("the operation runs");
    for (window, softcap) in [(None, None), (Some(2), None), (Some(2), Some(1.5))] {
        let heads = Heads { window, softcap, ..Heads::new(2, 1, 4) };
        matches_finite_differences("attention", [t(&[8, 8], 1), t(&[8, 4], 2), t(&[8, 4], 3)], |[q, k, v]| {
            attention::plain(q, k, v, &segments, heads)
        });
    }
    let targets = Targets { rows: Arc::from([0, 0, 1, 3]), tokens: Arc::from([2, 4, 0, 6]), temperature: 0.8 };
    for softcap in [None, Some(2.0)] {
        matches_finite_differences("logprob", [t(&[4, 5], 1), t(&[7, 5], 2)], |[h, w]| {
            logprob::plain(h, w, softcap, &targets)
        });
    }
    let [hidden, head] =
        [t(&[4, 3], 3), t(&[7, 3], 4)].map(|t| t.to_dtype(DType::F64).expect("of this type and shape"));
    for softcap in [None, Some(2.0)] {
        let reference = Reference { hidden: hidden.clone(), head: head.clone(), softcap };
        matches_finite_differences("divergence", [t(&[4, 5], 1), t(&[7, 5], 2)], |[h, w]| {
            divergence::plain([h, w], softcap, &reference, &targets)
        });
    }
}

#[test]
fn frozen_operands_get_no_gradient_and_a_tape_can_be_walked_twice() {
    let key = Key::new(2);
    let mut tape = Tape::recording(Packs::new(0));
    let x = tape.parameter(&random(&[3, 4], key.fold(1)), 0, true);
    let frozen = tape.parameter(&random(&[5, 4], key.fold(2)), 1, false);
    let y = linear(&mut tape, &x, &frozen, None, Layout::OutIn).expect("the operation runs");
    let walk = || {
        let mut grads = ParameterGrads::default();
        tape.backward(&y, random(&[3, 5], key.fold(3)), &mut grads).expect("walks back");
        assert!(grads.get(1).is_none());
        grads.get(0).expect("a gradient").to_vec2::<f32>().expect("of this type and shape")
    };
    assert_eq!(walk(), walk());
}

fn bits(t: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = t.flatten_all().and_then(|flat| flat.to_vec1()).expect("an f32 tensor");
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_decoded_row_has_the_bits_of_packed_attention() {
    // A prompt, an answer to it, and a continuation of that: decoded over two and three runs.
    let lengths = [70, 45, 20];
    let segments = Segments::new(vec![
        Segment { start: 0, len: 70, context: vec![] },
        Segment { start: 70, len: 45, context: std::iter::once(0..70).collect() },
        Segment { start: 115, len: 20, context: vec![0..70, 70..115] },
    ]);
    let segments = Arc::new(segments.expect("segments in order"));
    let [q, k, v] = qkv(segments.tokens(), Key::new(8));
    let rows = |t: &Tensor| t.to_vec2::<f32>().expect("of this type and shape");
    let (queries, keys, values) = (rows(&q), rows(&k), rows(&v));
    let ways = [None, Some(1), Some(16), Some(33), Some(50), Some(90), Some(500)].map(|window| (window, None));
    for (window, softcap) in ways.into_iter().chain([(None, Some(2.0)), (Some(33), Some(2.0))]) {
        let heads = Heads { window, softcap, ..HEADS };
        let mut tape = Tape::forward_only(Packs::new(0));
        let [q, k, v] = [&q, &k, &v].map(|t| tape.constant(t.clone()));
        let packed = rows(&attention(&mut tape, &q, &k, &v, &segments, heads).expect("the operation runs").value);
        let (mut runs, mut at, mut scores): (Vec<KeyValues>, _, _) = (Vec::new(), 0, Vec::new());
        for len in lengths {
            let mut own = KeyValues::new(heads);
            for t in at..at + len {
                own.extend(&keys[t], &values[t]);
                let mut out = vec![0.0; 64];
                let seen: Vec<&KeyValues> = runs.iter().chain([&own]).collect();
                attend_row(&queries[t], &seen, heads, &mut out, &mut scores);
                assert_eq!(out, packed[t], "token {t}, window {window:?}, soft cap {softcap:?}");
            }
            runs.push(own);
            at += len;
        }
    }
}

#[test]
fn keys_before_every_window_of_a_block_are_not_read() {
    let (n, heads) = (400, Heads { window: Some(30), ..HEADS });
    let segments = Arc::new(Segments::separate(&[n]).expect("segments in order"));
    let mut inputs = qkv(n, Key::new(3));
    let clean = inputs.clone();
    let lost = Tensor::full(f32::NAN, (100, 32), &Device::Cpu).expect("the operation runs");
    for x in &mut inputs[1..] {
        *x = Tensor::cat(&[&lost, &x.narrow(0, 100, 300).expect("of this type and shape")], 0)
            .expect("the operation runs");
    }
    let run = |inputs: &[Tensor; 3]| {
        let mut tape = Tape::recording(Packs::new(0));
        let v: Vec<Var> = inputs.iter().enumerate().map(|(i, t)| tape.parameter(t, i, true)).collect();
        let y = attention(&mut tape, &v[0], &v[1], &v[2], &segments, heads).expect("the operation runs");
        let mut grads = ParameterGrads::default();
        tape.backward(&y, random(&[n, 64], Key::new(4)), &mut grads).expect("walks back");
        // Blocks are of 60 rows or fewer: a row past 200 shares none with one that sees the first 100 tokens.
        let tail = |t: &Tensor| bits(&t.narrow(0, 200, n - 200).expect("of this type and shape"));
        [
            tail(&y.value),
            tail(grads.get(0).expect("a gradient")),
            tail(grads.get(1).expect("a gradient")),
            tail(grads.get(2).expect("a gradient")),
        ]
    };
    assert!(run(&inputs) == run(&clean));
}

const GATES: [Gate; 3] = [Gate::Silu, Gate::Gelu(Gelu::Exact), Gate::Gelu(Gelu::Tanh)];

#[test]
fn capped_logits_are_the_same_numbers_when_sampling_and_when_scoring() {
    let key = Key::new(12);
    let (h, w) = (random(&[5, 12], key.fold(1)), random(&[300, 12], key.fold(2)));
    let mut tape = Tape::forward_only(Packs::new(0));
    let (hv, head) = (tape.constant(h), lm_head(&tape.constant(w), Some(3.0)));
    let logits = head.logits(&mut tape, &hv).expect("the operation runs").value;
    assert!(largest(&logits).expect("numbers") <= 3.0);
    let targets = Targets { rows: Arc::from([0, 4]), tokens: Arc::from([7, 250]), temperature: 1.0 };
    let scored = linear_logprob(&mut tape, &hv, &head, &targets).expect("the operation runs").value;
    for (i, (row, token)) in [(0, 7), (4, 250)].into_iter().enumerate() {
        let z: Vec<f32> = logits.get(row).and_then(|row| row.to_vec1()).expect("a row");
        let lse = z.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
        let own: f32 = scored.get(i).and_then(|pair| pair.get(0)?.to_scalar()).expect("a number");
        assert!((f64::from(z[token]) - lse - f64::from(own)).abs() < 2e-6, "row {row}");
    }
}

#[test]
fn gelu_equals_the_reference() {
    // torch.nn.functional.gelu in float64, approximate "none" and "tanh".
    let x = [-3.0, -1.0, -0.1, 0.5, 2.0];
    let exact =
        [-0.00404969409489031, -0.15865525393145702, -0.0460172162722971, 0.34573123063700656, 1.9544997361036416];
    let tanh =
        [-0.0036373920817729943, -0.15880800939172324, -0.04601724895456484, 0.34571400982514394, 1.954597694087775];
    for (form, expected) in [(Gelu::Exact, exact), (Gelu::Tanh, tanh)] {
        let y = gelu_plain(&Tensor::new(&x, &Device::Cpu).expect("a tensor"), form)
            .expect("the operation runs")
            .to_vec1::<f64>()
            .expect("of this type and shape");
        for (y, e) in y.iter().zip(expected) {
            assert!((y - e).abs() < 1e-12, "{form:?}: {y} for {e}");
        }
    }
}

#[test]
fn frequencies_equal_the_reference() {
    // inv_freq of transformers' modeling_rope_utils for rope_type "linear" and "llama3".
    let linear = frequencies(8, 1e4, &Scaling::Linear { factor: 2.5 });
    let llama3 =
        Scaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_positions: 8192.0 };
    let llama3 = frequencies(16, 5e5, &llama3);
    let expected: [&[f64]; 2] = [
        &[0.4000000059604645, 0.03999999910593033, 0.003999999724328518, 0.0004000000189989805],
        &[
            1.0,
            0.193922758102417,
            0.03760603070259094,
            0.00729266507551074,
            0.0005248460220173001, // between the two bounds
            3.428102354519069e-5,
            6.647869668086059e-6,
            1.289173155782919e-6,
        ],
    ];
    for (found, expected) in [linear, llama3].iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f64::from(*f) / e - 1.0).abs() < 2.5e-7, "{f} for {e}");
        }
    }
    assert_eq!(frequencies(4, 100.0, &Scaling::None), [1.0, 0.1]);
    let factors = Scaling::Factors { factors: vec![2.0, 4.0], magnitude: 1.5 };
    assert_eq!((frequencies(4, 100.0, &factors), factors.magnitude()), (vec![0.5, 0.025], 1.5));
}

#[test]
fn renewed_packs_hold_the_copies_of_what_did_not_change() {
    let pack = |x: f32| Ok(Packed::new(Mat::new(&[x], 1, 1)));
    let refuse = || panic!("a kept copy is packed again");
    let w = random(&[1, 1], Key::new(1));
    let tape = Tape::forward_only(Packs::new(1));
    let vars = [0, 1].map(|i| tape.parameter(&w, i, false));
    let copies = vars.clone().map(|v| tape.packed(&v, Side::Forward, || pack(1.0)).expect("packed"));
    let renewed = Tape::forward_only(tape.packs().renewed(|index| index == 0));
    assert!(Arc::ptr_eq(&renewed.packed(&vars[0], Side::Forward, refuse).expect("packed"), &copies[0]));
    assert!(!Arc::ptr_eq(&renewed.packed(&vars[1], Side::Forward, || pack(2.0)).expect("packed"), &copies[1]));
    assert!(Arc::ptr_eq(&tape.packed(&vars[1], Side::Forward, refuse).expect("packed"), &copies[1]));
}

#[test]
fn columns_outside_the_matrix_are_refused() {
    let mut tape = Tape::forward_only(Packs::new(0));
    let x = tape.constant(random(&[2, 10], Key::new(1)));
    let error = columns(&mut tape, &x, Columns { start: 2, stride: 4, width: 3, count: 3 }).unwrap_err();
    assert!(error.what.contains("of a matrix with 10 columns"), "{error}");
}
