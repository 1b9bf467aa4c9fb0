//! `check` finds what is planted in `fixtures/broken` (each file says in its first line what and where), and nothing in
//! the shipped scripts and modules. Neither comments nor texts change what it finds.

use rhopo::script::builder::HostBuilder;
use rhopo::script::lang::lex::{self, Kind};
use rhopo::script::lang::loader::{Loader, Source};
use rhopo::script::tools::check::{Finding, check};
use rhopo::script::tools::testing;
use std::rc::Rc;

/// Scripts, modules and mistakes.
const SHIPPED: [&str; 4] = ["scripts", "stdlib", "examples", "benches"];
const BROKEN: &str = "tests/fixtures/broken";

/// What would change what is found if it were read as code.
const ASIDES: [&str; 16] = [
    "cfg.group",
    "open_run(cfg)",
    "b.unheard_of",
    "pair_diff(x)",
    "fn loss(logp, b, cfg) {",
    "cfg.nothing",
    "//! On-policy: policy-gradient",
    "args(#{ unread: 1 })",
    "let f = |x| x; let q = 1; const q = 1;",
    "pairing::labelled(x)",
    "sigmiod(x)",
    "fn score(a, b, c) {",
    "b.advantages = 1; b.ref_logprob = 1;",
    ") ] }",
    "import \"std/none\" as none;",
    "-x ** 2; 1 / 2",
];

fn findings(loader: &Rc<Loader>, source: &Source) -> Vec<Finding> {
    check(&HostBuilder::new().loader(loader).strict().build(), source)
}

