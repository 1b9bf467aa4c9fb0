//! What the sampler recorded serves the measurements of its rows: the same bits, and no pass without a gradient.

use crate::common::solo::{kl_full, logprob, measured, measured_at, numbers_of, sample, solo};
use crate::common::{mask, mul, random_model, sub, unrecorded};
use rhopo::data::Batch;
use rhopo::engine::{
    AdamwOptions, Measure, ModelHandle, Optimizer, SampleOptions, Samples, Settings, Solo, differentiate,
};
use rhopo::model::Model;
use rhopo::model::rows::{Row, Rows};
use rhopo::rl::mask::{seq_mean, token_mean};
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Device, Tensor};
use std::sync::Arc;

/// Prompts of 1 to 4 tokens with 4 answers each, of up to 12 tokens.
fn sampled(engine: &Solo, model: &Arc<Model>, temperature: f64) -> Samples {
    let prompts: Vec<Vec<u32>> = (0..6).map(|i| (0..1 + i % 4).map(|t| (11 * i + t) % 50).collect()).collect();
    let options = SampleOptions { n: 4, max_tokens: 12, temperature, ..SampleOptions::default() };
    sample(engine, model, &prompts, &options, Key::new(5)).unwrap()
}

/// Σ log-prob² and entropies.
fn loss(engine: &Solo, model: &Arc<Model>, rows: &Arc<Rows>) -> Tensor {
    let logp = logprob(model, rows, engine);
    let entropy = measured(engine, model, rows, Measure::Entropy).unwrap();
    let inside = mask(rows);
    sub(&seq_mean(&mul(&logp, &logp), &inside).unwrap(), &token_mean(&entropy, &inside).unwrap())
}

fn gradient(engine: &Solo, loss: &Tensor) -> Vec<Vec<f64>> {
    numbers_of(&differentiate(engine, loss).unwrap()[0]).into_iter().flatten().collect()
}

/// A small budget, so that there are several micro-batches.
fn settings() -> Settings {
    Settings { token_budget: 60, ..Settings::default() }
}

#[test]
fn values_and_gradients_have_the_bits_of_those_scored_anew() {
    for vocabulary in [50, 5000] {
        let (engine, model) = (Solo::new(settings()), random_model(vocabulary, 32, 2, 1));
        let rows = sampled(&engine, &model, 1.0).rows;
        let anew = unrecorded(&rows);
        for measure in [Measure::Logprob, Measure::Entropy] {
            let values = |rows| measured(&engine, &model, rows, measure.clone()).unwrap().to_vec().unwrap();
            assert_eq!(values(&rows), values(&anew), "{measure:?} over {vocabulary} tokens");
        }
        let [recorded, scored] = [&rows, &anew].map(|rows| gradient(&engine, &loss(&engine, &model, rows)));
        assert_eq!(recorded, scored, "over {vocabulary} tokens");
        let again = gradient(&engine, &loss(&engine, &model, &rows));
        assert_eq!(recorded, again, "a gradient may be asked for again");
    }
}

#[test]
fn a_step_runs_every_micro_batch_once() {
    let (engine, model) = (Solo::new(settings()), random_model(50, 32, 2, 1));
    let mut optimizer = Optimizer::adamw(&engine, &[ModelHandle::from(&model)], AdamwOptions::default()).unwrap();
    let rows = sampled(&engine, &model, 1.0).rows;
    let whole = loss(&engine, &model, &rows);
    assert_eq!(engine.runs(), [0, 0], "the sampler's numbers are there");
    optimizer.step(&engine, &whole).unwrap();
    let [values, micro_batches] = engine.runs();
    assert_eq!(values, 0);
    assert!(micro_batches > 3, "{micro_batches} micro-batches");
    // The weights have changed since: the record is not theirs.
    let before = logprob(&model, &unrecorded(&rows), &engine).to_vec().unwrap();
    assert_eq!(logprob(&model, &rows, &engine).to_vec().unwrap(), before);
    assert_eq!(engine.runs(), [0, 3 * micro_batches], "both were scored anew, and are kept for a step");
}

