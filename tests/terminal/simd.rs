//! `RHOPO_SIMD`: a run leaves the same bytes at every instruction set, and a level that there is not ends the program.

use rhopo::run::names;
use std::fs;
use std::process::Command;

/// Those of the levels that this processor has, and the others.
fn levels() -> [(&'static str, bool); 3] {
    #[cfg(target_arch = "x86_64")]
    let (avx2, avx512) = (
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw"),
    );
    #[cfg(not(target_arch = "x86_64"))]
    let (avx2, avx512) = (false, false);
    [("portable", true), ("avx2", avx2), ("avx512", avx2 && avx512)]
}

/// The metrics without the seconds, and the weights, of a step of GRPO.
fn step(level: Option<&str>) -> (String, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir.path()).env_remove("RHOPO_SIMD");
    command.args(["run", "grpo", "--out", "out", "--set", "steps=1", "prompts=4", "minibatch=16"]);
    if let Some(level) = level {
        command.env("RHOPO_SIMD", level);
    }
    let out = command.output().expect("rhopo starts");
    assert!(out.status.success(), "{level:?}: {}", String::from_utf8_lossy(&out.stderr));
    let read = |file: &str| fs::read(dir.path().join("out").join(file)).expect("left by the run");
    let metrics = String::from_utf8(read("metrics.jsonl")).expect("UTF-8");
    let parse = |line: &str| serde_json::from_str(line).expect("a map");
    let timeless = |line: &str| {
        let mut map: serde_json::Map<String, serde_json::Value> = parse(line);
        map.retain(|name, _| names::is_exact(name));
        serde_json::Value::from(map).to_string()
    };
    (metrics.lines().map(timeless).collect::<Vec<_>>().join("\n"), read("model/model.safetensors"))
}

#[test]
fn every_instruction_set_leaves_the_same_bytes() {
    let (metrics, weights) = step(None);
    assert!(metrics.contains("grad_norm"), "{metrics}");
    for (level, _) in levels().into_iter().filter(|(_, there)| *there) {
        let forced = step(Some(level));
        assert_eq!(forced.0, metrics, "{level}");
        assert!(forced.1 == weights, "{level}: other weights");
    }
}

#[test]
fn a_level_that_there_is_not_ends_the_program() {
    let missing = levels().into_iter().filter(|(_, there)| !there).map(|(level, _)| (level, "this processor has"));
    for (level, text) in missing.chain([("sse9", "RHOPO_SIMD: there is no instruction set `sse9`")]) {
        let out = Command::new(env!("CARGO_BIN_EXE_rhopo")).arg("list").env("RHOPO_SIMD", level).output();
        let out = out.expect("rhopo starts");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(text) && out.stdout.is_empty(), "{level}: {said}");
    }
}
