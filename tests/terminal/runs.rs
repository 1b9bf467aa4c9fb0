//! `rhopo runs` and `rhopo diff`: what several runs have left, side by side.

use super::commands::{rhopo, well};
use std::fs;
use tempfile::TempDir;

const OWN: &str = "let cfg = args(#{ steps: 2, clip: 0.2, beta: 0.1, seed: 0 });\n\
    let run = open_run(cfg);\n\
    for step in run.steps(cfg.steps) { run.log(#{ reward: step * cfg.clip, loss: 1.0 / step }); }\n\
    run.log(#{ eval: 10 * cfg.clip });\n";

/// Three runs of one script, and one of another that has failed.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), OWN).expect("written");
    let broken = OWN.replace("run.log(#{ eval: 10 * cfg.clip });", "throw \"enough\";");
    fs::write(dir.path().join("broken.rhai"), broken).expect("written");
    well(dir.path(), &["run", "own", "--out", "runs/a"]);
    well(dir.path(), &["run", "own", "--set", "clip=0.3", "--out", "runs/b"]);
    well(dir.path(), &["run", "own", "--set", "clip=0.4", "steps=3", "--seed", "7", "--out", "runs/deep/c"]);
    assert_eq!(rhopo(dir.path(), &["run", "broken", "--out", "runs/d"]).code, 1);
    dir
}

fn rows(table: &str) -> Vec<Vec<String>> {
    table.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
}

#[test]
fn runs_are_listed_with_what_tells_them_apart() {
    let dir = folder();
    let table = rows(&well(dir.path(), &["runs"]));
    assert_eq!(table[0], ["run", "script", "state", "step", "seed", "clip", "steps", "reward", "eval"]);
    assert_eq!(table[1], ["a", "own", "finished", "2", "0", "0.2", "2", "0.4", "2"]);
    assert_eq!(table[3], ["d", "broken", "failed", "2", "0", "0.2", "2", "0.4"]);
    assert_eq!(table[4], ["deep/c", "own", "finished", "3", "7", "0.4", "3", "1.2", "4"]);
    assert_eq!(table.len(), 5);
}

#[test]
fn runs_are_chosen_and_sorted_by_what_is_known_of_them() {
    let dir = folder();
    let names = |args: &[&str]| {
        let table = rows(&well(dir.path(), &[&["runs"], args].concat()));
        table.into_iter().skip(1).map(|row| row[0].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["--where", "clip > 0.25", "--sort", "-clip"]), ["deep/c", "b"]);
    assert_eq!(names(&["--where", "state == \"failed\" || seed == 7"]), ["d", "deep/c"]);
    assert_eq!(names(&["--sort", "-eval"]), ["deep/c", "b", "a", "d"], "what has none comes last");
    assert_eq!(names(&["runs/deep"]), ["c"]);
    let lines = well(dir.path(), &["runs", "--where", "clip == 0.3", "--json"]);
    let run: serde_json::Value = serde_json::from_str(lines.trim()).expect("one line of JSON");
    assert_eq!((&run["beta"], &run["dir"], &run["loss"]), (&0.1.into(), &"runs/b".into(), &0.5.into()));
    for (args, told) in [
        (["--where", "clipp > 1"], "did you mean `clip`?"),
        (["--where", "clip +"], "is not an expression"),
        (["--where", "clip"], "must be true or false"),
        (["--sort", "evaal"], "did you mean `eval`?"),
    ] {
        let said = rhopo(dir.path(), &[&["runs"][..], &args].concat());
        assert!(said.code == 1 && said.err.contains(told), "{args:?}: {}", said.err);
    }
    assert!(rhopo(dir.path(), &["runs", "none"]).code == 1);
    fs::create_dir(dir.path().join("empty")).expect("made");
    assert!(rhopo(dir.path(), &["runs", "empty"]).err.contains("there are no runs in empty"));
}

#[test]
fn a_run_that_cannot_be_read_hides_no_other() {
    let dir = folder();
    fs::write(dir.path().join("runs/a/config.json"), "{").expect("written");
    let said = rhopo(dir.path(), &["runs"]);
    assert_eq!((said.code, rows(&said.out).len()), (0, 4));
    assert!(said.err.contains("runs/a/config.json cannot be read"), "{}", said.err);
    // Killed before it could say how it ended.
    fs::remove_file(dir.path().join("runs/b/status.json")).expect("removed");
    assert!(rhopo(dir.path(), &["runs"]).out.contains("killed"));
}

#[test]
fn diff_shows_arguments_script_and_results() {
    let dir = folder();
    let said = well(dir.path(), &["diff", "runs/a", "runs/d"]);
    assert!(said.contains("arguments: the same") && said.contains("settings: the same"), "{said}");
    assert!(said.contains("-run.log(#{ eval: 10 * cfg.clip });") && said.contains("+throw \"enough\";"), "{said}");
    let said = well(dir.path(), &["diff", "runs/a", "runs/deep/c"]);
    let has = |row: &[&str]| assert!(rows(&said).iter().any(|found| found == row), "{row:?}: {said}");
    has(&["clip", "0.2", "0.4"]);
    has(&["seed", "0", "7"]);
    has(&["reward", "0.4", "1.2", "0.8"]);
    has(&["eval", "2", "4", "2"]);
    assert!(said.contains("script: the same") && !said.contains("beta"), "{said}");
    assert!(rhopo(dir.path(), &["diff", "runs/a", "runs"]).err.contains("there is no run in runs"));
}
