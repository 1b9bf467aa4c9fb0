//! Frozen models: GGUF files made from the fixtures against the numbers of the reference implementation, from random
//! models against candle's own quantised decoders, and damaged ones against their error texts.

pub mod write;

use crate::common::solo::{measured, measured_at, sample, solo};
use crate::common::{fixture_model, fixtures, host, json, max_gap, ragged_rows};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::{Device, Tensor as Data};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};
use rhopo::data::{Content as Words, Prompt, Prompts};
use rhopo::engine::{Engine, Measure, SampleOptions, SampleRequest, Samples, Settings, Solo};
use rhopo::error::{Error, Result};
use rhopo::model::gguf::{FORMATS, Frozen};
use rhopo::model::rows::{Row, Rows};
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::value::to_json;
use rhopo::tensor::rng::Key;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use write::Gguf;

/// Fixture, and the architecture that its GGUF file has.
const MODELS: [(&str, &str); 5] =
    [("qwen2", "qwen2"), ("qwen3", "qwen3"), ("llama2", "llama"), ("llama3", "llama"), ("mistral", "llama")];

/// A file in a folder of its own.
pub struct Written {
    pub folder: TempDir,
    pub path: PathBuf,
}

pub fn write(gguf: &Gguf, format: GgmlDType) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    gguf.write(&path, format);
    Written { folder, path }
}

impl Written {
    fn try_open(&self) -> Result<Frozen> {
        Frozen::open(&rhopo::files::anywhere(&self.path), None)
    }

    fn open(&self) -> Arc<Frozen> {
        Arc::new(self.try_open().unwrap_or_else(|e| panic!("{e}")))
    }
}

