use super::*;
use crate::error::Error;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn names(folder: &Path) -> Vec<String> {
    let name = |path: &Location| path.file_name().expect("a name").to_string_lossy().into_owned();
    entries(&anywhere(folder)).expect("listed").iter().map(name).collect()
}

/// What an error says, with the folder's own name taken out.
fn said(e: &Error, folder: &TempDir) -> (String, String) {
    let plain = |text: &str| text.replace(&folder.path().display().to_string(), "DIR");
    (plain(&e.what), plain(e.hint.as_deref().unwrap_or_default()))
}

#[test]
fn a_file_is_read_as_it_is() {
    let dir = folder();
    let path = anywhere(dir.path()).join("a");
    fs::write(&path, "one two").expect("written");
    assert_eq!((bytes(&path).expect("read"), text(&path).expect("read")), (b"one two".to_vec(), "one two".into()));
    let mut file = open(&path).expect("opened");
    assert_eq!(file.size(), 7);
    let mut word = [0; 3];
    file.seek(SeekFrom::Start(4)).and_then(|_| file.read_exact(&mut word)).expect("read");
    assert_eq!(&word, b"two");
    file.seek(SeekFrom::Start(3)).expect("inside");
    assert_eq!(file.text().expect("the rest"), " two");
}

#[test]
fn what_is_missing_is_named() {
    let dir = folder();
    let path = anywhere(dir.path()).join("none");
    for e in [open(&path).map(drop), bytes(&path).map(drop), text(&path).map(drop)] {
        let (what, hint) = said(&e.expect_err("missing"), &dir);
        assert!(what.starts_with("cannot read DIR/none: "), "{what}");
        assert!(hint.starts_with("is it spelled right?"), "{hint}");
    }
    let (what, _) = said(&entries(&path).expect_err("missing"), &dir);
    assert!(what.starts_with("cannot read the folder DIR/none: "), "{what}");
    let (what, _) = said(&write(&path.join("a"), "x").expect_err("no folder"), &dir);
    assert!(what.starts_with("cannot write DIR/none/a: "), "{what}");
    let (what, _) = said(&remove_file(&path).expect_err("missing"), &dir);
    assert!(what.starts_with("cannot remove DIR/none: "), "{what}");
}

#[test]
fn a_folder_is_no_file_and_a_file_no_folder() {
    let dir = folder();
    let [file, inside] = ["file", "folder"].map(|name| anywhere(dir.path()).join(name));
    fs::write(&file, "x").expect("written");
    fs::create_dir(&inside).expect("made");
    for e in [open(&inside).map(drop), write(&inside, "x"), Log::create(&inside).map(drop), require_file(&inside)] {
        let expected = ("DIR/folder is not a file".into(), "it is a folder: give a file in it".into());
        assert_eq!(said(&e.expect_err("a folder"), &dir), expected);
    }
    assert!(entries(&file).expect_err("a file").what.starts_with("cannot read the folder"));
    assert!(create_folder(&file.join("sub")).expect_err("a file").what.starts_with("cannot make the folder"));
    assert!(is_file(&file) && !is_folder(&file) && is_folder(&inside) && !is_file(&inside));
}

#[cfg(unix)]
#[test]
fn devices_and_pipes_are_neither_read_nor_written() {
    let dir = folder();
    let pipe = anywhere(dir.path()).join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&*pipe).status().expect("mkfifo is there");
    assert!(made.success());
    for path in [pipe, anywhere("/dev/null"), anywhere("/dev/zero")] {
        for e in [open(&path).map(drop), text(&path).map(drop), write(&path, "x"), Log::create(&path).map(drop)] {
            let e = e.expect_err("no file");
            assert_eq!(e.what, format!("{} is not a file", path.display()));
            assert_eq!(e.hint.as_deref(), Some("it is a device or a pipe: give an ordinary file"));
        }
    }
}

#[cfg(unix)]
#[test]
fn what_the_permissions_forbid_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let e = unreadable(Path::new("a/b"), &denied);
    assert!(e.what.starts_with("cannot read a/b: "), "{e}");
    assert_eq!(e.hint.as_deref(), Some("the permissions of the file, or of a folder above it, forbid it"));
    let dir = folder();
    let closed = anywhere(dir.path()).join("closed");
    fs::create_dir(&closed).expect("made");
    fs::write(closed.join("a"), "x").expect("written");
    let close = |mode: u32| fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).expect("its owner may");
    close(0);
    // Root is refused nothing.
    if fs::read_dir(&closed).is_err() {
        for e in [text(&closed.join("a")).map(drop), write(&closed.join("b"), "x"), entries(&closed).map(drop)] {
            let (_, hint) = said(&e.expect_err("forbidden"), &dir);
            assert!(hint.starts_with("the permissions of the file"), "{hint}");
        }
    }
    close(0o700);
}

