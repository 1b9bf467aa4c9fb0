//! A stored batch: what is read can be stored again.
#![no_main]

use rhopo::data::stored;
use rhopo::tensor::Device;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(batch) = stored::load(&rhopo_fuzz::file("b", bytes), &Device::Cpu) {
        stored::to_bytes(&batch, Path::new("b")).expect("what was read can be written");
    }
});
