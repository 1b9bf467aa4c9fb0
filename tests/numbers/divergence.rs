//! kl::full against sums over the vocabulary made from log-probs, value and gradient; however it is computed.

use crate::common::solo::{Adamw, differentiate, kl_full, logprob, measured, measured_at, numbers_of, solo};
use crate::common::{
    fixture_model, fixtures, inputs, largest, mask, max_gap, mul, ragged_rows, random_model, sub, tensors, unrecorded,
};
use rhopo::engine::{AdamwOptions, Divergence, Measure, ModelHandle, Settings, Solo};
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
    measured_at(engine, model, rows, temperature, kl_full(reference)).unwrap()
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
        let lora =
            Arc::new(Model::open(&rhopo::files::anywhere(path.to_str().unwrap()), &options, &Place::Host).unwrap());
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
    let e = measured(&engine, &model, &rows, kl_full(random_model(V + 1, 16, 1, 2).into())).unwrap_err();
    assert!(e.what.contains("has 23 tokens in its vocabulary") && e.what.ends_with("has 24"), "{e}");
}

/// Between qwen2 and qwen2 under an adapter, as PyTorch has them: values of every token, and gradients of their mean.
#[test]
fn divergences_equal_the_references() {
    let model = fixture_model("qwen2");
    let options = OpenOptions {
        adaptation: Adaptation::Stored(rhopo::files::anywhere(fixtures().join("adapters/qwen2-lora"))),
        ..OpenOptions::new(Key::new(1))
    };
    let teacher = fixtures().join("models/qwen2");
    let teacher: ModelHandle =
        Arc::new(Model::open(&rhopo::files::anywhere(&teacher), &options, &Place::Host).unwrap()).into();
    let expected = tensors("second/divergence.safetensors");
    let rows = inputs("qwen2");
    for (name, of) in [("full", Divergence::Full), ("forward", Divergence::Forward), ("jsd", Divergence::jsd(0.3))] {
        let measure = Measure::Divergence { of, reference: teacher.clone(), under: None };
        let found = measured(&solo(), &model, &rows, measure).unwrap();
        let mut value: f64 = 0.0;
        for (i, (cells, row)) in found.to_rows().unwrap().iter().zip(rows.iter()).enumerate() {
            value = value.max(max_gap(&cells[..row.completion.len()], &expected[&format!("{name}.{i}")]));
        }
        let grads = differentiate(&token_mean(&found, &mask(&rows)).unwrap()).unwrap();
        let mut gradient: f64 = 0.0;
        for ((parameter, _), found) in model.parameters().zip(numbers_of(&grads[0])) {
            let exact = &expected[&format!("{name}.grad.{parameter}")];
            gradient = gradient.max(max_gap(&found.unwrap(), exact) / largest(exact));
        }
        println!("{name}: values off by {value:.1e} nats, gradients by {gradient:.1e} of a tensor's largest");
        assert!(value < 2e-4 && gradient < 1e-3, "{name}: off by {value}, {gradient}");
    }
}

