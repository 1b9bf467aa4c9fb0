use super::*;
use serde_json::json;
use std::cell::RefCell;
use std::fs;

fn run() -> (tempfile::TempDir, Location) {
    let folder = tempfile::tempdir().expect("a folder");
    let run = files::anywhere(folder.path());
    (folder, run)
}

fn state(step: u64) -> RunState {
    let metrics = json!({ "bytes": 0, "hash": "", "open": { "step": step, "means": [] } });
    serde_json::from_value(json!({
        "step": step, "number": 1, "first": 1, "seed": 0, "sampled": 0, "suspect": null, "seconds": "1.5",
        "metrics": metrics, "best": null, "values": { "x": step },
    }))
    .expect("a state")
}

fn put(run: &Location, step: u64) -> Location {
    let fill = |part: &Location| {
        files::write(&part.join("weights"), vec![step as u8; 4096])?;
        Ok(state(step))
    };
    write(run, step, fill).expect("written")
}

fn found(run: &Location) -> (Option<u64>, Vec<String>) {
    let told = RefCell::new(Vec::new());
    let newest = newest(run, None, |text| told.borrow_mut().push(text.to_string())).expect("readable");
    (newest.map(|stored| stored.state.step), told.into_inner())
}

#[test]
fn the_newest_two_are_kept_and_what_was_not_written_here() {
    let (_folder, run) = run();
    assert_eq!(found(&run).0, None);
    for step in [5, 10, 15] {
        put(&run, step);
        assert_eq!(found(&run), (Some(step), vec![]));
    }
    fs::create_dir(run.join("checkpoints/000020.part")).expect("what a killed process leaves");
    fs::create_dir(run.join("checkpoints/mine")).expect("somebody's own");
    put(&run, 25);
    let names: Vec<_> = files::entries(&run.join("checkpoints")).expect("readable");
    let names: Vec<_> = names.iter().map(|path| path.file_name().expect("a name").to_os_string()).collect();
    assert_eq!(names, ["000015", "000025", "mine"]);
    assert_eq!(steps(&run).expect("readable"), [25, 15]);
    let before = newest(&run, Some(20), |_| {}).expect("readable").expect("one");
    assert_eq!(before.state.values, json!({ "x": 15 }));
}

#[test]
fn one_that_is_not_whole_is_passed_over_and_told() {
    type Damage = fn(&Location);
    let damages: [(&str, Damage); 6] = [
        ("4096", |path| fs::write(path.join("weights"), [1]).expect("truncated")),
        ("other bytes", |path| {
            let mut bytes = fs::read(path.join("weights")).expect("there");
            bytes[77] ^= 4;
            fs::write(path.join("weights"), bytes).expect("one bit flipped");
        }),
        ("cannot read", |path| fs::remove_file(path.join("weights")).expect("removed")),
        ("MANIFEST", |path| fs::remove_file(path.join(MANIFEST)).expect("removed")),
        ("MANIFEST", |path| fs::write(path.join(MANIFEST), "{").expect("cut")),
        ("no file of the checkpoint", |path| {
            let text = fs::read_to_string(path.join(MANIFEST)).expect("there");
            fs::write(path.join(MANIFEST), text.replace("\"weights\"", "\"../000005/weights\"")).expect("led out");
        }),
    ];
    for (told, damage) in damages {
        let (_folder, run) = run();
        put(&run, 5);
        damage(&put(&run, 10));
        let (step, notes) = found(&run);
        assert_eq!(step, Some(5), "{told}");
        assert!(notes.len() == 1 && notes[0].contains("000010") && notes[0].contains(told), "{notes:?}");
    }
}

#[test]
fn a_write_that_fails_leaves_the_older_ones() {
    let (_folder, run) = run();
    put(&run, 5);
    let fail = |part: &Location| {
        files::write(&part.join("weights"), [0])?;
        Err(Error::file("no space"))
    };
    write(&run, 10, fail).expect_err("refused");
    assert_eq!(found(&run), (Some(5), vec![]));
    assert_eq!(files::entries(&run.join("checkpoints")).expect("readable").len(), 1);
}
