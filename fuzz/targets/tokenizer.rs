//! `tokenizer.json` of a model's folder, as a tokenizer of a stranger's.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rhopo_fuzz::open_with("tokenizer.json", bytes));
