//! Policy and critic on one trunk, held to a policy and a critic of their own.

use super::heads::{rows, weights, with_head};
use crate::common::solo::{Adamw, differentiate, measured, numbers_of, sample, solo};
use crate::common::{fixtures, largest, max_gap, mul};
use rhopo::engine::{AdamwOptions, Measure, SampleOptions, Settings, Solo};
use rhopo::gpu::Place;
use rhopo::model::{Adaptation, Head, LoraOptions, Model, OpenOptions, SaveDtype};
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Device, Tensor, ops};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A folder of weights with some of them under other names.
fn renamed(dir: &Path, rename: impl Fn(&str) -> Option<String>) {
    let path = dir.join("model.safetensors");
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let kept: HashMap<String, candle_core::Tensor> =
        tensors.into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor))).collect();
    candle_core::safetensors::save(&kept, path).unwrap();
}

/// A critic of its own that has the value head of `joint`.
fn critic_of(joint: &Model, base: &Path, head: &str) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    let at = rhopo::files::anywhere(dir.path());
    with_head(base, Head::Value).save(&at, SaveDtype::F32).unwrap();
    let config = std::fs::read(dir.path().join("config.json")).unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    joint.save(&at, SaveDtype::F32).unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    renamed(dir.path(), |name| match name.strip_prefix("v_head.summary") {
        Some(part) => Some(format!("{head}{part}")),
        None if name == "lm_head.weight" || name == "embed_out.weight" => None,
        None => Some(name.to_string()),
    });
    Arc::new(Model::load(&at, &Place::Host).unwrap())
}

/// Log-probs are the language model's to the bit, values those of a critic with the same head, and a loss of both has the
/// sum of their gradients, however the rows are cut and whatever is held.
#[test]
fn two_heads_on_one_trunk_give_what_two_models_give() {
    let mut worst = 0.0_f64;
    for (base, head) in [("qwen2", "score"), ("gpt2", "classifier"), ("gpt_neox", "classifier")] {
        let dir = fixtures().join("models").join(base);
        let joint = with_head(&dir, Head::LmValue);
        let policy = Arc::new(Model::load(&rhopo::files::anywhere(&dir), &Place::Host).unwrap());
        let critic = critic_of(&joint, &dir, head);
        let (rows, base_settings) = (rows(base), Settings::default());
        for settings in [
            base_settings.clone(),
            Settings { fused: false, ..base_settings.clone() },
            Settings { token_budget: 1, ..base_settings.clone() },
            Settings { keep_bytes: 0, ..base_settings },
        ] {
            let engine = Solo::new(settings);
            let ask = |model: &Arc<Model>, what| measured(&engine, model, &rows, what).unwrap();
            let weighed = |out: &Tensor| mul(out, &weights(out, &rows)).with_tokens(false).sum(None).unwrap();
            let (logp, value) = (ask(&joint, Measure::Logprob), ask(&joint, Measure::Value));
            let (own_logp, own_value) = (ask(&policy, Measure::Logprob), ask(&critic, Measure::Value));
            assert_eq!(logp.to_vec().unwrap(), own_logp.to_vec().unwrap(), "{base}");
            assert_eq!(value.to_vec().unwrap(), own_value.to_vec().unwrap(), "{base}");

            let both = ops::ADD.on(&weighed(&logp), &weighed(&value)).unwrap();
            let found = named(&joint, &both);
            let (of_policy, of_critic) = (named(&policy, &weighed(&own_logp)), named(&critic, &weighed(&own_value)));
            for (name, got) in &found {
                let other = name.replace("v_head.summary", head);
                let [one, two] = [of_policy.get(name), of_critic.get(&other)];
                let cell = |of: Option<&Vec<f64>>, i: usize| of.map_or(0.0, |of| of[i]);
                let want: Vec<f64> = (0..got.len()).map(|i| cell(one, i) + cell(two, i)).collect();
                assert!(one.is_some() || two.is_some(), "{base}: {name}");
                let gap = max_gap(got, &want) / largest(&want).max(1e-6);
                worst = worst.max(gap);
                assert!(gap < 1e-5, "{base}: gradient of {name} off by {gap}");
            }
            assert_eq!(found.len(), joint.parameters().count());
        }
    }
    println!("both heads against two models: gradients within {worst:.1e} of the largest");
}

