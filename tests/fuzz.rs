//! Model folders with damaged files: whatever they hold, opening one ends with a model or a clear error, without a
//! panic and without asking for more memory than the files justify. The same seed damages the same way; a panic that
//! was found stays here as a test of its own.

use rhopo::gpu::Place;
use rhopo::model::Model;
use rhopo::tensor::rng::Key;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the largest single request.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as this function's caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as this function's caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as this function's caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// The largest request that opening a folder of this many bytes may make.
fn justified(bytes: u64) -> usize {
    (16 << 20) + 16 * bytes as usize
}

/// Random choices, one after the other.
struct Draw {
    key: Key,
    next: u64,
}

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.next += 1;
        self.key.below(self.next, n as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// A fixture model in a folder of its own.
struct Folder {
    dir: tempfile::TempDir,
    source: PathBuf,
}

impl Folder {
    fn new(fixture: &str) -> Self {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(fixture);
        let dir = tempfile::tempdir().expect("a folder");
        let names = fs::read_dir(&source).expect("a fixture").map(|entry| entry.expect("an entry").file_name());
        for name in names.filter(|name| !["expected.safetensors", "expected.json"].contains(&&*name.to_string_lossy()))
        {
            fs::copy(source.join(&name), dir.path().join(&name)).expect("copied");
        }
        Self { dir, source }
    }

    fn original(&self, name: &str) -> Vec<u8> {
        fs::read(self.source.join(name)).expect("a file of the fixture")
    }

    /// Opens the folder with this in place of one of its files, then puts the original back. Whether it was refused, or
    /// what must not happen.
    fn open_with(&self, name: &str, bytes: &[u8]) -> Result<bool, String> {
        fs::write(self.dir.path().join(name), bytes).expect("written");
        let found = open(self.dir.path());
        fs::write(self.dir.path().join(name), self.original(name)).expect("written");
        let text = || String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        found.map(|refused| refused.is_some()).map_err(|wrong| format!("{wrong}\nwith this {name}:\n{}", text()))
    }
}

/// Opens a folder and uses its tokenizer; what went wrong, in words, or what must not happen.
fn open(dir: &Path) -> Result<Option<String>, String> {
    let bytes =
        fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").metadata().expect("size").len());
    let justified = justified(bytes.sum());
    LARGEST.store(0, Ordering::Relaxed);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let model = Model::load(&rhopo::files::anywhere(dir), &Place::Host)?;
        if let Some(chat) = &model.chat {
            chat.render(&[json!({"role": "user", "content": "Hello"})], true)?;
        }
        if let Some(tokenizer) = &model.tokenizer {
            let ids = tokenizer.encode_prompt("Hello, 12 wörlds <|im_end|>\n")?;
            tokenizer.decode(&ids);
        }
        Ok::<(), rhopo::error::Error>(())
    }));
    let largest = LARGEST.load(Ordering::Relaxed);
    if largest > justified {
        return Err(format!("{largest} bytes were asked for at once, at most {justified} are justified"));
    }
    match opened {
        Ok(Ok(())) => Ok(None),
        Ok(Err(e)) if e.what.is_empty() || e.what.len() > 6000 => Err(format!("an unclear error: {:?}", e.what)),
        Ok(Err(e)) => Ok(Some(e.what)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(format!("a panic: {}", text.unwrap_or("of unknown kind")))
        }
    }
}

/// Values that files should not hold where others are expected.
fn odd(draw: &mut Draw) -> Value {
    let nested = (0..100).fold(json!(null), |inner, _| json!([inner]));
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(7),
        json!(0.5),
        json!(1e308),
        json!(-1e-320),
        json!(u32::MAX),
        json!(1u64 << 28),
        json!(1u64 << 40),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("x"),
        json!("full_attention"),
        json!("ü\u{0}"),
        json!([]),
        json!({}),
        json!([0, "a", null]),
        json!({"a": {"b": [1]}}),
        nested,
    ];
    draw.of(&values).clone()
}

