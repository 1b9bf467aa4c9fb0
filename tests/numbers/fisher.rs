//! Fisher products against PyTorch's double backward pass; symmetric, positive, and the same however rows are computed.

use crate::common::solo::{differentiate, kl_full, logprob, numbers_of, solo};
use crate::common::{
    MODELS, fixture_model, fixtures, inputs, largest, mask, max_gap, ragged_rows, random_model, tensors,
};
use rhopo::engine::{Engine, FisherRequest, Gradient, ModelHandle, Settings, Solo, State};
use rhopo::gpu::Place;
use rhopo::model::rows::Rows;
use rhopo::model::{Adaptation, LoraOptions, Model, OpenOptions};
use rhopo::rl::mask::token_mean;
use rhopo::tensor::rng::Key;
use std::sync::Arc;

/// F over every completion token.
fn request(model: &Arc<Model>, rows: &Arc<Rows>, temperature: f64) -> FisherRequest {
    let mask = mask(rows).to_vec().unwrap();
    let total: f64 = mask.iter().sum();
    let weights = mask.into_iter().map(|w| (w / total) as f32).collect();
    FisherRequest { model: model.into(), rows: rows.clone(), temperature, weights }
}

fn times(request: &FisherRequest, g: &Gradient, settings: &Settings) -> Vec<f64> {
    let product = Solo::new(settings.clone()).fisher(request, g).unwrap();
    numbers_of(&product).into_iter().flatten().flatten().collect()
}

/// Random numbers as a gradient of the trained parameters.
fn direction(model: &Arc<Model>, key: u64) -> Gradient {
    let trained = model.parameters().enumerate().filter(|(i, _)| model.trains(*i));
    let numbers = |n: usize, key: Key| (0..n as u64).map(|i| key.normal(i) as f32).collect();
    let tensors = trained.map(|(i, (name, v))| (name.to_string(), numbers(v.len(), Key::new(key).fold(i as u64))));
    let state = State { steps: Vec::new(), tensors: tensors.collect() };
    solo().gradient(&ModelHandle::from(model), &state).unwrap()
}

