//! A file of rows in JSON, one a line, as prompts and whatever else its fields are.
#![no_main]

use rhopo::data::dataset::{Dataset, Reading};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rows(bytes));

fn rows(bytes: &[u8]) {
    let Ok(mut data) = Dataset::open(&rhopo_fuzz::file("d.jsonl", bytes), &Reading::default(), None) else { return };
    let _ = data.rows(3);
    let _ = data.prompts(3);
    let _ = data.demos(3);
    let _ = data.pairs(3);
    let _ = data.labelled(3);
    let _ = data.rewarded(3);
}
