//! A second thread exchanges a file with a link that leads out, as fast as it can, while a script reads or writes there.
//! `RHOPO_RACE_SECONDS=10` tries longer.

use super::world::{SECRET, Step, World};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What it does, what is laid, the two names that are exchanged, and the script's round.
type Race = (&'static str, fn() -> Vec<Step>, [&'static str; 2], &'static str);

const ROW: &str = "{\"prompt\": \"mine\"}\n";

fn row(name: &'static str) -> Step {
    Step::Write(name, ROW.into())
}

const RACES: [Race; 6] = [
    (
        "a file is read",
        || vec![row("d.jsonl"), Step::Link("l.jsonl", "{out}/secret.jsonl")],
        ["d.jsonl", "l.jsonl"],
        "load_data(\"d.jsonl\").rows(1)[0].prompt",
    ),
    (
        "a folder on the way to it is one",
        || vec![row("d/secret.jsonl"), Step::Link("l", "{out}")],
        ["d", "l"],
        "load_data(\"d/secret.jsonl\").rows(1)[0].prompt",
    ),
    (
        "a template of a model is read",
        || {
            vec![
                Step::Model("m"),
                Step::Write("m/chat_template.jinja", "mine".into()),
                Step::Link("l", "{out}/secret.txt"),
            ]
        },
        ["m/chat_template.jinja", "l"],
        "load_model(\"m\", #{ random: true }).chat([#{ role: \"user\", content: \"x\" }])",
    ),
    (
        "a picture is written",
        || vec![row("d/x"), Step::Link("l", "{out}")],
        ["d", "l"],
        "{ heatmap(\"d/x.svg\", #{ x: ones([1, 1]) }); \"\" }",
    ),
    (
        "a batch takes the place of a link",
        || vec![row("b"), Step::Link("l", "{out}/secret.txt")],
        ["b", "l"],
        "{ batch(#{ reward: [1] }).save(\"b\"); \"\" }",
    ),
    ("a model is saved", || vec![row("d/x"), Step::Link("l", "{out}/folder")], ["d", "l"], "{ p.save(\"d\"); \"\" }"),
];

#[test]
fn no_exchange_between_the_question_and_the_opening_wins() {
    let seconds = std::env::var("RHOPO_RACE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for (what, laid, [one, other], round) in RACES {
        let world = World::new();
        world.lay(&laid());
        let script = format!(
            "let p = load_model(\"tiny\", #{{ random: true }}); let done = 0; let refused = 0; \
             let end = timestamp();\n\
             while end.elapsed < {seconds}.0 || done + refused < 20 {{ try {{ let t = {round}; done += 1; if t.contains(\"hidden\") {{ print(t); }} }} \
             catch {{ refused += 1; }} }}\nprint(`${{done}} done, ${{refused}} refused`);\n"
        );
        world.lay(&[Step::Write("own.rhai", script)]);
        let before = world.state();
        let (over, exchanged) = (AtomicBool::new(false), AtomicU64::new(0));
        let [one, other] = [one, other].map(|name| world.inside().join(name));
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let done = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
                    exchanged.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
                }
            });
            let outcome = world.run(&["run", "own", "--threads", "1"].map(String::from), &[]);
            over.store(true, Ordering::Relaxed);
            outcome
        });
        println!("{what}: {} exchanges, {}", exchanged.load(Ordering::Relaxed), outcome.said.trim());
        assert_eq!(outcome.code, Some(0), "{what}: {}", outcome.said);
        assert!(!outcome.said.contains(SECRET), "{what}: seen");
        assert!(world.state() == before, "{what}: changed");
        let tries: Vec<u64> = outcome.said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(tries.iter().sum::<u64>() > 10, "{what}: {}", outcome.said);
    }
}
