//! Names that files may have, and files that are not as they should be.

use super::*;
use crate::tensor::rng::Key;
use serde_json::{Value, json};
use tempfile::TempDir;

type Tensors = Vec<(&'static str, Vec<usize>, Vec<f32>)>;

/// Sorted by name, as `write` wants it.
fn some() -> Tensors {
    vec![("model.a", vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]), ("model.b", vec![3], vec![5.0, 6.0, 7.0])]
}

fn folder(tensors: &Tensors) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    write(&crate::files::anywhere(dir.path().join(SINGLE)), tensors, SaveDtype::F32).expect("written");
    dir
}

fn wanted(tensors: &Tensors) -> Vec<Wanted> {
    Wanted::all(tensors.iter().map(|(name, shape, _)| (name.to_string(), shape.clone())))
}

fn names() -> Naming {
    Naming { base: "model.", ..Naming::default() }
}

fn values(tensors: &Tensors) -> Vec<Option<Vec<f32>>> {
    tensors.iter().map(|(_, _, values)| Some(values.clone())).collect()
}

/// A file with this header over `data` bytes of zeros.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

fn refused(header: &str, data: usize) -> String {
    let bytes = file(header, data);
    let wanted = Wanted::all([("a".to_string(), vec![2]), ("b".to_string(), vec![2])]);
    let e = read_bytes(&bytes, "x.safetensors", &wanted, &Naming::default()).expect_err(header);
    assert!(e.hint.is_some(), "{e}");
    e.what
}

fn entry(offsets: &str) -> String {
    format!("{{\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": {offsets}}}")
}

#[test]
fn what_f16_has_no_number_for_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = crate::files::anywhere(dir.path()).join(SINGLE);
    // 65504 is the largest number of f16, and 65520 the smallest that rounds beyond it.
    let mut tensors: Tensors =
        vec![("model.a", vec![2], vec![65504.0, -65519.0]), ("model.b", vec![1], vec![-65520.0])];
    let e = write(&path, &tensors, SaveDtype::F16).expect_err("too large");
    assert_eq!(e.what, "tensor model.b holds -65520, which f16 has no number for");
    assert!(e.hint.is_some_and(|hint| hint.contains("bf16")) && !path.exists(), "nothing is written");
    write(&path, &tensors, SaveDtype::BF16).expect("bf16 goes further");
    tensors.pop();
    write(&path, &tensors, SaveDtype::F16).expect("within f16");
}

#[test]
fn every_position_is_checked() {
    let (a, b) = (entry("[0, 8]"), entry("[8, 16]"));
    let good = format!("{{\"__metadata__\": {{\"format\": \"pt\"}}, \"a\": {a}, \"b\": {b}}}");
    let wanted = Wanted::all([("a".to_string(), vec![2]), ("b".to_string(), vec![2])]);
    read_bytes(&file(&good, 16), "x", &wanted, &Naming::default()).expect("as it should be");
    let with = |b: &str| format!("{{\"a\": {a}, \"b\": {b}}}");
    let cases = [
        (with(&entry("[-8, 0]")), 16, "tensor b: data_offsets is [-8, 0], expected where its bytes begin and end"),
        (with(&entry("[16, 8]")), 16, "tensor b: data_offsets is [16, 8], expected where its bytes begin and end"),
        (with(&entry("[8.5, 16]")), 16, "tensor b: data_offsets is [8.5, 16], expected where its bytes begin and end"),
        (with(&entry("[8]")), 16, "tensor b: data_offsets is [8], expected where its bytes begin and end"),
        (with(&entry("[8, 1e30]")), 16, "tensor b: data_offsets is [8, 1e+30], expected where its bytes begin and end"),
        (with(&entry("[8, 12]")), 16, "tensor b: shape [2] of type F32 cannot lie in bytes 8..12"),
        (with(&entry("[4, 12]")), 12, "tensors a and b overlap: they lie in bytes 0..8 and 4..12"),
        (with(&entry("[0, 8]")), 8, "tensors a and b overlap: they lie in bytes 0..8 and 0..8"),
        (with(&entry("[12, 20]")), 20, "bytes 8..12 of the data belong to no tensor"),
        (with(&b), 20, "bytes 16..20 of the data belong to no tensor"),
        (with(&b.replace("[2]", "[-2]")), 16, "tensor b: the shape is [-2], expected sizes"),
        (
            with(&b.replace("[2]", "[4294967296, 4294967296, 4294967296]")),
            16,
            "tensor b: shape [4294967296, 4294967296, 4294967296] of type F32 cannot lie in bytes 8..16",
        ),
        (with(&b.replace("F32", "F31")), 16, "tensor b: the type \"F31\" is unknown"),
    ];
    for (header, data, text) in cases {
        assert_eq!(refused(&header, data), format!("x.safetensors: {text}"));
    }
    let end = 8 + with(&b).len() + 16;
    let cut = format!(
        "x.safetensors: tensor b of shape [2] ends at byte {end}, but the file has {} bytes: it is cut short",
        end - 1
    );
    assert_eq!(refused(&with(&b), 15), cut);
}

