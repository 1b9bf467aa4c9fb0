//! Weights as values: sums of gradients, steps along one, snapshots, averages and mixes, by their numbers; what was
//! computed from old weights is not used again.

use crate::common::solo::{differentiate, kl_full, logprob, measured, numbers_of, sample, solo};
use crate::common::{fixture_model, fixtures, host, largest, mask, max_gap, ragged_rows, random_model};
use rhopo::engine::{self, Engine, Gradient, Measure, ModelHandle, SampleOptions, Settings, Snapshot, Solo, Stateful};
use rhopo::gpu::Place;
use rhopo::model::rows::Rows;
use rhopo::model::{Adaptation, LoraOptions, Model, OpenOptions};
use rhopo::rl::mask::{seq_mean, token_mean};
use rhopo::script::lang::loader::Source;
use rhopo::tensor::rng::Key;
use std::sync::Arc;

const V: u64 = 30;

fn small(key: u64) -> Arc<Model> {
    random_model(V as usize, 32, 2, key)
}

fn rows() -> Arc<Rows> {
    ragged_rows(4, 2, V, Key::new(2))
}

fn gradients(model: &Arc<Model>) -> [Gradient; 2] {
    let logp = logprob(model, &rows(), &solo());
    let mask = mask(&rows());
    [token_mean(&logp, &mask), seq_mean(&logp, &mask)].map(|loss| differentiate(&loss.unwrap()).unwrap().swap_remove(0))
}

fn flat(g: &Gradient) -> Vec<f64> {
    numbers_of(g).into_iter().flatten().flatten().collect()
}

fn weights(model: &Model) -> Vec<f64> {
    (0..model.parameters().count()).flat_map(|i| model.numbers(i).unwrap()).map(f64::from).collect()
}

fn adapted(name: &str) -> Arc<Model> {
    let options = OpenOptions { adaptation: Adaptation::New(LoraOptions::default()), ..OpenOptions::new(Key::new(1)) };
    let path = fixtures().join("models").join(name);
    let model = Arc::new(Model::open(&rhopo::files::anywhere(&path), &options, &Place::Host).unwrap());
    // A new adapter changes nothing: this one is to.
    for i in (0..model.parameters().count()).filter(|i| model.trains(*i)) {
        let numbers: Vec<f32> =
            (0..model.numbers(i).unwrap().len() as u64).map(|k| 0.1 * Key::new(i as u64).normal(k) as f32).collect();
        model.write(i, &numbers).unwrap();
    }
    model.bump_version();
    model
}

#[test]
fn gradients_are_added_and_scaled_number_by_number() {
    let (engine, model) = (solo(), small(1));
    let [g, h] = gradients(&model);
    let sum = g.times(2.5, &engine).unwrap().plus(-0.5, &h, &engine).unwrap();
    let expected: Vec<f64> = flat(&g).iter().zip(flat(&h)).map(|(g, h)| 2.5 * g - 0.5 * h).collect();
    assert!(max_gap(&flat(&sum), &expected) <= 1e-6 * largest(&expected));
    let dot: f64 = expected.iter().zip(flat(&g)).map(|(a, b)| a * b).sum();
    assert!((sum.dot(&g, &engine).unwrap() - dot).abs() < 1e-6 * dot.abs());
    assert_eq!(g.plus(-1.0, &g, &engine).unwrap().norm(&engine).unwrap(), 0.0);
    let again = engine.gradient(&(&model).into(), &engine.state(Stateful::Gradient(&sum)).unwrap()).unwrap();
    assert_eq!(flat(&again), flat(&sum));
}

