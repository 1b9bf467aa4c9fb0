//! Models on the hub: from the cache, from a server on this machine, and without either. `rhopo inspect` fetches them.

use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// The files of a fixture that a model needs.
fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(fixture(name)).expect("a fixture").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let needed = names.filter(|file| !file.starts_with("expected") && !file.starts_with("inputs"));
    needed.map(|file| (file.clone(), fs::read(fixture(name).join(file)).expect("read"))).collect()
}

/// `rhopo inspect ID` with this cache and endpoint.
fn inspect(home: &Path, endpoint: &str, id: &str, more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", home).env("HF_ENDPOINT", endpoint).envs(more.iter().copied());
    command.current_dir(home).args(["inspect", id]).output().expect("rhopo starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// An address on which nobody listens.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

/// A cache laid out as the hub's tools do, with the files of a fixture.
fn cache(name: &str, without: &[&str]) -> TempDir {
    let home = tempfile::tempdir().expect("a folder");
    let model = home.path().join("hub/models--some--model");
    let snapshot = model.join("snapshots").join(COMMIT);
    for dir in [&snapshot, &model.join("refs"), &model.join("blobs")] {
        fs::create_dir_all(dir).expect("made");
    }
    fs::write(model.join("refs/main"), COMMIT).expect("written");
    for (i, (file, bytes)) in files(name).into_iter().filter(|(file, _)| !without.contains(&file.as_str())).enumerate()
    {
        fs::write(model.join("blobs").join(i.to_string()), bytes).expect("written");
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), snapshot.join(file)).expect("linked");
        #[cfg(not(unix))]
        fs::copy(model.join("blobs").join(i.to_string()), snapshot.join(file)).expect("copied");
    }
    home
}

#[test]
fn a_complete_snapshot_needs_no_network() {
    for (fixture, id) in [("qwen2", "some/model"), ("llama3", "some/model@main")] {
        let home = cache(fixture, &[]);
        let out = inspect(home.path(), &closed(), id, &[]);
        assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
        assert!(text(&out.stdout).contains(&format!("snapshots/{COMMIT}")), "{}", text(&out.stdout));
    }
    // A commit is found without a name that stands for it, and the cache may be elsewhere.
    let home = cache("qwen2", &[]);
    let elsewhere = home.path().join("elsewhere");
    fs::rename(home.path().join("hub"), &elsewhere).expect("renamed");
    let place = [("HF_HUB_CACHE", elsewhere.to_str().expect("UTF-8"))];
    let out = inspect(home.path(), &closed(), &format!("some/model@{COMMIT}"), &place);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
}

/// A folder of that name goes before the hub: what was made from it names no model of the hub.
#[test]
fn the_card_of_a_model_from_the_hub_names_it() {
    let home = cache("qwen2", &[]);
    let script = "let cfg = args(#{ model: \"\" });\nlet run = open_run(cfg);\nrun.save(load_model(cfg.model));\n";
    fs::write(home.path().join("saves.rhai"), script).expect("written");
    let card = |id: &str, out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        command
            .env_remove("HF_HUB_CACHE")
            .env("HF_HOME", home.path())
            .env("HF_HUB_OFFLINE", "1")
            .current_dir(home.path());
        command.args(["run", "saves.rhai", "--device", "cpu", "--out", out, "--set", &format!("model={id}")]);
        let run = command.output().expect("rhopo starts");
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        fs::read_to_string(home.path().join(out).join("model/README.md")).expect("a card")
    };
    for (id, out) in [("some/model", "main"), ("some/model@main", "revision")] {
        assert!(
            card(id, out).starts_with("---\nbase_model: \"some/model\"\n"),
            "{}",
            card(id, &format!("{out}-again"))
        );
    }
    fs::create_dir(home.path().join("some")).expect("made");
    fs::rename(home.path().join("main/model"), home.path().join("some/model")).expect("renamed");
    fs::remove_file(home.path().join("some/model/README.md")).expect("removed");
    assert!(!card("some/model", "folder").contains("base_model"));
}

#[test]
fn a_snapshot_without_a_tokenizer_serves_where_the_hub_is_out_of_reach() {
    let home = cache("qwen2", &["tokenizer.json"]);
    for more in [&[][..], &[("HF_HUB_OFFLINE", "1")]] {
        let out = inspect(home.path(), &closed(), "some/model", more);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    }
}

#[test]
fn without_network_the_message_says_where_to_put_the_files() {
    let endpoint = closed();
    for home in [cache("llama3", &["model-00002-of-00003.safetensors"]), tempfile::tempdir().expect("a folder")] {
        for (more, reason) in [(&[][..], "io: "), (&[("HF_HUB_OFFLINE", "1")], "HF_HUB_OFFLINE is set")] {
            let out = inspect(home.path(), &endpoint, "some/model", more);
            assert_eq!(out.status.code(), Some(1));
            let said = text(&out.stderr);
            let begins = format!("Error: the model some/model could not be fetched from {endpoint}: {reason}");
            assert!(said.starts_with(&begins), "{said}");
            let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
            for part in [
                "there is no folder some/model either",
                "put config.json, model.safetensors (or model.safetensors.index.json and the shards that it names), \
                 tokenizer.json, tokenizer_config.json",
                "into a folder and give its path",
                "copy the folder models--some--model from the cache of a machine that has it to",
                &home.path().join("hub").display().to_string(),
            ] {
                assert!(flat.contains(part), "{part:?} is not in {flat}");
            }
        }
    }
}