#[test]
fn bytes_that_are_no_text_are_refused_as_text() {
    let dir = folder();
    let path = anywhere(dir.path()).join("a");
    fs::write(&path, b"caf\xe9").expect("written");
    assert_eq!(bytes(&path).expect("bytes").len(), 4);
    let expected = ("DIR/a is not a text file (UTF-8)".into(), "convert the file to UTF-8".into());
    assert_eq!(said(&text(&path).expect_err("no text"), &dir), expected);
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let dir = folder();
    let path = anywhere(dir.path()).join("a");
    write(&path, "old").expect("written");
    let e = replace(&path, |out| {
        out.write_all(&[b'x'; 1 << 20])?;
        Err(io::Error::other("the power went"))
    });
    let (what, _) = said(&e.expect_err("interrupted"), &dir);
    assert_eq!(what, "cannot write DIR/a: the power went");
    let stopped = std::panic::catch_unwind(|| replace(&path, |_| panic!("stopped")));
    assert!(stopped.is_err());
    assert_eq!((text(&path).expect("kept"), names(dir.path())), ("old".into(), vec!["a".to_string()]));
    write(&path, "new").expect("written");
    assert_eq!((text(&path).expect("new"), names(dir.path())), ("new".into(), vec!["a".to_string()]));
}

#[cfg(unix)]
#[test]
fn links_are_replaced_and_never_written_through() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = folder();
    let [victim, link] = ["victim", "link"].map(|name| anywhere(dir.path()).join(name));
    fs::write(&victim, "mine").expect("written");
    symlink(&*victim, &link).expect("linked");
    // The names that a file in the making takes, held by links.
    for n in 0..3 {
        symlink(&*victim, dir.path().join(format!(".part-{}-{n}", std::process::id()))).expect("linked");
    }
    assert!(is_link(&link) && is_file(&link) && !is_link(&victim));
    assert_eq!(text(&link).expect("reading follows it"), "mine");
    write(&link, "other").expect("written");
    assert!(!is_link(&link));
    assert_eq!((text(&victim).expect("there"), text(&link).expect("there")), ("mine".into(), "other".into()));
    let lost = anywhere(dir.path()).join("lost");
    symlink(dir.path().join("nowhere"), &lost).expect("linked");
    assert!(is_link(&lost) && !exists(&lost));
    let hint = |path: &Location| open(path).expect_err("no file").hint.expect("a hint");
    assert_eq!(hint(&lost), "it is a link, and nothing is where it leads");
    let inside = anywhere(dir.path()).join("inside");
    symlink(dir.path(), &inside).expect("linked");
    assert_eq!(hint(&inside), "it is a link to a folder: give a file in it");
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o640)).expect("its owner may");
    write(&victim, "again").expect("written");
    assert_eq!(fs::metadata(&victim).expect("there").permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_folder_that_fails_leaves_the_old_one() {
    let dir = folder();
    let whole = anywhere(dir.path()).join("model");
    let fill = |text: &'static str| move |part: &Location| write(&part.join("a"), text);
    let replace = |fill: &dyn Fn(&Location) -> Result<(), Error>| replace_folder(&whole, |name| name == "a", fill);
    replace(&fill("one")).expect("first");
    replace(&fill("two")).expect("second");
    replace(&|part| fill("three")(part).and(Err(Error::value("no")))).expect_err("third");
    assert_eq!((text(&whole.join("a")).expect("kept"), names(dir.path())), ("two".into(), vec!["model".to_string()]));
    // What is somebody's own stays, and what looks like it beside the folder.
    fs::create_dir_all(whole.join("notes/deep")).expect("made");
    fs::write(whole.join("notes/deep/x"), "mine").expect("written");
    for name in ["model.old", "model.part"] {
        fs::write(dir.path().join(name), "mine").expect("written");
    }
    replace(&fill("four")).expect("fourth");
    assert_eq!(
        (text(&whole.join("a")).expect("new"), names(&whole)),
        ("four".into(), vec!["a".into(), "notes".into()])
    );
    assert_eq!(text(&whole.join("notes/deep/x")).expect("kept"), "mine");
    assert_eq!(names(dir.path()), ["model", "model.old", "model.part"]);
    remove_folder(&whole).expect("removed");
    assert_eq!(names(dir.path()), ["model.old", "model.part"]);
}

/// Fills with `a` and `b/c`.
fn two(text: &'static str) -> impl Fn(&Location) -> Result<(), Error> {
    move |part: &Location| {
        write(&part.join("a"), text)
            .and_then(|()| create_folder(&part.join("b")))
            .and_then(|()| write(&part.join("b/c"), text))
    }
}

#[test]
fn a_folder_in_the_way_of_a_file_is_named_before_anything_changes() {
    let dir = folder();
    let at = anywhere(dir.path()).join("model");
    fill_folder(&at, two("one")).expect("new");
    write(&at.join("mine"), "kept").expect("written");
    fs::remove_file(at.join("a")).expect("there");
    fs::create_dir(at.join("a")).expect("made");
    let e = fill_folder(&at, two("two")).expect_err("a folder is in the way");
    assert!(e.what.contains("a is a folder on one side"), "{e}");
    assert_eq!(text(&at.join("b/c")).expect("kept"), "one");
    assert_eq!(names(&at), ["a", "b", "mine"].map(String::from).to_vec());
}

#[test]
fn files_of_a_folder_take_their_places_together() {
    let dir = folder();
    let at = anywhere(dir.path()).join("model");
    fill_folder(&at, two("one")).expect("new");
    write(&at.join("mine"), "kept").expect("written");
    let failing = |part: &Location| two("two")(part).and(Err(Error::value("no")));
    fill_folder(&at, failing).expect_err("second");
    assert_eq!(
        (text(&at.join("a")).expect("kept"), names(&at)),
        ("one".into(), ["a", "b", "mine"].map(String::from).to_vec())
    );
    // What killed processes have left goes; what another one is at stays, and what only looks like it.
    for left in [".saving-1-0", ".saving-2-0", ".saving-3-0", ".saving-mine"] {
        fs::create_dir_all(at.join(left).join("new")).expect("made");
        fs::write(at.join(left).join(".held"), "").expect("written");
    }
    fs::remove_file(at.join(".saving-3-0/.held")).expect("removed");
    fs::write(at.join(".saving-3-0/other"), "mine").expect("written");
    for left in [".part-1-0", ".part-2-0", ".part-x"] {
        fs::write(at.join(left), "").expect("written");
    }
    let held = [".saving-2-0/.held", ".part-2-0"].map(|name| lock(&at.join(name)).expect("free"));
    fill_folder(&at, two("three")).expect("third");
    assert_eq!(text(&at.join("b/c")).expect("new"), "three");
    let left = [".part-2-0", ".part-x", ".saving-2-0", ".saving-3-0", ".saving-mine", "a", "b", "mine"];
    assert_eq!(names(&at), left);
    drop(held);
}

#[cfg(unix)]
#[test]
fn a_folder_that_holds_nothing_else_is_exchanged_as_a_whole() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let dir = folder();
    let at = anywhere(dir.path()).join("model");
    let is = |at: &Path| fs::metadata(at).expect("there").ino();
    let mode = |name: &str| fs::metadata(at.join(name)).expect("there").permissions().mode() & 0o777;
    fill_folder(&at, two("one")).expect("new");
    let first = is(&at);
    for (name, mode) in [(".", 0o750), ("a", 0o640), ("b", 0o700)] {
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).expect("its owner may");
    }
    fill_folder(&at, two("two")).expect("over itself");
    assert!(is(&at) != first, "it was not exchanged");
    assert_eq!((mode("."), mode("a"), mode("b")), (0o750, 0o640, 0o700));
    // A file of somebody's own, a link to the folder, a handle of it: then it stays that folder.
    let stays = |at: &Location| {
        let before = is(at);
        fill_folder(at, two("three")).expect("saved");
        assert_eq!((is(at), text(&at.join("b/c")).expect("new")), (before, "three".to_string()));
    };
    symlink(&*at, dir.path().join("link")).expect("linked");
    stays(&anywhere(dir.path()).join("link"));
    assert!(is_link(&anywhere(dir.path()).join("link")));
    fs::write(at.join("mine"), "kept").expect("written");
    stays(&at);
    fs::remove_file(at.join("mine")).expect("removed");
    let door = Door::closed(Visitor::Script);
    door.grant(dir.path(), true);
    door.grant(&at, true);
    stays(&door.at(&*at));
    assert_eq!(names(dir.path()), ["link", "model"]);
}

