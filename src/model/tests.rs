//! Folders: what is read, what is refused and how, what is written.

use super::save::write_json;
use super::*;
use crate::gpu::Place;
use crate::tensor::rng::Key;
use candle_core::Var;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2")
}

/// A copy of the fixture that a test may damage.
fn copy() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in [CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG, weights::SINGLE] {
        std::fs::copy(fixture().join(name), dir.path().join(name)).expect("copied");
    }
    dir
}

fn refused(dir: &TempDir) -> Error {
    Model::load(&crate::files::anywhere(dir.path()), &Place::Host).expect_err("must be refused")
}

/// Rewrites the header of the weights; the data stays.
fn edit_header(dir: &TempDir, edit: impl FnOnce(&mut Map<String, Value>)) {
    let path = dir.path().join(weights::SINGLE);
    let bytes = std::fs::read(&path).expect("weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    edit(&mut header);
    let text = serde_json::to_vec(&header).expect("text");
    let out = [&(text.len() as u64).to_le_bytes(), text.as_slice(), &bytes[8 + length..]].concat();
    std::fs::write(path, out).expect("written");
}

fn numbers(model: &Model) -> Vec<Vec<f32>> {
    model.parameters().map(|(_, t)| t.to_vec().expect("numbers")).collect()
}

#[test]
fn a_saved_model_is_the_same_and_saved_again_the_same_bytes() {
    let model = Model::load(&crate::files::anywhere(fixture()), &Place::Host).expect("loads");
    let (a, b) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    model.save(&crate::files::anywhere(a.path()), SaveDtype::F32).expect("saves");
    let again = Model::load(&crate::files::anywhere(a.path()), &Place::Host).expect("loads");
    assert_eq!(numbers(&model), numbers(&again));
    again.save(&crate::files::anywhere(b.path()), SaveDtype::F32).expect("saves");
    let mut names: Vec<_> =
        std::fs::read_dir(a.path()).expect("listing").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["chat_template.jinja", CONFIG, GENERATION, weights::SINGLE, TOKENIZER, TOKENIZER_CONFIG],
        "everything, and no temporary file"
    );
    for name in names {
        let read = |dir: &TempDir| std::fs::read(dir.path().join(&name)).expect("file");
        assert_eq!(read(&a), read(&b), "{name:?}");
    }
}

#[test]
fn half_precision_rounds_once() {
    let model = Model::load(&crate::files::anywhere(fixture()), &Place::Host).expect("loads");
    for (dtype, name, relative) in [(SaveDtype::F16, "float16", 1e-3), (SaveDtype::BF16, "bfloat16", 8e-3)] {
        let (a, b) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        model.save(&crate::files::anywhere(a.path()), dtype).expect("saves");
        let again = Model::load(&crate::files::anywhere(a.path()), &Place::Host).expect("loads");
        for (x, y) in numbers(&model).concat().iter().zip(numbers(&again).concat()) {
            assert!((x - y).abs() <= relative * x.abs() + 1e-7, "{x} became {y}");
        }
        assert_eq!(again.config.to_json()["torch_dtype"], name);
        again.save(&crate::files::anywhere(b.path()), dtype).expect("saves");
        let read = |dir: &TempDir| std::fs::read(dir.path().join(weights::SINGLE)).expect("weights");
        assert_eq!(read(&a), read(&b));
    }
}

#[test]
fn a_frozen_copy_does_not_follow_its_source() {
    let model = Model::load(&crate::files::anywhere(fixture()), &Place::Host).expect("loads");
    let frozen = model.frozen().expect("copies");
    let before = numbers(&frozen);
    let norm = model.parameter("model.norm.weight").and_then(|v| v.host()).expect("there");
    assert!(norm.is_variable() && model.trainable());
    Var::from_tensor(norm).expect("variable").set(&norm.detach().affine(2.0, 0.0).expect("doubled")).expect("set");
    assert_ne!(numbers(&model), before);
    assert_eq!(numbers(&frozen), before);
    assert!(
        !frozen.trainable()
            && frozen.parameters().all(|(_, v)| v.host().is_ok_and(|t| !t.is_variable() && t.is_contiguous()))
    );
    assert_ne!(model.id, frozen.id);
}

