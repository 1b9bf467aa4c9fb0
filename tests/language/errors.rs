//! What a person reads when something is wrong: the whole error output of the program, as snapshots.
//! After a change of wording: `INSTA_UPDATE=always cargo test --release --test language errors`, and read the difference.

use std::fs;
use std::process::Command;

/// Runs `own.rhai` with these options and returns what stands on standard error.
fn errors_of(script: &str, options: &[&str]) -> String {
    errors_with(script, options, &[])
}

fn errors_with(script: &str, options: &[&str], files: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), script).expect("written");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("written");
    }
    run(dir.path(), &[&["run", "own", "--out", "out"], options].concat())
}

fn run(dir: &std::path::Path, args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_rhopo")).current_dir(dir).args(args).output().expect("rhopo starts");
    let text = String::from_utf8(out.stderr).expect("UTF-8");
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    // Progress comes before it, with times that differ from run to run.
    text[text.find("Error: ").expect("an error")..].to_string()
}

macro_rules! snapshot {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($text)
        })
    };
}

#[test]
fn unknown_script() {
    let dir = tempfile::tempdir().expect("a folder");
    snapshot!(run(dir.path(), &["run", "gpro"]));
}

#[test]
fn unknown_device() {
    snapshot!(errors_of("", &["--device", "cdua"]));
}

#[test]
fn a_negative_clip_range() {
    snapshot!(errors_of("let clipped = clip(ones([2, 3]), 1 - -0.5, 1 + -0.5);\n", &[]));
}

#[test]
fn an_option_behind_a_task_name_without_a_value() {
    snapshot!(errors_of("let task = load_task(\"guess:max\");\n", &[]));
}

#[test]
fn an_option_of_a_task_given_twice() {
    snapshot!(errors_of("let task = load_task(\"guess:max=12\", #{ max: 16 });\n", &[]));
}

#[test]
fn unknown_task() {
    snapshot!(errors_of("let task = load_task(\"aritmetic\");\n", &[]));
}

#[test]
fn unknown_model() {
    snapshot!(errors_of("let policy = load_model(\"tinny\");\n", &[]));
}

#[test]
fn unknown_option() {
    snapshot!(errors_of("let task = load_task(\"arithmetic\", #{ digit: 2 });\n", &[]));
}

#[test]
fn unknown_column() {
    let script = "let b = batch(#{ reward: tensor([[1.0], [0.0]]) });\nlet r = b.rewards;\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn reward_that_is_not_a_number() {
    let script = "let b = batch(#{ prompt: [\"1+1=\", \"What is one and one, written as a word and then as a number, please?\"], \
                  text: [\"2\", \"two\"] });\nb.reward = [1.0, 0.0 / 0.0];\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn reward_that_is_infinite() {
    snapshot!(errors_of("let b = batch(#{ text: [\"2\", \"two\"] });\nb.reward = log(tensor([[0.0], [1.0]]));\n", &[]));
}

#[test]
fn reward_of_another_length() {
    let script = "let b = encode_ids([[5], [6]], [[1, 2], [3]]);\nb.reward = [1.0, 0.0, 1.0];\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn selecting_by_a_mask() {
    snapshot!(errors_of("let b = batch(#{ reward: [1, 0] });\nlet s = b.select(b.reward > 0);\n", &[]));
}

#[test]
fn joining_batches_of_different_columns() {
    let script = "let a = batch(#{ reward: [1, 0] });\nlet b = batch(#{ rewards: [1, 0] });\nlet c = join([a, b]);\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn syntax_error() {
    snapshot!(errors_of("let a = [1, 2;\nprint(a);\n", &[]));
}

#[test]
fn reserved_word() {
    snapshot!(errors_of("let shared = 3;\n", &[]));
}

#[test]
fn unknown_function() {
    snapshot!(errors_of("let x = tensor([[1.0, 2.0]]);\nlet y = seq_maen(x, x);\n", &[]));
}

