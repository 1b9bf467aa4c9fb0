//! Frequencies of sampled answers against their exact probabilities.

use crate::common::solo::{measured_at, sample, solo};
use crate::common::{fixture_model, random_model};
use rhopo::engine::{Measure, SampleOptions};
use rhopo::model::Model;
use rhopo::model::rows::{Row, Rows};
use rhopo::tensor::rng::Key;
use std::collections::BTreeMap;
use std::sync::Arc;

const VOCABULARY: u32 = 5;
/// Ends an answer.
const END: u32 = 4;
const LENGTH: usize = 3;
const DRAWS: usize = 50_000;

/// Stop texts that are special tokens, alone and among others, and temperatures at the edges of f32.
#[test]
fn stop_texts_may_be_special_tokens() {
    let model = fixture_model("qwen2");
    let prompt = model.tokenizer.as_ref().unwrap().encode("hello").unwrap();
    let drawn = |stop: &[&str], temperature: f64| {
        let stop = stop.iter().map(|text| text.to_string()).collect();
        let options = SampleOptions { n: 400, max_tokens: 12, temperature, stop, ..SampleOptions::default() };
        sample(&solo(), model.clone(), std::slice::from_ref(&prompt), &options, Key::new(7)).unwrap()
    };
    let free = drawn(&[], 1.5);
    let start = model.tokenizer.as_ref().unwrap().id("<|im_start|>").unwrap();
    assert!(free.rows.iter().any(|row| row.completion[..11.min(row.completion.len() - 1)].contains(&start)));
    let stopped = drawn(&["<|im_start|>"], 1.5);
    for (i, (row, whole)) in stopped.rows.iter().zip(free.rows.iter()).enumerate() {
        let end = whole.completion.iter().position(|id| *id == start).map_or(whole.completion.len(), |at| at + 1);
        assert_eq!(row.completion[..], whole.completion[..end], "row {i}");
        assert_eq!(stopped.finished[i], free.finished[i] || row.completion.last() == Some(&start));
        assert!(!stopped.texts[i].contains("im_start"));
    }
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let spelled: Vec<String> = free.rows.iter().map(|row| tokenizer.decode_special(&row.completion)).collect();
    // A letter and the token after it, which some answer has.
    let mixed = spelled.iter().find_map(|text| {
        let at = text.find("<|im_start|>").filter(|at| *at > 0 && text.as_bytes()[at - 1].is_ascii_alphanumeric())?;
        Some(text[at - 1..at + "<|im_start|>".len()].to_string())
    });
    let mixed = mixed.expect("an answer with such a token");
    let stopped = drawn(&[&mixed], 1.5);
    for (row, text) in stopped.rows.iter().zip(&spelled) {
        let found = tokenizer.decode_special(&row.completion);
        let end = text.find(&mixed).map_or(text.len(), |at| at + mixed.len());
        assert_eq!(found, text[..end]);
    }
}

#[test]
fn a_temperature_that_f32_cannot_divide_by_is_refused() {
    let model = fixture_model("qwen2");
    let prompt = vec![5, 12];
    let drawn = |temperature: f64, greedy: bool| {
        let options = SampleOptions { n: 2, max_tokens: 3, temperature, greedy, ..SampleOptions::default() };
        sample(&solo(), model.clone(), std::slice::from_ref(&prompt), &options, Key::new(7))
    };
    let (cold, best) = (drawn(1e-6, false).unwrap(), drawn(1.0, true).unwrap());
    for (row, greedy) in cold.rows.iter().zip(best.rows.iter()) {
        assert_eq!(row.completion, greedy.completion);
    }
    assert!(cold.logprobs.iter().flatten().all(|x| *x == 0.0), "{:?}", cold.logprobs);
    assert!(drawn(1e-30, false).is_ok() && drawn(1e30, false).is_ok());
    let e = drawn(1e-40, false).err().unwrap();
    assert!(e.what.contains("temperature must be at least 1e-30") && e.what.ends_with("found 1e-40"), "{e}");
}

fn ending_model() -> Arc<Model> {
    let model = random_model(VOCABULARY as usize, 16, 2, 3);
    let mut model = Arc::try_unwrap(model).unwrap();
    model.info.eos = vec![END];
    Arc::new(model)
}

/// Every answer: up to LENGTH tokens, ending at END.
fn answers() -> Vec<Vec<u32>> {
    let mut done = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(answer) = open.pop() {
        for token in 0..VOCABULARY {
            let mut longer: Vec<u32> = answer.clone();
            longer.push(token);
            if token == END || longer.len() == LENGTH { done.push(longer) } else { open.push(longer) }
        }
    }
    done
}

/// The distribution after `filter` from the full one.
type Filter = fn(&[f64]) -> Vec<f64>;

fn keep(p: &[f64], kept: impl Fn(usize) -> bool) -> Vec<f64> {
    let total: f64 = (0..p.len()).filter(|&i| kept(i)).map(|i| p[i]).sum();
    (0..p.len()).map(|i| if kept(i) { p[i] / total } else { 0.0 }).collect()
}

/// How many tokens are more probable than token i.
fn rank(p: &[f64], i: usize) -> usize {
    p.iter().filter(|q| **q > p[i]).count()
}

