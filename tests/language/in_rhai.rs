//! The tests that are written in Rhai: the standard library and the shipped scripts, by `rhopo test tests/rhai`.

use std::process::Command;

#[test]
fn the_standard_library_and_the_scripts_pass_their_own_tests() {
    let run = Command::new(env!("CARGO_BIN_EXE_rhopo"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["test", "tests/rhai"])
        .output()
        .expect("rhopo starts");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{out}\n{err}");
    let passed: usize = out.lines().last().and_then(|line| line.split(' ').next()?.parse().ok()).expect("a count");
    assert!(passed > 180, "{out}");
}
