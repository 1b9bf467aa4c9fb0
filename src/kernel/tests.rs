//! What is particular to single operations: bits that agree, references of other libraries, what is refused. That every
//! operation equals its plain composition is `suite_tests.rs`.

use super::attention::{Heads, attention};
use super::decode::{KeyValues, attend_row};
use super::divergence::{Divergence, Reference, linear_divergence};
use super::elementwise::{Columns, Gelu, columns};
use super::gradients::ParameterGrads;
use super::linear::{Layout, linear};
use super::logprob::{Found, LmHead, Targets, linear_logprob};
use super::op::Operation;
use super::packs::Packs;
use super::rotary::{Scaling, frequencies};
use super::segments::{Segment, Segments};
use super::softcap::softcap;
use super::tape::{Tape, Var};
use super::value::Value;
use crate::tensor::rng::Key;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

pub(super) fn random(dims: &[usize], key: Key) -> Tensor {
    let data: Vec<f32> = (0..dims.iter().product::<usize>()).map(|i| key.normal(i as u64) as f32).collect();
    Tensor::from_vec(data, dims, &Device::Cpu).expect("as many numbers as the shape holds")
}

pub(super) fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()).expect("numbers")
}

pub(super) const HEADS: Heads = Heads { query: 4, key: 2, dim: 16, window: None, scale: 0.25, softcap: None };

/// A head without a soft cap, and with one.
fn lm_head(weight: &Var, softcap: Option<f32>) -> LmHead {
    LmHead { weight: weight.clone(), softcap }
}

/// Random queries, keys and values for `HEADS`.
pub(super) fn qkv(tokens: usize, key: Key) -> [Tensor; 3] {
    [(64, 1), (32, 2), (32, 3)].map(|(width, stream)| random(&[tokens, width], key.fold(stream)))
}

/// A forest of prompts with answers of random lengths, and some sequences on their own; none is longer than `most`.
pub(super) fn ragged(key: Key, most: u64) -> Segments {
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
        let prompt = push(1 + below(most), Vec::new(), &mut segments);
        for answer in 0..below(4) {
            let first = push(1 + below(most.div_ceil(2)), vec![prompt.clone()], &mut segments);
            if answer == 1 {
                push(1 + below(most.div_ceil(8)), vec![prompt.clone(), first], &mut segments);
            }
        }
    }
    Segments::new(segments).expect("segments in order")
}

#[test]
fn a_distribution_diverges_from_itself_by_exactly_nothing() {
    let key = Key::new(6);
    let rows = Arc::from((0..300).collect::<Vec<u32>>());
    let targets = Targets { rows, tokens: vec![0; 300].into(), temperature: 1.3 };
    let [h, w] = [300, 9001].map(|rows| random(&[rows, 12], key.fold(rows as u64)));
    let kinds = [Divergence::Full, Divergence::Forward, Divergence::Jsd(0.3), Divergence::Jsd(0.9)];
    for (softcap, of) in [None, Some(8.0)].into_iter().flat_map(|softcap| kinds.map(|of| (softcap, of))) {
        let mut tape = Tape::recording(Packs::new(0));
        let (hv, wv) = (tape.parameter(&h, 0, true), tape.parameter(&w, 1, true));
        let itself = Reference { hidden: (&h).into(), head: (&w).into(), softcap };
        let head = lm_head(&wv, softcap);
        let out = linear_divergence(&mut tape, (of, &itself), &hv, &head, &targets).expect("the operation runs");
        let mut grads = ParameterGrads::default();
        tape.backward(&out, random(&[300, 1], key), &mut grads).expect("walks back");
        for t in [&out.value, grads.get(0).expect("a gradient"), grads.get(1).expect("a gradient")] {
            assert!(t.to_vec().expect("numbers").iter().all(|x| *x == 0.0));
        }
    }
}

#[test]
fn frozen_operands_get_no_gradient_and_a_tape_can_be_walked_twice() {
    let key = Key::new(2);
    let mut tape = Tape::recording(Packs::new(0));
    let x = tape.parameter(random(&[3, 4], key.fold(1)), 0, true);
    let frozen = tape.parameter(random(&[5, 4], key.fold(2)), 1, false);
    let y = linear(&mut tape, &x, &frozen, None, Layout::OutIn).expect("the operation runs");
    let walk = || {
        let mut grads = ParameterGrads::default();
        tape.backward(&y, random(&[3, 5], key.fold(3)), &mut grads).expect("walks back");
        assert!(grads.get(1).is_none());
        grads.get(0).expect("a gradient").to_vec().expect("numbers")
    };
    assert_eq!(walk(), walk());
}

