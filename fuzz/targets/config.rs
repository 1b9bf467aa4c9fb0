//! `config.json` of a model's folder, as a configuration of a stranger's.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rhopo_fuzz::open_with("config.json", bytes));
