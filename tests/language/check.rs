//! `check` finds what is planted in `fixtures/broken` (each file says in its first line what and where), and nothing in
//! the shipped scripts and modules.

use rhopo::script::builder::HostBuilder;
use rhopo::script::lang::loader::{Loader, Source};
use rhopo::script::tools::check::{Finding, check};
use rhopo::script::tools::testing;
use std::path::Path;
use std::rc::Rc;

fn findings(loader: &Rc<Loader>, source: &Source) -> Vec<Finding> {
    check(&HostBuilder::new().loader(loader).strict().build(), source)
}

fn sources(folder: &str) -> (Rc<Loader>, Vec<Source>) {
    let loader = Loader::new(None);
    let found = testing::sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder");
    let sources = found.iter().map(|path| loader.find(&path.display().to_string()).expect("found")).collect();
    (loader, sources)
}

#[test]
fn every_planted_mistake_is_found_where_it_is() {
    let (loader, sources) = sources("tests/fixtures/broken");
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
    for folder in ["scripts", "stdlib", "examples", "benches"] {
        let (loader, sources) = sources(folder);
        assert!(!sources.is_empty());
        for source in sources {
            assert_eq!(findings(&loader, &source), [], "{}", source.label);
        }
    }
}
