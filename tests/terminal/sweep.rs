//! `rhopo sweep`: many runs, which go on after they were broken off.

use super::commands::{rhopo, well};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The best is x = 3; seeds differ by a tenth. `wait` is milliseconds of a step.
const OWN: &str = "let cfg = args(#{ steps: 3, x: 1.0, kind: \"a\", wait: 0, seed: 0 });\n\
    let run = open_run(cfg);\n\
    for step in run.steps(cfg.steps) {\n\
        if cfg.wait > 0 { let begun = timestamp(); while begun.elapsed < cfg.wait / 1000.0 {} }\n\
        run.log(#{ reward: step * cfg.x, noise: sum(randn([4])) });\n\
    }\n\
    run.log(#{ eval: 10.0 - (cfg.x - 3.0) * (cfg.x - 3.0) + 0.1 * cfg.seed });\n";

fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), OWN).expect("written");
    dir
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn rows(table: &str) -> Vec<Vec<String>> {
    table.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
}

/// What the runs of a sweep have logged, but for what a clock or the machine says.
fn logged(sweep: &Path) -> Vec<(String, Vec<Value>)> {
    let mut folders: Vec<PathBuf> = fs::read_dir(sweep).expect("there").map(|e| e.expect("an entry").path()).collect();
    folders.retain(|folder| folder.join("metrics.jsonl").is_file());
    folders.sort();
    let exact =
        |name: &str| !["seconds", "tokens_per_second", "peak_bytes"].iter().any(|clock| name.starts_with(clock));
    let line = |line: &str| {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).expect("JSON");
        Value::Object(line.into_iter().filter(|(name, _)| exact(name)).collect())
    };
    let of = |folder: &PathBuf| {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        (name, text(folder.join("metrics.jsonl")).lines().map(line).collect())
    };
    folders.iter().map(of).collect()
}

#[test]
fn a_grid_runs_every_combination_with_every_seed_and_says_which_is_best() {
    let dir = folder();
    let args = ["sweep", "own", "--set", "x=1,3", "kind=a,b", "--seeds", "2", "--jobs", "2", "--out", "all"];
    let said = rhopo(dir.path(), &args);
    assert_eq!(said.code, 0, "{}", said.err);
    let table = rows(&said.out);
    assert_eq!(table[1], ["x", "kind", "eval", "±", "finished"], "{}", said.out);
    assert_eq!(table[2], ["3", "a", "10.05", "0.05", "2", "of", "2"]);
    assert_eq!(table[5], ["1", "b", "6.05", "0.05", "2", "of", "2"]);
    assert_eq!(said.err.matches("eval 10.1000").count(), 2, "{}", said.err);
    assert!(said.err.contains("[8/8] ") && said.err.contains("x=1, kind=b, seed=1: eval 6.1"), "{}", said.err);
    let all = dir.path().join("all");
    let names: Vec<String> = logged(&all).into_iter().map(|(name, _)| name).collect();
    assert_eq!((names.len(), names[5].as_str()), (8, "5_x=3_kind=a_seed=1"));
    let svg = text(all.join("sweep.svg"));
    for part in ["x=3, kind=a (n=2)", "eval", "reward", "mean of n runs"] {
        assert!(svg.contains(part), "{part}");
    }
    assert_eq!(text(all.join("table.txt")).lines().count(), 6);
    // The same command again has nothing left to do; another one is told so.
    let before = text(all.join("0_x=1_kind=a_seed=0/metrics.jsonl"));
    let again = rhopo(dir.path(), &args);
    assert_eq!((again.code, rows(&again.out)), (0, table));
    assert!(!again.err.contains("[1/8]"), "{}", again.err);
    assert_eq!(before, text(all.join("0_x=1_kind=a_seed=0/metrics.jsonl")), "not run again");
    let other = rhopo(dir.path(), &["sweep", "own", "--set", "x=1,2", "--out", "all"]);
    assert!(other.code == 1 && other.err.contains("all has another sweep: --set differs"), "{}", other.err);
    // The folder of each run is one as `rhopo run` leaves it.
    assert_eq!(rows(&well(dir.path(), &["runs", "all", "--where", "kind == \"b\""])).len(), 5);
}