/// Gradients by the names of parameters.
fn named(model: &Arc<Model>, loss: &Tensor) -> HashMap<String, Vec<f64>> {
    let grads = numbers_of(&differentiate(loss).unwrap()[0]);
    let names = model.parameters().map(|(name, _)| name.to_string());
    names.zip(grads).filter_map(|(name, grad)| Some((name, grad?))).collect()
}

/// What a policy has sampled needs no pass for its log-probs, and one for its values, which the log-probs' gradient then uses.
#[test]
fn values_and_log_probs_of_two_heads_share_a_pass() {
    let dir = fixtures().join("models/qwen2");
    let joint = with_head(&dir, Head::LmValue);
    let engine = solo();
    let ran = |before: [u64; 2]| {
        let now = engine.runs();
        [now[0] - before[0], now[1] - before[1]]
    };
    let options = SampleOptions { max_tokens: 6, ..SampleOptions::default() };
    let sampled = sample(&engine, &joint, &[vec![5, 9], vec![7]], &options, Key::new(0)).unwrap();
    let before = engine.runs();
    let logp = measured(&engine, &joint, &sampled.rows, Measure::Logprob).unwrap();
    assert_eq!(ran(before), [0, 0], "the sampler's record");
    let value = measured(&engine, &joint, &sampled.rows, Measure::Value).unwrap();
    assert_eq!(ran(before), [0, 1], "one that is held");
    let critic = critic_of(&joint, &dir, "score");
    let own = measured(&solo(), &critic, &sampled.rows, Measure::Value).unwrap();
    assert_eq!(value.to_vec().unwrap(), own.to_vec().unwrap());
    let total = |t: &Tensor| t.clone().with_tokens(false).sum(None).unwrap();
    rhopo::engine::differentiate(&engine, &ops::ADD.on(&total(&logp), &total(&value)).unwrap()).unwrap();
    assert_eq!(ran(before), [0, 1], "and no other");
}

#[test]
fn a_model_with_both_heads_is_saved_as_a_language_model_and_opened_with_both() {
    for (base, class) in
        [("qwen2", "Qwen2ForCausalLM"), ("gemma3", "Gemma3ForCausalLM"), ("gpt_neox", "GPTNeoXForCausalLM")]
    {
        let from = fixtures().join("models").join(base);
        let targets = LoraOptions { rank: 2, alpha: 4.0, ..LoraOptions::default() };
        for adaptation in [Adaptation::None, Adaptation::New(targets)] {
            let options = OpenOptions { head: Some(Head::LmValue), adaptation, ..OpenOptions::new(Key::new(3)) };
            let at = rhopo::files::anywhere(from.to_str().unwrap());
            let joint = Arc::new(Model::open(&at, &options, &Place::Host).unwrap());
            let trained =
                |name: &str| joint.parameters().enumerate().any(|(i, (own, _))| own == name && joint.trains(i));
            assert!(trained("v_head.summary.weight") && trained("v_head.summary.bias"), "{base}");
            let rows = rows(base);
            let mut opt =
                Adamw::new(vec![joint.clone()], AdamwOptions { lr: 1e-2, ..AdamwOptions::default() }).unwrap();
            let ask = |model: &Arc<Model>, what| measured(&solo(), model, &rows, what).unwrap();
            let [logp, value] = [Measure::Logprob, Measure::Value].map(|what| ask(&joint, what));
            let loss = ops::ADD.on(&mul(&value, &value), &logp).unwrap().with_tokens(false).sum(None).unwrap();
            opt.step(&loss).unwrap();
            let dir = tempfile::tempdir().unwrap();
            joint.save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
            let name = rhopo::files::anywhere(dir.path().to_str().unwrap());
            let again = Arc::new(Model::open(&name, &OpenOptions::new(Key::new(9)), &Place::Host).unwrap());
            assert_eq!((again.head, again.architecture.as_str()), (Head::LmValue, class));
            assert!(again.notes.is_empty(), "{:?}", again.notes);
            for what in [Measure::Logprob, Measure::Value] {
                let [one, other] = [&joint, &again].map(|model| ask(model, what.clone()).to_vec().unwrap());
                assert_eq!(one, other, "{base}");
            }
        }
    }
}

