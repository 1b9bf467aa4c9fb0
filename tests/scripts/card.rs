//! The model card beside saved weights: what it says, and that nothing in it breaks out of its place.

use std::fs;
use std::path::Path;
use std::process::Command;

const SCRIPT: &str = "//! Odd <b>bold</b> | *stars* `code` $x$ [link](x) --> & more
let cfg = args(#{ note: \"\", steps: 2, rate: 2e-6, many: [1, \"a|b\"], \"odd|<name>\": 1 });
let run = open_run(cfg);
let policy = load_model(\"tiny\");
run.log(#{ eval: 0.25 });
for step in run.steps(cfg.steps) {
    run.log(#{ reward: 0.5 * step, \"own|`name`\": 1.0 / 3.0, \"gone\": 0.0 / 0.0 });
    run.keep(\"reward\", 0.5 * step, policy);
}
run.log(#{ eval: 0.75 });
run.save(policy);
";

fn run(dir: &Path, words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    let output = command.arg("run").args(words).args(["--device", "cpu"]).current_dir(dir).output().expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn card(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("README.md")).expect("a card");
    // What a release changes.
    text.replace(&format!("rhopo {}", env!("CARGO_PKG_VERSION")), "rhopo VERSION")
}

macro_rules! snapshot {
    ($name:literal, $text:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($name, $text)
        })
    };
}

#[cfg(unix)]
#[test]
fn a_card_says_how_the_model_came_about_and_nothing_in_it_is_markup() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "a \"b\" <i> `c` | d's.rhai";
    fs::write(dir.path().join(script), SCRIPT).expect("written");
    let note = "note=| x | </table> \\| ```\n---\n# no \u{1b}[31m \u{202e}日本";
    run(dir.path(), &[script, "--seed", "3", "--threads", "1", "--out", "run", "--set", note, "rate=1e-5"]);
    snapshot!("card", card(&dir.path().join("run/model")));
    let best = card(&dir.path().join("run/model-best"));
    assert!(best.contains("\nThe best of the run by reward: 1 after step 2.\n"), "{best}");
    for text in [card(&dir.path().join("run/model")), best] {
        assert!(!text.contains(dir.path().to_str().expect("UTF-8")), "{text}");
        assert_eq!(text.lines().filter(|line| *line == "---").count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }
}

#[test]
fn a_base_model_is_named_where_a_card_names_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = "let cfg = args(#{ model: \"tiny\", adapt: false });\nlet run = open_run(cfg);\n\
                let options = if cfg.adapt { #{ lora: #{ rank: 2 } } } else { #{} };\n\
                run.save(load_model(cfg.model, options));\n";
    fs::write(dir.path().join("saves.rhai"), text).expect("written");
    run(dir.path(), &["saves.rhai", "--out", "first"]);
    let model = dir.path().join("first/model");
    assert!(!card(&model).contains("base_model"), "{}", card(&model));
    let own = "---\nlicense: mit\nbase_model: some/model\n---\nMy words.\n";
    fs::write(model.join("README.md"), own).expect("written");
    run(dir.path(), &["saves.rhai", "--out", "second", "--set", "model=first/model"]);
    run(dir.path(), &["saves.rhai", "--out", "third", "--set", "model=second/model", "adapt=true"]);
    assert_eq!(card(&model), own, "what was read is as it was");
    for (run, library) in [("second", "transformers"), ("third", "peft")] {
        let text = card(&dir.path().join(run).join("model"));
        let front =
            format!("---\nbase_model: \"some/model\"\nlibrary_name: {library}\ntags:\n- rhopo\n- \"saves\"\n---\n");
        assert!(text.starts_with(&front), "{text}");
    }
}

#[test]
fn a_model_that_is_saved_again_has_a_card_of_then() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = "let run = open_run(#{});\nlet policy = load_model(\"tiny\");\nrun.save(policy);\n\
                for step in run.steps(1) { run.log(#{ mine: step }); }\nrun.save(policy);\n\
                policy.save(run.dir + \"/model\");\npolicy.save(run.dir + \"/other\");\n";
    fs::write(dir.path().join("twice.rhai"), text).expect("written");
    run(dir.path(), &["twice.rhai", "--out", "run"]);
    // The card of the second save: the first knew no number. `model.save` writes none, and takes none away.
    let text = card(&dir.path().join("run/model"));
    assert!(text.contains("\n| mine | 1 | 1 |  |\n"), "{text}");
    assert!(!dir.path().join("run/other/README.md").exists());
}