fn ids(v: &serde_json::Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn fixture_rows(name: &str) -> Arc<Rows> {
    let inputs = json(&format!("models/{name}/inputs.json"));
    let prompts = inputs["prompt_lens"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
    let row = |(row, prompt): (&serde_json::Value, usize)| {
        let row = ids(row);
        Row::new(&row[..prompt], &row[prompt..])
    };
    Rows::new(inputs["ids"].as_array().unwrap().iter().zip(prompts).map(row).collect())
}

/// The log-probs of the completions' tokens, row after row.
fn generate(
    engine: &Solo,
    model: &Arc<Frozen>,
    prompts: &[Vec<u32>],
    options: &SampleOptions,
    key: u64,
) -> Result<Samples> {
    let (model, prompts, options) = (model.into(), prompts.to_vec(), options.clone());
    let key = Key::new(key);
    engine.sample(&SampleRequest { call: "generate", model, prompts, places: None, options, key })
}

fn scores(model: &Arc<Frozen>, rows: &Arc<Rows>, engine: &Solo) -> Vec<f64> {
    let cells = measured(engine, model, rows, Measure::Logprob).unwrap().to_rows().unwrap();
    cells.into_iter().zip(rows.iter()).flat_map(|(cells, row)| cells[..row.completion.len()].to_vec()).collect()
}

fn expected_scores(name: &str, rows: &Rows) -> Vec<f64> {
    let path = fixtures().join(format!("models/{name}/expected.safetensors"));
    let expected = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let row = |i: usize| expected[&format!("logprob.{i}")].to_vec1::<f32>().unwrap();
    (0..rows.len()).flat_map(row).map(f64::from).collect()
}

fn mean_gap(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
}

#[test]
fn fixtures_in_f32_score_as_the_reference() {
    for (name, family) in MODELS {
        let (model, rows) = (write(&Gguf::fixture(name, family), GgmlDType::F32).open(), fixture_rows(name));
        let expected = expected_scores(name, &rows);
        for (way, settings) in [
            ("packed", Settings::default()),
            ("one row at a time", Settings { token_budget: 1, ..Settings::default() }),
            ("plain", Settings { fused: false, ..Settings::default() }),
        ] {
            let gap = max_gap(&scores(&model, &rows, &Solo::new(settings)), &expected);
            println!("{name} {way}: {gap:.1e}");
            assert!(gap < 1e-4, "{name}, {way}: log-probs off by {gap}");
        }
    }
}

#[test]
fn fixtures_in_f32_continue_as_the_reference() {
    for (name, family) in MODELS {
        let (model, rows) = (write(&Gguf::fixture(name, family), GgmlDType::F32).open(), fixture_rows(name));
        let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.prompt.to_vec()).collect();
        let options = SampleOptions { max_tokens: 12, greedy: true, ..SampleOptions::default() };
        let samples = generate(&solo(), &model, &prompts, &options, 0).unwrap();
        let greedy = &json(&format!("models/{name}/expected.json"))["greedy"];
        for (i, (row, want)) in samples.rows.iter().zip(greedy.as_array().unwrap()).enumerate() {
            let mut want = ids(want);
            if let Some(end) = want.iter().position(|t| model.eos.contains(t)) {
                want.truncate(end + 1);
            }
            assert_eq!(*row.completion, want, "{name}: row {i}");
        }
    }
}

#[test]
fn smaller_formats_stay_near_the_reference() {
    for (name, family) in MODELS {
        let (gguf, rows) = (Gguf::fixture(name, family), fixture_rows(name));
        let expected = expected_scores(name, &rows);
        for (format, most) in [(GgmlDType::F16, 2e-3), (GgmlDType::BF16, 2e-2), (GgmlDType::Q8_0, 5e-2)] {
            let got = scores(&write(&gguf, format).open(), &rows, &solo());
            let gap = mean_gap(&got, &expected);
            println!("{name} {format:?}: mean gap {gap:.1e}");
            assert!(gap > 0.0 || format == GgmlDType::BF16, "{name}: {format:?} changed nothing");
            assert!(gap < most, "{name}: {format:?} is off by {gap} on average");
        }
    }
}

/// The log-probs that candle's own decoder gives for the file, token by token.
fn candle_scores(path: &PathBuf, family: &str, rows: &Rows) -> Vec<f64> {
    let mut file = std::fs::File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut step: Box<dyn FnMut(u32, usize) -> Data> = match family {
        "llama" => {
            let mut model = quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
            Box::new(move |id, at| model.forward(&Data::new(&[[id]], &Device::Cpu).unwrap(), at).unwrap())
        }
        "qwen2" => {
            let mut model = quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
            Box::new(move |id, at| model.forward(&Data::new(&[[id]], &Device::Cpu).unwrap(), at).unwrap())
        }
        _ => {
            let mut model = quantized_qwen3::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
            Box::new(move |id, at| {
                if at == 0 {
                    model.clear_kv_cache();
                }
                model.forward(&Data::new(&[[id]], &Device::Cpu).unwrap(), at).unwrap()
            })
        }
    };
    let mut out = Vec::new();
    for row in rows.iter() {
        let tokens: Vec<u32> = row.prompt.iter().chain(&*row.completion).copied().collect();
        for at in 0..tokens.len() - 1 {
            let logits = step(tokens[at], at).flatten_all().unwrap().to_vec1::<f32>().unwrap();
            if at + 1 >= row.prompt.len() {
                let lse = logits.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln();
                out.push(f64::from(logits[tokens[at + 1] as usize]) - lse);
            }
        }
    }
    out
}

/// Candle's products with quantised weights round activations to 8 bits, which ours do not: its decoders run on the same
/// numbers in f32.
#[test]
fn quantised_files_score_as_candles_decoders_do_with_their_numbers() {
    let rows = ragged_rows(2, 2, 384, Key::new(5));
    for family in ["llama", "qwen2", "qwen3"] {
        let gguf = Gguf::random(family, 256, [4, 2], 64, 512);
        for format in [GgmlDType::F32, GgmlDType::Q8_0, GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q6K] {
            let own = scores(&write(&gguf, format).open(), &rows, &solo());
            let reference = candle_scores(&write(&gguf.rounded(format), GgmlDType::F32).path, family, &rows);
            let (gap, mean) = (max_gap(&own, &reference), mean_gap(&own, &reference));
            println!("{family} {format:?}: at most {gap:.1e}, mean {mean:.1e}");
            assert!(gap < 1e-4 && mean < 1e-5, "{family} {format:?}: off by {gap}, {mean} on average");
        }
    }
}

#[test]
fn quantised_files_score_as_their_own_numbers_in_f32() {
    let rows = ragged_rows(2, 2, 384, Key::new(6));
    for (family, tied) in [("llama", true), ("qwen2", false)] {
        let mut gguf = Gguf::random(family, 256, [4, 2], 64, 512);
        if tied {
            gguf.tensors.remove("output.weight");
        }
        for format in FORMATS.into_iter().filter(|format| *format != GgmlDType::F32) {
            let model = write(&gguf, format).open();
            let own = scores(&model, &rows, &solo());
            let reference = scores(&write(&gguf.rounded(format), GgmlDType::F32).open(), &rows, &solo());
            assert_eq!(own, reference, "{family} {format:?}");
            for (way, settings) in [
                ("one row at a time", Settings { token_budget: 1, share_prefixes: false, ..Settings::default() }),
                ("plain", Settings { fused: false, ..Settings::default() }),
            ] {
                let gap = max_gap(&scores(&model, &rows, &Solo::new(settings)), &own);
                assert!(gap < if way == "plain" { 1e-4 } else { 1e-12 }, "{family} {format:?} {way}: off by {gap}");
            }
        }
    }
}

#[test]
fn answers_carry_the_log_probs_that_scoring_gives() {
    let prompts = vec![vec![5, 6, 7], vec![9], vec![5, 6, 7]];
    for format in [GgmlDType::F32, GgmlDType::Q8_0, GgmlDType::Q4K] {
        let model = write(&Gguf::random("qwen3", 256, [4, 2], 64, 512), format).open();
        let options = SampleOptions { n: 3, max_tokens: 9, temperature: 0.7, ..SampleOptions::default() };
        let samples = generate(&solo(), &model, &prompts, &options, 1).unwrap();
        let scored = measured_at(&solo(), &model, &samples.rows, 0.7, Measure::Logprob).unwrap().to_rows().unwrap();
        for (i, (scored, sampled)) in scored.iter().zip(&samples.logprobs).enumerate() {
            let sampled: Vec<f64> = sampled.iter().map(|&v| f64::from(v)).collect();
            let gap = max_gap(&scored[..sampled.len()], &sampled);
            assert!(gap < 1e-5, "{format:?}, row {i}: off by {gap}");
            assert!(scored[sampled.len()..].iter().all(|&v| v == 0.0), "cells past a row's end are 0");
        }
    }
}

#[test]
fn answers_are_those_of_sample_for_the_same_key() {
    let policy = fixture_model("qwen2");
    let frozen = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::F32).open();
    let prompts = vec![vec![40, 41, 42], vec![50]];
    let options = SampleOptions { n: 4, max_tokens: 8, top_p: Some(0.95), ..SampleOptions::default() };
    let sampled = sample(&solo(), &policy, &prompts, &options, Key::new(2)).unwrap();
    let answered = generate(&solo(), &frozen, &prompts, &options, 2).unwrap();
    assert!(sampled.rows.iter().eq(answered.rows.iter()));
    assert_eq!((&sampled.texts, &sampled.finished), (&answered.texts, &answered.finished));
    let other = generate(&solo(), &frozen, &prompts, &options, 3).unwrap();
    assert!(!other.rows.iter().eq(answered.rows.iter()), "another key gives other answers");
}

