//! `check` finds nothing in what the pages show: neither in whole scripts nor in fragments. A fragment's variables are the
//! reader's own: those that a script has when its loop is reached, by the names that all scripts give them.

use super::fences::{Block, all_pages, blocks};
use rhopo::script::builder::HostBuilder;
use rhopo::script::lang::loader::{Loader, Source};
use rhopo::script::tools::check::check;
use std::fs;

/// What a fragment may take for granted.
const NAMES: [&str; 6] = ["policy", "b", "cfg", "task", "run", "opt"];

/// Whether a block declares every variable that it names.
pub(super) fn is_whole(block: &Block) -> bool {
    let source = Source { label: "block.rhai".into(), text: block.text.clone() };
    HostBuilder::new().strict().build().compile(&source).is_ok()
}

/// What is found in a script.
fn findings(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    // A loss is called by its script's file.
    let path = folder.path().join("block.rhai");
    fs::write(&path, text).expect("written");
    let loader = Loader::new(None);
    loader.confine(&rhopo::run::access::Access::everything());
    let source = loader.find(&path.display().to_string()).expect("found");
    let found = check(&HostBuilder::new().loader(&loader).strict().build(), &source);
    found.into_iter().map(|f| format!("line {}: {} · {}", f.line, f.message, f.hint.unwrap_or_default())).collect()
}

/// What is found in a block, whole or a fragment.
fn found_in(block: &Block) -> Vec<String> {
    if is_whole(block) {
        return findings(&block.text);
    }
    // On the line of the first statement, so that lines stay what they are.
    let names: String = NAMES.iter().map(|name| format!("let {name} = (); ")).collect();
    findings(&format!("{names}{}", block.text))
}

#[test]
fn check_finds_nothing_on_any_page() {
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for block in all_pages().iter().flat_map(|page| blocks(page).0).filter(|block| block.word == "rhai") {
        wrong.extend(found_in(&block).into_iter().map(|found| format!("{}: {found}", block.place)));
        looked_at += 1;
    }
    assert!(looked_at > 300, "{looked_at}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn fragments_may_name_what_scripts_have_and_nothing_else() {
    let block = |text: &str| Block {
        place: "page.md:1".into(),
        word: "rhai".into(),
        marks: Vec::new(),
        file: None,
        text: text.into(),
    };
    assert!(is_whole(&block("let x = 1; print(x);")) && !is_whole(&block("print(b.reward);")));
    assert_eq!(found_in(&block("b.reward = task.score(b);\nopt.lr = cfg.lr;\n")), [""; 0]);
    let found = found_in(&block("print(b.reward);\nprint(mine);\n"));
    assert!(found.len() == 1 && found[0].starts_with("line 2: there is no variable `mine`"), "{found:?}");
    let found = found_in(&block("let cfg = args(#{ lr: 1.0 });\nprint(b.reward);\n"));
    assert!(found.len() == 1 && found[0].contains("`lr` is never read"), "{found:?}");
}