#[test]
fn unknown_function_of_a_module() {
    snapshot!(errors_of("let x = tensor([[1.0, 2.0]]);\nlet y = kl::k4(x, x);\n", &[]));
}

#[test]
fn wrong_arguments() {
    snapshot!(errors_of("let x = tensor([[1.0, 2.0]]);\nlet y = seq_mean(x);\n", &[]));
}

/// The type of nothing is written `()`, which once lost its bracket.
#[test]
fn nothing_as_the_last_argument() {
    snapshot!(errors_of("let x = tensor([[1.0, 2.0]]);\nlet y = seq_mean(x, ());\n", &[]));
}

#[test]
fn wrong_arguments_of_an_own_function() {
    snapshot!(errors_of("fn loss(logp, b) { logp }\nloss(1);\n", &[]));
}

#[test]
fn misspelt_key() {
    snapshot!(errors_of("let cfg = args(#{ steps: 3, clip: 0.2 });\nprint(cfg.clipp);\n", &[]));
}

#[test]
fn unknown_hyper_parameter() {
    snapshot!(errors_of("let cfg = args(#{ steps: 3, lr: 0.2 });\n", &["--set", "stesp=4"]));
}

#[test]
fn hyper_parameter_of_the_wrong_type() {
    snapshot!(errors_of("let cfg = args(#{ steps: 3, lr: 0.2 });\n", &["--set", "steps=0.5"]));
}

#[test]
fn hyper_parameters_that_nobody_reads() {
    snapshot!(errors_of("print(1);\n", &["--set", "lr=1"]));
}

#[test]
fn error_inside_a_native_module_function() {
    snapshot!(errors_of("let r = ones([4, 1]);\nlet a = advantage::group(r, 3);\n", &[]));
}

#[test]
fn importing_a_script_that_opens_a_run() {
    snapshot!(errors_of("import \"grpo\" as grpo;\n", &[]));
}

#[test]
fn step_loop_inside_a_step_loop() {
    let script = "let run = open_run(#{});\nfor a in run.steps(2) {\n    for b in run.steps(2) { print(b); }\n}\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn more_rows_than_memory_holds() {
    snapshot!(errors_of("let b = sample(load_model(\"tiny\"), [\"1+1=\"], #{ n: 100000000 });\n", &[]));
}

#[test]
fn function_used_as_a_property() {
    let script = "let opt = adamw(load_model(\"tiny\"), #{});\nprint(opt.step);\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn recursion_through_closures() {
    let script = "fn f(n) { [1].map(|x| f(n + 1)) }\nf(0);\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn mixed_shapes() {
    let script = "let x = tensor([[1.0, 2.0], [3.0, 4.0]]);\nlet y = tensor([1.0, 2.0]);\nprint(x + y);\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn tensor_as_a_condition() {
    snapshot!(errors_of("let x = tensor([[1.0, 2.0]]);\nif x > 1.5 {\n    print(x);\n}\n", &[]));
}

#[test]
fn outer_variable_in_a_function() {
    let script = "let clip = 0.2;\nfn loss(x) {\n    x * clip\n}\nfn outer(x) {\n    loss(x)\n}\nouter(1.0);\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn error_inside_another_script() {
    let own = "let s = script(\"other\");\ns.call(\"loss\", [tensor([[1.0, 2.0]])]);\n";
    let other = "fn loss(x) {\n    x + tensor([1.0, 2.0, 3.0])\n}\n";
    snapshot!(errors_with(own, &[], &[("other.rhai", other)]));
}

#[test]
fn unknown_function_of_another_script() {
    let own = "let s = script(\"other\");\ns.call(\"los\", []);\n";
    snapshot!(errors_with(own, &[], &[("other.rhai", "fn loss() { 1 }\n")]));
}

#[test]
fn error_inside_a_module() {
    let own = "import \"part\" as part;\npart::f(1);\n";
    snapshot!(errors_with(own, &[], &[("part.rhai", "fn f(x) {\n    g(x)\n}\n")]));
}

