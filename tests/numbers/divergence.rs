//! kl::full against sums over the vocabulary made from log-probs, value and gradient; however it is computed.

use crate::common::solo::{Adamw, differentiate, logprob, measured, measured_at, numbers_of, solo};
use crate::common::{fixture_model, largest, mask, max_gap, mul, ragged_rows, random_model, sub};
use rhopo::engine::{AdamwOptions, Measure, Settings, Solo};
use rhopo::gpu::Place;
use rhopo::model::rows::{Row, Rows};
use rhopo::model::{Adaptation, LoraOptions, Model, OpenOptions};
use rhopo::rl::mask::token_mean;
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Tensor, ops};
use std::sync::Arc;

const V: usize = 23;

fn kl(model: &Arc<Model>, reference: &Arc<Model>, rows: &Arc<Rows>, temperature: f64, engine: &Solo) -> Tensor {
    let reference = reference.clone().into();
    measured_at(engine, model, rows, temperature, Measure::Kl { reference }).unwrap()
}

/// For each completion token of each row, and each token of the vocabulary, a row that ends with it.
fn every_token(rows: &Rows, vocabulary: usize) -> Arc<Rows> {
    let mut all = Vec::new();
    for row in rows.iter() {
        for t in 0..row.completion.len() {
            let prompt: Arc<[u32]> = [&*row.prompt, &row.completion[..t]].concat().into();
            all.extend((0..vocabulary as u32).map(|v| Row::new(prompt.clone(), [v])));
        }
    }
    Rows::new(all)
}

/// Σ_v π(v)·(log π(v) − log ref(v)) of every completion token in turn, `[N,1]`, from one row per token and v.
fn direct(model: &Arc<Model>, reference: &Arc<Model>, rows: &Arc<Rows>, temperature: f64) -> Tensor {
    let engine = solo();
    let all = every_token(rows, V);
    let logp = |m: &Arc<Model>| measured_at(&engine, m, &all, temperature, Measure::Logprob).unwrap();
    let own = logp(model);
    let terms = mul(&ops::EXP.on(&own).unwrap(), &sub(&own, &logp(reference).detach()));
    terms.reshape(&[-1, V as i64]).unwrap().sum(Some(1)).unwrap()
}

fn gradient(loss: &Tensor) -> Vec<f64> {
    let all = differentiate(loss).unwrap();
    assert_eq!(all.len(), 1, "the policy alone gets a gradient");
    numbers_of(&all[0]).into_iter().flatten().flatten().collect()
}

#[test]
fn it_equals_the_sum_over_the_vocabulary_and_so_does_its_gradient() {
    let (model, other) = (random_model(V, 16, 2, 1), random_model(V, 24, 1, 2));
    let rows = ragged_rows(3, 2, V as u64, Key::new(3));
    for temperature in [1.0, 0.6, 1.8] {
        for reference in [other.clone(), other.frozen().unwrap()] {
            let found = kl(&model, &reference, &rows, temperature, &solo());
            let inside: Vec<f64> = rows
                .iter()
                .zip(found.to_rows().unwrap())
                .flat_map(|(row, cells)| {
                    let (inside, outside) = cells.split_at(row.completion.len());
                    assert!(outside.iter().all(|&x| x == 0.0));
                    inside.to_vec()
                })
                .collect();
            let expected = direct(&model, &reference, &rows, temperature);
            let gap = max_gap(&inside, &expected.to_vec().unwrap());
            assert!(gap < 5e-6, "temperature {temperature}: off by {gap}");
            assert!(inside.iter().all(|&x| x > 0.01), "these models are far apart");
            let own = gradient(&token_mean(&found, &mask(&rows)).unwrap());
            let sum = gradient(&expected.mean(None).unwrap());
            let gap = max_gap(&own, &sum) / largest(&sum);
            assert!(gap < 2e-5, "temperature {temperature}: the gradient is off by {gap} of the largest");
        }
    }
}

