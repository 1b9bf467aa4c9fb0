//! The commands beside `run`, as a person calls them: `new`, `doc`, `test`, `check`, `definitions`.

use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) struct Said {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) fn rhopo(dir: &Path, args: &[&str]) -> Said {
    let out = Command::new(env!("CARGO_BIN_EXE_rhopo")).current_dir(dir).args(args).output().expect("rhopo starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let said = Said { code: out.status.code().expect("a code"), out: text(out.stdout), err: text(out.stderr) };
    assert!(!said.err.contains("panicked"), "{}", said.err);
    said
}

pub(super) fn well(dir: &Path, args: &[&str]) -> String {
    let said = rhopo(dir, args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.out
}

#[test]
fn a_new_script_runs_under_its_own_name_and_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(well(dir.path(), &["new", "mine", "--from", "rloo"]).contains("rhopo run mine"));
    let text = fs::read_to_string(dir.path().join("mine.rhai")).expect("written");
    assert!(text.contains("//! Run:  rhopo run mine ") && text.contains("fn loss("), "{text}");
    well(dir.path(), &["check", "mine"]);
    fs::write(dir.path().join("mine.rhai"), "// edited").expect("written");
    let said = rhopo(dir.path(), &["new", "mine"]);
    assert!(said.code == 1 && said.err.contains("mine.rhai already exists"), "{}", said.err);
    assert_eq!(fs::read_to_string(dir.path().join("mine.rhai")).expect("there"), "// edited");
    for (args, text) in
        [(["new", "../x"], "is not a valid name for a script"), (["new", ""], "is not a valid name for a script")]
    {
        let said = rhopo(dir.path(), &args);
        assert!(said.code == 1 && said.err.contains(text), "{}", said.err);
    }
    assert!(rhopo(dir.path(), &["new", "other", "--from", "gpro"]).err.contains("did you mean `grpo`?"));
}

#[test]
fn doc_shows_a_function_with_what_its_example_prints() {
    let dir = tempfile::tempdir().expect("a folder");
    let page = well(dir.path(), &["doc", "k3"]);
    assert!(page.contains("kl::k3(") && page.contains("```rhai"), "{page}");
    assert!(well(dir.path(), &["doc", "pairing::labelled"]).contains("```text\n#{"));
    let list = well(dir.path(), &["doc"]);
    assert!(
        list.contains("std/schedule\n") && list.contains("schedule::warmup") && list.contains("Tensors\n"),
        "{list}"
    );
    let said = rhopo(dir.path(), &["doc", "lograob"]);
    assert!(said.code == 1 && said.err.contains("did you mean `logprob`?"), "{}", said.err);
}

#[test]
fn test_says_which_hold_and_shows_why_others_do_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = "fn test_good() { assert_close(1.0, 1.0); assert_throws(|| token_mean(1), \"token_mean\"); }\n\
                fn test_bad() { assert_close(tensor([[1.0, 2.0], [3.0, 9.0]]), [[1, 2.5], [3, 4]]); }\n\
                fn test_mute() { assert_throws(|| 1 + 1); }\n";
    fs::write(dir.path().join("own.rhai"), text).expect("written");
    let said = rhopo(dir.path(), &["test"]);
    assert_eq!(said.code, 1);
    assert!(said.out.starts_with("own.rhai\n  ok    test_good"), "{}", said.out);
    assert!(said.out.contains("FAIL  test_bad") && said.out.contains("1 passed, 2 failed in "), "{}", said.out);
    let far = "expected 4 at [1, 1], found 9: 2 of 4 numbers are further apart than 0.000001";
    assert!(said.err.contains(far) && said.err.contains("own.rhai:2:"), "{}", said.err);
    assert!(said.err.contains("expected an error, found 2"), "{}", said.err);
    well(dir.path(), &["test", "own.rhai", "--only", "good"]);
    let said = rhopo(dir.path(), &["test", "--only", "nothing"]);
    assert!(said.code == 1 && said.err.contains("no tests found"), "{}", said.err);
}

#[test]
fn test_goes_on_after_a_broken_file_and_takes_a_scripts_name() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a.rhai"), "fn test_a() { let x = [1; }\n").expect("written");
    fs::write(dir.path().join("b.rhai"), "fn test_b() { assert(true); }\n").expect("written");
    well(dir.path(), &["definitions", "."]);
    let said = rhopo(dir.path(), &["test"]);
    assert!(said.code == 1 && said.out.contains("ok    test_b"), "{}", said.out);
    assert!(said.err.contains("syntax error") && said.out.contains("1 passed, 1 failed"), "{}\n{}", said.out, said.err);
    assert!(!said.err.contains(".d.rhai"), "{}", said.err);
    assert!(well(dir.path(), &["test", "b"]).contains("1 passed"), "by its name");
    assert!(rhopo(dir.path(), &["test", "none"]).err.contains("none"), "there is no such file");
}