#[test]
fn headers_that_are_no_table_of_tensors_say_so() {
    let a = entry("[0, 8]");
    let cases = [
        (format!("{{\"a\": {a}, \"a\": {a}}}"), "a appears twice"),
        (
            "{\"a\": 3}".into(),
            "tensor a: invalid type: integer `3`, expected an object with dtype, shape and data_offsets",
        ),
        ("{\"a\": {\"dtype\": \"F32\", \"shape\": [2]}}".into(), "tensor a: missing field `data_offsets`"),
        (
            a.replacen('{', "{\"dtype\": \"F32\", ", 1).replacen('{', "{\"a\": {", 1) + "}",
            "tensor a: duplicate field `dtype`",
        ),
        ("[1]".into(), "invalid type: sequence, expected an object"),
        ("[".repeat(100_000), "expected an object"),
        ("{\"a\":".repeat(100_000), "tensor a: "),
        (format!("{{\"__metadata__\": {}", "[".repeat(100_000)), "EOF while parsing a list"),
        ("".into(), "EOF while parsing a value"),
    ];
    for (header, text) in cases {
        let what = refused(&header, 8);
        assert!(what.starts_with("x.safetensors: the header could not be read: ") && what.contains(text), "{what}");
        assert!(what.len() < 250, "{what}");
    }
}

#[test]
fn files_of_a_trunk_alone_leave_the_prefix_out() {
    let bare: Tensors =
        some().into_iter().map(|(name, s, v)| (name.strip_prefix("model.").expect("prefix"), s, v)).collect();
    let dir = folder(&bare);
    assert_eq!(read(&crate::files::anywhere(dir.path()), &wanted(&some()), &names()).expect("read"), values(&some()));
    let e = read(&crate::files::anywhere(dir.path()), &wanted(&some()), &Naming::default())
        .expect_err("no prefix is known");
    assert!(e.what.contains("tensor model.a of shape [2, 2] is missing"), "{e}");
}

#[test]
fn buffers_of_old_checkpoints_are_no_parameters() {
    let buffers = [
        "h.0.attn.bias",
        "transformer.h.11.attn.masked_bias",
        "gpt_neox.layers.3.attention.bias",
        "gpt_neox.layers.3.attention.masked_bias",
        "gpt_neox.layers.3.attention.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "rotary_emb.inv_freq",
    ];
    for name in buffers {
        let mut tensors = some();
        tensors.push((name, vec![1], vec![1.0]));
        assert_eq!(
            read(&crate::files::anywhere(folder(&tensors).path()), &wanted(&some()), &names()).expect(name),
            values(&some())
        );
    }
    let parameters = [
        "h.0.attn.c_attn.bias",
        "h.0.attn.c_proj.bias",
        "gpt_neox.layers.3.attention.dense.bias",
        "model.bias",
        "inv_freq",
    ];
    for name in parameters {
        let mut tensors = some();
        tensors.push((name, vec![1], vec![1.0]));
        let e = read(&crate::files::anywhere(folder(&tensors).path()), &wanted(&some()), &names()).expect_err(name);
        assert!(e.what.starts_with(&format!("tensor {name} of shape [1] in ")), "{e}");
        assert_eq!(
            read(&crate::files::anywhere(folder(&tensors).path()), &wanted(&tensors), &names()).expect(name),
            values(&tensors)
        );
    }
}