#[test]
fn a_missing_tensor_is_named() {
    let dir = copy();
    edit_header(&dir, |header| {
        header.remove("model.norm.weight");
    });
    let path = dir.path().join(weights::SINGLE);
    let expected = format!("tensor model.norm.weight of shape [48] is missing from {}", path.display());
    assert_eq!(refused(&dir).what, expected);
}

#[test]
fn an_extra_tensor_is_named() {
    let dir = copy();
    edit_header(&dir, |header| {
        let norm = header["model.norm.weight"].clone();
        header.insert("model.extra".into(), norm);
    });
    let what = refused(&dir).what;
    assert!(
        what.starts_with("tensor model.extra of shape [48] in ") && what.ends_with("has no place in the model"),
        "{what}"
    );
}

#[test]
fn a_wrongly_shaped_tensor_is_named_with_both_shapes() {
    let dir = copy();
    edit_header(&dir, |header| header["model.layers.1.mlp.up_proj.weight"]["shape"] = json!([48, 104]));
    let path = dir.path().join(weights::SINGLE);
    let expected = format!(
        "tensor model.layers.1.mlp.up_proj.weight in {}: expected shape [104, 48], found [48, 104]",
        path.display()
    );
    assert_eq!(refused(&dir).what, expected);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = std::fs::read(fixture().join(weights::SINGLE)).expect("weights");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    for length in [0, 5, 8, 100, header, header + 10, whole.len() - 1] {
        let dir = copy();
        std::fs::write(dir.path().join(weights::SINGLE), &whole[..length]).expect("written");
        let e = refused(&dir);
        assert!(e.what.contains(weights::SINGLE), "{}", e.what);
        if length >= header {
            assert!(e.what.contains("tensor model.") && e.what.ends_with("it is cut short"), "{}", e.what);
        }
        assert_eq!(e.hint.as_deref(), Some("the file is damaged or incomplete: fetch it again"));
    }
}

#[test]
fn damaged_headers_are_errors_and_not_panics() {
    type Edit = fn(&mut Map<String, Value>);
    let edits: [Edit; 4] = [
        |h| h["model.norm.weight"]["data_offsets"] = json!([100, 10]),
        |h| h["model.norm.weight"]["shape"] = json!([u64::MAX, 48]),
        |h| h["model.norm.weight"]["dtype"] = json!("Q4"),
        |h| h["model.norm.weight"] = json!(3),
    ];
    for edit in edits {
        let dir = copy();
        edit_header(&dir, edit);
        assert!(refused(&dir).what.contains("model.norm.weight"), "{}", refused(&dir).what);
    }
    let dir = copy();
    let mut bytes = std::fs::read(fixture().join(weights::SINGLE)).expect("weights");
    bytes[..8].fill(0xff);
    std::fs::write(dir.path().join(weights::SINGLE), bytes).expect("written");
    assert!(refused(&dir).what.contains("not a safetensors file"));
}

#[test]
fn a_number_that_is_not_finite_is_refused() {
    let dir = copy();
    let path = dir.path().join(weights::SINGLE);
    let mut bytes = std::fs::read(&path).expect("weights");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    assert!(refused(&dir).what.ends_with("is NaN"), "{}", refused(&dir).what);
}

#[test]
fn shards_are_read_through_their_index() {
    let model = Model::load(&crate::files::anywhere(fixture()), &Place::Host).expect("loads");
    let dir = copy();
    std::fs::remove_file(dir.path().join(weights::SINGLE)).expect("removed");
    let all: Vec<_> = model.parameters().map(|(n, t)| (n, t.dims().to_vec())).zip(numbers(&model)).collect();
    let mut map = Map::new();
    for (i, part) in all.chunks(10).enumerate() {
        let file = format!("model-{i}.safetensors");
        let part: Vec<_> = part.iter().map(|((name, shape), values)| (*name, shape.clone(), values.clone())).collect();
        part.iter().for_each(|(name, _, _)| _ = map.insert(name.to_string(), json!(file)));
        weights::write(&crate::files::anywhere(dir.path().join(file)), &part, SaveDtype::F32).expect("written");
    }
    let index = crate::files::anywhere(dir.path().join("model.safetensors.index.json"));
    write_json(&index, &json!({"weight_map": map})).expect("written");
    assert_eq!(
        numbers(&Model::load(&crate::files::anywhere(dir.path()), &Place::Host).expect("loads")),
        numbers(&model)
    );
    std::fs::remove_file(dir.path().join("model-1.safetensors")).expect("removed");
    let e = refused(&dir);
    assert!(e.what.ends_with("names the file \"model-1.safetensors\", which is not in the folder"), "{}", e.what);
}