/// Of the numbers in f64, which holds every f32.
pub(super) fn bits(t: &Tensor) -> Vec<u64> {
    numbers(t).into_iter().map(f64::to_bits).collect()
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
        let packed = attention(&mut tape, &q, &k, &v, &segments, heads).expect("the operation runs");
        let packed = rows(packed.tensor().expect("on the host"));
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
        let tail = |v: &Value| bits(&v.host().and_then(|t| Ok(t.narrow(0, 200, n - 200)?)).expect("of this shape"));
        [
            tail(&y.value),
            tail(grads.get(0).expect("a gradient")),
            tail(grads.get(1).expect("a gradient")),
            tail(grads.get(2).expect("a gradient")),
        ]
    };
    assert!(run(&inputs) == run(&clean));
}

#[test]
fn capped_logits_are_the_same_numbers_when_sampling_and_when_scoring() {
    let key = Key::new(12);
    let (h, w) = (random(&[5, 12], key.fold(1)), random(&[300, 12], key.fold(2)));
    let mut tape = Tape::forward_only(Packs::new(0));
    let (hv, head) = (tape.constant(h), lm_head(&tape.constant(w), Some(3.0)));
    let logits = linear(&mut tape, &hv, &head.weight, None, Layout::OutIn).expect("the operation runs");
    let logits = softcap(&mut tape, &logits, 3.0).expect("the operation runs").value;
    let logits = logits.host().expect("on the host");
    assert!(numbers(logits).iter().all(|z| z.abs() <= 3.0));
    let targets = Targets { rows: Arc::from([0, 4]), tokens: Arc::from([7, 250]), temperature: 1.0 };
    let scored = linear_logprob(&mut tape, &hv, &head, &targets, &Found::default()).expect("the operation runs").value;
    let scored = scored.host().expect("on the host");
    for (i, (row, token)) in [(0, 7), (4, 250)].into_iter().enumerate() {
        let z: Vec<f32> = logits.get(row).and_then(|row| row.to_vec1()).expect("a row");
        let lse = z.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
        let own: f32 = scored.get(i).and_then(|pair| pair.get(0)?.to_scalar()).expect("a number");
        assert!((f64::from(z[token]) - lse - f64::from(own)).abs() < 2e-6, "row {row}");
    }
}

