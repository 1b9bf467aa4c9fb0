//! `rhopo runs` and `rhopo diff`: what several runs have left, side by side.

use super::commands::{Said, rhopo, well};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
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
    for name in ["b", "d", "deep/c"] {
        fs::write(dir.path().join("runs").join(name).join("config.json"), "{").expect("written");
    }
    for args in [&["runs"][..], &["runs", "--where", "clip > 1"], &["plot", "runs"]] {
        let said = rhopo(dir.path(), args);
        assert!(said.code == 1 && said.err.contains("none of the runs could be read"), "{args:?}: {}", said.err);
        assert!(!said.err.contains("--where"), "{}", said.err);
    }
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

/// What somebody is told whom permissions hold, whoever runs the tests.
fn unprivileged(dir: &Path, args: &[&str]) -> Said {
    const NOBODY: u32 = 65534;
    let program = dir.join("rhopo");
    if !program.exists() {
        // Where the program lies, they may not look.
        let whole = env!("CARGO_BIN_EXE_rhopo");
        fs::hard_link(whole, &program).or_else(|_| fs::copy(whole, &program).map(drop)).expect("copied");
    }
    let mut command = Command::new(&program);
    if fs::metadata(dir).expect("there").uid() == 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("opened");
        command.uid(NOBODY).gid(NOBODY);
    }
    let out = command.current_dir(dir).args(args).output().expect("rhopo starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: out.status.code().expect("a code"), out: text(out.stdout), err: text(out.stderr) }
}

#[test]
fn a_folder_that_may_not_be_read_hides_no_run() {
    let dir = folder();
    let closed = dir.path().join("runs/a");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("closed");
    let listed = unprivileged(dir.path(), &["runs"]);
    let drawn = unprivileged(dir.path(), &["plot", "runs", "-o", "plot.svg"]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).expect("opened");
    assert_eq!((listed.code, rows(&listed.out).len()), (0, 4), "{}", listed.err);
    assert_eq!(drawn.code, 0, "{}", drawn.err);
    for said in [listed.err, drawn.err] {
        assert!(said.contains("cannot read the folder runs/a"), "{said}");
    }
}

#[test]
fn links_to_runs_are_not_followed_and_told_once() {
    let dir = folder();
    symlink("a", dir.path().join("runs/latest")).expect("linked");
    assert!(!rhopo(dir.path(), &["runs"]).err.contains("link"), "the run is there under its own name");
    fs::rename(dir.path().join("runs/a"), dir.path().join("away")).expect("moved");
    fs::remove_file(dir.path().join("runs/latest")).expect("removed");
    for name in ["x", "y"] {
        symlink("../away", dir.path().join("runs").join(name)).expect("linked");
    }
    let said = rhopo(dir.path(), &["runs"]);
    assert_eq!((said.code, rows(&said.out).len(), said.err.lines().count()), (0, 4, 1), "{}", said.err);
    assert!(said.err.contains("2 links to runs not followed, such as runs/x"), "{}", said.err);
    assert_eq!(rows(&well(dir.path(), &["runs", "runs/x"])).len(), 2);
}

#[test]
fn damaged_lines_are_told_and_odd_numbers_are_nan() {
    let dir = folder();
    let metrics = dir.path().join("runs/a/metrics.jsonl");
    let text = fs::read_to_string(&metrics).expect("there");
    let odd = "{\"step\":3,\"seconds\":1.5,\"reward\":1e999,\"seconds/sample\":0.25}\n";
    fs::write(&metrics, format!("garb{{age\n{text}{odd}\u{0}\n")).expect("written");
    let told = "runs/a/metrics.jsonl: 2 lines that could not be read are left out";
    let said = rhopo(dir.path(), &["runs", "--where", "seconds_sample < 1 && seconds > 1.0"]);
    assert!(said.err.matches(told).count() == 1, "{}", said.err);
    assert_eq!(rows(&said.out)[1], ["a", "own", "finished", "3", "0", "NaN", "2"], "{}", said.out);
    for args in [&["plot", "runs"][..], &["diff", "runs/a", "runs/b"], &["report", "runs/a"]] {
        let said = rhopo(dir.path(), args);
        assert!(said.code == 0 && said.err.contains(told), "{args:?}: {}", said.err);
    }
    let page = fs::read_to_string(dir.path().join("runs/a/report.html")).expect("written");
    assert!(page.contains("2 lines of metrics.jsonl, which could not be read"), "{page}");
    fs::write(dir.path().join("past.rhai"), "print(load_run(\"runs/a\").step);\n").expect("written");
    let said = rhopo(dir.path(), &["run", "past"]);
    assert!(said.code == 0 && said.err.contains(told), "{}", said.err);
}

#[test]
fn names_with_a_slash_are_taken_in_either_spelling() {
    let dir = folder();
    let metrics = dir.path().join("runs/a/metrics.jsonl");
    let text = fs::read_to_string(&metrics).expect("there");
    fs::write(&metrics, text + "{\"step\":3,\"seconds\":1.5,\"seconds/sample\":0.25}\n").expect("written");
    for key in ["seconds/sample", "seconds_sample", "-seconds"] {
        well(dir.path(), &["runs", "--sort", key]);
    }
    for name in ["seconds/sample", "seconds_sample", "seconds"] {
        well(dir.path(), &["plot", "runs", "--y", name]);
    }
    let said = rhopo(dir.path(), &["runs", "--where", "seconds/sample < 1"]);
    assert!(said.code == 1 && said.err.contains("its name is written `seconds_sample`"), "{}", said.err);
}

#[test]
fn many_runs_are_listed_in_linear_time() {
    let dir = tempfile::tempdir().expect("a folder");
    const RUNS: usize = 3000;
    for i in 0..RUNS {
        let folder = dir.path().join(format!("runs/{i:04}"));
        fs::create_dir_all(&folder).expect("made");
        let args: Vec<String> = (0..30).map(|k| format!("\"p{k}\":{}", if k == 0 { i } else { k })).collect();
        let config = format!("{{\"script\":\"own\",\"seed\":0,\"args\":{{{}}}}}", args.join(","));
        fs::write(folder.join("config.json"), config).expect("written");
        fs::write(folder.join("metrics.jsonl"), "{\"step\":1,\"reward\":0.5}\n").expect("written");
    }
    let begun = std::time::Instant::now();
    let table = rows(&well(dir.path(), &["runs"]));
    assert_eq!(table[0], ["run", "script", "state", "step", "seed", "p0", "reward"]);
    assert_eq!((table.len(), table[RUNS][5].as_str()), (RUNS + 1, "2999"));
    // 16 s where all pairs are compared.
    assert!(begun.elapsed().as_secs() < 6, "{:?}", begun.elapsed());
}

#[test]
fn diff_prints_nothing_of_a_folders_name_that_a_terminal_obeys() {
    let dir = folder();
    let odd = "runs/a\u{1b}[31m\nb";
    fs::rename(dir.path().join("runs/a"), dir.path().join(odd)).expect("moved");
    let said = well(dir.path(), &["diff", odd, "runs/b"]);
    assert!(said.starts_with("a  runs/a\\x1b[31m⏎b: own, finished at step 2\n"), "{said}");
}
