//! Processes that are killed while they save, at any moment: what they leave is a whole model or refused by name, nothing that others
//! wrote is gone, and the next save leaves nothing of them. `RHOPO_KILLS=100` tries each as often.

use super::world::{World, command, give};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Where nobody says.
const KILLS: u64 = 6;
/// Far more than a save takes.
const LONGEST: u64 = 120;

fn kills() -> u64 {
    std::env::var("RHOPO_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// How the moment is chosen.
#[derive(Clone, Copy)]
enum Moment<'a> {
    /// Some milliseconds after the script has begun to save.
    Milliseconds(u64),
    /// As soon as there is such a file.
    Seen(&'a Path),
}

/// Runs `own.rhai`, which prints a line before it begins to save, and kills it.
fn kill(world: &World, moment: Moment<'_>) {
    give(world.inside());
    let mut rhopo = command(world.inside(), env!("CARGO_BIN_EXE_rhopo"));
    rhopo.args(["run", "own", "--threads", "1", "--out", "r"]).stdin(Stdio::null());
    let mut child = rhopo.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("rhopo starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "saving\n");
    match moment {
        Moment::Milliseconds(wait) => std::thread::sleep(Duration::from_millis(wait)),
        Moment::Seen(path) => {
            let until = Instant::now() + Duration::from_secs(5);
            while !path.exists() && Instant::now() < until {
                std::hint::spin_loop();
            }
        }
    }
    child.kill().and_then(|()| child.wait()).expect("killed");
}

/// Somewhere up to the longest, never the same twice in a row.
fn moment(trial: u64) -> u64 {
    (trial.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33) % LONGEST
}

/// What a folder holds is of one save: the configuration says in what format the weights are.
fn of_one_save(folder: &Path) -> bool {
    let config: Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).expect("a configuration")).expect("JSON");
    let weights = fs::read(folder.join("model.safetensors")).expect("weights");
    let length = u64::from_le_bytes(weights[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&weights[8..8 + length]).expect("a header");
    let stored =
        header.as_object().and_then(|all| all.values().find_map(|tensor| tensor["dtype"].as_str())).expect("a tensor");
    let said = config["torch_dtype"].as_str().or(config["dtype"].as_str()).expect("a format");
    matches!((said, stored), ("float32", "F32") | ("bfloat16", "BF16"))
}

/// What is hidden in a folder.
fn hidden(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.') && name != ".home")
        .collect()
}

/// Opens a model; what was said where it was refused.
fn opened(world: &World, name: &str) -> Result<(), String> {
    fs::write(world.inside().join("load.rhai"), format!("print(load_model(\"{name}\").parameters);")).expect("written");
    let done = world.run(&["run", "load", "--threads", "1"].map(String::from), &[]);
    if done.code == Some(0) { Ok(()) } else { Err(done.said) }
}

/// Saves once more, to the end.
fn saved(world: &World, name: &str) {
    fs::write(world.inside().join("save.rhai"), format!("load_model(\"tiny\").save(\"{name}\");")).expect("written");
    let done = world.run(&["run", "save", "--threads", "1"].map(String::from), &[]);
    assert_eq!(done.code, Some(0), "{}", done.said);
}

/// Saves in two formats by turns.
fn by_turns(name: &str) -> String {
    format!(
        "let p = load_model(\"tiny\");\np.save(\"{name}\");\nprint(\"saving\");\n\
         loop {{ p.save(\"{name}\", #{{ dtype: \"bf16\" }}); p.save(\"{name}\", #{{ dtype: \"f32\" }}); }}\n"
    )
}

#[test]
fn a_model_that_is_saved_over_itself_is_whole_whenever_the_process_is_killed() {
    let world = World::new();
    fs::write(world.inside().join("own.rhai"), by_turns("m")).expect("written");
    let model = world.inside().join("m");
    for trial in 0..kills() {
        kill(&world, Moment::Milliseconds(moment(trial)));
        opened(&world, "m").unwrap_or_else(|said| panic!("kill {trial}: {said}"));
        assert!(of_one_save(&model), "kill {trial}");
    }
    saved(&world, "m");
    let left = [hidden(&model), hidden(world.inside())].concat();
    assert!(left.is_empty() && !model.join("unfinished-save").exists(), "{left:?}");
    println!("model.save over itself: {} kills, each left a whole model", kills());
}

#[test]
fn a_save_among_files_of_others_is_whole_or_refused_by_name() {
    let world = World::new();
    let inside = world.inside();
    fs::write(inside.join("own.rhai"), by_turns(".")).expect("written");
    // Names that look like what a save leaves, and are somebody's own.
    let theirs = ["notes.txt", "model.old/kept", ".saving-mine/kept", ".saving-1-2/kept", "model.part"];
    for name in theirs {
        fs::create_dir_all(inside.join(name).parent().expect("a folder")).expect("made");
        fs::write(inside.join(name), name).expect("written");
    }
    let (mut whole, mut refused) = (0, 0);
    for trial in 0..kills() {
        let seen = inside.join("unfinished-save");
        let before = seen.exists();
        kill(&world, if trial % 2 == 0 || before { Moment::Milliseconds(moment(trial)) } else { Moment::Seen(&seen) });
        match opened(&world, ".") {
            Ok(()) => {
                whole += 1;
                assert!(of_one_save(inside), "kill {trial}");
            }
            Err(said) => {
                refused += 1;
                let named = said.contains("of an earlier save: ") || said.contains("missing: ");
                assert!(
                    said.contains("a save into . was interrupted; ") && named && said.contains("save again into ."),
                    "{said}"
                );
            }
        }
        for name in theirs {
            assert_eq!(fs::read_to_string(inside.join(name)).ok().as_deref(), Some(name), "kill {trial}");
        }
    }
    saved(&world, ".");
    opened(&world, ".").expect("a later save ends it");
    let mut left = hidden(inside);
    left.sort();
    assert_eq!(left, [".saving-1-2", ".saving-mine"]);
    assert!(!inside.join("unfinished-save").exists());
    println!(
        "model.save among other files: {} kills, {whole} left a whole model, {refused} were refused by name",
        kills()
    );
}

#[test]
fn the_model_of_a_run_is_whole_whenever_the_process_is_killed() {
    let script = "let p = load_model(\"tiny\");\nlet run = open_run(#{});\nrun.save(p);\nprint(\"saving\");\n\
                  for s in run.steps(100000) { run.log(#{ s: s }); run.save(p, #{ dtype: if s % 2 == 0 { \"f32\" } else { \"bf16\" } }); }\n";
    for trial in 0..kills() {
        let world = World::new();
        fs::write(world.inside().join("own.rhai"), script).expect("written");
        kill(&world, Moment::Milliseconds(moment(trial)));
        opened(&world, "r/model").unwrap_or_else(|said| panic!("kill {trial}: {said}"));
        assert!(of_one_save(&world.inside().join("r/model")), "kill {trial}");
        let metrics = fs::read_to_string(world.inside().join("r/metrics.jsonl")).expect("metrics");
        assert!(metrics.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "kill {trial}: {metrics}");
        if trial == 0 {
            // A run that goes on leaves nothing of the process before it.
            fs::write(world.inside().join("r/.part-1-0"), "x").expect("written");
            give(world.inside());
            let mut rhopo = command(world.inside(), env!("CARGO_BIN_EXE_rhopo"));
            rhopo.args(["run", "--resume", "r", "--max-seconds", "3"]).stdin(Stdio::null());
            rhopo.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("rhopo starts");
            assert_eq!(hidden(&world.inside().join("r")), [""; 0]);
        }
    }
    println!("run.save at every step: {} kills, each left a whole model", kills());
}