#[test]
fn a_head_may_be_new_and_another_left_aside() {
    let mut tensors = some();
    tensors.insert(0, ("lm_head.weight", vec![1], vec![9.0]));
    let dir = folder(&tensors);
    let mut wanted = wanted(&some());
    wanted.push(Wanted { name: "score.weight".into(), shape: vec![1, 2], optional: true });
    let mut expected = values(&some());
    expected.push(None);
    let names = Naming { ignored: vec!["lm_head.weight".into()], ..names() };
    assert_eq!(read(&crate::files::anywhere(dir.path()), &wanted, &names).expect("read"), expected);
    wanted[2].optional = false;
    let e = read(&crate::files::anywhere(dir.path()), &wanted, &names).expect_err("it must be there");
    assert!(e.what.starts_with("tensor score.weight of shape [1, 2] is missing from "), "{e}");
    // An optional tensor that is there must still fit.
    wanted[2] = Wanted { name: "model.b".into(), shape: vec![4], optional: true };
    wanted.remove(1);
    let e = read(&crate::files::anywhere(dir.path()), &wanted, &names).expect_err("another shape");
    assert!(e.what.ends_with("expected shape [4], found [3]"), "{e}");
}

#[test]
fn a_tied_head_repeats_the_embedding_or_stands_for_it() {
    let names = Naming { tied: Some(["model.b".into(), "head".into()]), ..names() };
    let with = |head: Vec<f32>| {
        let mut tensors = some();
        tensors.insert(0, ("head", vec![3], head));
        folder(&tensors)
    };
    let same = with(vec![5.0, 6.0, 7.0]);
    assert_eq!(
        read(&crate::files::anywhere(same.path()), &wanted(&some()), &names).expect("repeated"),
        values(&some())
    );
    let e = read(&crate::files::anywhere(with(vec![5.0, 6.0, 7.5]).path()), &wanted(&some()), &names)
        .expect_err("another head");
    assert!(e.what.ends_with("holds a head that differs from model.b, but config.json ties them"), "{e}");
    let alone = vec![("head", vec![3], vec![5.0, 6.0, 7.0]), some().remove(0)];
    assert_eq!(
        read(&crate::files::anywhere(folder(&alone).path()), &wanted(&some()), &names).expect("the head alone"),
        values(&some())
    );
}

/// Two shards and their index.
fn shards(map: Value) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (i, tensor) in some().into_iter().enumerate() {
        write(&crate::files::anywhere(dir.path().join(format!("{i}.safetensors"))), &[tensor], SaveDtype::F32)
            .expect("written");
    }
    std::fs::write(dir.path().join(INDEX), json!({"metadata": {}, "weight_map": map}).to_string()).expect("written");
    dir
}

