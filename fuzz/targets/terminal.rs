//! Text that is shown on a terminal: nothing of it moves the cursor, changes a colour or hides.
#![no_main]

use rhopo::run::quote::visible;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let shown = visible(text);
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!shown.chars().any(obeyed), "{shown:?}");
    assert_eq!(visible(&shown), shown, "what is shown is shown as it is");
});
