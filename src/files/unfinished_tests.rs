//! Saves among other files that end between two of them.

use super::door::Need;
use super::fill::settle;
use super::place::filled;
use super::saving::Saving;
use super::*;
use crate::error::Error;
use std::fs;
use std::path::Path;

const FILES: [&str; 3] = ["a", "b", "c"];

fn fill(part: &Location, text: &'static str) -> Result<(), Error> {
    FILES.iter().try_for_each(|name| write(&part.join(name), text))
}

/// A save that ends where a folder lies in the way of one of its files. It came there after `fill_folder` had looked for such.
fn interrupted(at: &Location, text: &'static str) {
    let folder = at.run(Need::Write, "write", |way| way.folder()).expect("opened");
    let mut saving = Saving::begin(&folder).expect("begun");
    filled(at, &at.join(&saving.name), &saving, |part| fill(part, text)).expect("filled");
    settle(&folder, &mut saving).expect_err("a folder is in the way");
}

fn hidden(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with('.')).collect()
}

#[test]
fn a_set_that_is_not_whole_is_refused_by_name_until_the_next_save() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = anywhere(dir.path()).join("model");
    let plain = |text: &str| text.replace(&dir.path().display().to_string(), "DIR");
    let said = |e: &Error| (plain(&e.what), plain(e.hint.as_deref().unwrap_or_default()));
    let save = |text: &'static str| fill_folder(&at, move |part| fill(part, text));
    save("one").expect("new");
    fs::write(at.join("mine"), "kept").expect("written");
    fs::remove_file(at.join("b")).and_then(|()| fs::create_dir(at.join("b"))).expect("in the way");
    require_whole(&at).expect("nothing was interrupted");
    interrupted(&at, "two");
    // Of the second one it counts that the one before was not whole, wherever it stopped.
    interrupted(&at, "three");
    let first = said(&require_whole(&at).expect_err("b is not of that save"));
    assert!(first.0.starts_with("a save into DIR/model was interrupted; of an earlier save: "), "{}", first.0);
    assert!(first.0.contains('b'), "{}", first.0);
    assert!(first.1.starts_with("save again into DIR/model; or move what is in DIR/model/.saving-"), "{}", first.1);
    // Those that end before their files take their places lose nothing of the one before.
    fill_folder(&at, |_| Err(Error::value("no"))).expect_err("fourth");
    assert_eq!(said(&require_whole(&at).expect_err("as before")), first);
    save("fifth").expect_err("named before anything changes");
    assert_eq!(said(&require_whole(&at).expect_err("as before")), first);
    fs::remove_dir(at.join("b")).expect("out of the way");
    save("six").expect("whole");
    require_whole(&at).expect("whole");
    assert!(hidden(&at).is_empty() && !at.join("unfinished-save").exists());
    let text = |name: &str| fs::read_to_string(at.join(name)).expect("there");
    assert_eq!(["a", "b", "c", "mine"].map(text), ["six", "six", "six", "kept"]);
    // What says so and cannot be read, or leads elsewhere, is no reason to believe that all is well.
    for text in ["", "{}", "{\"about\":\"\",\"files\":[\"../x\"],\"rest\":\"..\",\"again\":false}"] {
        fs::write(at.join("unfinished-save"), text).expect("written");
        let (what, hint) = said(&require_whole(&at).expect_err("not whole"));
        assert_eq!(what, "DIR/model: a save was interrupted here, and its files may be of two saves");
        assert!(hint.starts_with("save again into DIR/model; "), "{hint}");
    }
}
