//! Models on a device against the same models on the CPU, by the same program: `rhopo gpu check models`.
//!
//! Owns what is compared and the bounds; prints nothing.

use crate::engine::{
    AdamwOptions, Engine, ForwardRequest, Measure, ModelHandle, OpenRequest, Settings, State, Stateful, StepRequest,
    Upstream, local,
};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::gpu::check::{Finding, Verdict};
use crate::gpu::{DType, Place};
use crate::model::OpenOptions;
use crate::model::rows::{Row, Rows};
use crate::tensor::rng::Key;
use std::sync::Arc;

/// How far a device may be from the CPU.
struct Bounds {
    /// Of log-probs, in nats.
    logprob: f64,
    /// Of all gradients together: the norm of the error as a share of the norm.
    gradient: f64,
}

const fn bounds(compute: DType) -> Bounds {
    match compute {
        DType::Bf16 => Bounds { logprob: 0.05, gradient: 0.05 },
        _ => Bounds { logprob: 1e-4, gradient: 1e-4 },
    }
}

/// Every model in the folder, which may be a model itself, in f32 and in bf16: log-probs, gradients, and log-probs again
/// after two steps of AdamW.
///
/// # Errors
/// A folder without models; a model that the CPU cannot run. What fails on the device is a finding.
pub fn models(folder: &Location, place: &Place) -> Result<Vec<Finding>> {
    let is_model = |path: &Location| files::is_file(&path.join("config.json"));
    let mut found = vec![folder.clone()];
    if !is_model(&found[0]) {
        found = files::entries(folder)?.into_iter().filter(is_model).collect();
    }
    if found.is_empty() {
        return Err(Error::model(format!("{} has no models", folder.display()))
            .hint("name a folder with config.json, or one that holds such folders"));
    }
    let mut findings = Vec::new();
    for path in found {
        let expected = trained(&path, DType::F32, &Place::Host)?;
        for compute in [DType::F32, DType::Bf16] {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let what = format!("{name} {}", compute.name());
            findings.push(match trained(&path, compute, place) {
                Ok(trained) => trained.against(&expected, &bounds(compute), what),
                Err(e) => Finding { what, found: e.what, verdict: Verdict::Wrong },
            });
        }
    }
    Ok(findings)
}

/// What a model came to.
struct Trained {
    before: Vec<f32>,
    gradients: Vec<f32>,
    after: Vec<f32>,
}

impl Trained {
    fn against(&self, expected: &Self, bounds: &Bounds, what: String) -> Finding {
        let before = gap(&self.before, &expected.before);
        let gradients = share(&self.gradients, &expected.gradients);
        let after = gap(&self.after, &expected.after);
        let holds = before <= bounds.logprob && gradients <= bounds.gradient && after <= bounds.logprob;
        let found = format!("log-probs {before:.1e}, gradients {gradients:.1e}, after two steps {after:.1e}");
        Finding { what, found, verdict: if holds { Verdict::Holds } else { Verdict::Wrong } }
    }
}

/// The largest distance; NaN where there is one.
fn gap(found: &[f32], expected: &[f32]) -> f64 {
    let gaps = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).abs());
    gaps.fold(0.0, |most, gap| if gap.is_nan() || gap > most { gap } else { most })
}

/// The norm of the error as a share of the norm.
fn share(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let error = squares(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    (error / squares(&mut expected.iter().map(|x| f64::from(*x)))).sqrt()
}

fn trained(path: &Location, compute: DType, place: &Place) -> Result<Trained> {
    // Nothing is clipped, so that the first moments after a step are the gradients, scaled.
    let options = AdamwOptions { lr: 1e-4, max_norm: f64::MAX, ..AdamwOptions::default() };
    let engine = &*local(Settings::at(place));
    let options_of_model = OpenOptions { compute, ..OpenOptions::new(Key::new(0)) };
    let model =
        engine.open(&OpenRequest::Stored { name: path.clone(), options: options_of_model, place: place.clone() })?;
    let rows = rows(model.vocab_size as u64);
    let moments = engine.moments(std::slice::from_ref(&model))?;
    let step = || -> Result<Vec<f32>> {
        let (values, upstream) = scored(engine, &model, &rows)?;
        let gradients = engine.backward(&upstream)?;
        engine.step(&StepRequest { moments: &moments, gradients: &gradients, options: &options })?;
        Ok(values)
    };
    let before = step()?;
    let State { tensors, .. } = engine.state(Stateful::Optimizer(&moments))?;
    let first = tensors.into_iter().filter(|(name, _)| name.starts_with("0/first/"));
    let gradients = first.flat_map(|(_, numbers)| numbers).collect();
    step()?;
    Ok(Trained { before, gradients, after: scored(engine, &model, &rows)?.0 })
}

/// Log-probs, and the gradient of their weighted mean.
fn scored(engine: &dyn Engine, model: &ModelHandle, rows: &Arc<Rows>) -> Result<(Vec<f32>, Vec<Upstream>)> {
    let (model, rows) = (model.clone(), rows.clone());
    let plane = engine.forward(&ForwardRequest { model, rows, temperature: 1.0, measure: Measure::Logprob })?;
    let count = plane.values.len();
    let weight = |at: usize| (Key::new(3).uniform(at as u64) * 2.0 - 1.0) as f32 / count as f32;
    // Cells past a row's end are 0, and no log-prob is.
    let weights = plane.values.iter().enumerate().map(|(at, value)| if *value == 0.0 { 0.0 } else { weight(at) });
    let weights = weights.collect();
    let upstream = plane.pass.map(|pass| Upstream { pass, values: weights });
    Ok((plane.values, upstream.into_iter().collect()))
}

/// Two answers to one prompt, one to another, of random tokens.
fn rows(vocabulary: u64) -> Arc<Rows> {
    let tokens = |stream: u64, count: u64| -> Arc<[u32]> {
        let key = Key::new(7).fold(stream);
        (0..count).map(|at| key.below(at, vocabulary) as u32).collect()
    };
    let rows = [(1, 9, 2, 14), (1, 9, 3, 5), (4, 3, 5, 20)];
    let row = |(prompt, length, completion, tokens_of)| Row::new(tokens(prompt, length), tokens(completion, tokens_of));
    Rows::new(rows.map(row).to_vec())
}

#[cfg(all(test, feature = "emulate"))]
mod tests {
    use super::*;
    use crate::gpu::Gpu;

    #[test]
    fn models_on_the_emulated_device_hold() {
        let folder =
            crate::run::access::Access::everything().at(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
        for name in ["qwen2", "gpt2", "gemma2"] {
            let found = models(&folder.join(name), &Place::Gpu(Gpu::emulated(2))).expect("findings");
            assert_eq!(found.len(), 2);
            for finding in found {
                assert_eq!(finding.verdict, Verdict::Holds, "{finding:?}");
            }
        }
    }

    #[test]
    fn what_is_off_or_lost_is_wrong() {
        let of = |x: f32| Trained { before: vec![x], gradients: vec![x], after: vec![x] };
        let verdict = |x: f32| of(x).against(&of(-2.0), &bounds(DType::F32), String::new()).verdict;
        assert_eq!([-2.0, -2.1, f32::NAN].map(verdict), [Verdict::Holds, Verdict::Wrong, Verdict::Wrong]);
        models(&crate::run::access::Access::everything().at(env!("CARGO_MANIFEST_DIR")), &Place::Host)
            .expect_err("no models there");
    }
}