#[test]
fn a_shift_moves_the_weights_and_a_snapshot_brings_back_every_bit() {
    let (engine, model) = (solo(), small(1));
    let handle = ModelHandle::from(&model);
    let [g, _] = gradients(&model);
    let (before, version) = (weights(&model), model.version());
    let held = logprob(&model, &rows(), &engine);
    let snapshot = Snapshot::of(&engine, &handle).unwrap();
    engine::shift(&engine, &handle, &g, -0.3).unwrap();
    let expected: Vec<f64> = before.iter().zip(flat(&g)).map(|(w, g)| f64::from((w - 0.3 * g) as f32)).collect();
    assert_eq!(weights(&model), expected);
    assert_eq!(model.version(), version + 1);
    let e = differentiate(&token_mean(&held, &mask(&rows())).unwrap()).err().unwrap();
    assert!(e.what.contains("older than the model's weights"), "{e}");
    assert!(max_gap(&logprob(&model, &rows(), &engine).to_vec().unwrap(), &held.to_vec().unwrap()) > 1e-4);
    snapshot.restore(&engine, &handle).unwrap();
    assert_eq!(weights(&model), before);
    assert_eq!(logprob(&model, &rows(), &engine).to_vec().unwrap(), held.to_vec().unwrap());
}

#[test]
fn an_average_is_that_of_the_numbers() {
    let models = [small(1), small(2), small(3).frozen().unwrap()];
    let handles: Vec<ModelHandle> = models.iter().map(ModelHandle::from).collect();
    let shares = [0.5, -0.25, 2.0];
    let average = engine::average(&solo(), &handles, &shares).unwrap();
    assert!(average.trainable());
    let all: Vec<Vec<f64>> = models.iter().map(|model| weights(model)).collect();
    let sum = |i: usize| all.iter().zip(shares).map(|(w, share)| share * w[i]).sum::<f64>();
    let expected: Vec<f64> = (0..all[0].len()).map(|i| f64::from(sum(i) as f32)).collect();
    assert_eq!(weights(&Solo::model(&average).unwrap()), expected);
}

/// ref_T = (1 − a)^T·ref_0 + a·Σ_t (1 − a)^(T−t)·policy_t.
#[test]
fn repeated_mixes_are_the_closed_form_of_a_moving_average() {
    let (engine, policy, reference) = (solo(), small(1), small(2).frozen().unwrap());
    let (steps, share) = (20, 0.05_f64);
    let [g, _] = gradients(&policy);
    let mut expected: Vec<f64> = weights(&reference).iter().map(|w| w * (1.0 - share).powi(steps)).collect();
    for step in 1..=steps {
        engine::shift(&engine, &(&policy).into(), &g, 0.1).unwrap();
        engine::mix(&engine, &(&reference).into(), &(&policy).into(), share).unwrap();
        let weight = share * (1.0 - share).powi(steps - step);
        expected.iter_mut().zip(weights(&policy)).for_each(|(sum, w)| *sum += weight * w);
    }
    let gap = max_gap(&weights(&reference), &expected) / largest(&expected);
    println!("an average over {steps} steps is off its closed form by {gap:.1e} of the largest weight");
    assert!(gap < 1e-6, "{gap}");
    assert_eq!(reference.version(), steps as u64);
}

#[test]
fn what_a_mixed_reference_gave_before_is_not_used_again() {
    let (engine, policy) = (solo(), small(1));
    let reference = small(2).frozen().unwrap();
    let kl = || measured(&engine, &policy, &rows(), kl_full((&reference).into())).unwrap();
    let held = kl();
    // What it sampled itself is recorded.
    let options = SampleOptions { n: 2, max_tokens: 8, ..SampleOptions::default() };
    let own = sample(&engine, &reference, &[vec![1, 2], vec![3]], &options, Key::new(4)).unwrap();
    let scored = |rows: &Arc<Rows>| measured(&engine, &reference, rows, Measure::Logprob).unwrap().to_vec().unwrap();
    let before = scored(&own.rows);
    let copy = reference.frozen().unwrap();
    let copied = weights(&copy);
    engine::mix(&engine, &(&reference).into(), &(&policy).into(), 0.5).unwrap();
    let e = differentiate(&token_mean(&held, &mask(&rows())).unwrap()).err().unwrap();
    assert!(e.what.contains("older than its reference's weights"), "{e}");
    assert!(max_gap(&kl().to_vec().unwrap(), &held.to_vec().unwrap()) > 1e-3, "the weights of now");
    let fresh = Solo::new(Settings::default());
    let anew = measured(&fresh, &reference, &crate::common::unrecorded(&own.rows), Measure::Logprob).unwrap();
    assert_eq!(scored(&own.rows), anew.to_vec().unwrap(), "neither the record nor packed weights of before");
    assert!(max_gap(&scored(&own.rows), &before) > 1e-3);
    assert_eq!(weights(&copy), copied, "a copy of the reference is a copy");
}