#[test]
fn unknown_module() {
    snapshot!(errors_of("import \"std/rewards\" as reward;\n", &[]));
}

#[test]
fn unknown_file() {
    let dir = tempfile::tempdir().expect("a folder");
    snapshot!(run(dir.path(), &["run", "mine/grpo.rhai"]));
}

#[test]
fn unknown_module_of_an_own_script() {
    snapshot!(errors_of("import \"helper\" as helper;\n", &[]));
}

#[test]
fn unknown_property() {
    snapshot!(errors_of("let x = tensor([[1.0]]);\nprint(x.shpae);\n", &[]));
}

#[test]
fn endless_recursion() {
    snapshot!(errors_of("fn f(x) {\n    f(x + 1)\n}\nf(0);\n", &[]));
}

#[test]
fn logging_a_tensor_of_many_values() {
    let script = "let run = open_run(#{});\nrun.log(#{ reward: tensor([[1.0], [0.0]]) });\n";
    snapshot!(errors_of(script, &[]));
}

#[test]
fn a_failed_assertion() {
    snapshot!(errors_of("assert_close(tensor([[1.0, 2.0]]), [[1.0, 2.5]], 1e-3);\n", &[]));
}

#[test]
fn unreadable_script() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), [0xff, 0xfe, 0x00]).expect("written");
    snapshot!(run(dir.path(), &["run", "own.rhai"]));
}

const TINY: &str = "let policy = load_model(\"tiny\", #{ random: true });\n";

#[test]
fn loss_that_does_not_depend_on_the_policy() {
    let script = format!("{TINY}let opt = adamw(policy, #{{ lr: 0.1 }});\nopt.step(tensor(1.0));\n");
    snapshot!(errors_of(&script, &[]));
}

#[test]
fn loss_on_a_frozen_model() {
    let script = format!(
        "{TINY}let base = policy.frozen();\nlet opt = adamw(policy, #{{ lr: 0.1 }});\n\
         let b = encode(policy, [#{{ prompt: \"1+1=\", completion: \"2\" }}]);\n\
         opt.step(-token_mean(logprob(base, b), b.mask));\n"
    );
    snapshot!(errors_of(&script, &[]));
}

#[test]
fn loss_that_is_not_a_number() {
    let script = format!(
        "{TINY}let run = open_run(#{{}});\nlet opt = adamw(policy, #{{ lr: 0.1 }});\n\
         for step in run.steps(3) {{\n\
         \u{20}   let b = encode(policy, [#{{ prompt: \"1+1=\", completion: \"2\" }}]);\n\
         \u{20}   b.weight = tensor([[if step == 2 {{ 0.0 / 0.0 }} else {{ 1.0 }}]]);\n\
         \u{20}   opt.step(-token_mean(logprob(policy, b) * b.weight, b.mask));\n\
         }}\n"
    );
    snapshot!(errors_of(&script, &[]));
}

/// A model folder, damaged by `harm`, and what is said about it.
fn broken(harm: impl FnOnce(&std::path::Path)) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let save = format!("{TINY}open_run(#{{}}).save(policy);\n");
    fs::write(dir.path().join("save.rhai"), save).expect("written");
    fs::write(dir.path().join("load.rhai"), "let policy = load_model(\"made/model\");\n").expect("written");
    let args = ["run", "save", "--out", "made"];
    let out = Command::new(env!("CARGO_BIN_EXE_rhopo")).current_dir(dir.path()).args(args).output().expect("starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    harm(&dir.path().join("made/model"));
    run(dir.path(), &["run", "load"])
}

#[test]
fn model_folder_without_weights() {
    snapshot!(broken(|dir| fs::remove_file(dir.join("model.safetensors")).expect("removed")));
}

#[test]
fn model_folder_with_truncated_weights() {
    snapshot!(broken(|dir| {
        let bytes = fs::read(dir.join("model.safetensors")).expect("read");
        fs::write(dir.join("model.safetensors"), &bytes[..bytes.len() / 2]).expect("written");
    }));
}