#[test]
fn the_tokenizer_in_the_metadata_is_the_models() {
    for (name, family) in MODELS {
        let model = write(&Gguf::fixture(name, family), GgmlDType::F32).open();
        let (inputs, expected) =
            (json(&format!("models/{name}/inputs.json")), json(&format!("models/{name}/expected.json")));
        for (i, text) in inputs["texts"].as_array().unwrap().iter().enumerate() {
            let encoded = model.require_tokenizer("it").unwrap().encode_prompt(text.as_str().unwrap()).unwrap();
            assert_eq!(encoded, ids(&expected["encoded"][i]), "{name}: {text}");
            assert_eq!(
                model.require_tokenizer("it").unwrap().decode(&encoded),
                expected["decoded"][i].as_str().unwrap(),
                "{name}"
            );
        }
        assert!(model.eos.contains(&(expected["eos_token_id"].as_u64().unwrap() as u32)));
    }
}

#[test]
fn messages_are_rendered_by_the_template_in_the_metadata() {
    for (name, family) in MODELS {
        let mut gguf = Gguf::fixture(name, family);
        let model = write(&gguf, GgmlDType::F32).open();
        let mut checked = 0;
        for chat in json(&format!("models/{name}/expected.json"))["chats"].as_array().unwrap() {
            let messages = chat["messages"].as_array().unwrap().clone();
            if chat["add_generation_prompt"] != true
                || messages.last().unwrap()["role"] != "user"
                || chat["text"].is_null()
            {
                continue;
            }
            let prompt = Prompt { content: Words::Messages(messages), fields: Default::default() };
            let prompts = Prompts::of(vec![prompt]);
            let encoded = prompts.encode(&model, true).unwrap();
            assert_eq!(encoded[0], ids(&chat["ids"]), "{name}: {chat}");
            checked += 1;
        }
        assert!(checked >= 2, "{name}: {checked} dialogues");
        gguf.metadata.remove("tokenizer.chat_template");
        let e = write(&gguf, GgmlDType::F32).open().require_chat("it").err().unwrap();
        assert!(e.what.contains("has none in its metadata"), "{e}");
    }
}

