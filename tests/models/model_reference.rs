//! Models against the numbers that the reference implementation gives for the same weights.

use crate::common::{fixture_model, fixtures, json, largest, logprob, mask, max_gap, mul};
use candle_core::{Device, Tensor as Data};
use rhopo::engine::{self, SampleOptions, Settings};
use rhopo::kernel::attention::attention;
use rhopo::kernel::segments::Segments;
use rhopo::kernel::tape::Tape;
use rhopo::model::Model;
use rhopo::model::decoder::Decoder;
use rhopo::model::rows::{Row, Rows};
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Tensor, ops};
use std::collections::HashMap;
use std::sync::Arc;

/// One of each family, in single files and shards, f32 and bf16, with the keys of transformers 4 and of 5.
const MODELS: [&str; 7] = ["qwen2", "qwen3", "llama2", "llama3", "mistral", "gpt_neox", "gpt2"];

fn ids(v: &serde_json::Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn numbers(t: &Data) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

struct Reference {
    model: Arc<Model>,
    rows: Arc<Rows>,
    /// `[B,T]`, 0 past a row's end.
    weights: Tensor,
    expected: HashMap<String, Data>,
    json: serde_json::Value,
}

fn reference(name: &str) -> Reference {
    let inputs = json(&format!("models/{name}/inputs.json"));
    let mut rows = Vec::new();
    for (row, prompt) in inputs["ids"].as_array().unwrap().iter().zip(inputs["prompt_lens"].as_array().unwrap()) {
        let (row, prompt) = (ids(row), prompt.as_u64().unwrap() as usize);
        rows.push(Row { prompt: Arc::from(&row[..prompt]), completion: Arc::from(&row[prompt..]) });
    }
    let rows = Rows::new(rows);
    let mut cells = vec![0.0; rows.len() * rows.width()];
    for (i, row) in inputs["weights"].as_array().unwrap().iter().enumerate() {
        for (t, w) in row.as_array().unwrap().iter().enumerate() {
            cells[i * rows.width() + t] = w.as_f64().unwrap() as f32;
        }
    }
    let weights = Tensor::from_vec(cells, &[rows.len(), rows.width()], &Device::Cpu).unwrap();
    let path = fixtures().join(format!("models/{name}/expected.safetensors"));
    let expected = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    Reference {
        model: fixture_model(name),
        rows,
        weights,
        expected,
        json: json(&format!("models/{name}/expected.json")),
    }
}

/// Every way in which the engine may compute the same thing.
fn ways() -> Vec<(&'static str, Settings)> {
    let base = Settings::default();
    vec![
        ("fused", base.clone()),
        ("plain", Settings { fused: false, ..base.clone() }),
        ("one row at a time", Settings { token_budget: 1, ..base.clone() }),
        ("recomputed", Settings { keep_bytes: 0, ..base }),
    ]
}

fn rows_of(t: &Tensor, r: &Rows) -> Vec<Vec<f64>> {
    t.to_rows().unwrap().into_iter().zip(r.iter()).map(|(row, r)| row[..r.completion.len()].to_vec()).collect()
}

#[test]
fn logits() {
    for (name, fused) in MODELS.iter().flat_map(|name| [(name, true), (name, false)]) {
        let r = reference(name);
        let row = &r.rows[0];
        let ids: Arc<[u32]> = row.prompt.iter().chain(&*row.completion).copied().collect();
        let positions: Vec<u32> = (0..ids.len() as u32).collect();
        let segments = Arc::new(Segments::separate(&[ids.len()]).unwrap());
        let decoder = Decoder::new(&r.model).unwrap();
        let tape = Tape::forward_only(r.model.packs());
        let mut tape = if fused { tape } else { tape.plain() };
        let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [_; 3]| {
            attention(tape, &q, &k, &v, &segments, decoder.heads(layer))
        };
        let hidden = decoder.hidden(&mut tape, ids, &positions, attend).unwrap();
        let head = decoder.head(&tape);
        let logits = head.logits(&mut tape, &hidden).unwrap();
        let gap = max_gap(&numbers(&logits.value), &numbers(&r.expected["logits.0"]));
        assert!(gap < 1e-4, "{name}: logits off by {gap}");
    }
}

/// Every model computed in every way.
fn cases() -> impl Iterator<Item = (String, &'static str, Settings)> {
    let each = |name| ways().into_iter().map(move |(way, settings)| (format!("{name}, {way}"), name, settings));
    MODELS.into_iter().flat_map(each)
}

#[test]
fn logprobs_and_entropies() {
    for (case, name, settings) in cases() {
        let r = reference(name);
        let logp = rows_of(&logprob(&r.model, &r.rows, &settings), &r.rows);
        let entropy = rows_of(&engine::entropy(&r.model, &r.rows, 1.0, &settings, "test:1").unwrap(), &r.rows);
        for i in 0..r.rows.len() {
            let gap = max_gap(&logp[i], &numbers(&r.expected[&format!("logprob.{i}")]));
            assert!(gap < 1e-4, "{case}: log-probs of row {i} off by {gap}");
            let gap = max_gap(&entropy[i], &numbers(&r.expected[&format!("entropy.{i}")]));
            assert!(gap < 1e-4, "{case}: entropies of row {i} off by {gap}");
        }
    }
}

#[test]
fn gradients_of_every_parameter() {
    for (case, name, settings) in cases() {
        let r = reference(name);
        let count = mask(&r.rows).to_vec().unwrap().iter().sum::<f64>();
        let weighted = mul(&logprob(&r.model, &r.rows, &settings), &r.weights).with_tokens(false);
        let loss = mul(&weighted.sum(None).unwrap(), &weighted.number(-1.0 / count).unwrap());
        let value = loss.item().unwrap();
        assert!((value - r.json["loss"].as_f64().unwrap()).abs() < 1e-5, "{case}: loss {value}");
        let grads = engine::update::differentiate(&loss).unwrap();
        let mut checked = 0;
        for (i, (name, _)) in r.model.parameters().enumerate() {
            // The module has another name in transformers 5 than in the files it writes.
            let module = if name == "embed_out.weight" { "lm_head.weight" } else { name };
            let want = numbers(&r.expected[&format!("grad.{module}")]);
            let got = numbers(grads[0].grads.get(i).unwrap());
            let gap = max_gap(&got, &want) / largest(&want);
            assert!(gap < 1e-3, "{case}: gradient of {name} off by {gap} of its largest");
            checked += 1;
        }
        assert_eq!(r.model.size as u64, r.json["parameters"].as_u64().unwrap(), "{case}");
        assert_eq!(checked, r.expected.keys().filter(|k| k.starts_with("grad.")).count());
    }
}

#[test]
fn greedy_continuations() {
    let options = SampleOptions { max_tokens: 12, greedy: true, ..SampleOptions::default() };
    for (case, name, settings) in cases() {
        let r = reference(name);
        let prompts: Vec<Vec<u32>> = r.rows.iter().map(|row| row.prompt.to_vec()).collect();
        let samples = engine::sample(&r.model, &prompts, &options, Key::new(0), &settings).unwrap();
        for (i, (row, want)) in samples.rows.iter().zip(r.json["greedy"].as_array().unwrap()).enumerate() {
            let mut want = ids(want);
            // The reference goes on past an end token; an answer does not.
            if let Some(end) = want.iter().position(|t| r.model.config.eos.contains(t)) {
                want.truncate(end + 1);
            }
            assert_eq!(*row.completion, want, "{case}: row {i}");
        }
    }
}

#[test]
fn the_loss_of_a_frozen_copy_is_the_same_and_has_no_gradient() {
    let r = reference("qwen2");
    let frozen = r.model.frozen().unwrap();
    let (own, copy) =
        (logprob(&r.model, &r.rows, &Settings::default()), logprob(&frozen, &r.rows, &Settings::default()));
    assert_eq!(own.to_vec().unwrap(), copy.to_vec().unwrap());
    assert!(own.requires_grad() && !copy.requires_grad());
    let error = engine::update::differentiate(&ops::NEG.on(&copy.with_tokens(false).sum(None).unwrap()).unwrap());
    assert!(error.is_err());
}
