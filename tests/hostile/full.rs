//! Disks that fill up and files that may not grow: each ends in one clear error with exit status 1, or in a whole result; no file is cut in half,
//! and no process is ended by a signal. A file system of a size of its own needs the right to mount; limits on file sizes need none.

use super::world::{World, command, give, is_root};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// KiB: from nothing to more than all of a run takes.
const SIZES: [u64; 20] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];
const LIMIT: &str = "the file would exceed the limit on file sizes (ulimit -f)";

/// Writes all that a run can leave.
const SCRIPT: &str = "let run = open_run(#{});\nlet p = load_model(\"tiny\");\nrun.track(#{ p: p });\nlet kept = blob(3000, 7);\n\
    let b = batch(#{ prompt: [\"1+1=\", \"2+2=\"], text: [\"2\", \"five\"], reward: [1.0, 0.0] });\n\
    for s in run.steps(40) { run.log(#{ s: s, loss: 1.0 / s, other: s * 0.1 }); run.show(b, 2); print(`step ${s}`); kept[0] = s % 200; }\n\
    run.save(p);\n";

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Runs rhopo under a limit on file sizes, in units of 512 bytes.
fn limited(dir: &Path, blocks: u64, words: &[&str]) -> Output {
    let mut shell = command(dir, "sh");
    shell.args(["-c", "ulimit -f \"$1\"; shift; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rhopo"), &blocks.to_string()]);
    shell.args(words).stdin(Stdio::null()).output().expect("sh is there")
}

/// How a run under a limit ended: well, or with one error that says why.
fn ended_clearly(what: &str, out: &Output, why: &str) -> bool {
    let text = said(out);
    assert!(!text.contains("panicked") && !text.contains("rhopo itself failed"), "{what}: {text}");
    match out.status.code() {
        Some(0) => true,
        Some(1) => {
            assert_eq!(text.matches("Error: ").count(), 1, "{what}: {text}");
            let error = &text[text.find("Error: ").expect("an error")..];
            assert!(error.contains(why), "{what}: {text}");
            false
        }
        other => panic!("{what}: ended with {other:?}: {text}"),
    }
}

/// What a run has left is whole, file by file.
fn is_whole(what: &str, run: &Path) {
    let text = |name: &str| fs::read_to_string(run.join(name)).ok();
    for name in ["metrics.jsonl", "samples.jsonl"] {
        let text = text(name).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "{what}: {name} is cut: {text}");
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{what}: {name}: {text}");
    }
    assert!(text("log.txt").is_none_or(|text| text.is_empty() || text.ends_with('\n')), "{what}: log.txt is cut");
    for name in ["config.json", "status.json", "model/config.json"] {
        assert!(text(name).is_none_or(|text| serde_json::from_str::<Value>(&text).is_ok()), "{what}: {name}");
    }
    assert!(text("curves.svg").is_none_or(|text| text.ends_with("</svg>\n")), "{what}: curves.svg is cut");
    assert!(text("report.html").is_none_or(|text| text.trim_end().ends_with("</html>")), "{what}: report.html is cut");
    events_are_whole(what, &run.join("events.out.tfevents.rhopo"));
    if run.join("model").exists() {
        let weights = fs::read(run.join("model/model.safetensors")).expect("weights");
        safetensors::SafeTensors::deserialize(&weights).unwrap_or_else(|e| panic!("{what}: the weights are cut: {e}"));
    }
    for folder in [run, run.parent().expect("a folder")] {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with(".part-") && !name.starts_with(".saving-"), "{what}: {name} is left");
        }
    }
}

/// Records one after the other, each with its length.
fn events_are_whole(what: &str, path: &Path) {
    let bytes = fs::read(path).unwrap_or_default();
    let mut at = 0;
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")) as usize;
        at += 8 + 4 + length + 4;
        assert!(at <= bytes.len(), "{what}: an event is cut");
    }
}

#[test]
fn runs_whose_files_may_not_grow_end_clearly() {
    let (mut well, mut errors) = (0, 0);
    for size in SIZES {
        let world = World::new();
        fs::write(world.inside().join("own.rhai"), SCRIPT).expect("written");
        give(world.inside());
        let out = limited(world.inside(), 2 * size, &["run", "own", "--threads", "1", "--out", "r"]);
        let what = format!("{size} KiB");
        match ended_clearly(&what, &out, LIMIT) {
            true => well += 1,
            false => errors += 1,
        }
        is_whole(&what, &world.inside().join("r"));
        // One that could write its numbers and not its model has lost no number.
        if size >= 64 {
            let metrics = fs::read_to_string(world.inside().join("r/metrics.jsonl")).expect("metrics");
            assert_eq!(metrics.lines().count(), 40, "{what}");
        }
    }
    println!("limits on file sizes: {} runs, {well} ended well, {errors} with one error", SIZES.len());
    assert!(well >= 1 && errors >= 10, "{well} {errors}");
}

