use super::*;
use crate::run::metrics::Metrics;
use std::fs;

/// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
#[test]
fn checksums_are_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    let rising: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c(&rising), 0x46dd_794e);
    assert_eq!(crc32c(b""), 0);
}

/// The first twelve bytes of every event file that TensorFlow writes: 24, and its checksum.
#[test]
fn frames_are_those_of_tensorflow() {
    let version = [double(1, 0.0), message(3, VERSION.as_bytes())].concat();
    let framed = frame(&version);
    assert_eq!(framed[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    assert_eq!(framed.len(), 12 + 24 + 4);
}

/// The examples of protobuf's description of its encoding.
#[test]
fn fields_are_those_of_protobuf() {
    assert_eq!(integer(1, 150), [0x08, 0x96, 0x01]);
    assert_eq!(message(2, b"testing"), [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
    assert_eq!(varint(0), [0]);
    assert_eq!(varint(u64::MAX).len(), 10);
    assert_eq!(float(2, 1.0), [0x15, 0, 0, 0x80, 0x3f]);
}

#[test]
fn a_continued_run_keeps_what_was_written_before_its_checkpoint() {
    let dir = tempfile::tempdir().expect("a folder");
    let [path, events] = ["metrics.jsonl", FILE].map(|name| crate::files::anywhere(dir.path()).join(name));
    let bytes = || fs::read(&events).expect("events");
    let mut metrics = Metrics::create(&path).expect("begun");
    let step = |metrics: &mut Metrics, step: u64| {
        metrics.log("loss", step as f64);
        metrics.advance(step + 1).expect("written");
    };
    step(&mut metrics, 0);
    let (state, before) = (metrics.state().expect("a state"), bytes());
    step(&mut metrics, 1);
    drop(metrics);
    assert!(bytes().len() > before.len());

    let seconds = 1.5;
    drop(Metrics::resume(&path, &state, seconds).expect("resumed"));
    assert_eq!(bytes(), before, "cut back");
    // What has lost bytes, or lies there from elsewhere, is made again: as long, but by another clock.
    fs::write(&events, &before[..before.len() - 1]).expect("damaged");
    drop(Metrics::resume(&path, &state, seconds).expect("resumed"));
    assert_eq!(bytes().len(), before.len());
    let older = serde_json::json!({ "bytes": state.bytes, "hash": state.hash, "open": { "step": 1, "means": [] } });
    fs::write(&events, [&before[..], &before].concat()).expect("more than there were");
    drop(Metrics::resume(&path, &serde_json::from_value(older).expect("a state"), seconds).expect("resumed"));
    assert_eq!(bytes().len(), before.len());
}