/// Whoever comes while the lock's file is removed does not lock the removed one.
#[test]
fn a_lock_is_held_by_one_at_a_time() {
    let dir = folder();
    let (at, within) = (anywhere(dir.path()).join("lock"), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    if let Ok(held) = lock(&at) {
                        assert_eq!(within.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        within.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                    }
                }
            });
        }
    });
    assert!(!is_locked(&at));
}

#[test]
fn saves_into_one_folder_do_not_mix() {
    let dir = folder();
    let at = anywhere(dir.path()).join("model");
    std::thread::scope(|scope| {
        for text in ["one", "two", "three"] {
            let at = &at;
            scope.spawn(move || {
                for _ in 0..50 {
                    // Another may take the folder away in which this one was begun.
                    fill_folder(at, two(text)).ok();
                }
            });
        }
    });
    assert_eq!(text(&at.join("a")).expect("there"), text(&at.join("b/c")).expect("there"));
    assert_eq!((names(&at), names(dir.path())), (vec!["a".to_string(), "b".to_string()], vec!["model".to_string()]));
}

#[test]
fn a_log_begins_empty_and_grows_by_lines() {
    let dir = folder();
    let path = anywhere(dir.path()).join("log");
    fs::write(&path, "older and longer").expect("written");
    let mut log = Log::create(&path).expect("begun");
    log.line("one").expect("written");
    assert_eq!(text(&path).expect("there"), "one\n", "nothing waits in a buffer");
    log.line("two").expect("written");
    assert_eq!(text(&path).expect("there"), "one\ntwo\n");
    fs::remove_file(&path).expect("removed");
    let (what, _) = said(&log.line("three").expect_err("nobody would find it"), &dir);
    assert_eq!(what, "cannot write DIR/log: it was removed while it was being written");
}

