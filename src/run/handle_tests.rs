use super::*;

#[test]
fn curves_are_drawn_again_while_the_run_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Folder::create(&crate::files::Door::everything(), Some(&dir.path().join("run")), "x").expect("new");
    let run = Run::create(folder, &json!({}), "").expect("begun");
    let curves = run.folder().file("curves.svg");
    let log = |step: u64| {
        run.log("mine", step as f64);
        run.advance(step + 1, &[]).expect("written");
    };
    log(1);
    assert!(!curves.exists(), "not at every step");
    let ago = Instant::now().checked_sub(REDRAWN).expect("the machine has been up for longer");
    run.drawn.set((ago, Duration::ZERO));
    log(2);
    let drawn = std::fs::read_to_string(&curves).expect("drawn");
    assert!(drawn.contains("mine") && drawn.ends_with("</svg>\n"), "{drawn}");
    std::fs::remove_file(&curves).expect("removed");
    run.drawn.set((ago, Duration::from_secs(1)));
    log(3);
    assert!(!curves.exists(), "what takes long is drawn seldom");
}

#[test]
fn numbers_of_the_script_stand_before_the_runs_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Folder::create(&crate::files::Door::everything(), Some(&dir.path().join("run")), "x").expect("new");
    let run = Run::create(folder, &json!({}), "").expect("begun");
    run.advance(1, &[("lr", 0.5)]).expect("nothing was logged");
    run.log("lr", 0.25);
    run.advance(2, &[("lr", 0.5), ("sampled", 3.0)]).expect("written");
    let text = std::fs::read_to_string(run.folder().file(METRICS)).expect("a file");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(r#""lr":0.25,"sampled":3.0"#), "{text}");
}

#[test]
fn a_readme_of_somebodys_own_stays_and_a_card_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Folder::create(&crate::files::Door::everything(), Some(&dir.path().join("run")), "x").expect("new");
    let run = Run::create(folder, &json!({}), "").expect("begun");
    let readme = run.folder().file("model").join(card::FILE);
    let save = |text: &str| run.replace("model", Some(text.into()), |_| Ok(())).expect("written");
    let there = || std::fs::read_to_string(&readme).expect("a file");
    save(&format!("{}\none", card::MARK));
    save(&format!("{}\ntwo", card::MARK));
    assert!(there().ends_with("two"), "{}", there());
    std::fs::write(&readme, b"mine\xff").expect("written");
    save(&format!("{}\nthree", card::MARK));
    assert_eq!(std::fs::read(&readme).expect("a file"), b"mine\xff");
}
