//! Models against the numbers that the reference implementation gives for the same weights.

use crate::common::solo::{differentiate, logprob, measured, numbers_of, sample, solo};
use crate::common::{MODELS, fixture_model, fixtures, json, largest, mask, max_gap, mul};
use candle_core::{Device, Tensor as Data};
use rhopo::engine::{Measure, SampleOptions, Settings, Solo};
use rhopo::gpu::Place;
use rhopo::kernel::attention::attention;
use rhopo::kernel::segments::Segments;
use rhopo::kernel::tape::Tape;
use rhopo::model::decoder::Decoder;
use rhopo::model::rows::{Row, Rows};
use rhopo::model::{Model, SaveDtype};
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Tensor, ops};
use std::collections::HashMap;
use std::sync::Arc;

fn ids(v: &serde_json::Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

pub(super) fn numbers(t: &Data) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

pub(super) struct Reference {
    pub(super) model: Arc<Model>,
    pub(super) rows: Arc<Rows>,
    /// `[B,T]`, 0 past a row's end.
    weights: Tensor,
    pub(super) expected: HashMap<String, Data>,
    json: serde_json::Value,
}

impl Reference {
    /// The loss whose gradients the reference stored, from log-probs `[B,T]`.
    pub(super) fn loss(&self, logprobs: &Tensor) -> Tensor {
        let count = mask(&self.rows).to_vec().unwrap().iter().sum::<f64>();
        let weighted = mul(logprobs, &self.weights).with_tokens(false);
        mul(&weighted.sum(None).unwrap(), &weighted.number(-1.0 / count).unwrap())
    }

    /// The reference's gradient of a parameter.
    pub(super) fn gradient(&self, parameter: &str) -> Vec<f64> {
        // The module has another name in transformers 5 than in the files it writes.
        let module = if parameter == "embed_out.weight" { "lm_head.weight" } else { parameter };
        numbers(&self.expected[&format!("grad.{module}")])
    }

    /// The reference's most likely continuation of a row's prompt.
    pub(super) fn greedy(&self, row: usize) -> Vec<u32> {
        let mut tokens = ids(&self.json["greedy"][row]);
        // The reference goes on past an end token; an answer does not.
        if let Some(end) = tokens.iter().position(|t| self.model.config.eos.contains(t)) {
            tokens.truncate(end + 1);
        }
        tokens
    }
}

pub(super) fn reference(name: &str) -> Reference {
    reference_of(name, fixture_model(name))
}

/// The reference's numbers beside its model as it was opened.
pub(super) fn reference_of(name: &str, model: Arc<Model>) -> Reference {
    let inputs = json(&format!("models/{name}/inputs.json"));
    let mut rows = Vec::new();
    for (row, prompt) in inputs["ids"].as_array().unwrap().iter().zip(inputs["prompt_lens"].as_array().unwrap()) {
        let (row, prompt) = (ids(row), prompt.as_u64().unwrap() as usize);
        rows.push(Row::new(&row[..prompt], &row[prompt..]));
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
    Reference { model, rows, weights, expected, json: json(&format!("models/{name}/expected.json")) }
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

pub(super) fn rows_of(t: &Tensor, r: &Rows) -> Vec<Vec<f64>> {
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
        let logits = decoder.logits(&mut tape, &hidden).unwrap();
        let gap = max_gap(&numbers(logits.tensor().unwrap()), &numbers(&r.expected["logits.0"]));
        println!("{name}, {}: logits off by {gap:.1e}", if fused { "fused" } else { "plain" });
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
        let engine = Solo::new(settings);
        let logp = rows_of(&logprob(&r.model, &r.rows, &engine), &r.rows);
        let entropy = rows_of(&measured(&engine, &r.model, &r.rows, Measure::Entropy).unwrap(), &r.rows);
        let mut worst = [0.0f64; 2];
        for i in 0..r.rows.len() {
            let gap = max_gap(&logp[i], &numbers(&r.expected[&format!("logprob.{i}")]));
            assert!(gap < 1e-4, "{case}: log-probs of row {i} off by {gap}");
            worst[0] = worst[0].max(gap);
            let gap = max_gap(&entropy[i], &numbers(&r.expected[&format!("entropy.{i}")]));
            assert!(gap < 1e-4, "{case}: entropies of row {i} off by {gap}");
            worst[1] = worst[1].max(gap);
        }
        println!("{case}: log-probs off by {:.1e}, entropies by {:.1e}", worst[0], worst[1]);
    }
}

#[test]
fn gradients_of_every_parameter() {
    for (case, name, settings) in cases() {
        let r = reference(name);
        let loss = r.loss(&logprob(&r.model, &r.rows, &Solo::new(settings)));
        let value = loss.item().unwrap();
        assert!((value - r.json["loss"].as_f64().unwrap()).abs() < 1e-5, "{case}: loss {value}");
        let grads = numbers_of(&differentiate(&loss).unwrap()[0]);
        let (mut checked, mut worst) = (0, 0.0f64);
        for (i, (name, _)) in r.model.parameters().enumerate() {
            let want = r.gradient(name);
            let gap = max_gap(grads[i].as_ref().unwrap(), &want) / largest(&want);
            assert!(gap < 1e-3, "{case}: gradient of {name} off by {gap} of its largest");
            worst = worst.max(gap);
            checked += 1;
        }
        println!("{case}: gradients off by {worst:.1e} of the largest");
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
        let samples = sample(&Solo::new(settings), &r.model, &prompts, &options, Key::new(0)).unwrap();
        assert_eq!(samples.rows.len(), r.json["greedy"].as_array().unwrap().len());
        for (i, row) in samples.rows.iter().enumerate() {
            assert_eq!(*row.completion, r.greedy(i), "{case}: row {i}");
        }
    }
}

#[test]
fn the_loss_of_a_frozen_copy_is_the_same_and_has_no_gradient() {
    let r = reference("qwen2");
    let frozen = r.model.frozen().unwrap();
    let (own, copy) = (logprob(&r.model, &r.rows, &solo()), logprob(&frozen, &r.rows, &solo()));
    assert_eq!(own.to_vec().unwrap(), copy.to_vec().unwrap());
    assert!(own.requires_grad() && !copy.requires_grad());
    let error = differentiate(&ops::NEG.on(&copy.with_tokens(false).sum(None).unwrap()).unwrap());
    assert!(error.is_err());
}

/// Loaded and saved, then loaded and saved again: the same bytes in every file, and of the weights the same as before
/// where they are f32 in one file.
#[test]
fn saved_models_are_the_same_bytes() {
    for name in MODELS {
        let (source, model) = (fixtures().join("models").join(name), fixture_model(name));
        let [a, b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        model.save(&rhopo::files::anywhere(a.path()), SaveDtype::F32).unwrap();
        let again = Model::load(&rhopo::files::anywhere(a.path()), &Place::Host).unwrap();
        again.save(&rhopo::files::anywhere(b.path()), SaveDtype::F32).unwrap();
        let mut files = 0;
        for entry in std::fs::read_dir(a.path()).unwrap() {
            let file = entry.unwrap().file_name();
            let read = |dir: &std::path::Path| std::fs::read(dir.join(&file)).unwrap();
            assert!(read(a.path()) == read(b.path()), "{name}: {file:?}");
            files += 1;
        }
        assert!(files >= 5, "{name}: {files} files");
        let weights =
            |dir: &std::path::Path| candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu);
        if let Ok(stored) = weights(&source) {
            let saved = weights(a.path()).unwrap();
            assert_eq!(stored.len(), saved.len(), "{name}");
            for (tensor, value) in stored.iter().filter(|(_, value)| value.dtype() == candle_core::DType::F32) {
                assert_eq!(numbers(value), numbers(&saved[tensor]), "{name}: {tensor}");
            }
        }
    }
}

/// Phi-3 with LongRoPE, which the fixtures do not have: numbers of `longrope/gen_longrope.py`.
#[test]
fn longrope_gives_the_references_numbers() {
    let expected = json("longrope/expected.json");
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("models/phi3")).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let mut config = json("models/phi3/config.json");
    for key in ["rope_parameters", "original_max_position_embeddings"] {
        config[key] = expected[key].clone();
    }
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let model = Arc::new(Model::load(&rhopo::files::anywhere(dir.path()), &Place::Host).unwrap());
    let r = reference("phi3");
    for settings in [Settings::default(), Settings { fused: false, ..Settings::default() }] {
        let logp = rows_of(&logprob(&model, &r.rows, &Solo::new(settings)), &r.rows);
        for (i, want) in expected["logprobs"].as_array().unwrap().iter().enumerate() {
            let want: Vec<f64> = want.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let gap = max_gap(&logp[i], &want);
            println!("longrope: log-probs of row {i} off by {gap:.1e}");
            assert!(gap < 1e-4, "row {i} off by {gap}");
        }
    }
    // Longer rows turn by other factors, which are not computed.
    assert!(model.config.max_positions == 64 && model.config.notes[0].contains("64 tokens at most"));
    let long = Rows::new(vec![Row::new([5; 60], [6; 5])]);
    let e = measured(&solo(), &model, &long, Measure::Logprob).unwrap_err();
    assert_eq!(e.what, "row 0 has 65 tokens, but the model's context holds 64");
}