fn top_k_3(p: &[f64]) -> Vec<f64> {
    keep(p, |i| rank(p, i) < 3)
}

fn top_p_80(p: &[f64]) -> Vec<f64> {
    // Kept while the more probable ones hold less than 0.8.
    keep(p, |i| p.iter().filter(|q| **q > p[i]).sum::<f64>() < 0.8)
}

fn min_p_30(p: &[f64]) -> Vec<f64> {
    let top = p.iter().copied().fold(0.0, f64::max);
    keep(p, |i| p[i] >= 0.3 * top)
}

/// Exact probabilities of all answers, from log-probs of every next token.
fn exact(model: &Arc<Model>, prompt: &[u32], temperature: f64, filter: Filter) -> BTreeMap<Vec<u32>, f64> {
    let mut next: BTreeMap<Vec<u32>, Vec<f64>> = BTreeMap::new();
    let prefixes: Vec<Vec<u32>> =
        answers().into_iter().flat_map(|a| (0..a.len()).map(move |n| a[..n].to_vec())).collect();
    for prefix in prefixes {
        let row = |token: u32| Row::new(prompt, [&*prefix, &[token]].concat());
        let rows = Rows::new((0..VOCABULARY).map(row).collect());
        let logp = measured_at(&solo(), model, &rows, temperature, Measure::Logprob).unwrap().to_rows().unwrap();
        next.insert(prefix.clone(), filter(&logp.iter().map(|row| row[prefix.len()].exp()).collect::<Vec<_>>()));
    }
    let probability = |a: &Vec<u32>| (0..a.len()).map(|t| next[&a[..t].to_vec()][a[t] as usize]).product::<f64>();
    answers().into_iter().map(|a| (a.clone(), probability(&a))).collect()
}

/// P(χ² with k degrees of freedom > x), by the Wilson–Hilferty approximation.
fn tail(x: f64, k: f64) -> f64 {
    let z = ((x / k).powf(1.0 / 3.0) - (1.0 - 2.0 / (9.0 * k))) / (2.0 / (9.0 * k)).sqrt();
    // Abramowitz & Stegun 26.2.17
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let upper = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if z > 0.0 { upper } else { 1.0 - upper }
}

fn frequencies_agree(name: &str, options: SampleOptions, filter: Filter) {
    let model = ending_model();
    let prompt = [2, 0];
    let options = SampleOptions { max_tokens: LENGTH, ..options };
    let expected = exact(&model, &prompt, options.temperature, filter);
    assert!((expected.values().sum::<f64>() - 1.0).abs() < 1e-4);
    let n = 5000;
    let mut counts: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
    for call in 0..DRAWS / n {
        let options = SampleOptions { n, ..options.clone() };
        let drawn = sample(&solo(), &model, &[prompt.to_vec()], &options, Key::new(11).fold(call as u64));
        for row in drawn.unwrap().rows.iter() {
            *counts.entry(row.completion.to_vec()).or_default() += 1;
        }
    }
    // Rare answers are taken together, so that every class is expected at least ten times.
    let (mut chi2, mut classes, mut rare, mut rare_seen) = (0.0, 0.0, 0.0, 0.0);
    for (answer, p) in &expected {
        let (mean, seen) = (p * DRAWS as f64, *counts.get(answer).unwrap_or(&0) as f64);
        if *p == 0.0 {
            assert_eq!(seen, 0.0, "{name}: {answer:?} cannot be sampled");
        } else if mean < 10.0 {
            (rare, rare_seen) = (rare + mean, rare_seen + seen);
        } else {
            chi2 += (seen - mean).powi(2) / mean;
            classes += 1.0;
        }
    }
    if rare >= 10.0 {
        chi2 += (rare_seen - rare).powi(2) / rare;
        classes += 1.0;
    }
    let p = tail(chi2, classes - 1.0);
    assert!(classes > 5.0, "{name}: only {classes} classes");
    assert!(p > 0.001, "{name}: χ² = {chi2:.1} over {classes} classes, p = {p:.5}");
}

#[test]
fn plain() {
    frequencies_agree("plain", SampleOptions::default(), |p| p.to_vec());
}

#[test]
fn temperature() {
    frequencies_agree("temperature", SampleOptions { temperature: 0.7, ..SampleOptions::default() }, |p| p.to_vec());
}

#[test]
fn top_k() {
    frequencies_agree("top_k", SampleOptions { top_k: Some(3), ..SampleOptions::default() }, top_k_3);
}

#[test]
fn top_p() {
    frequencies_agree("top_p", SampleOptions { top_p: Some(0.8), ..SampleOptions::default() }, top_p_80);
}

#[test]
fn min_p() {
    frequencies_agree("min_p", SampleOptions { min_p: Some(0.3), ..SampleOptions::default() }, min_p_30);
}

#[test]
fn the_test_itself_notices_a_wrong_distribution() {
    let wrong = std::panic::catch_unwind(|| {
        frequencies_agree("wrong", SampleOptions { temperature: 1.05, ..SampleOptions::default() }, |p| {
            let sharper: Vec<f64> = p.iter().map(|p| p.powf(1.1)).collect();
            let total: f64 = sharper.iter().sum();
            sharper.iter().map(|p| p / total).collect()
        });
    });
    assert!(wrong.is_err());
}
