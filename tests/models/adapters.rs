//! Low-rank adapters: an adapter of PEFT against its numbers, merging, the reference under it, and its files.

use crate::common::solo::{Adamw, differentiate, logprob, measured, numbers_of, solo};
use crate::common::{fixtures, json, largest, mask, max_gap, mul, ragged_rows};
use rhopo::engine::{AdamwOptions, Measure, Settings, Solo};
use rhopo::gpu::Place;
use rhopo::kernel::{self, host};
use rhopo::model::rows::{Row, Rows};
use rhopo::model::{Adaptation, Head, LoraOptions, Model, OpenOptions, SaveDtype};
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Device, Tensor, ops};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

fn open(dir: &Path, adaptation: Adaptation) -> Arc<Model> {
    let options = OpenOptions { adaptation, ..OpenOptions::new(Key::new(7)) };
    Arc::new(Model::open(&rhopo::files::anywhere(dir.to_str().unwrap()), &options, &Place::Host).unwrap())
}

fn base() -> std::path::PathBuf {
    fixtures().join("models/qwen2")
}

fn stored() -> Arc<Model> {
    open(&base(), Adaptation::Stored(rhopo::files::anywhere(fixtures().join("adapters/qwen2-lora"))))
}

fn new_adapter(dir: &Path, targets: &[&str]) -> Arc<Model> {
    let all = ["all-linear"];
    let targets = if targets.is_empty() { &all[..] } else { targets };
    let targets = targets.iter().map(|t| t.to_string()).collect();
    open(dir, Adaptation::New(LoraOptions { rank: 3, alpha: 12.0, targets }))
}

struct Inputs {
    rows: Arc<Rows>,
    /// `[B,T]`
    weights: Tensor,
}

fn inputs() -> Inputs {
    let inputs = json("models/qwen2/inputs.json");
    let list = |v: &Value| -> Vec<u32> { v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect() };
    let lengths = inputs["prompt_lens"].as_array().unwrap();
    let row = |(row, prompt): (&Value, &Value)| {
        let (row, prompt) = (list(row), prompt.as_u64().unwrap() as usize);
        Row::new(&row[..prompt], &row[prompt..])
    };
    let rows = Rows::new(inputs["ids"].as_array().unwrap().iter().zip(lengths).map(row).collect());
    let mut cells = vec![0.0; rows.len() * rows.width()];
    for (i, row) in inputs["weights"].as_array().unwrap().iter().enumerate() {
        for (t, w) in row.as_array().unwrap().iter().enumerate() {
            cells[i * rows.width() + t] = w.as_f64().unwrap() as f32;
        }
    }
    let weights = Tensor::from_vec(cells, &[rows.len(), rows.width()], &Device::Cpu).unwrap();
    Inputs { rows, weights }
}

