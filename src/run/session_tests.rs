use super::*;

fn session() -> Rc<Session> {
    Session::new(Place::Host, Settings::default(), 5)
}

/// Comes to the next step and begins it.
fn begin(s: &Session) {
    s.step_loop().enter(1).expect("no loop is under way");
    s.step_loop().arrive(false);
    s.begin_step().expect("there is nothing to write");
}

#[test]
fn keys_differ_by_call_and_stream_and_come_back_with_the_step() {
    let s = session();
    let first = s.key(Stream::Sample);
    assert_ne!(first, s.key(Stream::Sample), "two calls in one step differ");
    assert_ne!(first, s.key(Stream::Evaluate), "streams differ");
    begin(&s);
    assert_ne!(first, s.key(Stream::Sample), "steps differ");
    s.forget_run();
    assert_eq!(first, s.key(Stream::Sample), "the same place gives the same key");
}

#[test]
fn lasting_keys_follow_the_seed_alone() {
    let s = session();
    let first = s.lasting_key(Stream::Data, None);
    begin(&s);
    s.key(Stream::Data);
    assert_eq!(first, s.lasting_key(Stream::Data, None), "neither step nor call matters");
    assert_eq!(first, s.lasting_key(Stream::Data, Some(5)), "5 is the session's seed");
    assert_ne!(first, s.lasting_key(Stream::Data, Some(6)));
    assert_ne!(first, s.lasting_key(Stream::Init, None));
}

#[test]
fn one_stream_does_not_move_another() {
    let (a, b) = (session(), session());
    a.key(Stream::Rand);
    assert_eq!(a.key(Stream::Sample), b.key(Stream::Sample));
}

#[test]
fn the_command_lines_seed_goes_before_the_scripts() {
    let given = session();
    given.set_seed(7);
    assert_eq!(given.seed(), 5);
    let free = Session::launch(Launch::new(Place::Host, Settings::default()));
    free.set_seed(7);
    assert_eq!(free.seed(), 7);
}