#[test]
fn what_no_run_would_take_is_refused_before_the_first() {
    let dir = folder();
    let run = rhopo(dir.path(), &["run", "own", "--set", "xx=1"]);
    let sweep = |args: &[&str]| rhopo(dir.path(), &[&["sweep", "own", "--out", "none"], args].concat());
    let told = sweep(&["--set", "xx=1,2"]);
    let words = "unknown hyper-parameter `xx`";
    assert!(told.code == 1 && told.err.contains(words) && run.err.contains(words), "{}\n{}", told.err, run.err);
    for (args, told) in [
        (&["--set", "x=1,2", "steps=2,often"][..], "--set steps=often: expected a whole number"),
        (
            &["--set", "steps=1.0..2.5", "--search", "random", "--trials", "2"],
            "--set steps=2.5: expected a whole number",
        ),
        (&["--set", "x=1..2"], "a grid runs all"),
        (&["--set", "x=1,1"], "1 stands twice"),
        (&["--set", "x=1,2", "--search", "tpe"], "how many trials?"),
        (&["--set", "x=1,2", "--search", "tpe", "--trials", "4", "--slurm"], "a search that learns"),
        (&["--set", "eval_every=1,2"], "this script has no task"),
    ] {
        let said = sweep(args);
        assert!(said.code == 1 && said.err.contains(told), "{args:?}: {}", said.err);
    }
    assert!(!dir.path().join("none").exists() && !dir.path().join("runs").exists());
    assert!(rhopo(dir.path(), &["sweep", "--resume", "."]).err.contains("there is no sweep in ."));
}