#[test]
fn it_does_not_depend_on_how_rows_are_cut_packed_and_kept() {
    let (model, reference) = (random_model(50, 32, 2, 1), random_model(50, 16, 1, 9).frozen().unwrap());
    let rows = ragged_rows(10, 3, 50, Key::new(2));
    // With the log-probs computed before, the divergence joins a pass that is there already.
    let first = |settings: &Settings, before: bool| {
        let engine = Solo::new(settings.clone());
        let held = before.then(|| logprob(&model, &rows, &engine));
        let divergence = kl(&model, &reference, &rows, 1.0, &engine);
        let again = kl(&model, &model.frozen().unwrap(), &rows, 1.0, &engine);
        let logp = logprob(&model, &rows, &engine);
        let loss = token_mean(&sub(&divergence, &mul(&logp, &logp)), &mask(&rows)).unwrap();
        let loss = ops::ADD.on(&loss, &token_mean(&again, &mask(&rows)).unwrap()).unwrap();
        drop(held);
        (divergence.to_vec().unwrap(), gradient(&loss))
    };
    let (values, grads) = first(&Settings::default(), true);
    for token_budget in [1, 40, 333] {
        for share_prefixes in [true, false] {
            for keep_bytes in [0, 200_000, 1 << 30] {
                for fused in [true, false] {
                    let settings = Settings { token_budget, share_prefixes, keep_bytes, fused, ..Settings::default() };
                    let (v, g) = first(&settings, keep_bytes == 0);
                    let gaps = (max_gap(&v, &values) / largest(&values), max_gap(&g, &grads) / largest(&grads));
                    assert!(gaps.0 < 1e-5 && gaps.1 < 1e-5, "{settings:?}: off by {gaps:?}");
                }
            }
        }
    }
}

#[test]
fn it_is_nothing_between_equals_and_grows_with_a_step() {
    let engine = solo();
    for name in ["qwen2", "gpt2", "llama2", "gemma2", "phi3"] {
        let options =
            OpenOptions { adaptation: Adaptation::New(LoraOptions::default()), ..OpenOptions::new(Key::new(1)) };
        let path = crate::common::fixtures().join("models").join(name);
        let lora = Arc::new(Model::open(path.to_str().unwrap(), &options, &Place::Host).unwrap());
        for (model, reference) in [(fixture_model(name), None), (lora.clone(), Some(lora.reference().unwrap()))] {
            let reference = reference.unwrap_or_else(|| model.frozen().unwrap());
            let rows = ragged_rows(4, 2, model.config.vocab_size as u64, Key::new(5));
            let zero = kl(&model, &reference, &rows, 0.8, &engine);
            assert_eq!(largest(&zero.to_vec().unwrap()), 0.0, "{name}");
            assert_eq!(largest(&gradient(&token_mean(&zero, &mask(&rows)).unwrap())), 0.0, "{name}");
            let mut opt = Adamw::new(vec![model.clone()], AdamwOptions { lr: 1e-2, ..Default::default() }).unwrap();
            opt.step(&token_mean(&logprob(&model, &rows, &engine), &mask(&rows)).unwrap()).unwrap();
            let e = differentiate(&token_mean(&zero, &mask(&rows)).unwrap()).err().unwrap();
            assert!(e.what.contains("the kl::full computed at test:1 is older than the model's weights"), "{e}");
            let apart = kl(&model, &reference, &rows, 0.8, &engine).to_vec().unwrap();
            assert!(apart.iter().all(|&x| x >= 0.0) && largest(&apart) > 1e-4, "{name}: {apart:?}");
        }
    }
}

#[test]
fn a_reference_that_changed_and_other_vocabularies_are_refused() {
    let (model, reference) = (random_model(V, 16, 1, 1), random_model(V, 16, 1, 2));
    let engine = solo();
    let rows = ragged_rows(2, 2, V as u64, Key::new(3));
    let before = kl(&model, &reference, &rows, 1.0, &engine);
    let mut opt = Adamw::new(vec![reference.clone()], AdamwOptions::default()).unwrap();
    opt.step(&token_mean(&logprob(&reference, &rows, &engine), &mask(&rows)).unwrap()).unwrap();
    let e = differentiate(&token_mean(&before, &mask(&rows)).unwrap()).err().unwrap();
    assert!(e.what.contains("older than its reference's weights"), "{e}");
    let after = kl(&model, &reference, &rows, 1.0, &engine);
    assert!(max_gap(&after.to_vec().unwrap(), &before.to_vec().unwrap()) > 0.0, "the reference's weights of now");
    gradient(&token_mean(&after, &mask(&rows)).unwrap());
    let e =
        measured(&engine, &model, &rows, Measure::Kl { reference: random_model(V + 1, 16, 1, 2).into() }).unwrap_err();
    assert!(e.what.contains("has 23 tokens in its vocabulary") && e.what.ends_with("has 24"), "{e}");
}
