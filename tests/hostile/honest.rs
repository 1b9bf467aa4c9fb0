//! What people do, and must go on to be able to: each with the rules that keep hostile scripts in.

use super::world::{Step, World};
use std::fs;
use std::os::unix::fs::symlink;

/// Runs `own.rhai` with options; it must end well.
fn works(what: &str, steps: &[Step], script: &str, options: &[&str]) {
    let world = World::new();
    world.lay(steps);
    world.lay(&[Step::Write("own.rhai", script.to_string())]);
    let words: Vec<String> =
        ["run", "own", "--threads", "1"].iter().chain(options).map(|word| world.fill(word)).collect();
    let done = world.run(&words, &[]);
    assert_eq!(done.code, Some(0), "{what}: {}", done.said);
}

#[test]
fn what_the_command_line_names_is_read() {
    let load = "let cfg = args(#{ data: \"\" }); load_data(cfg.data).rows(1);";
    works("a value that means a path", &[], load, &["--set", "data={out}/secret.jsonl"]);
    works("the same by dots", &[], load, &["--set", "data={up}/secret.jsonl"]);
    let declared = "let cfg = args(#{ words: path(\"\") }); load_data(cfg.words).rows(1);";
    works("a value that is declared as a path", &[], declared, &["--set", "words={out}/secret.jsonl"]);
    works(
        "its default",
        &[Step::Write("d.jsonl", "{\"prompt\": \"1\"}\n".into())],
        &declared.replace("\"\"", "\"d.jsonl\""),
        &[],
    );
    works(
        "a model",
        &[],
        "let cfg = args(#{ model: \"tiny\" }); load_model(cfg.model);",
        &["--set", "model={out}/model"],
    );
    works("a folder", &[Step::Link("sub", "{out}")], "load_data(\"sub/secret.jsonl\").rows(1);", &["--allow", "sub"]);
    let task = "let cfg = args(#{ task: \"\" }); load_task(cfg.task);";
    let file = "fn prompts(n) { let x = []; for i in 0..n { x.push(\"1\"); } x } fn score(b) { [0.0] }";
    works("a task", &[Step::Write("t.rhai", file.into())], task, &["--set", "task={in}/t.rhai"]);
}

#[test]
fn links_within_what_may_be_read_are_followed() {
    let row = || Step::Write("real/d.jsonl", "{\"prompt\": \"1\"}\n".into());
    works("relative", &[row(), Step::Link("d.jsonl", "real/d.jsonl")], "load_data(\"d.jsonl\").rows(1);", &[]);
    works("absolute", &[row(), Step::Link("d.jsonl", "{in}/real/d.jsonl")], "load_data(\"d.jsonl\").rows(1);", &[]);
    works("a folder", &[row(), Step::Link("sub", "{in}/real")], "load_data(\"sub/d.jsonl\").rows(1);", &[]);
    works("up and down", &[row(), Step::Link("real/up", "..")], "load_data(\"real/up/real/d.jsonl\").rows(1);", &[]);
    works(
        "into an allowed folder",
        &[Step::Link("d.jsonl", "{out}/secret.jsonl")],
        "load_data(\"d.jsonl\").rows(1);",
        &["--allow", "{out}"],
    );
    works(
        "to an allowed file",
        &[Step::Link("d.jsonl", "{out}/secret.jsonl")],
        "load_data(\"d.jsonl\").rows(1);",
        &["--allow", "{out}/secret.jsonl"],
    );
    works(
        "of a model into an allowed folder",
        &[Step::Model("m"), Step::Link("m/model.safetensors", "{out}/model/model.safetensors")],
        "load_model(\"m\").save(\"copy\");",
        &["--allow", "{out}"],
    );
    works(
        "a folder to write in",
        &[row(), Step::Link("sub", "{in}/real")],
        "batch(#{ reward: [1] }).save(\"sub/b\"); load_batch(\"real/b\");",
        &[],
    );
}

#[test]
fn runs_go_where_they_are_sent() {
    let script = "let run = open_run(#{}); let p = load_model(\"tiny\"); run.save(p); p.save(run.dir + \"/other\"); load_model(run.dir + \"/model\");";
    works("by default", &[], script, &[]);
    works("into a new folder", &[], script, &["--out", "a/b/c"]);
    works("outside", &[], script, &["--out", "{out}/new/run"]);
    works("by a link that was named", &[Step::Link("big", "{out}")], script, &["--out", "big/run"]);
    works(
        "runs is a link within",
        &[Step::Write("disk/x", String::new()), Step::Link("runs", "{in}/disk")],
        script,
        &[],
    );
}