fn flat(g: &Gradient) -> Vec<f64> {
    numbers_of(g).into_iter().flatten().flatten().collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn products_equal_the_references() {
    for name in ["qwen2", "gpt_neox"] {
        let model = fixture_model(name);
        let (expected, given) = (
            tensors(&format!("second/fisher-{name}.safetensors")),
            tensors(&format!("models/{name}/expected.safetensors")),
        );
        // transformers' name of the module.
        let named = |name: &str| if name == "embed_out.weight" { "lm_head.weight".to_string() } else { name.into() };
        let along = |(name, value): (&str, &rhopo::kernel::value::Value)| {
            let zeros = || vec![0.0; value.len()];
            (
                name.to_string(),
                given
                    .get(&format!("grad.{}", named(name)))
                    .map_or_else(zeros, |x| x.iter().map(|&x| x as f32).collect()),
            )
        };
        let v = State { steps: Vec::new(), tensors: model.parameters().map(along).collect() };
        let v = solo().gradient(&ModelHandle::from(&model), &v).unwrap();
        let product = solo().fisher(&request(&model, &inputs(name), 1.0), &v).unwrap();
        let mut worst: f64 = 0.0;
        for ((parameter, _), found) in model.parameters().zip(numbers_of(&product)) {
            let exact = &expected[&named(parameter)];
            let gap = max_gap(&found.unwrap(), exact) / largest(exact).max(1e-12);
            assert!(gap < 2e-3, "{name} {parameter}: off by {gap} of the largest");
            worst = worst.max(gap);
        }
        let along = solo().dot(&product, &v).unwrap();
        let off = (along / expected["dot"][0] - 1.0).abs();
        println!("{name}: a product is off by {worst:.1e} of a tensor's largest number, v·Fv by {off:.1e}");
        assert!(off < 2e-3, "{name}: v·Fv is {along}, not {}", expected["dot"][0]);
    }
}

#[test]
fn a_product_does_not_depend_on_how_rows_are_cut_and_packed() {
    let model = random_model(50, 32, 2, 1);
    let rows = ragged_rows(16, 4, 50, Key::new(2));
    let request = request(&model, &rows, 0.8);
    let v = direction(&model, 3);
    let whole = times(&request, &v, &Settings::default());
    let mut worst: f64 = 0.0;
    for token_budget in [1, 30, 100, 333, 1_000_000] {
        for share_prefixes in [true, false] {
            let settings = Settings { token_budget, share_prefixes, ..Settings::default() };
            let gap = max_gap(&times(&request, &v, &settings), &whole) / largest(&whole);
            assert!(gap < 1e-5, "budget {token_budget}, shared {share_prefixes}: off by {gap} of the largest");
            worst = worst.max(gap);
        }
    }
    println!("any size of micro-batches: off by {worst:.1e} of the largest at most");
}

/// gᵀF h = hᵀF g and gᵀF g ≥ 0, of every family, whole and by an adapter, over ragged rows.
#[test]
fn the_matrix_is_symmetric_and_positive_for_every_family() {
    let mut worst: f64 = 0.0;
    for (i, name) in MODELS.into_iter().enumerate() {
        let path = fixtures().join("models").join(name);
        let lora = Adaptation::New(LoraOptions { rank: 3, ..LoraOptions::default() });
        let options = OpenOptions { adaptation: lora, ..OpenOptions::new(Key::new(1)) };
        let adapted = Arc::new(Model::open(&rhopo::files::anywhere(&path), &options, &Place::Host).unwrap());
        // B is zero in a new adapter: a step moves both factors.
        let g = direction(&adapted, 9);
        rhopo::engine::shift(&solo(), &(&adapted).into(), &g, 0.05).unwrap();
        for model in [fixture_model(name), adapted] {
            let rows = ragged_rows(3, 2, model.vocab_size as u64, Key::new(i as u64));
            let request = request(&model, &rows, 1.3);
            let [g, h] = [1, 2].map(|key| direction(&model, key + i as u64));
            let [fg, fh] = [&g, &h].map(|v| times(&request, v, &Settings::default()));
            let (one, other) = (dot(&fg, &flat(&h)), dot(&fh, &flat(&g)));
            let (square, other_square) = (dot(&fg, &flat(&g)), dot(&fh, &flat(&h)));
            assert!(square > 0.0 && other_square > 0.0, "{name}: {square}, {other_square}");
            let gap = (one - other).abs() / (square * other_square).sqrt();
            assert!(gap < 1e-5, "{name}: {one} and {other}, off by {gap} of √(gᵀFg·hᵀFh)");
            worst = worst.max(gap);
        }
    }
    println!("gᵀFh and hᵀFg are apart by {worst:.1e} of √(gᵀFg·hᵀFh) at most");
}

/// ½·dᵀFd is the divergence that a small step along d comes to.
#[test]
fn a_product_is_the_curvature_of_the_divergence() {
    let engine = solo();
    for name in ["gemma2", "phi3", "gpt2"] {
        let model = fixture_model(name);
        let rows = ragged_rows(3, 2, model.vocab_size as u64, Key::new(4));
        let loss = token_mean(&logprob(&model, &rows, &engine), &mask(&rows)).unwrap();
        let g = differentiate(&loss).unwrap().swap_remove(0);
        let curvature = dot(&times(&request(&model, &rows, 1.0), &g, &Settings::default()), &flat(&g));
        let old = model.frozen().unwrap();
        let divergence = |by: f64| {
            rhopo::engine::shift(&engine, &(&model).into(), &g, by).unwrap();
            let measure = kl_full((&model).into());
            let kl = crate::common::solo::measured(&engine, &old, &rows, measure).unwrap();
            rhopo::engine::shift(&engine, &(&model).into(), &g, -by).unwrap();
            token_mean(&kl, &mask(&rows)).unwrap().item().unwrap()
        };
        let c = 0.02 / curvature.sqrt();
        // Odd orders leave with the mean of both directions.
        let found = (divergence(c) + divergence(-c)) / 2.0;
        let expected = 0.5 * c * c * curvature;
        assert!((found / expected - 1.0).abs() < 0.02, "{name}: {found} for {expected}");
    }
}

/// F says nothing of a value head beside the language model's: its part of a product is zero, the rest is as without it.
#[test]
fn a_product_of_a_model_with_both_heads_is_that_of_the_policy() {
    let text = "let b = sample(load_model(\"tiny\"), [\"1+2=\", \"30+4=\"], #{ n: 2, max_tokens: 4 });\n\
                let found = [#{}, #{ head: \"lm+value\" }].map(|options| {\n\
                    let m = load_model(\"tiny\", options);\n\
                    let g = gradient(token_mean(logprob(m, b), b.mask), m);\n\
                    let p = fisher(m, b).times(g);\n\
                    [g.norm(), p.norm(), p.dot(g)]\n\
                });\n\
                found";
    let source = rhopo::script::lang::loader::Source { label: "case.rhai".into(), text: text.into() };
    let out = crate::common::host().eval(&source).unwrap_or_else(|e| panic!("{e:?}"));
    let found = rhopo::script::lang::value::to_json(&out);
    assert_eq!(found[0], found[1]);
    assert!(found[0][2].as_f64().unwrap() > 0.0, "{found}");
}