#[test]
fn names_in_files_lead_from_where_the_file_is() {
    let at = |path: &str, name: &str| beside(&anywhere(path), name).display().to_string();
    assert_eq!(at("m/model.index.json", "shard-1"), "m/shard-1");
    assert_eq!(at("own.rhai", "other.rhai"), "other.rhai");
    assert_eq!(at("m/adapter_config.json", "../base"), "m/../base");
    assert_eq!(at("m/adapter_config.json", "/base"), "/base");
    assert!(["a", "a.b", "..."].iter().all(|name| is_plain(name)));
    assert!(["", ".", "..", "a/b", "/a", "../a", "a\\b"].iter().all(|name| !is_plain(name)));
    let dir = folder();
    fs::write(dir.path().join("a"), "").expect("written");
    let at = |name: &str| anywhere(dir.path()).join(name);
    assert_eq!(real(&at("x/../a")), None, "x is not there");
    assert_eq!(real(&at("./a")), real(&at("a")));
}

#[cfg(unix)]
#[test]
fn a_door_opens_what_was_granted_and_nothing_beside_it() {
    use std::os::unix::fs::symlink;
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    for name in ["a", "b"] {
        fs::create_dir(at(name)).expect("made");
        fs::write(at(name).join("x"), name).expect("written");
    }
    fs::write(at("one"), "one").expect("written");
    let door = Door::closed(Visitor::Script);
    let reads = |name: &str| text(&door.at(at(name)));
    reads("a/x").expect_err("nothing was granted");
    door.grant(Path::new(""), true);
    reads("a/x").expect_err("an empty path is none");
    let granted = door.grant(&at("a"), false);
    assert_eq!(reads("a/x").expect("granted"), "a");
    for name in ["b/x", "a/../b/x", "a/../one"] {
        let e = reads(name).expect_err("outside");
        assert!(
            e.what.starts_with("a script may not read ") && e.what.ends_with(": it is outside of its folders"),
            "{e}"
        );
    }
    write(&door.at(at("a/x")), "y").expect_err("only to be read");
    door.take_back(granted);
    reads("a/x").expect_err("taken back");
    // A file that was granted is that file, and no link that takes its place.
    door.grant(&at("one"), false);
    assert_eq!(reads("one").expect("granted"), "one");
    fs::remove_file(at("one")).and_then(|()| symlink(at("b/x"), at("one"))).expect("exchanged");
    reads("one").expect_err("a link to something else");
    // A folder that is not there yet is made where it was granted, and not where a link leads meanwhile.
    door.grant(&at("new/deep"), true);
    write(&door.at(at("new/beside")), "x").expect_err("only below");
    create_folder(&door.at(at("new/deep"))).expect("granted");
    write(&door.at(at("new/deep/x")), "x").expect("below it");
    fs::remove_dir_all(at("new/deep")).and_then(|()| symlink(at("b"), at("new/deep"))).expect("exchanged");
    write(&door.at(at("new/deep/x")), "x").expect_err("a link to something else");
    assert_eq!(fs::read_to_string(at("b/x")).expect("there"), "b");
}

#[test]
fn what_a_path_leaves_again_is_not_made() {
    let dir = folder();
    let at = anywhere(dir.path());
    create_folder(&at.join("new/../other")).expect_err("`new` is not there");
    create_folder(&at.join("new/../../..")).expect_err("nor does it lead anywhere");
    assert_eq!(names(&at), [""; 0]);
    create_folder(&at.join("a/b")).expect("made");
    create_folder(&at.join("a/../c/./d")).expect("`a` is there");
    assert_eq!(names(&at), ["a", "c"].map(String::from).to_vec());
}