fn numbers(t: &candle_core::Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn the_adapter_of_peft_gives_its_numbers() {
    let (model, Inputs { rows, weights }) = (stored(), inputs());
    let path = fixtures().join("adapters/qwen2-lora/expected.safetensors");
    let expected = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let count = mask(&rows).to_vec().unwrap().iter().sum::<f64>();
    let plain = Settings { fused: false, ..Settings::default() };
    for settings in [Settings::default(), plain, Settings { token_budget: 1, ..Settings::default() }] {
        let logp = logprob(&model, &rows, &Solo::new(settings));
        for (i, row) in rows.iter().enumerate() {
            let got = &logp.to_rows().unwrap()[i][..row.completion.len()];
            assert!(max_gap(got, &numbers(&expected[&format!("logprob.{i}")])) < 1e-4, "row {i}");
        }
        let weighted = mul(&logp, &weights).with_tokens(false).sum(None).unwrap();
        let loss = mul(&weighted, &weighted.number(-1.0 / count).unwrap());
        let grads = numbers_of(&differentiate(&loss).unwrap()[0]);
        let mut checked = 0;
        for (i, (name, _)) in model.parameters().enumerate() {
            if !model.trains(i) {
                assert!(grads[i].is_none(), "the frozen {name} has a gradient");
                continue;
            }
            let want = numbers(&expected[&format!("grad.{name}")]);
            let gap = max_gap(grads[i].as_ref().unwrap(), &want);
            assert!(gap < 1e-3 * largest(&want), "gradient of {name} off by {gap}");
            checked += 1;
        }
        assert_eq!(checked, expected.keys().filter(|k| k.starts_with("grad.")).count());
    }
}

/// Targets by whole names, by ends of names and as a union of several families' names; an embedding in the file.
#[test]
fn adapters_of_peft_mean_the_maps_that_peft_matches() {
    let expected = json("adapters/peft/expected.json");
    let folder = |name: &str| fixtures().join("adapters/peft").join(name);
    let list = |key: &str| -> Vec<u32> { serde_json::from_value(expected[key].clone()).unwrap() };
    let rows = Rows::new(vec![Row::new(&list("prompt")[..], &list("completion")[..])]);
    let values = |model: &Arc<Model>| logprob(model, &rows, &Solo::new(Settings::default())).to_vec().unwrap();
    for name in ["full", "suffix", "union", "embedding"] {
        let model = open(&folder("base"), Adaptation::Stored(rhopo::files::anywhere(folder(name))));
        let want: Vec<f64> = serde_json::from_value(expected[name].clone()).unwrap();
        assert!(max_gap(&values(&model), &want) < 1e-4, "{name}");
        let dir = tempfile::tempdir().unwrap();
        model.save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
        let again = open(&folder("base"), Adaptation::Stored(rhopo::files::anywhere(dir.path())));
        assert_eq!(values(&again), values(&model), "{name} saved");
    }
}

/// Which maps a configuration means: a pattern of whole names, and what narrows it.
#[test]
fn targets_are_patterns_and_lists_that_are_narrowed() {
    let config = std::fs::read_to_string(fixtures().join("adapters/qwen2-lora/adapter_config.json")).unwrap();
    let meant = |change: Value| -> Vec<String> {
        let mut value: Value = serde_json::from_str(&config).unwrap();
        change.as_object().unwrap().iter().for_each(|(key, change)| value[key] = change.clone());
        let model = Model::load(&rhopo::files::anywhere(base()), &Place::Host).unwrap();
        let adapter = rhopo::model::Adapter::from_json(&value, &model.config).unwrap();
        adapter.linears(&model.config).into_iter().map(|linear| linear.name).collect()
    };
    let names = |layers: &[usize], maps: &[&str]| -> Vec<String> {
        layers.iter().flat_map(|l| maps.iter().map(move |map| format!("model.layers.{l}.{map}"))).collect()
    };
    let pattern = serde_json::json!({"target_modules": r".*\.(?!0)\d\.self_attn\.[qv]_proj"});
    assert_eq!(meant(pattern), names(&[1, 2], &["self_attn.q_proj", "self_attn.v_proj"]));
    let narrowed = serde_json::json!({"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2],
                                      "exclude_modules": ["2.mlp.down_proj"]});
    let both = [names(&[0], &["self_attn.q_proj", "mlp.down_proj"]), names(&[2], &["self_attn.q_proj"])].concat();
    assert_eq!(meant(narrowed), both);
    let one = serde_json::json!({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"});
    assert_eq!(meant(one), names(&[1], &["self_attn.q_proj"]));
    let of_several = LoraOptions { targets: vec!["q_proj".into(), "c_attn".into()], ..LoraOptions::default() };
    let options = OpenOptions { adaptation: Adaptation::New(of_several), ..OpenOptions::new(Key::new(7)) };
    let model = Model::open(&rhopo::files::anywhere(base().to_str().unwrap()), &options, &Place::Host).unwrap();
    assert_eq!(model.adapter.as_ref().unwrap().linears(&model.config).len(), 3);
}

#[test]
fn merged_weights_give_the_same_log_probs() {
    for (family, targets) in [
        ("qwen2", vec![]),
        ("gpt2", vec![]),
        ("gpt_neox", vec!["query_key_value", "dense"]),
        ("mistral", vec!["self_attn.o_proj"]),
        ("gemma2", vec![]),
        ("gemma3", vec!["q_proj", "down_proj"]),
        ("phi3", vec![]),
        ("olmo2", vec!["o_proj", "down_proj"]),
        ("smollm3", vec![]),
        ("granite", vec!["o_proj", "down_proj"]),
    ] {
        let model = new_adapter(&fixtures().join("models").join(family), &targets);
        let rows = ragged_rows(3, 2, 300, Key::new(4));
        let mut opt = Adamw::new(vec![model.clone()], AdamwOptions { lr: 0.05, ..AdamwOptions::default() }).unwrap();
        let before = logprob(&model, &rows, &solo()).to_vec().unwrap();
        for _ in 0..3 {
            let logp = mul(&logprob(&model, &rows, &solo()), &mask(&rows)).with_tokens(false);
            opt.step(&ops::NEG.on(&logp.sum(None).unwrap()).unwrap()).unwrap();
        }
        let after = logprob(&model, &rows, &solo()).to_vec().unwrap();
        assert!(max_gap(&before, &after) > 0.1, "{family}: the adapter has learned");
        let merged = model.merge().unwrap();
        assert!(merged.adapter.is_none() && merged.size == merged.trained);
        let gap = max_gap(&logprob(&merged, &rows, &solo()).to_vec().unwrap(), &after);
        assert!(gap < 1e-4, "{family}: merged log-probs are off by {gap}");
        let reference = model.reference().unwrap();
        assert_eq!(logprob(&reference, &rows, &solo()).to_vec().unwrap(), before, "{family}");
        assert!(!reference.trainable());
    }
}

#[test]
fn the_reference_and_frozen_copies_hold_no_second_copy_of_frozen_weights() {
    let model = stored();
    let (reference, frozen) = (model.reference().unwrap(), model.frozen().unwrap());
    for (i, (name, tensor)) in model.parameters().enumerate() {
        let place = |value: &kernel::value::Value| host::read(value.host().unwrap()).unwrap().as_ptr();
        let same = |other: &Model| place(other.parameter(name).unwrap()) == place(tensor);
        match model.trains(i) {
            false => assert!(same(&reference) && same(&frozen), "{name}"),
            true => assert!(!same(&frozen) && reference.parameter(name).is_err(), "{name}"),
        }
    }
}

#[test]
fn a_new_adapter_changes_nothing_and_follows_the_key() {
    let model = new_adapter(&base(), &["q_proj", "down_proj"]);
    let plain = open(&base(), Adaptation::None);
    let Inputs { rows, .. } = inputs();
    let of = |m: &Arc<Model>| logprob(m, &rows, &solo()).to_vec().unwrap();
    assert_eq!(of(&model), of(&plain));
    let (all, trained) = (model.size, model.trained);
    assert_eq!(trained, 3 * 3 * (48 + 48 + 104 + 48));
    assert_eq!(all - trained, plain.size);
    let a = "model.layers.1.mlp.down_proj.lora_A.weight";
    let again = new_adapter(&base(), &["q_proj", "down_proj"]);
    assert_eq!(model.parameter(a).unwrap().to_vec().unwrap(), again.parameter(a).unwrap().to_vec().unwrap());
    let bound = 1.0 / (104f64).sqrt();
    let values = numbers(model.parameter(a).unwrap().host().unwrap());
    assert!(largest(&values) <= bound && largest(&values) > 0.9 * bound);
}

#[test]
fn saved_adapters_hold_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    stored().save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
    let weights = |dir: &Path| {
        let file = candle_core::safetensors::load(dir.join("adapter_model.safetensors"), &Device::Cpu).unwrap();
        let mut all: Vec<_> = file.into_iter().map(|(name, t)| (name, t.dims().to_vec(), numbers(&t))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    assert_eq!(weights(dir.path()), weights(&fixtures().join("adapters/qwen2-lora")));
    assert!(!dir.path().join("model.safetensors").exists() && !dir.path().join("config.json").exists());
    assert!(dir.path().join("tokenizer.json").exists());
    // The folder names its model, so that it opens by itself.
    let text = std::fs::read_to_string(dir.path().join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&4.into(), &10.into()));
    std::fs::write(
        dir.path().join("adapter_config.json"),
        text.replace("\"qwen2\"", &format!("{:?}", base().to_str().unwrap())),
    )
    .unwrap();
    let again = open(dir.path(), Adaptation::None);
    let Inputs { rows, .. } = inputs();
    let of = |m: &Arc<Model>| logprob(m, &rows, &solo()).to_vec().unwrap();
    assert_eq!(of(&again), of(&stored()));
}

#[test]
fn an_adapter_and_a_whole_model_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    stored().save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
    let e = stored().merge().unwrap().save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap_err();
    assert!(
        e.what.ends_with("holds an adapter, beside which a whole model cannot be saved (adapter_config.json)"),
        "{e}"
    );
    stored().save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
    let other = tempfile::tempdir().unwrap();
    stored().merge().unwrap().save(&rhopo::files::anywhere(other.path()), SaveDtype::F32).unwrap();
    let e = stored().save(&rhopo::files::anywhere(other.path()), SaveDtype::F32).unwrap_err();
    assert!(e.what.ends_with("holds a whole model, beside which an adapter cannot be saved (config.json)"), "{e}");
    assert_eq!(
        stored().save(&rhopo::files::anywhere(Path::new("")), SaveDtype::F32).unwrap_err().what,
        "save: the folder's name is empty"
    );
}

#[test]
fn a_single_file_takes_the_place_of_shards() {
    let (from, dir) = (fixtures().join("models/llama3"), tempfile::tempdir().unwrap());
    for file in std::fs::read_dir(&from).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    open(dir.path(), Adaptation::None).save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
    let left = |name: &str| dir.path().join(name).exists();
    assert!(left("model.safetensors"));
    assert!(!left("model.safetensors.index.json") && !left("model-00002-of-00003.safetensors"));
    open(dir.path(), Adaptation::None);
}

#[test]
fn a_head_is_trained_beside_the_adapter_and_saved_with_it() {
    let options = |head, adaptation| OpenOptions { head, adaptation, ..OpenOptions::new(Key::new(7)) };
    let name = base().display().to_string();
    let lora = Adaptation::New(LoraOptions { rank: 2, alpha: 4.0, targets: vec!["v_proj".into()] });
    let model =
        Arc::new(Model::open(&rhopo::files::anywhere(&name), &options(Some(Head::Score), lora), &Place::Host).unwrap());
    let Inputs { rows, .. } = inputs();
    let score = |m: &Arc<Model>| measured(&solo(), m, &rows, Measure::Score).unwrap();
    let mut opt = Adamw::new(vec![model.clone()], AdamwOptions { lr: 1e-2, ..AdamwOptions::default() }).unwrap();
    let before = score(&model).to_vec().unwrap();
    opt.step(&score(&model).sum(None).unwrap()).unwrap();
    assert!(score(&model).to_vec().unwrap().iter().sum::<f64>() < before.iter().sum::<f64>());
    let dir = tempfile::tempdir().unwrap();
    model.save(&rhopo::files::anywhere(dir.path()), SaveDtype::F32).unwrap();
    let again = Model::open(
        &rhopo::files::anywhere(dir.path().to_str().unwrap()),
        &options(None, Adaptation::None),
        &Place::Host,
    )
    .unwrap();
    assert_eq!(score(&Arc::new(again)).to_vec().unwrap(), score(&model).to_vec().unwrap());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let config = std::fs::read_to_string(fixtures().join("adapters/qwen2-lora/adapter_config.json")).unwrap();
    let refused = |change: &dyn Fn(&mut Value)| {
        let dir = tempfile::tempdir().unwrap();
        let mut value: Value = serde_json::from_str(&config).unwrap();
        change(&mut value);
        std::fs::write(dir.path().join("adapter_config.json"), value.to_string()).unwrap();
        let from = fixtures().join("adapters/qwen2-lora/adapter_model.safetensors");
        std::fs::copy(from, dir.path().join("adapter_model.safetensors")).unwrap();
        let options = OpenOptions {
            adaptation: Adaptation::Stored(rhopo::files::anywhere(dir.path())),
            ..OpenOptions::new(Key::new(7))
        };
        Model::open(&rhopo::files::anywhere(base().to_str().unwrap()), &options, &Place::Host).unwrap_err().what
    };
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 8] = [
        (|c| c["peft_type"] = "IA3".into(), "peft_type is IA3, expected LORA"),
        (|c| c["use_dora"] = true.into(), "use_dora = true is not supported"),
        (|c| c["bias"] = "all".into(), "bias = \"all\" is not supported"),
        (|c| c["rank_pattern"] = serde_json::json!({"q_proj": 8}), "rank_pattern"),
        (|c| c["init_lora_weights"] = "pissa".into(), "init_lora_weights = \"pissa\" is not supported"),
        (|c| c["target_modules"] = serde_json::json!(["query"]), "unknown lora target `query`"),
        (|c| c["r"] = 8.into(), "expected shape [8, 104], found [4, 104]"),
        (|c| c["target_modules"] = serde_json::json!(["q_proj", "k_proj"]), "k_proj.lora_A.weight"),
    ];
    for (change, text) in cases {
        let what = refused(&change);
        assert!(what.contains(text), "{what:?} must contain {text:?}");
    }
    for (lora, text) in [
        (LoraOptions { rank: 0, ..LoraOptions::default() }, "lora: rank is 0, expected 1 to 48"),
        (LoraOptions { alpha: -1.0, ..LoraOptions::default() }, "lora: alpha is -1, expected a positive number"),
        (LoraOptions { targets: vec![], ..LoraOptions::default() }, "lora: targets is empty: nothing would be trained"),
        (LoraOptions { targets: vec!["q_prj".into()], ..LoraOptions::default() }, "unknown lora target `q_prj`"),
    ] {
        let options = OpenOptions { adaptation: Adaptation::New(lora), ..OpenOptions::new(Key::new(7)) };
        let e = Model::open(&rhopo::files::anywhere(base().to_str().unwrap()), &options, &Place::Host).unwrap_err();
        assert_eq!(e.what, text);
    }
    assert!(open(&base(), Adaptation::None).merge().unwrap_err().what.ends_with("has no adapter to merge"));
}

#[test]
fn a_configuration_of_another_program_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let at = rhopo::files::anywhere(dir.path());
    let model = Model::load(&rhopo::files::anywhere(fixtures().join("models/qwen2")), &Place::Host).unwrap();
    for own in ["{\"port\": 8080}", "[1, 2]", "not JSON"] {
        std::fs::write(dir.path().join("config.json"), own).unwrap();
        let e = model.save(&at, SaveDtype::F32).unwrap_err();
        assert!(e.what.ends_with("config.json is no model's: it has neither model_type nor architectures"), "{e}");
        assert_eq!(std::fs::read_to_string(dir.path().join("config.json")).unwrap(), own);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else was written");
    }
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    model.save(&at, SaveDtype::F32).unwrap();
    model.save(&at, SaveDtype::BF16).unwrap();
}