#[test]
fn a_sentencepiece_tokenizer_is_made_from_scores() {
    let reference = json("gguf/sentencepiece.json");
    let list = |key: &str| reference[key].as_array().unwrap().clone();
    let mut gguf = Gguf::random("llama", 32, [2, 1], 16, 32);
    let rows = list("tokens").len();
    for name in ["token_embd.weight", "output.weight"] {
        gguf.tensors.insert(name.into(), Data::ones((rows, 32), candle_core::DType::F32, &Device::Cpu).unwrap());
    }
    let text = |v: &serde_json::Value| Value::String(v.as_str().unwrap().into());
    gguf.set("tokenizer.ggml.model", Value::String("llama".into()));
    gguf.set("tokenizer.ggml.tokens", Value::Array(list("tokens").iter().map(text).collect()));
    let scores = list("scores").iter().map(|v| Value::F32(v.as_f64().unwrap() as f32)).collect();
    gguf.set("tokenizer.ggml.scores", Value::Array(scores));
    let kinds = list("types").iter().map(|v| Value::I32(v.as_i64().unwrap() as i32)).collect();
    gguf.set("tokenizer.ggml.token_type", Value::Array(kinds));
    gguf.set("tokenizer.ggml.bos_token_id", Value::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Value::U32(2));
    let model = write(&gguf, GgmlDType::F32).open();
    for (i, text) in list("texts").iter().enumerate() {
        let text = text.as_str().unwrap();
        let want = ids(&reference["ids"][i]);
        assert_eq!(model.require_tokenizer("it").unwrap().encode(text).unwrap(), want, "{text:?}");
        assert_eq!(
            model.require_tokenizer("it").unwrap().encode_prompt(text).unwrap(),
            [&[1], &want[..]].concat(),
            "{text:?}"
        );
        assert_eq!(model.require_tokenizer("it").unwrap().decode(&want), reference["decoded"][i].as_str().unwrap());
    }
    assert_eq!(model.eos, [2]);
}

#[test]
fn a_pattern_has_several_names() {
    for (name, same) in [("deepseek-r1-qwen", "qwen2"), ("refact", "smollm"), ("olmo", "gpt-2")] {
        let ids = |pre: &str| {
            let mut gguf = Gguf::fixture("qwen2", "qwen2");
            gguf.set("tokenizer.ggml.pre", Value::String(pre.into()));
            let model = write(&gguf, GgmlDType::F32).open();
            model.require_tokenizer("it").unwrap().encode("It's 1234 + 5678,  in\n\nall: it'LL do").unwrap()
        };
        assert_eq!(ids(name), ids(same), "{name}");
    }
}

