//! Closures that come out of a module: called wherever closures of the script are.

use crate::common::host;
use rhopo::script::lang::loader::Source;
use std::fs;
use std::path::Path;

/// What closures of this module see: its functions, imports and constants, and what stood around them.
const INNER: &str = "
    import \"std/pairing\" as pairing;
    const TEN = 10;
    fn twice(x) { 2 * x }
    fn closures(k) {
        #{ alone: |x| x + 1, captures: |x| x + k, calls: |x| twice(x), constant: |x| x + global::TEN,
           imports: |x| pairing::versus(tensor([[x], [0]]))[0].item(), above: |x| x > k, falls: |a, b| b - a,
           adds: |a, b| twice(a + b) / 2, fails: || { throw \"mine\" }, length: |text| text.len() * 1.0,
           replies: |messages| `said ${k}`, replies_to: |messages, prompt| `said ${prompt.answer}` }
    }
    fn apply(f, x) { f.call(x) }";
/// Hands on what comes out of another module.
const OUTER: &str = "
    import \"./inner\" as inner;
    fn closures(k) { inner::closures(k) }
    fn on_all(values, f) { values.map(f) }";

fn run(dir: &Path, text: &str) {
    fs::write(dir.join("inner.rhai"), INNER).expect("written");
    fs::write(dir.join("outer.rhai"), OUTER).expect("written");
    let label = dir.join("main.rhai").display().to_string();
    fs::write(&label, text).expect("written");
    let host = host();
    let _ = host.eval(&Source { label, text: text.into() }).unwrap_or_else(|e| panic!("{text}\n{e:?}"));
}

fn holds(statements: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    for module in ["inner", "outer"] {
        run(
            dir.path(),
            &format!(
                "import \"./{module}\" as m;
                 fn inside(name, x) {{ m::closures(5)[name].call(x) }}
                 let all = m::closures(5);
                 {statements}"
            ),
        );
    }
}

#[test]
fn closures_of_a_module_are_called_by_the_script() {
    holds(
        "assert_eq(all.alone.call(1), 2);
         assert_eq(all.captures.call(1), 6);
         assert_eq(all.calls.call(3), 6);
         assert_eq(all.constant.call(3), 13);
         assert_close(all.imports.call(3), 3.0);",
    );
}

#[test]
fn closures_of_a_module_are_called_within_functions() {
    holds(
        "assert_eq(inside(\"alone\", 1), 2);
         assert_eq(inside(\"captures\", 1), 6);
         assert_eq(inside(\"calls\", 3), 6);
         assert_eq(inside(\"constant\", 3), 13);",
    );
}

#[test]
fn closures_of_a_module_are_called_by_native_functions() {
    holds(
        "assert_eq([1, 2].map(all.captures), [6, 7]);
         assert_eq([1, 2].filter(|x| all.calls.call(x) > 2), [2]);
         assert_throws(|| all.alone.call(\"text\", 1), \"\");",
    );
}

#[test]
fn closures_go_from_one_module_to_another() {
    let dir = tempfile::tempdir().expect("a folder");
    run(
        dir.path(),
        "import \"./inner\" as inner;
         import \"./outer\" as outer;
         assert_eq(outer::on_all([1, 2], inner::closures(5).captures), [6, 7]);
         assert_eq(inner::apply(outer::closures(5).calls, 4), 8);
         let here = 3;
         assert_eq(outer::on_all([1, 2], |x| x * here), [3, 6]);",
    );
}

#[test]
fn closures_of_a_module_come_out_of_another_script() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("other.rhai"), "import \"./inner\" as inner;\nfn rows() { inner::closures(5) }")
        .expect("written");
    let path = dir.path().join("other.rhai").display().to_string();
    run(
        dir.path(),
        &format!(
            "let rows = script(\"{path}\").call(\"rows\", []);\nassert_eq(rows.captures.call(1), 6);\nassert_eq(rows.calls.call(3), 6);"
        ),
    );
}

#[test]
fn closures_of_a_module_are_taken_by_every_method_of_lists() {
    holds(
        "assert_eq([1, 2].map(all.alone), [2, 3]);
         assert_eq([1, 2].map(all.imports), [1.0, 2.0]);
         assert_eq([4, 6, 9].filter(all.above), [6, 9]);
         assert_eq([1, 2, 3].reduce(all.adds, 10), 16);
         assert_eq([4, 6, 9].find(all.above), 6);
         assert_eq([4, 6, 9].index_of(all.above), 1);
         assert([4, 6].some(all.above) && ![4, 6].all(all.above));
         assert_eq([1, 3, 2].sort(all.falls), [3, 2, 1]);
         assert_eq([1, 3, 2].sort_by(all.falls), [3, 2, 1]);
         let kept = [4, 6, 9];
         kept.retain(all.above);
         assert_eq(kept, [6, 9]);
         assert_eq(kept.drain(all.above), [6, 9]);
         [1, 2].for_each(all.alone);
         assert_eq([1, 2].map(all.adds.curry(10)), [11, 12]);",
    );
}

#[test]
fn closures_of_a_module_are_taken_by_native_functions() {
    holds(
        "assert_throws(all.fails, \"mine\");
         let policy = load_model(\"tiny\");
         for user in [all.replies, all.replies_to] {
             let d = converse(policy, user, [#{ prompt: \"1+1=\", answer: 5 }], #{ turns: 2, max_tokens: 2 });
             assert(d.messages[0].some(|message| message.content == \"said 5\"));
         }",
    );
}

#[test]
fn closures_of_a_module_go_into_another_script() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("other.rhai"), "fn apply(f, x) { [x].map(f)[0] + f.call(x) }").expect("written");
    let path = dir.path().join("other.rhai").display().to_string();
    run(
        dir.path(),
        &format!(
            "import \"./inner\" as inner;
             let other = script(\"{path}\");
             for name in [\"captures\", \"calls\", \"constant\"] {{
                 let f = inner::closures(5)[name];
                 assert_eq(other.call(\"apply\", [f, 2]), 2 * f.call(2));
             }}"
        ),
    );
}

#[test]
fn closures_of_a_module_are_a_tasks_and_a_rewards_functions() {
    let dir = tempfile::tempdir().expect("a folder");
    let task = "import \"./inner\" as inner;
        fn items() { [\"1+1=\", \"2+2=\"].map(|text| #{ prompt: text, answer: 7 }) }
        fn score(b) { b.text.map(inner::closures(5).length) }
        fn user() { inner::closures(5).replies_to }";
    let reward = "import \"./outer\" as outer;
        fn score(b) { let length = outer::closures(5).length; b.text.map(|text| length.call(text) + 1.0) }";
    for (name, text) in [("t.rhai", task), ("r.rhai", reward)] {
        fs::write(dir.path().join(name), text).expect("written");
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    run(
        dir.path(),
        &format!(
            "let b = batch(#{{ prompt: [\"a\", \"b\"], text: [\"x\", \"yyy\"] }});
             let task = load_task(\"{task}\");
             assert_eq(task.score(b).to_array(), [[1.0], [3.0]]);
             assert_eq(load_task(\"{task}\", #{{ reward: \"{reward}\" }}).score(b).to_array(), [[2.0], [4.0]]);
             let d = converse(load_model(\"tiny\"), task.user(), task.prompts(1), #{{ turns: 2, max_tokens: 2 }});
             assert(d.messages[0].some(|message| message.content == \"said 7\"));",
            task = path("t.rhai"),
            reward = path("r.rhai"),
        ),
    );
}
