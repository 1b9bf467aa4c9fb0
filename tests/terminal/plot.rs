//! `rhopo plot`: curves of several runs over one another.

use super::commands::{rhopo, well};
use std::fs;
use tempfile::TempDir;

const OWN: &str = "let cfg = args(#{ steps: 3, clip: 0.2, seed: 0 });\n\
    let run = open_run(cfg);\n\
    for step in run.steps(cfg.steps) { run.log(#{ reward: step * cfg.clip + cfg.seed, loss: 1.0 / step }); }\n\
    run.log(#{ eval: 10 * cfg.clip });\n";

/// Two seeds of two settings.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), OWN).expect("written");
    for (name, clip, seed) in [("a", "0.1", "0"), ("b", "0.1", "1"), ("c", "0.3", "0"), ("d", "0.3", "1")] {
        let (clip, out) = (format!("clip={clip}"), format!("runs/{name}"));
        well(dir.path(), &["run", "own", "--set", &clip, "--seed", seed, "--out", &out]);
    }
    dir
}

#[test]
fn curves_are_drawn_as_svg_and_png_and_say_what_differs() {
    let dir = folder();
    let svg = |args: &[&str]| {
        assert_eq!(well(dir.path(), &[&["plot"], args].concat()), "picture: plot.svg\n");
        fs::read_to_string(dir.path().join("plot.svg")).expect("drawn")
    };
    let each = svg(&["runs/a", "runs/c", "runs/a"]);
    assert!(each.contains("clip=0.1") && each.contains("clip=0.3") && !each.contains("n=2"), "{each}");
    let bands = svg(&["runs", "--band", "seed", "--y", "reward", "--y", "eval"]);
    for text in ["clip=0.1 (n=2)", "clip=0.3 (n=2)", "mean of n runs", "reward", "eval", "<polygon"] {
        assert!(bands.contains(text), "{text}: {bands}");
    }
    let fewer = svg(&["runs", "--where", "clip > 0.2", "--x", "seconds", "--smooth", "3"]);
    assert!(fewer.contains("seed=1") && fewer.contains("seconds") && fewer.contains("smoothed over 3"), "{fewer}");
    assert_eq!(well(dir.path(), &["plot", "runs", "-o", "curves.PNG"]), "picture: curves.PNG\n");
    assert!(fs::read(dir.path().join("curves.PNG")).expect("drawn").starts_with(b"\x89PNG"));
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let dir = folder();
    for (args, told) in [
        (&["runs", "--y", "rewad"][..], "did you mean `reward`?"),
        (&["runs", "--band", "sed"], "did you mean `seed`?"),
        (&["runs", "--where", "clipp > 1"], "did you mean `clip`?"),
        (&["runs", "--where", "clip > 1"], "no run is left to draw"),
        (&["runs", "--x", "sampled"], "no finite value over tokens sampled"),
        (&["runs", "-o", "plot.pdf"], "a picture is written as .svg or .png"),
        (&["none"], "none"),
    ] {
        let said = rhopo(dir.path(), &[&["plot"], args].concat());
        assert!(said.code == 1 && said.err.contains(told), "{args:?}: {}", said.err);
    }
    assert!(!dir.path().join("plot.svg").exists());
    fs::write(dir.path().join("runs/a/metrics.jsonl"), "").expect("written");
    let said = rhopo(dir.path(), &["plot", "runs/a"]);
    assert!(said.code == 1 && said.err.contains("no run has logged a number yet"), "{}", said.err);
}