#[test]
fn the_first_mini_batch_runs_once_and_the_others_are_scored() {
    let (engine, model) = (Solo::new(Settings::default()), random_model(50, 32, 2, 1));
    let mut optimizer = Optimizer::adamw(&engine, &[ModelHandle::from(&model)], AdamwOptions::default()).unwrap();
    let samples = sampled(&engine, &model, 1.0);
    let old = samples.logprobs.clone();
    let rows = samples.rows;
    let batch = Batch::new(rows.clone(), 1.0, &Device::Cpu).unwrap();
    let parts = batch.minibatches(8, 1, Key::new(2)).unwrap();
    // Where the first part's rows stood, by their tokens.
    let first = parts[0].rows().unwrap();
    let logp = logprob(&model, first, &engine).to_rows().unwrap();
    for (row, logp) in first.iter().zip(logp) {
        let at = rows.iter().position(|other| other == row).unwrap();
        assert!(old[at].iter().zip(&logp).all(|(old, new)| f64::from(*old) == *new), "ratios are exactly 1");
    }
    assert_eq!(engine.runs(), [0, 0]);
    for (i, part) in parts.iter().enumerate() {
        let loss = loss(&engine, &model, part.rows().unwrap());
        assert_eq!(engine.runs(), [0, if i == 0 { 0 } else { i as u64 + 1 }], "before step {i}");
        optimizer.step(&engine, &loss).unwrap();
        assert_eq!(engine.runs(), [0, i as u64 + 1], "one micro-batch each");
    }
}

#[test]
fn only_what_these_weights_sampled_at_this_temperature_is_taken_from_the_record() {
    let (engine, model) = (Solo::new(Settings::default()), random_model(50, 32, 2, 1));
    let rows = sampled(&engine, &model, 0.7).rows;
    let runs = |engine: &Solo, model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64| {
        let before: u64 = engine.runs().iter().sum();
        measured_at(engine, model, rows, temperature, Measure::Logprob).unwrap();
        engine.runs().iter().sum::<u64>() - before
    };
    assert_eq!(runs(&engine, &model, &rows, 0.7), 0);
    assert_eq!(runs(&engine, &model, &rows.select(&[3, 3, 1]), 0.7), 0, "chosen rows keep their record");
    assert_eq!(runs(&engine, &model, &rows, 1.0), 1, "another temperature");
    let twin = random_model(50, 32, 2, 1);
    assert_eq!(runs(&engine, &twin, &rows, 0.7), 1, "another model, be its weights the same");
    let edited = |row: &Row| Row::new(row.prompt.clone(), &row.completion[..1]);
    let part = Rows::new(rows.iter().take(5).cloned().chain([edited(&rows[5])]).collect());
    assert_eq!(runs(&engine, &model, &part, 0.7), 1, "a row was put together anew");
    let plain = Solo::new(Settings { fused: false, ..Settings::default() });
    assert_eq!(runs(&plain, &model, &rows, 0.7), 1, "plain compositions sum in an order of their own");
    let other = sampled(&plain, &model, 0.7).rows;
    assert_eq!(runs(&engine, &model, &other, 0.7), 1, "and so does what they sampled");
}

#[test]
fn a_divergence_of_recorded_rows_is_that_of_rows_scored_anew() {
    let (model, reference) = (random_model(50, 32, 2, 1), random_model(50, 16, 1, 2));
    for keep_bytes in [0, 30_000, 1 << 30] {
        let engine = Solo::new(Settings { keep_bytes, ..settings() });
        let rows = sampled(&solo(), &model, 1.0).rows;
        let run = |rows: &Arc<Rows>| {
            let kl = measured(&engine, &model, rows, kl_full((&reference).into())).unwrap();
            let both = sub(&loss(&engine, &model, rows), &token_mean(&kl, &mask(rows)).unwrap());
            (kl.to_vec().unwrap(), gradient(&engine, &both), gradient(&engine, &both))
        };
        let (recorded, scored) = (run(&rows), run(&unrecorded(&rows)));
        assert_eq!(recorded, scored, "kept {keep_bytes}");
    }
    // Log-probs first, whose pass the divergence then joins.
    let engine = solo();
    let rows = sampled(&engine, &model, 1.0).rows;
    let first = loss(&engine, &model, &rows);
    assert_eq!(engine.runs(), [0, 0]);
    let kl = measured(&engine, &model, &rows, kl_full((&reference).into())).unwrap();
    assert_eq!(engine.runs(), [0, 1], "what a divergence is computed from is kept for the step");
    let both = sub(&first, &token_mean(&kl, &mask(&rows)).unwrap());
    gradient(&engine, &both);
    assert_eq!(engine.runs(), [0, 1]);
}