#[test]
fn model_folder_with_a_wrongly_shaped_tensor() {
    snapshot!(broken(|dir| edit(&dir.join("config.json"), "intermediate_size", 13)));
}

#[test]
fn model_folder_without_a_tensor() {
    snapshot!(broken(|dir| edit(&dir.join("config.json"), "num_hidden_layers", 99)));
}

#[test]
fn model_folder_with_broken_json() {
    snapshot!(broken(|dir| fs::write(dir.join("config.json"), "{ \"hidden_size\": ").expect("written")));
}

fn edit(path: &std::path::Path, key: &str, value: u64) {
    let text = fs::read_to_string(path).expect("read");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json[key] = value.into();
    fs::write(path, json.to_string()).expect("written");
}

#[test]
fn a_path_outside_of_the_scripts_folders() {
    snapshot!(errors_of("let data = load_data(\"/etc/passwd\");\n", &[]));
}

#[test]
fn a_file_that_may_not_be_written() {
    snapshot!(errors_of("let b = batch(#{ reward: [1] });\nb.save(\"/nowhere/b.safetensors\");\n", &[]));
}

#[test]
fn more_operations_than_allowed() {
    snapshot!(errors_of("let n = 0;\nwhile true { n += 1; }\n", &["--max-ops", "1000"]));
}

#[test]
fn modules_that_import_each_other() {
    snapshot!(errors_with("import \"other\" as other;\n", &[], &[("other.rhai", "import \"own\" as own;\n")]));
}

#[test]
fn a_closure_that_changes_what_it_is_called_on() {
    snapshot!(errors_of("let all = [1, 2];\nall.for_each(|x| all.push(x));\n", &[]));
}

#[test]
fn a_closure_that_reads_what_it_is_called_on() {
    snapshot!(errors_of("let t = [1, 2];\nlet same = t.map(|x| x == t[0]);\n", &[]));
}

#[test]
fn a_tensor_larger_than_memory() {
    snapshot!(errors_of("let x = ones([100000, 100000]);\n", &[]));
}

#[test]
fn a_thrown_value_that_is_no_text() {
    snapshot!(errors_of("throw tensor([1, 2]);\n", &[]));
}

/// Told beside the error, which is another one.
#[test]
fn a_sign_before_a_power() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), "let x = 3.0;\nprint(-x ** 2);\nprint(1 / 2);\n").expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_rhopo")).current_dir(dir.path()).args(["run", "own"]).output();
    snapshot!(String::from_utf8(out.expect("rhopo starts").stderr).expect("UTF-8"));
}

#[test]
fn a_mask_of_another_shape() {
    snapshot!(errors_of("let gain = ones([2, 3]);\nlet m = ones([2, 4]);\nconst_mean(gain * 2, m, 5);\n", &[]));
}

/// The text names the index first, the call the values: no name may get the other's shape.
#[test]
fn shapes_in_another_order_than_the_arguments() {
    snapshot!(errors_of("let x = ones([2, 3]);\nlet index = zeros([4, 1]);\ngather(x, index);\n", &[]));
}

/// Runs `script` beside a task's file.
fn task_errors(task: &str, script: &str) -> String {
    errors_with(script, &[], &[("mine.rhai", task)])
}

#[test]
fn a_task_file_that_is_not_there() {
    snapshot!(errors_of("let task = load_task(\"mine.rhai\");\n", &[]));
}

#[test]
fn a_task_file_without_prompts() {
    snapshot!(task_errors("fn score(b) { 1 }\n", "let task = load_task(\"mine.rhai\");\n"));
}

#[test]
fn a_task_file_without_a_reward() {
    snapshot!(task_errors("fn items() { [\"1+1=\"] }\n", "let task = load_task(\"mine.rhai\");\n"));
}

#[test]
fn an_unknown_option_of_a_task_file() {
    let task = "fn options() { #{ digits: 2 } }\nfn items(options) { [`${options.digits}=`] }\nfn score(b) { [1.0] }\n";
    snapshot!(task_errors(task, "let task = load_task(\"mine.rhai:digts=3\");\n"));
}