#[test]
fn what_was_found_of_softmaxes_is_not_computed_again() {
    let key = Key::new(13);
    let (h, w) = (random(&[5, 12], key.fold(1)), random(&[300, 12], key.fold(2)));
    let targets = Targets { rows: Arc::from([0, 4]), tokens: Arc::from([7, 250]), temperature: 0.7 };
    let run = |h: &Tensor, found: &Found| {
        let mut tape = Tape::recording(Packs::new(0));
        let (hv, weight) = (tape.parameter(h.clone(), 0, true), tape.parameter(w.clone(), 1, true));
        let y = linear_logprob(&mut tape, &hv, &lm_head(&weight, None), &targets, found).expect("the operation runs");
        let mut grads = ParameterGrads::default();
        let upstream = Tensor::new(&[[1f32, 0.5], [-2.0, 0.25]], &Device::Cpu).expect("a tensor");
        tape.backward(&y, upstream, &mut grads).expect("a gradient");
        let grads = [0, 1].map(|i| numbers(grads.get(i).expect("a gradient").host().expect("on the host")));
        (numbers(y.value.host().expect("on the host")), grads)
    };
    let found = Found::default();
    let first = run(&h, &found);
    assert_eq!(run(&h, &found), first, "with what the first pass found");
    // Other hidden states come to the same values: no logits are made of them.
    let other = random(&[5, 12], key.fold(3));
    assert_eq!(run(&other, &found).0, first.0);
    assert_ne!(run(&other, &Found::default()).0, first.0);
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
        let x = Tensor::new(&x, &Device::Cpu).expect("a tensor");
        let y = form.plain(&[x]).expect("the operation runs").to_vec1::<f64>().expect("of this type and shape");
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
fn columns_outside_the_matrix_are_refused() {
    let mut tape = Tape::forward_only(Packs::new(0));
    let x = tape.constant(random(&[2, 10], Key::new(1)));
    let error = columns(&mut tape, &x, Columns { start: 2, stride: 4, width: 3, count: 3 }).unwrap_err();
    assert!(error.what.contains("of a matrix with 10 columns"), "{error}");
}

/// F·v of a head: for each row p∘(dz − Σ p·dz) as the gradient of its logits, and from there by candle in f64.
#[test]
fn a_fisher_product_at_the_head_equals_its_plain_composition() {
    let key = Key::new(14);
    let mut most: f64 = 0.0;
    for (n, vocabulary, softcap, temperature) in
        [(5, 50, None, 1.0), (40, 300, Some(3.0), 0.7), (300, 9001, None, 1.3), (70, 5000, Some(4.0), 1.0)]
    {
        let [h, w, dh, dw] = [1, 2, 3, 4].map(|i| {
            let rows = if i % 2 == 1 { n } else { vocabulary };
            random(&[rows, 24], key.fold(i + 10 * n as u64))
        });
        let rows: Arc<[u32]> = (0..n as u32).flat_map(|r| vec![r; 1 + r as usize % 2]).collect();
        let weights: Vec<f32> =
            (0..rows.len()).map(|i| if i % 5 == 3 { 0.0 } else { 1.0 / (1.0 + i as f32) }).collect();
        for head_moves in [true, false] {
            let direction = if head_moves { vec![(0, &dh), (1, &dw)] } else { vec![(0, &dh)] };
            let direction = direction.into_iter().map(|(i, t)| (i, Value::from(t))).collect();
            let tape = Tape::recording(Packs::new(0)).along(Arc::new(direction));
            let (hv, wv) = (tape.parameter(&h, 0, true), tape.parameter(&w, 1, true));
            let mut grads = ParameterGrads::default();
            let targets = Targets { rows: rows.clone(), tokens: vec![0; rows.len()].into(), temperature };
            super::fisher::pull(&tape, &hv, &lm_head(&wv, softcap), &targets, &weights, &mut grads).expect("a product");
            let wide = |t: &Tensor| candle_core::Var::from_tensor(&t.to_dtype(DType::F64)?);
            let plain = || -> candle_core::Result<[Tensor; 2]> {
                let (h, w, dh, dw) = (wide(&h)?, wide(&w)?, wide(&dh)?, wide(&dw)?);
                let raw = h.matmul(&w.t()?)?;
                let mut moved = dh.matmul(&w.t()?)?;
                if head_moves {
                    moved = (moved + h.matmul(&dw.t()?)?)?;
                }
                let z = match softcap {
                    None => raw.clone(),
                    Some(by) => ((raw.clone() / f64::from(by))?.tanh()? * f64::from(by))?,
                };
                if let Some(by) = softcap {
                    let slope = ((z.clone() / f64::from(by))?.sqr()?.neg()? + 1.0)?;
                    moved = (moved * slope)?;
                }
                let (z, moved) = ((z / temperature)?, (moved / temperature)?);
                let p = candle_nn::ops::softmax(&z, 1)?;
                let mean = (&p * &moved)?.sum_keepdim(1)?;
                let q = (&p * moved.broadcast_sub(&mean)?)?.detach();
                let mut of_row = vec![0.0; n];
                rows.iter().zip(&weights).for_each(|(row, weight)| of_row[*row as usize] += f64::from(*weight));
                let of_row = Tensor::from_vec(of_row, (n, 1), &Device::Cpu)?;
                let found = (q.broadcast_mul(&of_row)? * z)?.sum_all()?.backward()?;
                Ok([&h, &w].map(|leaf| found.get(leaf).expect("a gradient").clone()))
            };
            for (i, exact) in plain().expect("the plain composition").iter().enumerate() {
                let (found, exact) =
                    (numbers(grads.get(i).expect("a gradient").host().expect("a tensor")), numbers(exact));
                let size = exact.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
                let gap = found.iter().zip(&exact).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs())) / size;
                assert!(gap < 1e-5, "{n} rows, {vocabulary} tokens, input {i}: off by {gap}");
                most = most.max(gap);
            }
        }
    }
    crate::ui::out::line(&format!("a Fisher product at the head is off by {most:.1e} of the largest at most"));
}
