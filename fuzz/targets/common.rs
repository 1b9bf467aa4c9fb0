//! What the targets share: folders in memory where the bytes that are tried stand as a file, beside sound ones.

use rhopo::files::{Location, anywhere};
use rhopo::gpu::Place;
use rhopo::model::Model;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder that lies in memory where there is one of that kind.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a folder")
}

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Writes `bytes` as `name` into a folder, beside the files of a fixture model where one is named; the folder.
fn lay(beside: Option<&str>, name: &str, bytes: &[u8]) -> PathBuf {
    FOLDER.with_borrow_mut(|kept| {
        let dir = kept.get_or_insert_with(|| {
            let dir = folder();
            if let Some(beside) = beside {
                let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(beside);
                for entry in fs::read_dir(from).expect("a fixture") {
                    let path = entry.expect("an entry").path();
                    fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
                }
                // Else nothing behind the first check would be tried.
                Model::load(&anywhere(dir.path()), &Place::Host).expect("the fixture is sound");
            }
            dir
        });
        fs::write(dir.path().join(name), bytes).expect("written");
        dir.path().to_path_buf()
    })
}

/// The bytes as a file of their own.
pub fn file(name: &str, bytes: &[u8]) -> Location {
    anywhere(lay(None, name, bytes).join(name))
}

/// Opens the smallest fixture model with these bytes in place of one of its files, and uses what came of it. An error is an
/// answer; a panic is not.
pub fn open_with(name: &str, bytes: &[u8]) {
    let dir = lay(Some("qwen2"), name, bytes);
    let Ok(model) = Model::load(&anywhere(dir), &Place::Host) else { return };
    if let Some(tokenizer) = &model.tokenizer
        && let Ok(ids) = tokenizer.encode_prompt("Hello, 12 wörlds <|im_end|>\n")
    {
        tokenizer.decode(&ids);
    }
    if let Some(chat) = &model.chat {
        // What it answers was not asked.
        let _ = chat.render(&[serde_json::json!({"role": "user", "content": "Hello"})], true);
    }
}
