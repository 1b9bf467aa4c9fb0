use super::*;
use serde_json::json;
use std::cell::RefCell;
use std::fs;

fn state(step: u64) -> RunState {
    let metrics = json!({ "bytes": 0, "hash": "", "open": { "step": step, "means": [] } });
    serde_json::from_value(json!({
        "step": step, "number": 1, "first": 1, "seed": 0, "sampled": 0, "suspect": null, "seconds": "1.5",
        "metrics": metrics, "best": null, "values": { "x": step },
    }))
    .expect("a state")
}

fn put(run: &Path, step: u64) -> PathBuf {
    let fill = |part: &Path| {
        files::write(&part.join("weights"), vec![step as u8; 4096])?;
        Ok(state(step))
    };
    write(run, step, fill).expect("written")
}

fn found(run: &Path) -> (Option<u64>, Vec<String>) {
    let told = RefCell::new(Vec::new());
    let newest = newest(run, None, |text| told.borrow_mut().push(text.to_string())).expect("readable");
    (newest.map(|stored| stored.state.step), told.into_inner())
}

#[test]
fn the_newest_two_are_kept_and_nothing_else() {
    let run = tempfile::tempdir().expect("a folder");
    assert_eq!(found(run.path()).0, None);
    for step in [5, 10, 15] {
        put(run.path(), step);
        assert_eq!(found(run.path()), (Some(step), vec![]));
    }
    fs::create_dir(run.path().join("checkpoints/000020.part")).expect("what a killed process leaves");
    put(run.path(), 25);
    let names: Vec<_> = files::entries(&run.path().join("checkpoints")).expect("readable");
    let names: Vec<_> = names.iter().map(|path| path.file_name().expect("a name").to_os_string()).collect();
    assert_eq!(names, ["000015", "000025"]);
    assert_eq!(steps(run.path()).expect("readable"), [25, 15]);
    let before = newest(run.path(), Some(20), |_| {}).expect("readable").expect("one");
    assert_eq!(before.state.values, json!({ "x": 15 }));
}

#[test]
fn one_that_is_not_whole_is_passed_over_and_told() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("4096", |path| fs::write(path.join("weights"), [1]).expect("truncated")),
        ("other bytes", |path| {
            let mut bytes = fs::read(path.join("weights")).expect("there");
            bytes[77] ^= 4;
            fs::write(path.join("weights"), bytes).expect("one bit flipped");
        }),
        ("cannot read", |path| fs::remove_file(path.join("weights")).expect("removed")),
        ("MANIFEST", |path| fs::remove_file(path.join(MANIFEST)).expect("removed")),
        ("MANIFEST", |path| fs::write(path.join(MANIFEST), "{").expect("cut")),
    ];
    for (told, damage) in damages {
        let run = tempfile::tempdir().expect("a folder");
        put(run.path(), 5);
        damage(&put(run.path(), 10));
        let (step, notes) = found(run.path());
        assert_eq!(step, Some(5), "{told}");
        assert!(notes.len() == 1 && notes[0].contains("000010") && notes[0].contains(told), "{notes:?}");
    }
}

#[test]
fn a_write_that_fails_leaves_the_older_ones() {
    let run = tempfile::tempdir().expect("a folder");
    put(run.path(), 5);
    let fail = |part: &Path| {
        files::write(&part.join("weights"), [0])?;
        Err(Error::file("no space"))
    };
    write(run.path(), 10, fail).expect_err("refused");
    assert_eq!(found(run.path()), (Some(5), vec![]));
    assert_eq!(files::entries(&run.path().join("checkpoints")).expect("readable").len(), 1);
}
