//! `report.html`, which a run writes however it ends, and `rhopo report`, which writes it again.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn rhopo(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rhopo")).current_dir(dir).args(args).output().expect("rhopo starts")
}

fn run(dir: &Path, script: &str, args: &[&str]) -> Output {
    fs::write(dir.join("own.rhai"), script).expect("written");
    rhopo(dir, &[&["run", "own", "--out", "out"], args].concat())
}

fn page(dir: &Path) -> String {
    fs::read_to_string(dir.join("out/report.html")).expect("a report")
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

const SAMPLED: &str = r#"//! Own: <b>bold</b> & more
let cfg = args(#{ steps: 3, label: "none" });
let run = open_run(cfg);
let b = batch(#{ prompt: ["<script>alert(1)</script>\x1b[31m", "2+2="], text: ["</td>", "4"], reward: [1.0, 0.0], "<i>": ["<b>", "x"] });
for step in run.steps(cfg.steps) {
    run.log(#{ reward: mean(b.reward), "<script>alert(2)</script>": step, eval: 0.5 });
    run.show(b, 2);
}
"#;

#[test]
fn a_finished_run_is_on_one_page_on_which_nothing_is_markup_but_ours() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = run(dir.path(), SAMPLED, &["--set", "label=<img src=x>\u{1b}[2J"]);
    assert!(out.status.success(), "{}", said(&out));
    let page = page(dir.path());
    for shown in [
        ">finished</span>",
        "Own: &lt;b&gt;bold&lt;&#x2f;b&gt; &amp; more",
        "&lt;script&gt;alert(1)&lt;&#x2f;script&gt;\\x1b[31m",
        "&lt;script&gt;alert(2)",
        "&lt;img src=x&gt;\\x1b[2J",
        "<h2>Evaluations</h2>",
        "samples of step 3",
    ] {
        assert!(page.contains(shown), "{shown} is missing: {page}");
    }
    for wrong in ["<script", "<img", "<i>", "<b>", "\u{1b}"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    // The terminal obeys nothing either, nor does the picture.
    let said = said(&out);
    assert!(!said.contains('\u{1b}') && said.contains("<script>alert(1)</script>\\x1b[31m"), "{said}");
    let svg = fs::read_to_string(dir.path().join("out/curves.svg")).expect("curves");
    assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;alert(2)"), "{svg}");
}

#[test]
fn a_failed_run_says_why_on_its_page() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = run(
        dir.path(),
        "let run = open_run(#{});\nfor step in run.steps(2) { run.log(#{ mine: 1 }); }\nnothing();\n",
        &[],
    );
    assert_eq!(out.status.code(), Some(1));
    let page = page(dir.path());
    assert!(page.contains(">failed</span>") && page.contains("there is no function `nothing"), "{page}");
}

/// A folder stands where the page would: the run loses neither its model nor its exit code.
#[test]
fn a_page_that_cannot_be_written_costs_a_warning() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "let run = open_run(#{});\nlet policy = load_model(\"tiny\");\npolicy.save(run.dir + \"/report.html\");\n\
                  policy.save(run.dir + \"/curves.svg\");\nfor step in run.steps(2) { run.log(#{ mine: 1 }); }\nrun.save(policy);\n";
    let out = run(dir.path(), script, &["--device", "cpu"]);
    let said = said(&out);
    assert!(out.status.success(), "{said}");
    assert!(
        said.contains("the report could not be written: ") && said.contains("the curves could not be drawn: "),
        "{said}"
    );
    assert!(dir.path().join("out/model/model.safetensors").is_file());
    let status = fs::read_to_string(dir.path().join("out/status.json")).expect("a status");
    assert!(status.contains("finished"), "{status}");
}

#[test]
fn a_page_is_written_again_from_the_folder_also_elsewhere() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(run(dir.path(), SAMPLED, &[]).status.success());
    let first = page(dir.path());
    fs::remove_file(dir.path().join("out/report.html")).expect("removed");
    let out = rhopo(dir.path(), &["report", "out"]);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), Path::new("out").join("report.html").display().to_string());
    // What was told after it was written first is in the log now.
    let before_the_log = |page: &str| page.split("<section id=\"log\">").next().map(str::to_string);
    assert_eq!(before_the_log(&page(dir.path())), before_the_log(&first));
    let first = page(dir.path());
    // As if it had been killed, in the middle of a line.
    fs::remove_file(dir.path().join("out/status.json")).expect("removed");
    let metrics = dir.path().join("out/metrics.jsonl");
    let text = fs::read_to_string(&metrics).expect("metrics");
    fs::write(&metrics, &text[..text.len() - 9]).expect("written");
    assert!(rhopo(dir.path(), &["report", "out", "-o", "other.html"]).status.success());
    let other = fs::read_to_string(dir.path().join("other.html")).expect("a report");
    assert!(other.contains(">killed</span>") && page(dir.path()) == first);

    for name in ["metrics.jsonl", "script.rhai", "config.json", "report"] {
        let (name, before) = (format!("out/{name}"), fs::read(dir.path().join("out").join(name)).ok());
        let out = rhopo(dir.path(), &["report", "out", "-o", &name]);
        assert!(out.status.code() == Some(1) && said(&out).contains("a report is written as .html or .htm"), "{name}");
        assert_eq!(fs::read(dir.path().join(&name)).ok(), before, "{name} is as it was");
    }
    let out = rhopo(dir.path(), &["report", "nowhere"]);
    assert!(out.status.code() == Some(1) && said(&out).contains("there is no run in nowhere"), "{}", said(&out));
    let out = rhopo(dir.path(), &["report", "out", "-o", "no/such/folder.html"]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
}
