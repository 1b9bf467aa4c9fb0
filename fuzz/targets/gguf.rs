//! A model in one GGUF file.
#![no_main]

use rhopo::model::gguf::Frozen;
use std::fs;
use std::sync::Once;

/// What the corpus begins with opens: else nothing behind the first check would be tried.
static SOUND: Once = Once::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    SOUND.call_once(|| {
        let seed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/gguf/quantised")).expect("a seed");
        assert!(open(&seed), "the seed is no model");
    });
    open(bytes);
});

/// Opens a model, and uses what came of it; an error is an answer.
fn open(bytes: &[u8]) -> bool {
    let Ok(model) = Frozen::open(&rhopo_fuzz::file("m.gguf", bytes), None) else { return false };
    if let Some(tokenizer) = &model.tokenizer
        && let Ok(ids) = tokenizer.encode_prompt("Hello, 12 wörlds\n")
    {
        tokenizer.decode(&ids);
    }
    true
}