#[test]
fn an_index_must_be_right() {
    let good = json!({"model.a": "0.safetensors", "model.b": "1.safetensors"});
    assert_eq!(
        read(&crate::files::anywhere(shards(good).path()), &wanted(&some()), &names()).expect("read"),
        values(&some())
    );
    let cases = [
        (
            json!({"model.a": "0.safetensors", "model.b": "0.safetensors"}),
            "0.safetensors holds the tensor model.b, which it does not",
        ),
        (
            json!({"model.a": "0.safetensors", "model.b": "1.safetensors", "model.c": "1.safetensors"}),
            "1.safetensors holds the tensor model.c, which it does not",
        ),
        (
            json!({"model.a": "0.safetensors", "model.b": "2.safetensors"}),
            "names the file \"2.safetensors\", which is not in the folder",
        ),
        (json!({"model.a": "../0.safetensors"}), "names the file \"../0.safetensors\", which is not in the folder"),
        (json!({"model.a": ["0.safetensors"]}), "the file of tensor model.a is [\"0.safetensors\"], expected a name"),
        (json!({}), "has no weight_map"),
        (json!(null), "has no weight_map"),
        (json!(["0.safetensors"]), "could not be read: invalid type: sequence, expected an object"),
    ];
    for (map, text) in cases {
        let e = read(&crate::files::anywhere(shards(map).path()), &wanted(&some()), &names()).expect_err(text);
        assert!(e.what.contains(text) && e.what.contains("safetensors.index.json") && e.hint.is_some(), "{e}");
    }
}

#[test]
fn a_shard_may_hold_what_the_index_does_not_list() {
    let mut tensors = vec![some().remove(1)];
    tensors.push(("model.c", vec![1], vec![8.0]));
    let dir = shards(json!({"model.a": "0.safetensors", "model.b": "1.safetensors"}));
    write(&crate::files::anywhere(dir.path().join("1.safetensors")), &tensors, SaveDtype::F32).expect("written");
    let mut all = some();
    all.extend(tensors.pop());
    assert_eq!(
        read(&crate::files::anywhere(dir.path()), &wanted(&all), &names()).expect("as transformers reads it"),
        values(&all)
    );
    let e = read(&crate::files::anywhere(dir.path()), &wanted(&some()), &names()).expect_err("no place for it");
    assert!(e.what.contains("tensor model.c of shape [1]"), "{e}");
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let dir = shards(json!({"model.a": "0.safetensors", "model.b": "1.safetensors"}));
    write(&crate::files::anywhere(dir.path().join("1.safetensors")), &some(), SaveDtype::F32).expect("written");
    let e = read(&crate::files::anywhere(dir.path()), &wanted(&some()), &names()).expect_err("twice");
    assert!(e.what.starts_with("tensor model.a is in two files: "), "{e}");
}

#[test]
fn half_precision_comes_back_as_the_same_bytes() {
    // Every finite number that the types can hold.
    let all = |decode: fn(u16) -> f32| -> Vec<f32> { (0..=u16::MAX).map(decode).filter(|x| x.is_finite()).collect() };
    let f16 = all(|bits| f16::from_bits(bits).to_f32());
    let bf16 = all(|bits| bf16::from_bits(bits).to_f32());
    for (dtype, numbers) in [(SaveDtype::F16, f16), (SaveDtype::BF16, bf16)] {
        let dir = tempfile::tempdir().expect("a folder");
        let [first, second] = ["1", "2"].map(|name| crate::files::anywhere(dir.path().join(name)));
        let shape = vec![numbers.len()];
        write(&first, &[("a", shape.clone(), numbers)], dtype).expect("written");
        let read = read_file(&first, &Wanted::all([("a".into(), shape.clone())]), &Naming::default()).expect("read");
        write(&second, &[("a", shape, read[0].clone().expect("there"))], dtype).expect("written");
        assert!(std::fs::read(first).expect("bytes") == std::fs::read(second).expect("bytes"), "{dtype:?}");
    }
}

#[test]
fn tensors_of_many_blocks_are_read_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = crate::files::anywhere(dir.path().join(SINGLE));
    let key = Key::new(7);
    for dtype in [SaveDtype::F32, SaveDtype::BF16] {
        let numbers: Vec<f32> = (0..700_001).map(|i| bf16::from_f64(key.normal(i)).to_f32()).collect();
        let tensors = [("a", vec![numbers.len()], numbers)];
        write(&path, &tensors, dtype).expect("written");
        let read = read_file(&path, &Wanted::all([("a".into(), vec![700_001])]), &Naming::default()).expect("read");
        assert!(read[0].as_ref() == Some(&tensors[0].2), "{dtype:?}");
    }
}