fn sources(folder: &str) -> (Rc<Loader>, Vec<Source>) {
    let loader = Loader::new(None);
    let (found, _) =
        testing::sources(&rhopo::files::anywhere(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder");
    let sources = found.iter().map(|path| loader.find(&path.display().to_string()).expect("found")).collect();
    (loader, sources)
}

/// What is found in a text: lines, and messages with their hints.
fn told(text: &str) -> Vec<(usize, String)> {
    let dir = tempfile::tempdir().expect("a folder");
    // The losses of scripts are called by their files.
    let path = dir.path().join("text.rhai");
    std::fs::write(&path, text).expect("written");
    let loader = Loader::new(None);
    loader.confine(&rhopo::run::access::Access::everything());
    let source = loader.find(&path.display().to_string()).expect("found");
    let found = findings(&loader, &source).into_iter();
    found.map(|f| (f.line, format!("{} · {}", f.message, f.hint.unwrap_or_default()))).collect()
}

#[test]
fn every_planted_mistake_is_found_where_it_is() {
    let (loader, sources) = sources(BROKEN);
    assert!(sources.len() >= 17, "{}", sources.len());
    for source in sources {
        let expected = source.summary().strip_prefix("expects ").expect("a first line that says what is wrong");
        let (line, text) = expected.split_once(": ").expect("a line and a text");
        let found: Vec<(String, String)> = findings(&loader, &source)
            .into_iter()
            .map(|f| (f.line.to_string(), f.hint.map_or(f.message.clone(), |hint| format!("{} · {hint}", f.message))))
            .collect();
        assert_eq!(found.len(), 1, "{}: {found:?}", source.label);
        assert_eq!(found[0].0, line, "{}: {found:?}", source.label);
        assert!(found[0].1.starts_with(text), "{}: {found:?}", source.label);
    }
}

#[test]
fn nothing_is_found_in_what_is_shipped() {
    for folder in SHIPPED {
        let (loader, sources) = sources(folder);
        assert!(!sources.is_empty());
        for source in sources {
            assert_eq!(findings(&loader, &source), [], "{}", source.label);
        }
    }
}

/// The text with a comment in every space of its code, and at the end of every line of it; lines stay where they are.
fn commented(text: &str, first: usize) -> String {
    let mut asides = (first..).map(|i| ASIDES[i % ASIDES.len()]);
    let (mut whole, mut behind_comment) = (String::new(), false);
    for piece in lex::pieces(text) {
        match (piece.kind, piece.text.find('\n')) {
            // A comment that stands there already would go on, and the header is one.
            (Kind::Space, _) if behind_comment => whole += piece.text,
            (Kind::Space, None) => whole += &format!(" /* {} */ ", asides.next().expect("endless")),
            (Kind::Space, Some(end)) => {
                let (before, after) = piece.text.split_at(end);
                whole += &format!("{before} // {}{after}", asides.next().expect("endless"));
            }
            _ => whole += piece.text,
        }
        behind_comment = piece.kind == Kind::Comment;
    }
    whole
}

/// The text with texts behind it, one of them over several lines.
fn quoted(text: &str) -> String {
    let texts = ASIDES.map(|aside| format!("{aside:?}")).join(", ");
    format!("{text}\n;let asides = [{texts}, `\n{}\n`];\n", ASIDES.join("\n"))
}

#[test]
fn neither_comments_nor_texts_change_what_is_found() {
    let mut looked_at = 0;
    for folder in SHIPPED.into_iter().chain([BROKEN]) {
        for source in sources(folder).1 {
            let expected = told(&source.text);
            let changed = [commented(&source.text, 0), commented(&source.text, 5), quoted(&source.text)];
            for text in changed {
                assert_ne!(text, source.text);
                assert_eq!(told(&text), expected, "{}:\n{text}", source.label);
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 200, "{looked_at}");
}

#[test]
fn a_comment_that_mentions_the_group_does_not_change_the_verdict() {
    let weights = "tensor([[1], [0], [1], [0], [1], [0], [1], [0]])";
    let alone = format!("fn loss(logp, b, cfg) {{ -mean(seq_sum(logp, b.mask) * {weights}) }}\n");
    let found = told(&alone);
    assert!(found.len() == 1 && found[0].1.starts_with("the loss depends on the order of the rows"), "{found:?}");
    assert_eq!(told(&format!("{alone}// cfg.group, pair_first(x)\n")), found);
    // In code it does: rows of a pair stay together.
    assert_eq!(told(&format!("{alone}print(pair_first([1, 2]));\n")), []);
}

#[test]
fn hyper_parameters_and_columns_are_known_however_they_are_written() {
    let read = "let cfg = args(#{ clip: 0.2, lr: 1e-3 });\nprint(cfg[\"clip\"]);\nprint(cfg[\"lr\"].abs());\n";
    assert_eq!(told(read), []);
    let whole = "let cfg = args(#{ clip: 0.2, lr: 1e-3 });\nfor name in cfg.keys() { print(name); }\n";
    assert_eq!(told(whole), []);
    let named = "let cfg = args(#{ clip: 0.2 });\nlet name = \"clip\";\nprint(cfg[name]);\n";
    assert_eq!(told(named), []);
    let unknown = "let cfg = args(#{ clip: 0.2 });\nprint(cfg[\"clap\"] + cfg.clip);\n";
    assert_eq!(told(unknown), [(2, "there is no hyper-parameter `clap` · did you mean `clip`?".into())]);
    let set = "let cfg = args(#{ lr: 1e-4 });\nlet run = open_run(cfg);\n\
               let b = batch(#{ mask: [[1, 1]], advantage: [cfg.lr] });\nb[\"weight\"] = [1];\n\
               fn loss(logp, b, cfg) { -mean(seq_sum(logp * b.advantage, b.mask) * b[\"weight\"]) }\n";
    assert_eq!(told(set), []);
    let missing = set.replace("b[\"weight\"] = [1];", "");
    assert!(told(&missing)[0].1.starts_with("`loss` reads the column `weight`, which nothing sets"));
}

/// What its callers give it, only they know.
#[test]
fn a_loss_whose_hyper_parameters_are_not_declared_is_not_tried() {
    let loss = "fn loss(logp, b, cfg) { -seq_mean(cfg.scale * logp.detach(), b.mask) }\n";
    assert_eq!(told(loss), []);
    let declared = format!("let cfg = args(#{{ scale: 2.0 }});\n{loss}");
    assert_eq!(told(&declared).len(), 1);
    assert_eq!(told(&loss.replace("cfg.scale", "2.0")).len(), 1);
}

#[test]
fn a_promise_that_is_not_known_is_told() {
    let script = |head: &str| format!("//! Mine\n{head}\nfn loss(logp, b, cfg) {{ -seq_mean(logp, b.mask) }}\n");
    let found = told(&script("//! On-policy: policy gradient"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, 2);
    assert!(found[0].1.contains("`policy gradient`") && found[0].1.contains("On-policy: policy-gradient"), "{found:?}");
    // Below the header it is a comment as any other.
    assert_eq!(told(&script("\n//! On-policy: policy gradient")), []);
}

/// A script around a head, the body of its loss and what its loop does first; all of them are honest.
fn honest(head: &str, loss: &str, begin: &str) -> String {
    format!(
        "{head}\nlet cfg = args(#{{ steps: 1, clip: 0.2 }});\nfn loss(logp, b, cfg) {{ {loss} }}\n\
         let run = open_run(cfg);\nlet policy = load_model(\"tiny\");\nlet opt = adamw(policy, #{{ lr: 1e-4 }});\n\
         for step in run.steps(cfg.steps) {{\nlet b = sample(policy, [\"1+1=\"], #{{ n: 2, max_tokens: 2 }});\n\
         b.advantage = [cfg.clip, 0.1];\n{begin}\nopt.step(loss(logprob(policy, b), b, cfg));\n}}\n"
    )
}

#[test]
fn honest_scripts_are_left_in_peace() {
    let plain = "-seq_mean(logp * b.advantage, b.mask)";
    for (head, loss, begin) in [
        ("", plain, ""),
        ("fn mul(by) { this * by }", "-seq_mean(logp.mul(2.0) * b.advantage, b.mask)", ""),
        ("", "-seq_mean(logp * b.adv_a, b.mask)", "for n in [\"a\"] { b[`adv_${n}`] = [0.1, 0.2]; }"),
        (
            "",
            "let e = if \"extra\" in b.columns() { b.extra } else { 1.0 }; -seq_mean(logp * e * b.advantage, b.mask)",
            "",
        ),
        ("", plain, "cfg.total = cfg.steps * 2; print(cfg.total);"),
        ("", plain, "{ let cfg = #{ y: 2 }; print(cfg.y); }"),
        ("fn other(cfg) { cfg.other }", plain, "print(other(#{ other: 1 }));"),
    ] {
        let text = honest(head, loss, begin);
        assert_eq!(told(&text), [], "{text}");
    }
}

#[test]
fn hyper_parameters_may_come_of_what_stands_before_them() {
    let rest = "fn loss(logp, b, cfg) { -cfg.k * seq_mean(logp * b.advantage, b.mask) }\nprint(cfg.k);";
    for head in [
        "let k = 1.0; let cfg = args(#{ k: k });",
        "const K = 1.0; let cfg = args(#{ k: K });",
        "let d = #{ k: 1.0 }; let cfg = args(d);",
        "import \"std/schedule\" as s; let cfg = args(#{ k: 1.0 + s::linear(1, 2) });",
        "print(1); let a = 2.0; if a > 1.0 { print(a); } let k = a; let cfg = args(#{ k: k });",
    ] {
        assert_eq!(told(&format!("{head}\n{rest}")), [], "{head}");
    }
}

#[test]
fn a_loss_that_is_not_finite_or_not_the_same_again_is_told_as_that() {
    let of = |loss: &str| told(&format!("fn loss(logp, b, cfg) {{ {loss} }}\nlet x = 1; print(x);"));
    for (loss, words) in [
        (
            "-seq_mean(logp * b.advantage, b.mask) + mean(log(b.advantage - b.advantage))",
            "is not finite on random rows",
        ),
        ("-seq_mean(logp * b.advantage, b.mask) + rand([1]).item()", "is another one when it is computed again"),
    ] {
        let found = of(loss);
        assert!(found.len() == 1 && found[0].1.contains(words), "{loss}: {found:?}");
    }
}