#[test]
fn a_tokenizer_beside_the_file_goes_before_the_metadata() {
    let mut gguf = Gguf::fixture("qwen2", "qwen2");
    gguf.set("tokenizer.ggml.pre", Value::String("unheard-of".into()));
    let written = write(&gguf, GgmlDType::F32);
    let e = written.try_open().err().unwrap();
    assert!(e.what.contains("`tokenizer.ggml.pre` is `unheard-of`"), "{e}");
    assert!(e.hint.unwrap().contains("put the tokenizer.json of the original model beside the file"));
    let source = fixtures().join("models/qwen2/tokenizer.json");
    let model = Frozen::open(&rhopo::files::anywhere(&written.path), Some(&rhopo::files::anywhere(&source))).unwrap();
    assert_eq!(
        model.require_tokenizer("it").unwrap().encode("12 + 30").unwrap(),
        fixture_model("qwen2").tokenizer.as_ref().unwrap().encode("12 + 30").unwrap()
    );
    std::fs::copy(&source, written.folder.path().join("tokenizer.json")).unwrap();
    // A folder stands for the only GGUF file in it.
    Frozen::open(&rhopo::files::anywhere(written.folder.path()), None).unwrap();
    std::fs::write(written.folder.path().join("generation_config.json"), r#"{"eos_token_id": [2, 7]}"#).unwrap();
    assert_eq!(written.open().eos, [2, 7]);
    let other = fixtures().join("models/llama3");
    let e = Frozen::open(&rhopo::files::anywhere(&written.path), Some(&rhopo::files::anywhere(&other))).err().unwrap();
    assert!(e.what.contains("belongs to another model: token "), "{e}");
}

/// The error of a file that `change` made from a good one.
fn error_of(change: impl FnOnce(&mut Gguf)) -> Error {
    let mut gguf = Gguf::fixture("qwen2", "qwen2");
    change(&mut gguf);
    write(&gguf, GgmlDType::F32).try_open().err().expect("refused")
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    let set = |key: &'static str, value: Value| move |g: &mut Gguf| g.set(key, value);
    let text = |t: &str| Value::String(t.into());
    let check = |change: Box<dyn FnOnce(&mut Gguf)>, what: &str| {
        let e = error_of(change);
        assert!(e.what.contains(what), "{e}, expected {what}");
        assert!(e.what.contains("model.gguf"), "{e}");
        e.hint.unwrap_or_default()
    };
    let hint =
        check(Box::new(set("general.architecture", text("gemma3"))), "the architecture `gemma3` is not supported");
    assert_eq!(hint, "supported in GGUF files: llama, qwen2, qwen3");
    check(Box::new(set("qwen2.expert_count", Value::U32(8))), "`qwen2.expert_count` is 8");
    check(Box::new(set("qwen2.rope.scaling.type", text("yarn"))), "the rotary scaling `yarn` is not supported");
    check(Box::new(set("qwen2.attention.sliding_window", Value::U32(64))), "`qwen2.attention.sliding_window` is set");
    check(Box::new(set("qwen2.attention.head_count", Value::U32(0))), "`qwen2.attention.head_count` is 0");
    check(Box::new(set("qwen2.attention.head_count_kv", Value::U32(3))), "4 query heads, 3 key heads");
    check(Box::new(set("qwen2.block_count", text("three"))), "`qwen2.block_count` must be a whole number");
    check(Box::new(set("qwen2.block_count", Value::U32(4))), "the tensor blk.3.");
    check(Box::new(set("qwen2.block_count", Value::U32(2))), "the tensor blk.2.");
    check(Box::new(set("split.count", Value::U16(2))), "split over several files");
    check(Box::new(set("tokenizer.ggml.model", text("t5"))), "a tokenizer of the kind `t5`");
    check(Box::new(set("tokenizer.ggml.eos_token_id", Value::U32(999))), "the end token 999 is outside");
    check(Box::new(|g: &mut Gguf| drop(g.metadata.remove("qwen2.context_length"))), "no `qwen2.context_length`");
    check(Box::new(|g: &mut Gguf| drop(g.metadata.remove("tokenizer.ggml.tokens"))), "holds no tokenizer");
    check(
        Box::new(|g: &mut Gguf| drop(g.tensors.remove("blk.1.attn_q.bias"))),
        "the tensor blk.1.attn_q.bias is missing",
    );
    check(
        Box::new(|g: &mut Gguf| {
            drop(
                g.tensors.insert(
                    "blk.0.extra.weight".into(),
                    Data::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap(),
                ),
            );
        }),
        "the tensor blk.0.extra.weight is not one of its architecture's",
    );
    check(
        Box::new(|g: &mut Gguf| {
            let narrow = g.tensors["token_embd.weight"].narrow(0, 0, 100).unwrap().force_contiguous().unwrap();
            g.tensors.insert("token_embd.weight".into(), narrow);
        }),
        "the tokenizer has 384 tokens, but the model's embedding has 100 rows",
    );
    check(
        Box::new(|g: &mut Gguf| {
            drop(
                g.tensors.insert(
                    "output_norm.weight".into(),
                    Data::zeros(47, candle_core::DType::F32, &Device::Cpu).unwrap(),
                ),
            );
        }),
        "the tensor output_norm.weight has shape [47], expected [48]",
    );
    check(Box::new(set("general.alignment", Value::U32(0))), "general.alignment is 0");
}

#[test]
fn prompts_and_rows_must_fit() {
    let model = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::F32).open();
    let ask = |prompt: Vec<u32>| generate(&solo(), &model, &[prompt], &SampleOptions::default(), 0).unwrap_err().what;
    let context = "generate: prompt 0 has 200 tokens and max_tokens is 64, but the model's context holds 256";
    assert_eq!(ask(vec![5; 200]), context);
    assert_eq!(ask(vec![384]), "generate: prompt 0 holds token 384, but the vocabulary has 384 tokens");
    assert_eq!(ask(vec![]), "generate: prompt 0 has no tokens");
    let score = |prompt: Vec<u32>| {
        let rows = Rows::new(vec![Row::new(prompt, [1, 2])]);
        measured(&solo(), &model, &rows, Measure::Logprob).unwrap_err().what
    };
    assert_eq!(score(vec![5; 255]), "row 0 has 257 tokens, but the model's context holds 256");
    assert_eq!(score(vec![400]), "row 0 holds token 400, but the model's vocabulary has 384 tokens");
    let stopped = Settings::default();
    stopped.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let e = generate(&Solo::new(stopped), &model, &[vec![5]], &SampleOptions::default(), 0).unwrap_err();
    assert_eq!(e.what, "interrupted");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let written = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::F32);
    let good = std::fs::read(&written.path).unwrap();
    let refuse = |bytes: &[u8]| {
        std::fs::write(&written.path, bytes).unwrap();
        written.try_open().err().map(|e| e.what)
    };
    assert!(refuse(b"PK\x03\x04 an archive").unwrap().contains("is not a GGUF file"));
    assert!(refuse(b"").unwrap().contains("is not a GGUF file"));
    for cut in [5, 30, 400, good.len() / 2, good.len() - 1] {
        let what = refuse(&good[..cut]).expect("cut short");
        assert!(what.contains("could not be read") || what.contains("reaches past the end"), "{what}");
    }
    // Bytes of the header turned into others: most are refused, none may panic.
    let header = good.windows(17).rposition(|w| w == b"output_norm.weight".split_at(17).0).unwrap();
    for i in 0..400u64 {
        let key = Key::new(11).fold(i);
        let mut bytes = good.clone();
        for change in 0..1 + key.below(0, 3) {
            let at = 4 + key.below(2 * change + 1, header as u64) as usize;
            bytes[at] = [0, 1, 0xff, 0x7f, key.below(2 * change + 2, 256) as u8][key.below(100 + change, 5) as usize];
        }
        refuse(&bytes);
    }
}

