//! The event file that a run leaves for TensorBoard, read by a reader of this test: every number of `metrics.jsonl`, once.

use rhopo::run::names;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Logs numbers that are none or infinite, and a name that is the tag of another one.
const OWN: &str = r#"
let run = open_run(#{});
let policy = load_model("tiny");
let opt = adamw(policy, #{ lr: 1e-3 });
run.track(#{ policy: policy, opt: opt });
run.log(#{ eval: 0.25 });
for step in run.steps(6) {
    let b = encode(policy, [#{ prompt: `${step}+1=`, completion: " 4" }]);
    let stat = opt.step(-token_mean(logprob(policy, b), b.mask));
    run.log(#{ loss: stat.loss, "train/loss": 7.0, "part/größe": 1.0 / step, none: 0.0 / 0.0, most: 1.0 / 0.0 });
}
"#;

/// Tags and values by step.
type Scalars = BTreeMap<i64, BTreeMap<String, f32>>;

/// A cursor over a protobuf message: field numbers with their contents.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        n
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                all.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            wire => panic!("wire type {wire}"),
        };
        all.push((key >> 3, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    all
}

fn one(fields: &[(u64, Vec<u8>)], number: u64) -> &[u8] {
    let mut found = fields.iter().filter(|(field, _)| *field == number);
    let (_, content) = found.next().unwrap_or_else(|| panic!("no field {number}"));
    assert!(found.next().is_none(), "field {number} twice");
    content
}

/// What the file holds. Frames must fill it to its last byte; a step or a tag that comes twice fails.
fn read(folder: &Path) -> Scalars {
    let file = fs::read(folder.join("events.out.tfevents.rhopo")).expect("an event file");
    let (mut rest, mut records) = (&file[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().expect("eight")) as usize;
        records.push(fields(&rest[12..12 + length]));
        rest = &rest[12 + length + 4..];
    }
    assert_eq!(one(&records[0], 3), b"brain.Event:2");
    let mut scalars = Scalars::new();
    let mut last = 0.0;
    for record in &records {
        let time = f64::from_le_bytes(one(record, 1).try_into().expect("a double"));
        assert!(time >= last && time > 1.7e9, "{time} after {last}");
        last = time;
    }
    for record in &records[1..] {
        let step = i64::from_le_bytes(one(record, 2).try_into().expect("eight"));
        let mut tags = BTreeMap::new();
        for (_, value) in fields(one(record, 5)) {
            let value = fields(&value);
            let tag = String::from_utf8(one(&value, 1).to_vec()).expect("UTF-8");
            let number = f32::from_le_bytes(one(&value, 2).try_into().expect("a float"));
            assert!(tags.insert(tag.clone(), number).is_none(), "{tag} twice at step {step}");
        }
        assert!(scalars.insert(step, tags).is_none(), "step {step} twice");
    }
    scalars
}

/// Compares the event file with `metrics.jsonl`; `null` there is a number that is none, or infinite. Says how many there are.
fn compare(folder: &Path) -> usize {
    let scalars = read(folder);
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
    let mut count = 0;
    for line in text.lines() {
        let mut line: serde_json::Map<String, Value> = serde_json::from_str(line).expect("JSON");
        let step = line.remove("step").and_then(|step| step.as_i64()).expect("a step");
        let tags = &scalars[&step];
        assert_eq!(tags.len(), line.len(), "step {step}");
        for (name, value) in &line {
            let tag = Some(names::tag(name)).filter(|tag| !line.contains_key(tag)).unwrap_or_else(|| name.clone());
            let found = tags[&tag];
            match value.as_f64() {
                Some(value) => assert_eq!(found, value as f32, "{name} of step {step}"),
                None => assert!(!found.is_finite(), "{name} of step {step}: {found}"),
            }
            count += 1;
        }
    }
    assert_eq!(text.lines().count(), scalars.len());
    count
}

fn run(dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let out = command.current_dir(dir).arg("run").args(words).args(["--device", "cpu"]).output().expect("rhopo starts");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    said
}

#[test]
fn an_event_file_has_every_number_once_also_after_a_run_went_on() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), OWN).expect("written");
    run(dir.path(), &["own", "--out", "out", "--checkpoint", "4"]);
    let out = dir.path().join("out");
    let count = compare(&out);
    let last = read(&out).remove(&6).expect("step 6");
    assert!(last["none"].is_nan() && last["most"] == f32::INFINITY && last["part/größe"] == 1.0 / 6.0, "{last:?}");
    assert!(last["train/loss"] == 7.0 && last["loss"] != 7.0, "{last:?}");
    println!("{count} numbers in the event file and in metrics.jsonl");

    let before = fs::read(out.join("events.out.tfevents.rhopo")).expect("events");
    let state = fs::read(out.join("checkpoints/000004/state.json")).expect("a checkpoint");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let stood = state["metrics"]["events"].as_u64().expect("a length") as usize;
    fs::remove_file(out.join("status.json")).expect("as if it had been killed");
    let said = run(dir.path(), &["--resume", "out"]);
    assert!(said.contains("continuing after step 4"), "{said}");
    assert_eq!(compare(&out), count);
    let after = fs::read(out.join("events.out.tfevents.rhopo")).expect("events");
    assert!(stood < before.len() && before[..stood] == after[..stood], "what was written before the checkpoint stays");
}