/// Changes one place of a JSON value: another value, a missing key, a further key.
fn mutate(value: &mut Value, draw: &mut Draw) {
    let deeper = draw.below(4) > 0;
    match value {
        Value::Object(map) if !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = draw.of(&keys).clone();
            match draw.below(8) {
                0 => _ = map.shift_remove(&key),
                1 => _ = map.insert(format!("{key}_"), odd(draw)),
                2 => {
                    let other = map[draw.of(&keys)].clone();
                    map.insert(key, other);
                }
                _ if deeper => mutate(&mut map[&key], draw),
                _ => _ = map.insert(key, odd(draw)),
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = draw.below(list.len());
            match draw.below(8) {
                0 => _ = list.remove(at),
                1 => list.push(odd(draw)),
                _ if deeper => mutate(&mut list[at], draw),
                _ => list[at] = odd(draw),
            }
        }
        other => *other = odd(draw),
    }
}

/// JSON damaged in one to three places, or as text: cut short, a byte changed, doubled.
fn damage(original: &[u8], draw: &mut Draw) -> Vec<u8> {
    if draw.below(5) == 0 {
        return damage_bytes(original, draw);
    }
    let mut value: Value = serde_json::from_slice(original).expect("a fixture is JSON");
    for _ in 0..=draw.below(3) {
        mutate(&mut value, draw);
    }
    serde_json::to_vec(&value).expect("text")
}

fn damage_bytes(original: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = original.to_vec();
    match draw.below(4) {
        0 => bytes.truncate(draw.below(original.len())),
        1 => {
            let at = draw.below(bytes.len());
            bytes[at] = draw.below(256) as u8;
        }
        2 => {
            let at = draw.below(bytes.len());
            bytes[at] ^= 1 << draw.below(8);
        }
        _ => {
            let (from, to) = (draw.below(bytes.len()), draw.below(bytes.len()));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.splice(from..from, part);
        }
    }
    bytes
}