#[test]
fn a_reference_takes_in_a_policy_with_its_adapter_merged() {
    let engine = solo();
    for name in ["qwen2", "gpt2"] {
        let policy = adapted(name);
        let [one, two] = [0, 1].map(|_| fixture_model(name).frozen().unwrap());
        engine::mix(&engine, &(&one).into(), &(&policy).into(), 0.3).unwrap();
        engine::mix(&engine, &(&two).into(), &(&policy.merge().unwrap()).into(), 0.3).unwrap();
        assert_eq!(weights(&one), weights(&two), "{name}");
        assert!(max_gap(&weights(&one), &weights(&fixture_model(name))) > 1e-3, "{name}");
        let base = weights(&policy);
        for (reference, what) in [
            (policy.reference().unwrap(), "shares its weights with others"),
            (policy.frozen().unwrap(), "has an adapter, whose factors cannot be mixed"),
            (policy.clone(), "with itself"),
        ] {
            let e = engine::mix(&engine, &(&reference).into(), &(&policy).into(), 0.3).unwrap_err();
            assert!(e.what.contains(what), "{e}");
        }
        assert_eq!(weights(&policy), base);
    }
}

/// What a script reads where something does not fit.
#[test]
fn what_does_not_fit_is_refused_by_name() {
    let made = "let m = load_model(\"tiny\"); let other = load_model(\"tiny\"); let ref = m.frozen();\n\
                let b = encode(m, [#{ prompt: \"1+2=\", completion: \"3\" }]);\n\
                let g = gradient(token_mean(logprob(m, b), b.mask), m);\n\
                let h = gradient(token_mean(logprob(other, b), b.mask), other);\n";
    let nan = "let nan = (zeros([1]) / 0.0).sum().item();\n";
    for (line, what) in [
        ("g + h", "the gradients are of different models: two that were both opened as tiny"),
        ("g - 1", "`-` takes two gradients, found a gradient and a number"),
        ("2.0 + g", "`+` takes two gradients, found a gradient and a number"),
        ("g * g", "`*` takes a gradient and a number, found two gradients"),
        ("1 / g", "`/` divides a gradient by a number"),
        ("g / 0", "a gradient was divided by 0"),
        ("g * nan", "a gradient was multiplied by NaN, expected a finite number of f32"),
        ("g * 1e39", "expected a finite number of f32"),
        ("(1e30 * g) * 1e30", "a sum of gradients of tiny is not finite"),
        ("m.shift(h, 1.0)", "shift: the gradient is of another model than this one"),
        ("m.shift(g, nan)", "shift: the weights were to move by NaN"),
        ("m.restore(other.snapshot())", "restore: the snapshot is of another model than this one"),
        ("average([], [])", "average was given no model"),
        ("average([m, other], [1])", "average was given 2 models and 1 weights"),
        ("average([m, 3], [1, 1])", "models must be an array of models that load_model opened"),
        ("average([m, other], [1, \"a\"])", "weights must be numbers, found the string \"a\" among them"),
        ("average([m, other], [1, nan])", "average: a weight is NaN"),
        ("average([m, load_model(\"tiny\", #{ lora: #{ rank: 2 } })], [1, 1])", "whose factors have no average"),
        ("average([m, load_model(\"tiny\", #{ head: \"score\" })], [1, 1])", "have different weights"),
        ("ref.mix(m, 1.5)", "the policy's share must be in [0, 1], found 1.5"),
        ("ref.mix(m, nan)", "the policy's share must be in [0, 1], found NaN"),
        ("ref.mix(load_model(\"tiny\", #{ head: \"value\" }), 0.1)", "have different weights"),
    ] {
        let source = Source { label: "own.rhai".into(), text: format!("{made}{nan}{line};") };
        let e = host().run(&source).expect_err(line);
        assert!(e.message.contains(what), "{line}: {}", e.message);
    }
}