#[test]
fn check_prints_findings_for_people_and_for_editors() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), "let x = 1.0;\nprint(sigmiod(x));\n").expect("written");
    let said = rhopo(dir.path(), &["check", "own.rhai"]);
    assert!(
        said.code == 1 && said.err.contains("there is no function `sigmiod`") && said.err.contains("own.rhai:2:7"),
        "{}",
        said.err
    );
    let said = rhopo(dir.path(), &["check", "--json", "own.rhai", "grpo"]);
    let finding: serde_json::Value = serde_json::from_str(said.out.trim()).expect("one line of JSON");
    assert_eq!((finding["line"].as_u64(), finding["hint"].as_str()), (Some(2), Some("did you mean `sigmoid`?")));
    assert_eq!(rhopo(dir.path(), &["check", "none"]).code, 1);
}

#[test]
fn definitions_are_written_for_editors() {
    let dir = tempfile::tempdir().expect("a folder");
    well(dir.path(), &["definitions", "out"]);
    let text = fs::read_to_string(dir.path().join("out/rhopo.d.rhai")).expect("written");
    // A model or a frozen one: the files have no word for either.
    assert!(text.contains("fn sample(model: ?, prompts: ?, options: map) -> Batch;"), "{text}");
    assert!(text.contains("fn load_frozen(path: string, options: map) -> Frozen;"), "{text}");
    assert!(fs::read_to_string(dir.path().join("out/kl.d.rhai")).expect("written").contains("fn k3("));
}

/// Whether or not this machine has any of it.
#[test]
fn what_a_gpu_needs_is_told_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = well(dir.path(), &["gpu", "info"]);
    for name in ["libcuda", "libnvrtc", "libcublasLt", "devices", "kernels"] {
        assert!(out.contains(name), "{out}");
    }
    assert!(well(dir.path(), &["gpu", "info", "--help"]).contains("RHOPO_CUDA"));
    let said = rhopo(dir.path(), &["gpu", "build", "--arch", "sm_1"]);
    let missing = said.err.contains("libnvrtc (the compiler of kernels) was not found: looked for libnvrtc.so.13");
    assert!(said.code == 1 && (missing || said.err.contains("for the architecture `sm_1`")), "{}", said.err);
}

#[test]
fn bench_states_the_limits_and_how_near_to_them_each_phase_came() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = well(dir.path(), &["bench", "uniform", "--steps", "1", "--device", "cpu", "--threads", "2"]);
    let line = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {out}"));
        line.split_whitespace().map(str::to_string).collect::<Vec<_>>()
    };
    let number = |word: &str| word.parse::<f64>().unwrap_or_else(|e| panic!("{word}: {e}"));
    let limits = line("limits");
    assert!(number(&limits[1]) > 0.0 && limits[2] == "GFLOP/s" && number(&limits[6]) > 0.0, "{out}");
    assert!(out.contains("(2 threads, "), "{out}");
    assert_eq!(number(&line("tokens")[1]), 128.0 * 32.0);
    let floor_of = |name: &str| {
        let words = line(name);
        let ([.., floor, unit, share, percent, limit], seconds) = (&words[..], number(&words[1])) else {
            panic!("{out}")
        };
        assert!(unit == "s" && percent == "%" && words[2] == "s", "{out}");
        assert!(["multiply-adds", "reading"].contains(&limit.as_str()), "{out}");
        let (floor, share) = (number(floor), number(share));
        // Both are rounded: the floor to a millisecond.
        assert!((share - 100.0 * floor / seconds).abs() < 0.5 + 0.1 / seconds, "{name}: {out}");
        floor
    };
    let phases = ["sample", "reference", "update"].map(floor_of);
    assert!((phases.iter().sum::<f64>() - floor_of("step")).abs() < 3e-3, "{out}");
    let help = well(dir.path(), &["bench", "--help"]);
    assert!(help.contains("- real:") && help.contains("- wide:") && help.contains("1024 rows"), "{help}");
    assert!(rhopo(dir.path(), &["bench", "raged"]).err.contains("ragged"));
}