#[test]
fn an_adapter_finds_its_model_beside_it() {
    let make = "load_model(\"tiny\").save(\"base\"); load_model(\"base\", #{ lora: #{ rank: 2 } }).save(\"a\"); load_model(\"a\");";
    works("by its absolute path", &[], make, &[]);
}

/// The cache has links of its own, from snapshots to blobs, and lies outside of the current folder.
#[test]
fn the_links_of_the_hubs_cache_are_followed() {
    let world = World::new();
    let (repo, model) = (world.outside().join("hub/models--o--n"), world.outside().join("model"));
    let snapshot = repo.join("snapshots/0123");
    for folder in [&snapshot, &repo.join("blobs"), &repo.join("refs")] {
        fs::create_dir_all(folder).expect("made");
    }
    fs::write(repo.join("refs/main"), "0123").expect("written");
    for entry in fs::read_dir(&model).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        fs::copy(&path, repo.join("blobs").join(format!("blob-{name}"))).expect("copied");
        symlink(format!("../../blobs/blob-{name}"), snapshot.join(&name)).expect("linked");
    }
    world.lay(&[Step::Write(
        "own.rhai",
        "load_model(\"o/n\").save(\"copy\"); print(load_model(\"copy\").parameters);".into(),
    )]);
    let cache = world.outside().join("hub").display().to_string();
    let done = world.run(&["run", "own"].map(String::from), &[("HF_HUB_CACHE", cache)]);
    assert_eq!(done.code, Some(0), "{}", done.said);
}

#[test]
fn a_run_goes_on_with_what_is_allowed_again() {
    let world = World::new();
    world.lay(&[
        Step::Run("r"),
        Step::Edit("r/config.json", "    \"own\",\n", "    \"own\", \"--allow\", \"{out}\",\n"),
        Step::Edit("r/script.rhai", "let n = 0;", "let n = 0; load_data(\"{out}/secret.jsonl\").rows(1);"),
    ]);
    let words = |words: &[&str]| words.iter().map(|word| world.fill(word)).collect::<Vec<_>>();
    let done = world.run(&words(&["run", "--resume", "r"]), &[]);
    let said = world.fill("the run was started with --allow {out}: say it again if it is still meant");
    assert!(done.code == Some(1) && done.said.contains(&said), "{}", done.said);
    let done = world.run(&words(&["run", "--resume", "r", "--allow", "{out}"]), &[]);
    assert_eq!((done.code, done.said.contains("went on")), (Some(0), true), "{}", done.said);
}

/// The kernel's wall stands where rhopo's own rule is not asked: around a program that was allowed.
#[test]
fn the_kernels_wall_holds_for_programs_and_lets_runs_work() {
    let script =
        "let run = open_run(#{}); let p = load_model(\"tiny\"); run.save(p); load_model(run.dir + \"/model\");";
    works("a run", &[], script, &["--confine"]);
    works("with bounds", &[], script, &["--max-ops", "100000", "--out", "{out}/new/run"]);
    works("what is allowed", &[], "load_data(\"{out}/secret.jsonl\").rows(1);", &["--confine", "--allow", "{out}"]);
    let world = World::new();
    let grade = "while read line; do echo x > \"$1/by-program\"; echo x > ./inside; echo 1; done";
    world.lay(&[
        Step::Write("grade.sh", grade.into()),
        Step::Write(
            "own.rhai",
            "let t = load_task(\"arithmetic\", #{ reward: \"exec:grade\" });\n\
             let p = load_model(\"tiny\"); print(mean(t.score(sample(p, t.prompts(1), #{ n: 1, max_tokens: 2 }))));"
                .into(),
        ),
    ]);
    fs::create_dir(world.inside().join("tmp")).expect("made");
    let tmp = [("TMPDIR", world.inside().join("tmp").display().to_string())];
    let words = ["run", "own", "--confine", "--allow-exec", "grade=sh grade.sh {out}"].map(|word| world.fill(word));
    let done = world.run(&words, &tmp);
    assert_eq!(done.code, Some(0), "{}", done.said);
    assert!(world.inside().join("inside").exists(), "{}", done.said);
    if !done.said.contains("no Landlock") {
        assert!(!world.outside().join("by-program").exists(), "{}", done.said);
    }
}