/// A server that answers as the hub does, for one model; what was asked is written down.
struct Server {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        // Ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, list) = (files.clone(), list.clone());
                std::thread::spawn(move || while answer(&stream, &files, &list) {});
            }
        });
        Self { endpoint, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

/// Answers one request; false once the other side is gone.
fn answer(mut stream: &TcpStream, files: &BTreeMap<String, Vec<u8>>, asked: &Mutex<Vec<String>>) -> bool {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let Some(path) = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_string)) else { return false };
    let headers: Vec<String> = lines.map(|line| line.to_lowercase()).collect();
    asked.lock().expect("no panic").push(path.clone());
    let from = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")?.split('-').next()?.parse().ok());
    let file = path.strip_prefix(&format!("/some/model/resolve/{COMMIT}/")).and_then(|name| files.get(name));
    let (head, body): (String, &[u8]) = if path == "/api/models/some/model/revision/main" {
        let list: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        let body = json!({"sha": COMMIT, "siblings": list}).to_string();
        return send(stream, "200 OK\r\nContent-Type: application/json", body.as_bytes());
    } else if let Some(bytes) = file {
        let (from, size): (usize, _) = (from.unwrap_or(0), bytes.len());
        let only_first = headers.iter().any(|line| line == "range: bytes=0-0");
        let to = if only_first { 1 } else { size };
        let name = path.rsplit('/').next().expect("a name");
        let head = format!(
            "206 Partial Content\r\nETag: \"{name}-tag\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{size}",
            to - 1
        );
        (head, &bytes[from..to])
    } else {
        ("404 Not Found".into(), b"")
    };
    stream.flush().is_ok() && send(stream, &head, body)
}

fn send(mut stream: &TcpStream, head: &str, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok()
}

#[test]
fn a_model_is_downloaded_once() {
    let mut served = files("llama3");
    served.insert("README.md".into(), b"not needed".to_vec());
    served.insert("pytorch_model.bin".into(), b"not needed".to_vec());
    let server = Server::start(served);
    let home = tempfile::tempdir().expect("a folder");
    let out = inspect(home.path(), &server.endpoint, "some/model", &[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let model = home.path().join("hub/models--some--model");
    assert_eq!(fs::read_to_string(model.join("refs/main")).expect("a ref"), COMMIT);
    for (name, bytes) in files("llama3") {
        assert!(fs::read(model.join("snapshots").join(COMMIT).join(&name)).expect("a file") == bytes, "{name}");
    }
    let asked = server.asked();
    assert!(!asked.iter().any(|path| path.ends_with("README.md") || path.ends_with(".bin")), "{asked:?}");
    let out = inspect(home.path(), &server.endpoint, "some/model", &[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(server.asked(), [""; 0], "the second time nothing is asked");
}

#[test]
fn a_broken_snapshot_is_completed() {
    let server = Server::start(files("llama3"));
    let home = cache("llama3", &["model-00003-of-00003.safetensors"]);
    let out = inspect(home.path(), &server.endpoint, "some/model", &[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let asked = server.asked();
    assert!(asked.iter().any(|path| path.ends_with("model-00003-of-00003.safetensors")), "{asked:?}");
    assert!(!asked.iter().any(|path| path.ends_with("model-00001-of-00003.safetensors")), "{asked:?}");
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(files("qwen2"));
    let out = inspect(home.path(), &server.endpoint, "some/other", &[]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("has no model some/other, or does not show it to you (status 404)"), "{said}");
    assert!(said.contains("HF_TOKEN"), "{said}");

    let mut pickled = files("qwen2");
    let weights = pickled.remove("model.safetensors").expect("weights");
    pickled.insert("pytorch_model.bin".into(), weights);
    let server = Server::start(pickled);
    let out = inspect(home.path(), &server.endpoint, "some/model", &[]);
    let said = text(&out.stderr);
    assert!(said.starts_with("Error: some/model on the hub holds no model.safetensors"), "{said}");
    assert!(said.contains("pytorch_model.bin is a pickle"), "{said}");
}

/// A server that takes connections and then says nothing, or a byte of a header now and then.
fn that_never_answers(trickles: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    // Ends with the test program.
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if trickles {
                std::thread::spawn(move || {
                    let begins = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ");
                    while begins.is_ok() && stream.write_all(b"x").is_ok() {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                });
            } else {
                open.push(stream);
            }
        }
    });
    endpoint
}

#[test]
fn a_download_ends_when_it_is_asked_to() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("own.rhai"), "load_model(\"some/model\");\n").expect("written");
    let begin = |endpoint: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhopo"));
        for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"]
        {
            command.env_remove(name);
        }
        command.env("HF_HOME", dir.path()).env("HF_ENDPOINT", endpoint).current_dir(dir.path());
        command.args(["run", "own.rhai", "--device", "cpu"]).args(more).stderr(Stdio::piped());
        command.spawn().expect("rhopo starts")
    };
    for trickles in [false, true] {
        let endpoint = that_never_answers(trickles);
        let begun = Instant::now();
        let out = begin(&endpoint, &["--max-seconds", "1"]).wait_with_output().expect("an end");
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("took more than 1 s") && !said.contains("cannot be stopped"), "{said}");
        assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
        #[cfg(unix)]
        {
            let child = begin(&endpoint, &[]);
            std::thread::sleep(Duration::from_millis(1000));
            let asked = Instant::now();
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
            let out = child.wait_with_output().expect("an end");
            assert_eq!(out.status.code(), Some(130), "{}", text(&out.stderr));
            assert!(asked.elapsed() < Duration::from_millis(1000), "{:?}", asked.elapsed());
        }
    }
}
