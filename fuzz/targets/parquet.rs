//! A Parquet file of rows.
#![no_main]

use rhopo::data::dataset::{Dataset, Reading};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut data) = Dataset::open(&rhopo_fuzz::file("d.parquet", bytes), &Reading::default(), None) {
        let _ = data.rows(3);
        let _ = data.prompts(3);
    }
});
