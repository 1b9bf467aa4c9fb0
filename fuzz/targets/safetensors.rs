//! `model.safetensors` of a model's folder, as weights of a stranger's: whole files, and headers before the sound numbers of the
//! fixture, which would otherwise make every input large.
#![no_main]

use std::fs;
use std::sync::OnceLock;

/// What follows the header in the fixture.
fn numbers() -> &'static [u8] {
    static NUMBERS: OnceLock<Vec<u8>> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let bytes = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models/qwen2/model.safetensors"));
        let bytes = bytes.expect("a fixture");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        bytes[8 + header as usize..].to_vec()
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((b'{', _)) => {
            let size = (bytes.len() as u64).to_le_bytes();
            rhopo_fuzz::open_with("model.safetensors", &[&size, bytes, numbers()].concat());
        }
        _ => rhopo_fuzz::open_with("model.safetensors", bytes),
    }
});