#[test]
fn a_script_asks_a_judge() {
    let written = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::F32);
    let text = format!(
        "let judge = load_frozen(`{0}`);\n\
         let policy = load_model(`{1}`);\n\
         let b = sample(policy, [\"12 + 30 =\", \"7 * 6 =\"], #{{ n: 2, max_tokens: 5 }});\n\
         let asked = [];\n\
         for i in 0..b.rows {{ asked += [#{{ prompt: [#{{ role: \"user\", content: b.prompt[i] + b.text[i] }}], id: i }}]; }}\n\
         let verdicts = generate(judge, asked, #{{ max_tokens: 3, greedy: true }});\n\
         let again = generate(judge, asked, #{{ max_tokens: 3, greedy: true }});\n\
         let same = token_mean(abs(logprob(judge, b) - logprob(policy.frozen(), b)), b.mask);\n\
         let held = memory(judge, b);\n\
         let plain = memory(policy.frozen(), b).weights;\n\
         let size = held.weights >= plain && held.weights < 2 * plain && held.packed == 0;\n\
         [verdicts.rows, verdicts.id, verdicts.columns(), verdicts.text == again.text, same.item() < 1e-4,\n\
          b.old_logprob.shape == logprob(judge, b).shape, judge.to_string().contains(\"qwen2, F32\"), size]",
        written.path.display(),
        fixtures().join("models/qwen2").display()
    );
    let host = host();
    let out = to_json(&host.eval(&Source { label: "judge.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}")));
    let columns = ["finished", "id", "length", "mask", "old_logprob", "prompt", "text"];
    assert_eq!(out, serde_json::json!([4, [0, 1, 2, 3], columns, true, true, true, true, true]));
}