#[test]
fn a_task_function_that_takes_too_much() {
    let task = "fn items() { [\"1+1=\"] }\nfn score(texts, answers, scale) { 1 }\n";
    snapshot!(task_errors(task, "let task = load_task(\"mine.rhai\");\n"));
}

#[test]
fn an_error_inside_a_task_file() {
    let task = "fn items() { [\"1+1=\", \"2+2=\"] }\n\nfn score(b) {\n    b.text.map(|text| text.lenght)\n}\n";
    let script = "let task = load_task(\"mine.rhai\");\nlet b = batch(#{ text: [\"2\"] });\nlet r = task.score(b);\n";
    snapshot!(task_errors(task, script));
}

#[test]
fn a_task_file_with_rewards_of_another_length() {
    let task = "fn items() { [\"1+1=\", \"2+2=\"] }\nfn score(b) { [1.0, 2.0] }\n";
    let script = "let task = load_task(\"mine.rhai\");\nlet r = task.score(batch(#{ text: [\"a\", \"b\", \"c\"] }));\n";
    snapshot!(task_errors(task, script));
}

#[test]
fn a_task_file_with_too_few_prompts() {
    let task = "fn prompts(n) { [\"1+1=\"] }\nfn score(b) { [1.0] }\n";
    snapshot!(task_errors(task, "let prompts = load_task(\"mine.rhai\").prompts(4);\n"));
}

#[test]
fn a_reward_that_is_none() {
    snapshot!(errors_of("let task = load_task(\"arithmetic\", #{ reward: \"correct\" });\n", &[]));
}

#[test]
fn a_reward_for_a_script_without_a_task() {
    let script = "let cfg = args(#{ steps: 3 });\n";
    snapshot!(errors_of(script, &["--set", "reward=mine.rhai"]));
}

/// Scores two rows by a program; what is run is `sh`, so that the texts are the same wherever the tests run.
fn program_errors(command: &str) -> String {
    let script = "let cfg = args(#{ seed: 0 });\nlet task = load_task(\"arithmetic\");\n\
                  let r = task.score(batch(#{ prompt: [\"1+1=\", \"2+2=\"], text: [\"2\", \"four\"], answer: [\"2\", \"4\"] }));\n";
    let allow = format!("grader={command}");
    errors_of(script, &["--exec-seconds", "1", "--allow-exec", &allow, "--set", "reward=exec:grader"])
}

#[test]
fn a_program_that_is_not_allowed() {
    snapshot!(errors_of("let task = load_task(\"arithmetic\", #{ reward: \"exec:grader\" });\n", &[]));
}

#[test]
fn a_program_that_is_not_there() {
    snapshot!(program_errors("./no-such-grader --strict"));
}

#[cfg(unix)]
#[test]
fn a_program_that_crashes() {
    snapshot!(program_errors("sh -c 'read row; echo 1; echo \"no such key: answers\" >&2; exit 3'"));
}

#[cfg(unix)]
#[test]
fn a_program_that_hangs() {
    snapshot!(program_errors("sh -c 'read row; echo 1; exec sleep 600'"));
}

#[cfg(unix)]
#[test]
fn a_program_that_writes_no_number() {
    snapshot!(program_errors("sh -c 'while read row; do echo right; done'"));
}

#[cfg(unix)]
#[test]
fn a_program_that_writes_more_than_it_is_asked() {
    let script = "let cfg = args(#{ seed: 0 });\nlet task = load_task(\"arithmetic\");\n\
                  let b = batch(#{ text: [\"2\"], answer: [\"2\"] });\ntask.score(b);\nsleep(0.3);\ntask.score(b);\n";
    let options = ["--allow-exec", "grader=sh -c 'while read row; do echo 1; echo 2; done'"];
    snapshot!(errors_of(script, &[&options[..], &["--set", "reward=exec:grader"]].concat()));
}