/// Damages `file` of a fixture `times` times and opens the folder each time; how often that failed.
fn fuzz(fixture: &str, file: &str, seed: u64, times: u64, damage: impl Fn(&[u8], &mut Draw) -> Vec<u8>) -> usize {
    // What is counted and who hears of panics belong to the whole program.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::panic::set_hook(Box::new(|_| {}));
    let folder = Folder::new(fixture);
    assert_eq!(open(folder.dir.path()), Ok(None), "the fixture itself is fine");
    let original = folder.original(file);
    let one = |i: u64| {
        let mut draw = Draw { key: Key::new(seed).fold(i), next: 0 };
        folder.open_with(file, &damage(&original, &mut draw)).map_err(|wrong| format!("number {i}: {wrong}"))
    };
    let refused: Result<Vec<bool>, String> = (0..times).map(one).collect();
    _ = std::panic::take_hook();
    match refused {
        Ok(refused) => refused.into_iter().filter(|refused| *refused).count(),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn configurations() {
    let refused = fuzz("qwen2", "config.json", 1, 400, damage);
    assert!((100..400).contains(&refused), "{refused} of 400 were refused");
}

#[test]
fn generation_configurations() {
    let refused = fuzz("qwen2", "generation_config.json", 2, 100, damage);
    assert!((10..100).contains(&refused), "{refused} of 100 were refused");
}

#[test]
fn indices() {
    let refused = fuzz("llama3", "model.safetensors.index.json", 3, 150, damage);
    assert!((50..150).contains(&refused), "{refused} of 150 were refused");
}

#[test]
fn tokenizers() {
    let refused = fuzz("qwen2", "tokenizer.json", 4, 250, damage);
    assert!((20..250).contains(&refused), "{refused} of 250 were refused");
}

#[test]
fn tokenizer_configurations() {
    let refused = fuzz("qwen2", "tokenizer_config.json", 5, 100, damage);
    assert!((10..100).contains(&refused), "{refused} of 100 were refused");
}

#[test]
fn chat_templates() {
    let refused = fuzz("qwen2", "chat_template.jinja", 7, 200, damage_bytes);
    assert!((20..200).contains(&refused), "{refused} of 200 were refused");
}

#[test]
fn headers() {
    let refused = fuzz("qwen2", "model.safetensors", 6, 300, |original, draw| {
        let length = u64::from_le_bytes(original[..8].try_into().expect("8 bytes")) as usize;
        let (header, data) = (&original[8..8 + length], &original[8 + length..]);
        let header = match draw.below(8) {
            0 => {
                let mut bytes = original.to_vec();
                bytes[draw.below(8)] = draw.below(256) as u8;
                return bytes;
            }
            1 => {
                // A hole, an overlap, or a shape and its place that fit each other and not the model.
                let mut value: Value = serde_json::from_slice(header).expect("a header");
                let names: Vec<String> = value.as_object().expect("an object").keys().skip(1).cloned().collect();
                let at = draw.of(&[0, 1, 4, 192, data.len() / 2, data.len(), usize::MAX / 4]).to_owned();
                let count = draw.of(&[0, 1, 48, 1 << 40]).to_owned();
                value[draw.of(&names)] =
                    json!({"dtype": "F32", "shape": [count], "data_offsets": [at, at.saturating_add(4 * count)]});
                serde_json::to_vec(&value).expect("text")
            }
            _ => damage(header, draw),
        };
        let said = if draw.below(8) == 0 { draw.below(1 << 40) } else { header.len() };
        [&(said as u64).to_le_bytes(), &header[..], data].concat()
    });
    assert!((200..300).contains(&refused), "{refused} of 300 were refused");
}

/// The error of a fixture with `change` made to one of its files.
fn error_of(fixture: &str, file: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = Folder::new(fixture);
    let mut value = serde_json::from_slice(&folder.original(file)).expect("JSON");
    change(&mut value);
    fs::write(folder.dir.path().join(file), value.to_string()).expect("written");
    open(folder.dir.path()).expect("no panic").expect("an error")
}

// Found by the tests above, over more seeds.

#[test]
fn a_rotary_share_beyond_all_numbers() {
    let e = error_of("gpt_neox", "config.json", |config| config["rotary_pct"] = json!(1e308));
    assert!(e.starts_with("config.json: 18446744073709551615 dimensions of a head are rotated"), "{e}");
}

#[test]
fn a_chat_template_with_an_empty_block() {
    let folder = Folder::new("gpt2");
    fs::write(folder.dir.path().join("chat_template.jinja"), "{% if true %}{%}{% endif %}").expect("written");
    let e = open(folder.dir.path()).expect("no panic").expect("an error");
    assert!(e.starts_with("the chat template cannot be parsed: chat_template.jinja, line 1: syntax error"), "{e}");
}

/// Files on which the crate that reads tokenizers panics.
fn not_a_working_tokenizer(change: impl FnOnce(&mut Value)) {
    let e = error_of("gpt2", "tokenizer.json", change);
    assert!(e.ends_with("tokenizer.json does not describe a working tokenizer"), "{e}");
}

#[test]
fn a_decoder_of_many_brackets() {
    let nested = (0..150).fold(json!(null), |inner, _| json!([inner]));
    not_a_working_tokenizer(|tokenizer| tokenizer["decoder"] = nested);
}

#[test]
fn a_prefix_longer_than_the_tokens() {
    not_a_working_tokenizer(|tokenizer| tokenizer["model"]["continuing_subword_prefix"] = json!("a long prefix"));
}

#[test]
fn a_template_of_the_second_sequence_alone() {
    not_a_working_tokenizer(|tokenizer| {
        tokenizer["post_processor"]["single"] = json!([{"Sequence": {"id": "B", "type_id": 0}}]);
    });
}

#[test]
fn a_template_with_an_unknown_token() {
    not_a_working_tokenizer(|tokenizer| {
        let single = tokenizer["post_processor"]["single"].as_array_mut().expect("a list");
        single.push(json!({"SpecialToken": {"id": "<none>", "type_id": 0}}));
    });
}
