//! Sampling from mixtures: frequencies and log-probs against the exact probabilities that the members' own make.

use crate::common::random_model;
use crate::common::solo::{measured_at, solo};
use rhopo::engine::{
    Engine, Measure, Member, Mixing, MixtureRequest, ModelHandle, SampleOptions, SampleRequest, Samples,
};
use rhopo::model::Model;
use rhopo::model::rows::{Row, Rows};
use rhopo::tensor::rng::Key;
use std::sync::Arc;

const V: usize = 17;
const TEMPERATURE: f64 = 0.8;

struct Case {
    kind: Mixing,
    /// Each with the prompt that it reads.
    members: Vec<(Arc<Model>, Vec<u32>, f64)>,
}

fn cases() -> Vec<Case> {
    let (a, b) = (random_model(V, 16, 2, 1), random_model(V, 24, 1, 2));
    let member = |m: &Arc<Model>, prompt: &[u32], weight| (m.clone(), prompt.to_vec(), weight);
    vec![
        Case { kind: Mixing::Geometric, members: vec![member(&a, &[1, 2], 0.6), member(&b, &[3], 0.7)] },
        // Guidance: one model with a prompt, and away from itself without.
        Case { kind: Mixing::Geometric, members: vec![member(&a, &[1, 2, 3], 1.5), member(&a, &[4], -0.5)] },
        Case { kind: Mixing::Linear, members: vec![member(&a, &[1, 2], 1.0), member(&b, &[3], 3.0)] },
    ]
}

fn sampled(case: &Case, n: usize, max_tokens: usize) -> Samples {
    let options = SampleOptions { n, max_tokens, temperature: TEMPERATURE, ..SampleOptions::default() };
    let (model, prompts) = (ModelHandle::from(&case.members[0].0), vec![case.members[0].1.clone()]);
    let sample = SampleRequest { call: "sample", model, prompts, places: None, options, key: Key::new(1) };
    let member = |(m, prompt, weight): &(Arc<Model>, Vec<u32>, f64)| Member {
        model: m.into(),
        prompts: vec![prompt.clone()],
        weight: *weight,
    };
    let members = case.members.iter().map(member).collect();
    solo().sample_mixture(&MixtureRequest { kind: case.kind, members, sample }).unwrap()
}

/// p of every next token after an answer so far.
fn exact(case: &Case, answer: &[u32]) -> Vec<f64> {
    let of = |(model, prompt, _): &(Arc<Model>, Vec<u32>, f64)| -> Vec<f64> {
        let context: Arc<[u32]> = [&prompt[..], answer].concat().into();
        let rows = Rows::new((0..V as u32).map(|v| Row::new(context.clone(), [v])).collect());
        measured_at(&solo(), model, &rows, TEMPERATURE, Measure::Logprob).unwrap().to_vec().unwrap()
    };
    let all: Vec<Vec<f64>> = case.members.iter().map(of).collect();
    let weights = || case.members.iter().map(|member| member.2);
    let mass = |v: usize| match case.kind {
        Mixing::Geometric => all.iter().zip(weights()).map(|(logp, w)| w * logp[v]).sum::<f64>().exp(),
        Mixing::Linear => all.iter().zip(weights()).map(|(logp, w)| w * logp[v].exp()).sum(),
    };
    let masses: Vec<f64> = (0..V).map(mass).collect();
    let total: f64 = masses.iter().sum();
    masses.into_iter().map(|mass| mass / total).collect()
}

#[test]
fn frequencies_are_those_of_the_exact_probabilities() {
    for case in cases() {
        const N: usize = 20_000;
        let expected = exact(&case, &[]);
        let mut counts = [0.0; V];
        sampled(&case, N, 1).rows.iter().for_each(|row| counts[row.completion[0] as usize] += 1.0);
        let term = |(count, p): (&f64, &f64)| (count - N as f64 * p).powi(2) / (N as f64 * p);
        let chi2: f64 = counts.iter().zip(&expected).map(term).sum();
        println!("{:?}: χ² is {chi2:.1} of {} degrees of freedom", case.kind, V - 1);
        // 39.3 is passed by one in a thousand.
        assert!(chi2 < 39.3, "{:?}: {counts:?} for {expected:?}", case.kind);
    }
}

#[test]
fn log_probs_are_the_mixtures_own_and_rows_have_no_record() {
    for case in cases() {
        let samples = sampled(&case, 5, 4);
        for (row, logprobs) in samples.rows.iter().zip(&samples.logprobs) {
            assert_eq!(*row.prompt, case.members[0].1[..]);
            for (t, logprob) in logprobs.iter().enumerate() {
                let p = exact(&case, &row.completion[..t])[row.completion[t] as usize];
                assert!(
                    (f64::from(*logprob) - p.ln()).abs() < 2e-5,
                    "{:?}, token {t}: {logprob} for {}",
                    case.kind,
                    p.ln()
                );
            }
            let model = &case.members[0].0;
            assert!(row.recorded(model.id, model.version(), TEMPERATURE).is_none());
        }
    }
}
