//! Runs that start at once, and run folders that are exchanged under a run: no two runs share a folder, and no run goes on in one that is
//! not its own.

use super::world::{World, command};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// Rounds of ten starts, of each kind; `RHOPO_RACE_ROUNDS=20` tries more.
const ROUNDS: u64 = 2;
const STARTS: usize = 10;

fn rounds() -> u64 {
    std::env::var("RHOPO_RACE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Starts the script ten times at once.
fn started(world: &World, words: &[&str]) -> Vec<Output> {
    let start = || {
        let mut rhopo = command(world.inside(), env!("CARGO_BIN_EXE_rhopo"));
        rhopo.args(["run", "own", "--threads", "1"]).args(words).stdin(Stdio::null());
        rhopo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rhopo starts")
    };
    let children: Vec<_> = (0..STARTS).map(|_| start()).collect();
    children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect()
}

/// The numbers of one run: each step once, and all with the run's own mark.
fn is_one_runs(folder: &Path) -> bool {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
    let steps: Vec<u64> = lines.iter().filter_map(|line| line["step"].as_u64()).collect();
    let marks: BTreeSet<String> = lines.iter().map(|line| line["mark"].to_string()).collect();
    steps == (1..=20).collect::<Vec<_>>() && marks.len() == 1
}

/// The mark is the time at which the process began.
const SCRIPT: &str = "let run = open_run(#{});\nlet t = timestamp(); let mark = rand([1]).item() + t.elapsed;\n\
                      for s in run.steps(20) { run.log(#{ mark: mark }); }\n";

#[test]
fn of_ten_runs_that_start_in_one_folder_one_gets_it() {
    for round in 0..rounds() {
        let world = World::new();
        fs::write(world.inside().join("own.rhai"), SCRIPT).expect("written");
        super::world::give(world.inside());
        let done = started(&world, &["--out", "r"]);
        let won = done.iter().filter(|out| out.status.success()).count();
        assert_eq!(won, 1, "round {round}: {:?}", done.iter().map(said).collect::<Vec<_>>());
        for out in done.iter().filter(|out| !out.status.success()) {
            let text = said(out);
            let clear =
                text.contains("another process is writing into r") || text.contains("the run folder r is not empty");
            assert!(
                out.status.code() == Some(1) && clear && text.matches("Error: ").count() == 1,
                "round {round}: {text}"
            );
        }
        assert!(is_one_runs(&world.inside().join("r")), "round {round}");
    }
    println!("--out: {} rounds of {STARTS} starts, one run each", rounds());
}

#[test]
fn ten_runs_that_start_in_one_second_have_ten_folders() {
    for round in 0..rounds() {
        let world = World::new();
        fs::write(world.inside().join("own.rhai"), SCRIPT).expect("written");
        super::world::give(world.inside());
        let done = started(&world, &[]);
        let folders: BTreeSet<PathBuf> = done
            .iter()
            .map(|out| {
                assert!(out.status.success(), "round {round}: {}", said(out));
                world.inside().join(String::from_utf8_lossy(&out.stdout).trim())
            })
            .collect();
        assert_eq!(folders.len(), STARTS, "round {round}");
        assert!(folders.iter().all(|folder| is_one_runs(folder)), "round {round}");
    }
    println!("default names: {} rounds of {STARTS} starts, {STARTS} folders each", rounds());
}

/// Begins a run of two steps that trains, does something to its folder in the middle, and lets it go on.
fn disturbed(how: &dyn Fn(&Path)) -> (World, Output) {
    let world = World::new();
    let script = "let run = open_run(#{});\nlet p = load_model(\"tiny\");\nrun.track(#{ p: p });\n\
                  for s in run.steps(3) { run.log(#{ s: s }); if s == 2 { print(\"now\"); sleep(1.0); } }\nrun.save(p);\nprint(\"never\");\n";
    fs::write(world.inside().join("own.rhai"), script).expect("written");
    super::world::give(world.inside());
    let mut rhopo = command(world.inside(), env!("CARGO_BIN_EXE_rhopo"));
    rhopo.args(["run", "own", "--threads", "1", "--out", "r"]).stdin(Stdio::null());
    let mut child = rhopo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rhopo starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert_eq!(line, "now\n");
    how(&world.inside().join("r"));
    let mut out = child.wait_with_output().expect("it ends");
    std::io::Read::read_to_end(&mut lines, &mut out.stdout).expect("read");
    (world, out)
}

#[test]
fn a_folder_that_goes_while_a_run_goes_on_ends_it_with_one_error_and_the_model_is_kept() {
    type How = fn(&Path);
    let ways: [(&str, How); 4] = [
        ("removed", |r| fs::remove_dir_all(r).expect("removed")),
        ("renamed", |r| fs::rename(r, r.with_file_name("moved")).expect("renamed")),
        ("replaced", |r| {
            fs::rename(r, r.with_file_name("moved")).and_then(|()| fs::create_dir(r)).expect("replaced");
            super::world::give(r);
        }),
        ("replaced by a link", |r| {
            let moved = r.with_file_name("moved");
            fs::rename(r, &moved).expect("renamed");
            fs::create_dir(r.with_file_name("other")).expect("made");
            super::world::give(&r.with_file_name("other"));
            std::os::unix::fs::symlink("other", r).expect("linked");
        }),
    ];
    for (what, how) in ways {
        let (world, out) = disturbed(&how);
        let text = said(&out);
        assert_eq!(out.status.code(), Some(1), "{what}: {text}");
        let gone = "the run's folder r is gone: it was removed, renamed or replaced while the run went on";
        assert!(text.contains(&format!("Error: {gone}")) && text.matches("Error: ").count() == 1, "{what}: {text}");
        assert!(!String::from_utf8_lossy(&out.stdout).contains("never"), "{what}");
        // What was trained is kept, and told; nothing is made where the folder was.
        assert!(text.contains("what was trained is in r-rescued instead"), "{what}: {text}");
        assert!(world.inside().join("r-rescued/model/model.safetensors").is_file(), "{what}");
        let there = fs::read_dir(world.inside().join("r")).map_or(0, Iterator::count);
        assert_eq!(there, 0, "{what}");
    }
}

/// What is in the way before a run begins.
#[test]
fn a_folder_that_cannot_be_one_is_refused_before_the_run_begins() {
    let world = World::new();
    let inside = world.inside();
    fs::write(inside.join("own.rhai"), SCRIPT).expect("written");
    fs::write(inside.join("file"), "x").expect("written");
    fs::create_dir(inside.join("full")).expect("made");
    fs::write(inside.join("full/x"), "x").expect("written");
    std::os::unix::fs::symlink("nowhere/at/all", inside.join("lost")).expect("linked");
    for (out, expected) in [("file", "file"), ("file/r", "file"), ("full", "is not empty"), ("lost/r", "lost")] {
        let done = world.run(&["run", "own", "--out", out].map(String::from), &[]);
        assert!(done.code == Some(1) && done.said.contains(expected), "{out}: {:?} {}", done.code, done.said);
        assert_eq!(done.said.matches("Error: ").count(), 1, "{out}: {}", done.said);
    }
    assert_eq!(fs::read_to_string(inside.join("file")).expect("there"), "x");
}

#[test]
fn a_current_folder_that_is_gone_is_told() {
    let world = World::new();
    let gone = world.inside().join("gone");
    fs::create_dir(&gone).expect("made");
    super::world::give(world.inside());
    let mut shell = command(&gone, "sh");
    shell.args(["-c", "rmdir ../gone && exec \"$0\" list", env!("CARGO_BIN_EXE_rhopo")]);
    let out = shell.stdin(Stdio::null()).output().expect("sh is there");
    let text = said(&out);
    assert!(out.status.code() == Some(1) && text.contains("Error: the current folder cannot be found"), "{text}");
}