/// Each way of writing, on its own.
#[test]
fn whatever_is_written_says_that_it_may_not_grow() {
    let world = World::new();
    let inside = world.inside();
    let scripts = [
        ("save", "load_model(\"tiny\").save(\"m\");", 64),
        ("save-here", "load_model(\"tiny\").save(\".\");", 64),
        ("batch", "batch(#{ reward: ones([4000, 1]) }).save(\"b\");", 4),
        ("heatmap", "heatmap(\"x.svg\", #{ x: ones([40, 40]) });", 4),
        ("best", "let run = open_run(#{}); let p = load_model(\"tiny\"); run.log(#{ a: 1 }); run.save(p);", 64),
        (
            "checkpoint",
            "let run = open_run(#{}); let x = blob(300000, 1); for s in run.steps(4) { x[0] = s; run.log(#{ s: s }); }",
            64,
        ),
    ];
    for (name, script, _) in scripts {
        fs::write(inside.join(format!("{name}.rhai")), script).expect("written");
    }
    fs::write(inside.join("own.rhai"), SCRIPT).expect("written");
    fs::write(inside.join("loud.rhai"), "for i in 0..10000 { print(`line ${i}`); }").expect("written");
    give(inside);
    let made = command(inside, env!("CARGO_BIN_EXE_rhopo"))
        .args(["run", "own", "--threads", "1", "--out", "whole"])
        .output()
        .expect("rhopo starts");
    assert!(made.status.success(), "{}", said(&made));
    for (name, _, blocks) in scripts {
        let out = limited(inside, blocks, &["run", name, "--threads", "1", "--checkpoint", "2"]);
        let text = said(&out);
        if name == "checkpoint" {
            // It costs the checkpoint, and not the run.
            assert!(
                out.status.success() && text.contains("no checkpoint after step 2: ") && text.contains(LIMIT),
                "{text}"
            );
            continue;
        }
        assert!(!ended_clearly(name, &out, LIMIT), "{name}: it is written");
        for left in ["m", "b", "x.svg", "model.safetensors", "config.json", "unfinished-save"] {
            let folder = left == "m"
                && inside.join("m").is_dir()
                && fs::read_dir(inside.join("m")).expect("a folder").count() == 0;
            assert!(folder || !inside.join(left).exists(), "{name}: {left} is there");
        }
    }
    for words in [
        &["report", "whole", "-o", "p.html"][..],
        &["plot", "whole", "--y", "loss", "-o", "p.svg"],
        &["plot", "whole", "--y", "loss", "-o", "p.png"],
    ] {
        let out = limited(inside, 2, words);
        assert!(!ended_clearly(words[0], &out, LIMIT), "{words:?}: it is written");
        assert!(!inside.join(words.last().expect("a name")).exists(), "{words:?}");
    }
    // What a script prints into a file.
    let mut shell = command(inside, "sh");
    shell.args(["-c", "ulimit -f 8; exec \"$0\" run loud > printed", env!("CARGO_BIN_EXE_rhopo")]);
    let out = shell.stdin(Stdio::null()).output().expect("sh is there");
    let text = said(&out);
    assert!(
        out.status.code() == Some(1) && text.contains(&format!("Error: cannot write standard output: {LIMIT}")),
        "{text}"
    );
    let left: Vec<_> =
        fs::read_dir(inside).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".part-")), "{left:?}");
}

/// A file system of a size of its own; gone with the value.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path, kib: u64) -> Option<Self> {
        let size = format!("size={}k", kib.max(4));
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        done.is_ok_and(|done| done.status.success()).then_some(Self(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

#[test]
fn runs_whose_disk_is_full_end_clearly() {
    if !is_root() {
        println!("disks that are full: not tried, as only root may mount one");
        return;
    }
    let (mut well, mut errors, mut kept) = (0, 0, 0);
    for size in SIZES {
        let world = World::new();
        let disk = world.inside().join("disk");
        fs::create_dir(&disk).expect("made");
        fs::write(world.inside().join("own.rhai"), SCRIPT).expect("written");
        let Some(_small) = Small::mount(&disk, size) else {
            println!("disks that are full: not tried, as mounting failed");
            return;
        };
        give(world.inside());
        let mut rhopo = command(world.inside(), env!("CARGO_BIN_EXE_rhopo"));
        let out = rhopo
            .args(["run", "own", "--threads", "1", "--out", "disk/r"])
            .stdin(Stdio::null())
            .output()
            .expect("rhopo starts");
        let what = format!("a disk of {size} KiB");
        match ended_clearly(&what, &out, "No space left on device") {
            true => well += 1,
            false => errors += 1,
        }
        is_whole(&what, &disk.join("r"));
        // The current folder is on another disk: there it is kept.
        let rescued = world.inside().join("r-rescued/model/model.safetensors").is_file();
        if said(&out).contains("what was trained is in r-rescued instead") {
            assert!(rescued, "{what}");
            kept += 1;
        }
        let trained = fs::metadata(disk.join("r/metrics.jsonl")).is_ok_and(|about| about.len() > 0);
        let saved = disk.join("r/model").exists();
        assert!(!trained || saved || rescued, "{what}: the model is lost: {}", said(&out));
    }
    println!(
        "disks that are full: {} runs, {well} ended well, {errors} with one error, of {kept} the model is elsewhere",
        SIZES.len()
    );
    assert!(well >= 1 && errors >= 10, "{well} {errors}");
}