/// What a GGUF file says as a reward, against the same weights asked by hand.
#[test]
fn a_judge_gives_the_reward_of_a_task() {
    let written = write(&Gguf::fixture("qwen2", "qwen2"), GgmlDType::F32);
    let text = format!(
        "import \"std/judge\" as judge;\n\
         let task = load_task(\"arithmetic\", #{{ reward: `{0}` }});\n\
         let b = batch(#{{ prompt: [\"1+1=\", \"2+2=\"], text: [\"2\", \"five\"], answer: [\"2\", \"4\"] }});\n\
         let p = task.score(b);\n\
         let model = load_model(`{1}`);\n\
         let asked = `Question:\\n1+1=\\n\\nAnswer:\\n2\\n\\nIs this a good answer to the question? Say Yes or No.`;\n\
         let said = |word| #{{ prompt: [#{{ role: \"user\", content: asked }}], completion: [#{{ role: \"assistant\", content: word }}] }};\n\
         let b_said = encode(model, [said.call(\"Yes\"), said.call(\"No\")]);\n\
         let own = arange(b_said.mask.shape[1]) < b_said.length - 1;\n\
         let logp = seq_sum(logprob(model, b_said), own).to_array();\n\
         let by_hand = 1.0 / (1.0 + exp(logp[1][0] - logp[0][0]));\n\
         let other = judge::compare(load_frozen(`{0}`), [\"1+1=\"], [\"2\"], [\"3\"]) + judge::compare(model, [\"1+1=\"], [\"3\"], [\"2\"]);\n\
         [p.shape, abs(p[0].item() - by_hand) < 1e-4, max(abs(p - judge::reward(b, model))).item() < 1e-4,\n\
          abs(other.item() - 1.0) < 1e-4, p[0].item() != p[1].item()]",
        written.path.display(),
        fixtures().join("models/qwen2").display()
    )
    // Texts in backticks know no escapes.
    .replace("\\n", "\n");
    let out = to_json(&host().eval(&Source { label: "judge.rhai".into(), text }).unwrap_or_else(|e| panic!("{e:?}")));
    assert_eq!(out, serde_json::json!([[2, 1], true, true, true, true]));
}