#[test]
fn runs_that_fail_are_told_and_tried_again() {
    let dir = folder();
    let text = OWN.replace("let run =", "if cfg.x > 2.0 && !is_there() { throw \"not yet\"; }\nlet run =")
        + "fn is_there() { try { load_data(\"now.jsonl\"); return true; } catch { } false }\n";
    fs::write(dir.path().join("own.rhai"), text).expect("written");
    let said = rhopo(dir.path(), &["sweep", "own", "--set", "x=1,3", "--out", "s"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("x=3, seed=0: failed: ") && said.err.contains("not yet"), "{}", said.err);
    assert!(said.err.contains("1 run has failed; try again with: rhopo sweep --resume s"), "{}", said.err);
    assert_eq!(rows(&said.out)[2..4], [vec!["1", "6", "1", "of", "1"], vec!["3", "0", "of", "1"]], "{}", said.out);
    fs::write(dir.path().join("now.jsonl"), "{\"prompt\": \"a\"}\n").expect("written");
    let said = rhopo(dir.path(), &["sweep", "--resume", "s"]);
    assert!(said.code == 0 && said.err.contains("x=3, seed=0: eval 10"), "{}", said.err);
}

#[test]
fn a_script_that_has_changed_makes_no_further_runs() {
    let dir = folder();
    well(dir.path(), &["sweep", "own", "--set", "x=1,3", "--slurm", "--out", "s"]);
    well(dir.path(), &["sweep", "--resume", "s", "--only", "0"]);
    fs::write(dir.path().join("own.rhai"), OWN.replace("10.0", "11.0")).expect("written");
    let said = rhopo(dir.path(), &["sweep", "--resume", "s"]);
    assert!(said.code == 1 && said.err.contains("own.rhai has changed since the sweep began"), "{}", said.err);
    assert_eq!(logged(&dir.path().join("s")).len(), 1);
}

/// A sweep that takes a while.
fn start(dir: &Path, out: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    command.current_dir(dir).args(["sweep", "own", "--set", "x=1,3", "wait=40", "steps=12", "--seeds", "2"]);
    command.args(["--jobs", "2", "--checkpoint", "2", "--out", out]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
}

fn send(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().expect("kill").success());
}

fn wait_for_line(metrics: &Path, n: usize) {
    let until = Instant::now() + Duration::from_secs(120);
    while fs::read_to_string(metrics).map_or(0, |text| text.lines().count()) < n {
        assert!(Instant::now() < until, "no {n} lines in {}", metrics.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_sweep_that_was_interrupted_or_killed_comes_to_the_same_numbers() {
    let dir = folder();
    let whole = {
        assert_eq!(start(dir.path(), "whole").wait().expect("ended").code(), Some(0));
        logged(&dir.path().join("whole"))
    };
    assert_eq!(whole.len(), 4);
    for (out, signal) in [("asked", "-INT"), ("killed", "-KILL")] {
        let mut sweep = start(dir.path(), out);
        wait_for_line(&dir.path().join(out).join("0_x=1_seed=0/metrics.jsonl"), 5);
        send(signal, sweep.id());
        let code = sweep.wait().expect("ended").code();
        assert_eq!(code, (signal == "-INT").then_some(130));
        let broken = logged(&dir.path().join(out));
        assert!(broken.len() == 2 && broken != whole[..2], "{broken:?}");
        let said = rhopo(dir.path(), &["sweep", "--resume", out, "--jobs", "2"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(logged(&dir.path().join(out)), whole, "{out}");
        let left = ["config.json", "lock"].map(|name| dir.path().join(out).join(name).exists());
        assert_eq!(left, [false, false]);
    }
}

#[test]
fn two_sweeps_do_not_share_a_folder() {
    let dir = folder();
    let mut sweep = start(dir.path(), "s");
    wait_for_line(&dir.path().join("s/0_x=1_seed=0/metrics.jsonl"), 1);
    let said = rhopo(dir.path(), &["sweep", "--resume", "s"]);
    assert!(said.code == 1 && said.err.contains("another process is writing into s"), "{}", said.err);
    send("-INT", sweep.id());
    sweep.wait().expect("ended");
}

#[test]
fn searches_draw_from_ranges_and_repeat() {
    let dir = folder();
    let sweep = |search: &str, out: &str| {
        let args = ["sweep", "own", "--set", "x=0.5..6.0", "kind=a,b", "steps=1", "--search", search, "--trials", "8"];
        let said = rhopo(dir.path(), &[&args[..], &["--jobs", "2", "--out", out]].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(rows(&said.out).len(), 11, "{}", said.out);
        said.out.replace(out, "OUT")
    };
    for search in ["random", "tpe"] {
        let (a, b) = (format!("{search}-a"), format!("{search}-b"));
        assert_eq!(sweep(search, &a), sweep(search, &b), "whichever run ends first");
    }
    let trials = text(dir.path().join("tpe-a/trials.jsonl"));
    assert_eq!((trials.lines().count(), &trials), (16, &text(dir.path().join("tpe-b/trials.jsonl"))));
    let said = rhopo(dir.path(), &["sweep", "--resume", "tpe-a", "--table"]);
    assert!(said.code == 0 && rows(&said.out).len() == 11, "{}", said.err);
    // What no run has logged teaches nothing.
    let args =
        ["sweep", "own", "--set", "x=1..4", "--search", "tpe", "--trials", "3", "--minimize", "los", "--out", "m"];
    let said = rhopo(dir.path(), &args);
    assert!(said.code == 1 && said.err.contains("unknown metric `los`"), "{}", said.err);
}

#[test]
fn an_array_of_slurm_has_a_task_for_each_run() {
    let dir = folder();
    let args = ["sweep", "own", "--set", "x=1,3", "--seeds", "2", "--slurm", "--jobs", "3", "--out", "s"];
    assert_eq!(well(dir.path(), &args), "s\n");
    let script = dir.path().join("s/sweep.sbatch");
    assert!(text(script.clone()).contains("#SBATCH --array=0-3%3\n"));
    assert!(Command::new("bash").arg("-n").arg(&script).status().expect("bash").success());
    for task in ["2", "0", "2"] {
        let done = Command::new("bash").arg(&script).env("SLURM_ARRAY_TASK_ID", task).output().expect("bash");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let names: Vec<String> = logged(&dir.path().join("s")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["0_x=1_seed=0", "2_x=3_seed=0"]);
    let said = rhopo(dir.path(), &["sweep", "--resume", "s", "--only", "4"]);
    assert!(said.code == 1 && said.err.contains("the sweep has the runs 0 to 3"), "{}", said.err);
    let table = rows(&well(dir.path(), &["sweep", "--resume", "s", "--table", "--png"]));
    assert_eq!(table[2], ["3", "10", "1", "of", "2"]);
    assert!(fs::read(dir.path().join("s/sweep.png")).expect("drawn").starts_with(b"\x89PNG"));
}

#[test]
fn seeds_are_no_hyper_parameter() {
    let dir = folder();
    let searches = [&[][..], &["--search", "random", "--trials", "2"], &["--search", "tpe", "--trials", "2"]];
    for search in searches {
        let said = rhopo(dir.path(), &[&["sweep", "own", "--set", "seed=1,2", "--out", "none"], search].concat());
        assert!(said.code == 1 && said.err.contains("--seeds N"), "{search:?}: {}", said.err);
    }
    assert!(!dir.path().join("none").exists());
}

#[test]
fn a_metric_that_is_not_logged_ends_the_sweep_with_its_first_run() {
    let dir = folder();
    let args = ["sweep", "own", "--set", "x=1,2,3", "--maximize", "nope", "--out", "s"];
    for args in [&args[..], &["sweep", "--resume", "s"]] {
        let said = rhopo(dir.path(), args);
        assert!(said.code == 1 && said.err.contains("unknown metric `nope`"), "{}", said.err);
        assert!(said.err.contains("known: ") && said.err.contains("noise"), "{}", said.err);
        assert_eq!(logged(&dir.path().join("s")).len(), 1);
    }
    fs::write(dir.path().join("mute.rhai"), "let cfg = args(#{ x: 1 });\nprint(cfg.x);\n").expect("written");
    let said = rhopo(dir.path(), &["sweep", "mute", "--set", "x=1,2", "--out", "m"]);
    assert!(said.code == 1 && said.err.contains("x=1, seed=0: failed: the script opened no run"), "{}", said.err);
}

#[test]
fn a_half_written_status_stops_no_sweep() {
    let dir = folder();
    let args = ["sweep", "own", "--set", "x=1,3", "--out", "s"];
    let table = well(dir.path(), &args);
    let status = dir.path().join("s/1_x=3_seed=0/status.json");
    fs::write(&status, "{\"status\":\"fin").expect("written");
    let said = well(dir.path(), &["sweep", "--resume", "s", "--table"]);
    assert_eq!(rows(&said)[3], ["3", "0", "of", "1"], "{said}");
    assert_eq!(well(dir.path(), &args), table);
}

#[test]
fn a_value_with_a_line_break_breaks_no_line_and_advice_is_quoted() {
    let dir = folder();
    let said = rhopo(dir.path(), &["sweep", "own", "--set", "kind=x\ny,z", "steps=1", "--out", "s"]);
    assert!(said.code == 0 && said.err.contains("[1/2] kind=x⏎y, seed=0: eval 6"), "{}", said.err);
    let out = "sw/a b$(touch X)'q\"";
    let said = rhopo(dir.path(), &["sweep", "own", "--set", "x=1,3", "--slurm", "--out", out]);
    let advice = said.err.lines().find_map(|line| line.split_once("sbatch ")).expect("advice").1;
    let words = shell_words::split(advice).expect("words");
    assert_eq!(words, [format!("{out}/sweep.sbatch")], "{advice}");
    let script = dir.path().join(out).join("sweep.sbatch");
    assert!(text(script.clone()).contains("/sw/a b$(touch X)'q\\\"/output/slurm-%A_%a.txt\"\n"));
    let done = Command::new("bash").arg(&script).env("SLURM_ARRAY_TASK_ID", "0").output().expect("bash");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!dir.path().join("X").exists());
    let said = rhopo(dir.path(), &["sweep", "own", "--set", "x=1,3", "--slurm", "--out", "a\nb"]);
    assert!(said.code == 1 && said.err.contains("a line break"), "{}", said.err);
}
