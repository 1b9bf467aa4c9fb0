//! Value and score heads: checkpoints of transformers with one label against its numbers; new heads, trained and saved.

use crate::common::solo::{Adamw, differentiate, measured, numbers_of, sample, solo};
use crate::common::{fixtures, json, largest, max_gap, mul};
use rhopo::engine::{AdamwOptions, Measure, Settings, Solo};
use rhopo::gpu::Place;
use rhopo::model::rows::{Row, Rows};
use rhopo::model::{Head, Model, OpenOptions, SaveDtype};
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Device, Tensor, ops};
use std::path::Path;
use std::sync::Arc;

pub(super) fn rows(base: &str) -> Arc<Rows> {
    let inputs = json(&format!("models/{base}/inputs.json"));
    let ids = |v: &serde_json::Value| -> Vec<u32> {
        v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
    };
    let lengths = inputs["prompt_lens"].as_array().unwrap();
    let row = |(row, prompt): (&serde_json::Value, &serde_json::Value)| {
        let (row, prompt) = (ids(row), prompt.as_u64().unwrap() as usize);
        Row::new(&row[..prompt], &row[prompt..])
    };
    Rows::new(inputs["ids"].as_array().unwrap().iter().zip(lengths).map(row).collect())
}

fn numbers(t: &candle_core::Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

pub(super) fn measure(model: &Arc<Model>, rows: &Arc<Rows>, engine: &Solo) -> Tensor {
    let what = if model.head == Head::Value { Measure::Value } else { Measure::Score };
    measured(engine, model, rows, what).unwrap()
}

/// 1, -2, 3, -4, … over the cells that count, 0 elsewhere, as the reference weighed them.
pub(super) fn weights(out: &Tensor, rows: &Rows) -> Tensor {
    let (width, mut k) = (out.dims()[1], 0);
    let mut cells = vec![0.0; rows.len() * width];
    for (i, row) in rows.iter().enumerate() {
        for t in 0..if width == 1 { 1 } else { row.completion.len() } {
            k += 1;
            cells[i * width + t] = if k % 2 == 1 { k as f32 } else { -(k as f32) };
        }
    }
    Tensor::from_vec(cells, out.dims(), &Device::Cpu).unwrap()
}

pub(super) fn weighted_sum(model: &Arc<Model>, rows: &Arc<Rows>, engine: &Solo) -> Tensor {
    let out = measure(model, rows, engine);
    mul(&out, &weights(&out, rows)).with_tokens(false).sum(None).unwrap()
}

/// A critic begins as the reward model: at the end of a row it foresees what that model gives, in families whose heads
/// have one name and in those whose have two.
#[test]
fn a_value_head_begins_as_the_stored_score_head() {
    for (name, base) in [("qwen2-score", "qwen2"), ("gpt2-score", "gpt2")] {
        let dir = fixtures().join("heads").join(name);
        let (engine, rows) = (Solo::new(Settings::default()), rows(base));
        let judge = Arc::new(Model::load(&rhopo::files::anywhere(&dir), &Place::Host).unwrap());
        let scores = measure(&judge, &rows, &engine).to_rows().unwrap();
        let options = OpenOptions { head: Some(Head::Value), ..OpenOptions::new(Key::new(1)) };
        let critic =
            Arc::new(Model::open(&rhopo::files::anywhere(dir.display().to_string()), &options, &Place::Host).unwrap());
        assert_eq!(critic.notes, ["the value head begins as the stored score head"]);
        // The value before a token is read at the token before it: here at what was the row's last.
        let ended = rows.iter().map(|row| Row::new([&*row.prompt, &*row.completion].concat(), [1]));
        let values = measure(&critic, &Rows::new(ended.collect()), &engine).to_rows().unwrap();
        assert_eq!(values.concat(), scores.concat(), "{name}");
        // A new one where weights are drawn, or where the stored head is no score.
        let drawn = OpenOptions { random: true, ..options };
        assert!(
            Model::open(&rhopo::files::anywhere(dir.display().to_string()), &drawn, &Place::Host)
                .unwrap()
                .notes
                .is_empty()
        );
    }
}

/// It moves every score alike, is saved, and is the bias of a value head that begins as the score head.
#[test]
fn a_shift_of_the_scores_is_saved_and_becomes_the_critics_bias() {
    for (name, base) in [("qwen2-score", "qwen2"), ("gpt2-score", "gpt2")] {
        let (engine, rows) = (Solo::new(Settings::default()), rows(base));
        let judge =
            Arc::new(Model::load(&rhopo::files::anywhere(fixtures().join("heads").join(name)), &Place::Host).unwrap());
        let scores = measure(&judge, &rows, &engine).to_rows().unwrap().concat();
        let wanted: Vec<f64> = scores.iter().map(|score| score + 0.75).collect();
        let shifted = judge.shifted(0.25).unwrap().shifted(0.5).unwrap();
        let folder = tempfile::tempdir().unwrap();
        shifted.save(&rhopo::files::anywhere(folder.path()), SaveDtype::F32).unwrap();
        let read = Arc::new(Model::load(&rhopo::files::anywhere(folder.path()), &Place::Host).unwrap());
        for model in [&shifted, &read, &read.frozen().unwrap()] {
            let scores = measure(model, &rows, &engine).to_rows().unwrap().concat();
            assert!(max_gap(&scores, &wanted) < 1e-6, "{name}: {scores:?}, not {wanted:?}");
            assert!(model.notes.is_empty(), "{:?}", model.notes);
        }
        let options = OpenOptions { head: Some(Head::Value), ..OpenOptions::new(Key::new(1)) };
        let critic = Arc::new(
            Model::open(&rhopo::files::anywhere(folder.path().display().to_string()), &options, &Place::Host).unwrap(),
        );
        let ended = rows.iter().map(|row| Row::new([&*row.prompt, &*row.completion].concat(), [1]));
        let values = measure(&critic, &Rows::new(ended.collect()), &engine).to_rows().unwrap();
        assert!(max_gap(&values.concat(), &wanted) < 1e-6, "{name}");
        assert!(critic.shifted(1.0).unwrap_err().what.starts_with("there are no scores to shift"));
        assert!(judge.shifted(f64::NAN).is_err());
    }
}

#[test]
fn classification_checkpoints_give_the_references_numbers() {
    for (name, base) in
        [("qwen2-score", "qwen2"), ("gpt2-score", "gpt2"), ("llama2-value", "llama2"), ("gpt_neox-value", "gpt_neox")]
    {
        let dir = fixtures().join("heads").join(name);
        let expected = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap();
        let model = Arc::new(Model::load(&rhopo::files::anywhere(&dir), &Place::Host).unwrap());
        let rows = rows(base);
        let base = Settings::default();
        for settings in [
            base.clone(),
            Settings { fused: false, ..base.clone() },
            Settings { token_budget: 1, ..base.clone() },
            Settings { keep_bytes: 0, ..base },
        ] {
            let engine = Solo::new(settings);
            let out = measure(&model, &rows, &engine).to_rows().unwrap();
            if let Some(want) = expected.get("score") {
                assert!(max_gap(&out.concat(), &numbers(want)) < 1e-4, "{name}");
            } else {
                for (i, row) in rows.iter().enumerate() {
                    let want = numbers(&expected[&format!("value.{i}")]);
                    assert!(max_gap(&out[i][..row.completion.len()], &want) < 1e-4, "{name}, row {i}");
                }
            }
            let grads = differentiate(&weighted_sum(&model, &rows, &engine)).unwrap();
            let grads = numbers_of(&grads[0]);
            let mut checked = 0;
            for (i, (parameter, _)) in model.parameters().enumerate() {
                let want = numbers(&expected[&format!("grad.{parameter}")]);
                let gap = max_gap(grads[i].as_ref().unwrap(), &want);
                assert!(gap < 1e-3 * largest(&want), "{name}: gradient of {parameter} off by {gap}");
                checked += 1;
            }
            assert_eq!(checked, expected.keys().filter(|k| k.starts_with("grad.")).count());
        }
    }
}

/// The end token of GPT-2 is its padding token too: transformers reads the score before it.
#[test]
fn a_score_is_read_at_the_last_token_that_is_not_padding() {
    let dir = fixtures().join("heads/gpt2-score");
    let expected = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap();
    let model = Arc::new(Model::load(&rhopo::files::anywhere(&dir), &Place::Host).unwrap());
    let end = |row: &Row| Row::new(row.prompt.clone(), [&*row.completion, &[0, 0]].concat());
    let rows = Rows::new(rows("gpt2").iter().map(end).collect());
    let gap = max_gap(&measure(&model, &rows, &solo()).to_vec().unwrap(), &numbers(&expected["score"]));
    assert!(gap < 1e-4, "off by {gap}");
}

pub(super) fn with_head(dir: &Path, head: Head) -> Arc<Model> {
    let options = OpenOptions { head: Some(head), ..OpenOptions::new(Key::new(3)) };
    Arc::new(Model::open(&rhopo::files::anywhere(dir.to_str().unwrap()), &options, &Place::Host).unwrap())
}

#[test]
fn a_new_head_is_trained_and_saved_with_the_model() {
    for (base, head) in [
        ("qwen3", Head::Value),
        ("gpt2", Head::Value),
        ("gpt_neox", Head::Score),
        ("llama3", Head::Score),
        ("gemma3", Head::Score),
        ("phi3", Head::Value),
    ] {
        let model = with_head(&fixtures().join("models").join(base), head);
        let rows = rows(base);
        let mut opt = Adamw::new(vec![model.clone()], AdamwOptions { lr: 1e-2, ..AdamwOptions::default() }).unwrap();
        let loss = || {
            let out = measure(&model, &rows, &solo());
            let off = ops::SUB.on(&out, &out.number(1.0).unwrap()).unwrap();
            mul(&mul(&off, &off), &mul(&weights(&out, &rows), &weights(&out, &rows))).with_tokens(false)
        };
        let first = opt.step(&loss().sum(None).unwrap()).unwrap().loss;
        for _ in 0..10 {
            opt.step(&loss().sum(None).unwrap()).unwrap();
        }
        assert!(loss().sum(None).unwrap().item().unwrap() < 0.5 * first, "{base}");
        let dir = tempfile::tempdir().unwrap();
        model.save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
        let again = Arc::new(Model::load(&rhopo::files::anywhere(dir.path()), &Place::Host).unwrap());
        assert_eq!(again.config.head, head);
        let values = |m: &Arc<Model>| measure(m, &rows, &solo()).to_vec().unwrap();
        assert_eq!(values(&model), values(&again), "{base}");
    }
}

#[test]
fn a_model_answers_only_what_its_head_measures() {
    let rows = rows("qwen2");
    let dir = fixtures().join("models/qwen2");
    let (policy, critic) =
        (Arc::new(Model::load(&rhopo::files::anywhere(&dir), &Place::Host).unwrap()), with_head(&dir, Head::Value));
    let engine = solo();
    let e = measured(&engine, &policy, &rows, Measure::Value).unwrap_err();
    assert!(e.what.starts_with("value needs a value head, but the model "), "{e}");
    let e = measured(&engine, &critic, &rows, Measure::Logprob).unwrap_err();
    assert!(e.what.ends_with("is a Qwen2ForTokenClassification"), "{e}");
    assert!(sample(&engine, &critic, &[vec![5]], &Default::default(), Key::new(0)).is_err());
}

#[test]
fn a_head_that_transformers_has_no_class_for_is_refused() {
    for (base, head, text) in [
        ("granite", Head::Score, "GraniteForCausalLM has no score head: transformers has no class for it"),
        ("gemma3", Head::Value, "Gemma3ForCausalLM has no value head: transformers has no class for it"),
    ] {
        let options = OpenOptions { head: Some(head), ..OpenOptions::new(Key::new(3)) };
        let dir = fixtures().join("models").join(base);
        let e = Model::open(&rhopo::files::anywhere(dir.to_str().unwrap()), &options, &Place::Host).unwrap_err();
        assert_eq!(e.what, text);
        assert!(e.hint.unwrap().starts_with("the family's classes: "));
    }
}