/// Rows of the same completions, some of which share a prompt here and not there.
#[test]
fn a_reference_reads_the_completions_under_other_prompts() {
    let (model, reference) = (random_model(V, 16, 2, 1), random_model(V, 24, 1, 2));
    let rows = ragged_rows(4, 3, V as u64, Key::new(3));
    let moved = rows.iter().enumerate().map(|(i, row)| {
        let prompt: Vec<u32> = (0..1 + (i as u32 * 7) % 11).map(|t| (t * 5 + i as u32) % V as u32).collect();
        Row::new(prompt, row.completion.clone())
    });
    let moved = Rows::new(moved.collect());
    for of in [Divergence::Full, Divergence::Forward, Divergence::Jsd(0.4)] {
        let asked = |engine: &Solo, rows: &Arc<Rows>, under: Option<&Arc<Rows>>| {
            let measure = Measure::Divergence { of, reference: (&reference).into(), under: under.cloned() };
            measured_at(engine, &model, rows, 0.8, measure).unwrap()
        };
        let same = asked(&solo(), &rows, None).to_vec().unwrap();
        let gap = max_gap(&asked(&solo(), &rows, Some(&unrecorded(&rows))).to_vec().unwrap(), &same);
        assert!(gap < 1e-6, "{of:?}: the same prompts, off by {gap}");
        let found = asked(&solo(), &rows, Some(&moved));
        let own = gradient(&token_mean(&found, &mask(&rows)).unwrap());
        // One row at a time, over all of the vocabulary.
        let expected = directly(&model, &reference, [&rows, &moved], 0.8, of);
        let inside: Vec<f64> = found
            .to_rows()
            .unwrap()
            .into_iter()
            .zip(rows.iter())
            .flat_map(|(cells, row)| cells[..row.completion.len()].to_vec())
            .collect();
        let gap = max_gap(&inside, &expected.to_vec().unwrap());
        assert!(gap < 1e-5, "{of:?}: off by {gap}");
        let sum = gradient(&expected.mean(None).unwrap());
        let gap = max_gap(&own, &sum) / largest(&sum);
        assert!(gap < 5e-5, "{of:?}: the gradient is off by {gap} of the largest");
        for token_budget in [1, 40] {
            for keep_bytes in [0, 1 << 30] {
                let engine = Solo::new(Settings { token_budget, keep_bytes, ..Settings::default() });
                let again = asked(&engine, &rows, Some(&moved));
                assert!(max_gap(&again.to_vec().unwrap(), &found.to_vec().unwrap()) < 1e-5);
                let grads = gradient(&token_mean(&again, &mask(&rows)).unwrap());
                assert!(max_gap(&grads, &own) / largest(&own) < 1e-5);
            }
        }
    }
    let other = ragged_rows(4, 3, V as u64, Key::new(4));
    let measure = Measure::Divergence { of: Divergence::Full, reference: (&reference).into(), under: Some(other) };
    let e = measured(&solo(), &model, &rows, measure).unwrap_err();
    assert!(e.what.contains("of `under` has another completion than the batch"), "{e}");
}

/// The divergence of every completion token in turn, `[N,1]`, by one row per token and v; the reference reads the second.
fn directly(model: &Arc<Model>, reference: &Arc<Model>, rows: [&Arc<Rows>; 2], t: f64, of: Divergence) -> Tensor {
    let engine = solo();
    let logp = |m: &Arc<Model>, rows| measured_at(&engine, m, &every_token(rows, V), t, Measure::Logprob).unwrap();
    let (own, other) = (logp(model, rows[0]), logp(reference, rows[1]).detach());
    let exp = |x: &Tensor| ops::EXP.on(x).unwrap();
    let kl = |a: &Tensor, b: &Tensor| mul(&exp(a), &sub(a, b));
    let scaled = |x: &Tensor, by: f64| mul(x, &x.number(by).unwrap());
    let terms = match of {
        Divergence::Full => kl(&own, &other),
        Divergence::Forward => kl(&other, &own),
        Divergence::Jsd(beta) => {
            let beta = f64::from(beta);
            let middle = ops::ADD.on(&scaled(&exp(&other), beta), &scaled(&exp(&own), 1.0 - beta)).unwrap();
            let middle = ops::LOG.on(&middle).unwrap();
            ops::ADD.on(&scaled(&kl(&other, &middle), beta), &scaled(&kl(&own, &middle), 1.0 - beta)).unwrap()
        }
    };
    terms.reshape(&[-1, V as i64]).unwrap().sum(Some(1)).unwrap()
}

#[test]
fn a_rank_counts_the_tokens_that_are_likelier() {
    let model = random_model(V, 16, 2, 1);
    let rows = ragged_rows(4, 3, V as u64, Key::new(3));
    let engine = solo();
    let logp = measured(&engine, &model, &every_token(&rows, V), Measure::Logprob).unwrap().to_vec().unwrap();
    let tokens = rows.iter().flat_map(|row| row.completion.iter().map(|&token| token as usize));
    let expected: Vec<f64> = tokens
        .zip(logp.chunks_exact(V))
        .map(|(token, all)| all.iter().filter(|&&x| x > all[token]).count() as f64)
        .collect();
    for token_budget in [1, 50, 4096] {
        let engine = Solo::new(Settings { token_budget, ..Settings::default() });
        let found = measured(&engine, &model, &rows, Measure::Rank).unwrap().to_rows().unwrap();
        let inside: Vec<f64> =
            found.iter().zip(rows.iter()).flat_map(|(cells, row)| cells[..row.completion.len()].to_vec()).collect();
        assert_eq!(inside, expected);
    }
}