#[test]
fn pickles_are_refused_with_the_reason() {
    let dir = copy();
    std::fs::rename(dir.path().join(weights::SINGLE), dir.path().join("pytorch_model.bin")).expect("renamed");
    let hint = refused(&dir).hint.expect("a hint");
    assert!(hint.starts_with("pytorch_model.bin is a pickle, which runs code when it is opened"), "{hint}");
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let dir = copy();
    let path = crate::files::anywhere(dir.path()).join(TOKENIZER);
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).expect("tokenizer")).expect("json");
    let mut token = tokenizer["added_tokens"][0].clone();
    (token["id"], token["content"]) = (json!(384), json!("<more>"));
    tokenizer["added_tokens"].as_array_mut().expect("a list").push(token);
    write_json(&path, &tokenizer).expect("written");
    // tokenizers numbers a new token after its vocabulary, whatever the file says.
    let e = refused(&dir);
    assert!(
        e.what.starts_with("tokenizer.json has ") && e.what.ends_with("the model's vocabulary has 384"),
        "{}",
        e.what
    );
}

#[test]
fn random_weights_follow_the_key() {
    let make = |seed| Model::builtin_random("tiny", Key::new(seed), &Place::Host).expect("built in");
    let (a, b, c) = (numbers(&make(1)), numbers(&make(1)), numbers(&make(2)));
    assert!(a == b && a != c);
    let model = make(1);
    let std = |name: &str| {
        let values: Vec<f32> = model.parameter(name).and_then(|v| v.to_vec()).expect("numbers");
        (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt()
    };
    let base = model.config.init_std as f32;
    assert!((std("model.layers.2.mlp.up_proj.weight") / base - 1.0).abs() < 0.02);
    assert!((std("model.layers.2.mlp.down_proj.weight") / base - 10f32.sqrt().recip()).abs() < 0.01);
    assert_eq!((std("model.norm.weight"), std("model.layers.0.self_attn.q_proj.bias")), (1.0, 0.0));
}

#[test]
fn tiny_reads_every_character_and_writes_it_back() {
    let model = Model::builtin_random("tiny", Key::new(0), &Place::Host).expect("built in");
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let text: String = ('\t'..='\n').chain(' '..='~').collect();
    let ids = tokenizer.encode(&text).expect("encodes");
    assert_eq!(ids.len(), text.chars().count(), "one token each");
    assert_eq!(ids, (7..104).collect::<Vec<u32>>());
    assert_eq!(tokenizer.decode(&ids), text);
    assert_eq!(tokenizer.decode(&[4, ids[2], 1, 0]), " ", "special tokens are left out");
    assert_eq!(tokenizer.encode_special("12<eos>").expect("encodes"), [26, 27, 1]);
    assert_eq!(tokenizer.encode("<eos>").expect("encodes"), [37, 78, 88, 92, 39], "ordinary text unless asked for");
    assert_eq!(tokenizer.encode("é").expect("encodes"), [3, 3], "one <unk> for each unknown byte");
    assert_eq!((tokenizer.eos(), model.config.eos.as_slice()), (Some(1), [1].as_slice()));
    assert_eq!(tokenizer.size(), model.config.vocab_size);
    assert!((900_000..1_100_000).contains(&model.config.parameter_count()));
}

#[test]
fn unknown_models_get_a_suggestion() {
    let e = Model::open(&crate::files::anywhere("tinny"), &OpenOptions::new(Key::new(0)), &Place::Host)
        .expect_err("no such model");
    assert_eq!(e.what, "unknown model `tinny`");
    assert!(e.hint.is_some_and(|hint| {
        hint.starts_with("did you mean `tiny`? (built in); otherwise give a folder with config.json")
    }));
}

#[test]
fn a_run_folder_of_its_name_does_not_hide_a_built_in_model() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("config.json"), "{\"seed\": 0}").expect("written");
    assert!(!weights::exist(&crate::files::anywhere(dir.path())));
    let error = Model::load(&crate::files::anywhere(dir.path()), &Place::Host).expect_err("no model");
    assert!(error.what.contains("architecture"), "{error}");
}