/// Of a reward model with a tied head there is a language model to put it beside; of others there is none left.
#[test]
fn a_value_head_beside_a_language_models_begins_as_the_stored_score_head() {
    let dir = fixtures().join("heads/gpt2-score");
    let (joint, critic) = (with_head(&dir, Head::LmValue), with_head(&dir, Head::Value));
    assert_eq!(joint.notes, critic.notes);
    let rows = rows("gpt2");
    let [one, other] =
        [&joint, &critic].map(|model| measured(&solo(), model, &rows, Measure::Value).unwrap().to_vec().unwrap());
    assert_eq!(one, other);
    let options = OpenOptions { head: Some(Head::LmValue), ..OpenOptions::new(Key::new(3)) };
    let dir = fixtures().join("heads/gpt_neox-value");
    let e = Model::open(&rhopo::files::anywhere(dir.to_str().unwrap()), &options, &Place::Host).unwrap_err();
    assert!(e.what.ends_with("is a GPTNeoXForTokenClassification, which holds no language-model head"), "{e}");
}

#[test]
fn a_value_head_is_the_same_on_its_own_and_beside_a_language_models() {
    let base = fixtures().join("models/qwen2");
    let rows = rows("qwen2");
    let ask = |model: &Arc<Model>, what| measured(&solo(), model, &rows, what).unwrap().to_vec().unwrap();
    let joint = with_head(&base, Head::LmValue);
    let [logp, value] = [Measure::Logprob, Measure::Value].map(|what| ask(&joint, what));
    let saved = |model: &Model| {
        let dir = tempfile::tempdir().unwrap();
        model.save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
        dir
    };
    let both = saved(&joint);
    let critic = with_head(both.path(), Head::Value);
    assert_eq!(ask(&critic, Measure::Value), value);
    let again = with_head(saved(&critic).path(), Head::LmValue);
    assert_eq!([Measure::Logprob, Measure::Value].map(|what| ask(&again, what)), [logp, value.clone()]);

    // As other programs write it: the configuration is that of a language model.
    let path = both.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("value_head");
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(ask(&with_head(both.path(), Head::LmValue), Measure::Value), value);
    let e = Model::load(&rhopo::files::anywhere(both.path()), &Place::Host).unwrap_err();
    assert!(e.what.contains("tensor v_head.summary.bias of shape [1]") && e.what.contains("has no place"), "{e}");
}

#[test]
fn a_head_that_a_loss_leaves_alone_has_a_gradient_of_zero() {
    for (base, head) in [("qwen2", None), ("gpt_neox", Some("embed_out.weight"))] {
        let dir = fixtures().join("models").join(base);
        let (joint, rows) = (with_head(&dir, Head::LmValue), rows(base));
        let policy = Arc::new(Model::load(&rhopo::files::anywhere(&dir), &Place::Host).unwrap());
        let loss = |model: &Arc<Model>, what| {
            let out = measured(&solo(), model, &rows, what).unwrap();
            mul(&out, &weights(&out, &rows)).with_tokens(false).sum(None).unwrap()
        };
        let (found, own) =
            (named(&joint, &loss(&joint, Measure::Logprob)), named(&policy, &loss(&policy, Measure::Logprob)));
        for (name, got) in &found {
            let zero = vec![0.0; got.len()];
            assert_eq!(got, own.get(name).unwrap_or(&zero), "{base}: {name}");
        }
        let found = named(&joint, &loss(&joint, Measure::Value));
        assert!(head.is_none_or(|head| found[head].iter().all(|x| *x == 0.0)), "{base}");
        assert!(found["v_head.summary.weight"].iter().any(|x| *x != 0.0), "{base}");
    }
}
