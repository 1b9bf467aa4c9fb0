//! Hubs that lie: whatever a server says of names, sizes and places, it writes nothing outside of the hub's cache, and nobody else
//! gets the token. A line adds a lie.

use super::world::World;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_of_somebody";
const WEIGHTS: &str = "model.safetensors";

/// What a server says that is not so; `{out}` and `{up}` are the world's.
#[derive(Debug, Clone)]
enum Lie {
    None,
    /// The commit that the list of files is of.
    Sha(&'static str),
    /// The commit that a file is of.
    Commit(&'static str),
    /// What the weights' content is called.
    Etag(&'static str),
    LinkedEtag(&'static str),
    /// A further file of the repository.
    Lists(&'static str),
    /// A shard that the index names, and that is listed as well.
    Shard(&'static str),
    /// Where the weights are.
    Redirect(&'static str),
    /// Bytes of the weights beside those that there are.
    Says(i64),
    /// A header that is missing.
    Without(&'static str),
    /// The weights end after half of them.
    BreaksOff,
    /// More than was said.
    GoesOn,
    /// What the model of an adapter is called.
    Adapts(&'static str),
    /// Where the list of files is.
    Moves(&'static str),
    /// None: the weights' content is called by its SHA-256.
    Hashed,
}

struct Server {
    endpoint: String,
    /// Every request, its headers in small letters.
    asked: Arc<Mutex<Vec<String>>>,
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/qwen2");
    let names = ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"];
    let files = names.into_iter().filter_map(|name| Some((name.to_string(), fs::read(folder.join(name)).ok()?)));
    files.chain([("merges.txt".to_string(), Vec::new())]).collect()
}

impl Server {
    fn start(lie: Lie, world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (list, mut files) = (asked.clone(), files());
        let told = Told { filled: lie.text().map(|text| world.fill(text)), lie };
        told.lay(&mut files);
        // Ends with the test program.
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| told.answer(stream, &files, &list)));
        Self { endpoint, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Lie {
    fn text(&self) -> Option<&'static str> {
        match self {
            Self::Sha(text) | Self::Commit(text) | Self::Etag(text) | Self::LinkedEtag(text) => Some(text),
            Self::Lists(text) | Self::Shard(text) | Self::Redirect(text) | Self::Adapts(text) | Self::Moves(text) => {
                Some(text)
            }
            _ => None,
        }
    }
}

struct Told {
    lie: Lie,
    filled: Option<String>,
}

impl Told {
    fn said(&self, of: impl Fn(&Lie) -> bool, or: &str) -> String {
        self.filled.clone().filter(|_| of(&self.lie)).unwrap_or_else(|| or.to_string())
    }

    fn lay(&self, files: &mut BTreeMap<String, Vec<u8>>) {
        let more = self.filled.clone().unwrap_or_default();
        match self.lie {
            Lie::Lists(_) => drop(files.insert(more, b"evil".to_vec())),
            Lie::Shard(_) => {
                let index = json!({ "metadata": {}, "weight_map": { "model.embed_tokens.weight": more } });
                files.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
                let weights = files.remove(WEIGHTS).expect("weights");
                files.insert(more, weights);
            }
            Lie::Adapts(_) => {
                let config = json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
                                     "base_model_name_or_path": more });
                files.clear();
                files.insert("adapter_config.json".into(), config.to_string().into_bytes());
                files.insert("adapter_model.safetensors".into(), vec![2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']);
            }
            _ => {}
        }
    }

    fn answer(&self, stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, asked: &Mutex<Vec<String>>) {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let request: Vec<String> = lines.by_ref().collect();
        let Some(path) = request.first().and_then(|line| line.split(' ').nth(1)) else { return };
        asked.lock().expect("no panic").push(request.join("\n").to_lowercase());
        let sha = self.said(|lie| matches!(lie, Lie::Sha(_)), COMMIT);
        if path.starts_with("/api/models/") {
            if let (Lie::Moves(_), Some(to)) = (&self.lie, &self.filled) {
                return send(&stream, &format!("302 Found\r\nLocation: {to}"), b"");
            }
            let list: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
            let body = json!({ "sha": sha, "siblings": list }).to_string();
            return send(&stream, "200 OK\r\nContent-Type: application/json", body.as_bytes());
        }
        // Whatever the path before it: a lie may be in it.
        let found = files.iter().find(|(name, _)| path.ends_with(&format!("/{name}")));
        let Some((name, bytes)) = found else { return send(&stream, "404 Not Found", b"") };
        let weights = name == WEIGHTS || matches!(self.lie, Lie::Shard(_));
        let of_weights = |lie: &Lie, want: fn(&Lie) -> bool| weights && want(lie);
        let commit = self.said(|lie| matches!(lie, Lie::Commit(_)), COMMIT);
        let etag = self
            .said(|lie| of_weights(lie, |lie| matches!(lie, Lie::Etag(_))), &format!("{}-tag", name.replace('/', "-")));
        let etag = if matches!(self.lie, Lie::Hashed) && weights { sha256(bytes) } else { etag };
        let mut head = Vec::new();
        let mut header = |name: &str, value: &str| {
            if !matches!(self.lie, Lie::Without(missing) if missing == name && weights) {
                head.push(format!("{name}: {value}"));
            }
        };
        header("ETag", &format!("\"{etag}\""));
        header("X-Repo-Commit", &commit);
        if let (Lie::LinkedEtag(_), Some(text), true) = (&self.lie, &self.filled, weights) {
            header("X-Linked-Etag", text);
        }
        if let (Lie::Redirect(_), Some(to), true) = (&self.lie, &self.filled, weights) {
            header("Location", to);
            return send(&stream, &format!("302 Found\r\n{}", head.join("\r\n")), b"");
        }
        if bytes.is_empty() {
            let head = format!("416 Range Not Satisfiable\r\nContent-Range: bytes */0\r\n{}", head.join("\r\n"));
            return send(&stream, &head, b"");
        }
        let range =
            request.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_string));
        let (from, to) = range.as_deref().and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap_or(0);
        let to = if to == "0" { 1 } else { bytes.len() };
        let more = if let Lie::Says(more) = self.lie { more } else { 0 };
        let size = if weights { bytes.len() as i64 + more } else { bytes.len() as i64 };
        header("Content-Range", &format!("bytes {from}-{}/{size}", to - 1));
        let mut body = bytes.get(from..to).unwrap_or_default().to_vec();
        if weights && to > 1 {
            match self.lie {
                Lie::BreaksOff => body.truncate(body.len() / 2),
                Lie::GoesOn => body.extend([7; 100]),
                _ => {}
            }
        }
        send(&stream, &format!("206 Partial Content\r\n{}", head.join("\r\n")), &body);
    }
}

fn send(mut stream: &TcpStream, head: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    // Whoever asked may have gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Everything inside that is not in the cache, and was not laid there.
fn beside(world: &World) -> Vec<String> {
    let names = fs::read_dir(world.inside()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| !["own.rhai", "hub", ".home"].contains(&name.as_str())).collect()
}

fn loads(world: &World, server: &Server) -> super::world::Outcome {
    fs::write(world.inside().join("own.rhai"), "print(load_model(\"o/n\").parameters);").expect("written");
    let cache = world.inside().join("hub").display().to_string();
    let variables = [
        ("HF_HUB_CACHE", cache),
        ("HF_ENDPOINT", server.endpoint.clone()),
        ("HF_HUB_OFFLINE", "0".to_string()),
        ("HF_TOKEN", TOKEN.to_string()),
        ("no_proxy", "127.0.0.1".to_string()),
    ];
    world.run(&["run", "own"].map(String::from), &variables)
}

#[test]
fn a_server_that_lies_writes_nothing_outside_of_the_cache() {
    let lies = [
        Lie::Sha("../../../../{up}/x"),
        Lie::Sha("{out}/x"),
        Lie::Sha(".."),
        Lie::Sha(""),
        Lie::Commit("../../../../{up}/x"),
        Lie::Commit("{out}/x"),
        Lie::Commit(""),
        Lie::Commit("89abcdef0123456789abcdef0123456789abcdef"),
        Lie::Etag("../../../{up}/x"),
        Lie::Etag("../../../own.rhai"),
        Lie::Etag("../../escaped"),
        Lie::Etag("{out}/x"),
        Lie::Etag(".."),
        Lie::Etag(""),
        Lie::LinkedEtag("../../../../{up}/x"),
        Lie::LinkedEtag("{out}/x"),
        Lie::Lists("../../../../{up}/config.json"),
        Lie::Lists("additional_chat_templates/../../../../../{up}/x.jinja"),
        Lie::Lists("{out}/x"),
        Lie::Shard("../../../../../{up}/x.safetensors"),
        Lie::Shard("{out}/x.safetensors"),
        Lie::Shard("sub/x.safetensors"),
        Lie::Redirect("file://{out}/secret.txt"),
        Lie::Redirect("{out}/secret.txt"),
        Lie::Redirect(""),
        Lie::Redirect("x"),
        Lie::Redirect("//"),
        Lie::Redirect("/o/n/resolve/main/model.safetensors"),
        Lie::Says(100),
        Lie::Says(-100),
        Lie::Says(1 << 60),
        Lie::Without("ETag"),
        Lie::Without("X-Repo-Commit"),
        Lie::Without("Content-Range"),
        Lie::BreaksOff,
        Lie::GoesOn,
        Lie::Adapts("{out}/model"),
        Lie::Adapts("../{up}/model"),
        Lie::Moves("file://{out}/secret.txt"),
        Lie::Moves("/api/models/o/n/revision/main"),
        // A content that is not what it is called by.
        Lie::Etag("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"),
    ];
    let (count, mut failed) = (lies.len(), Vec::new());
    for lie in lies {
        let world = World::new();
        let before = world.state();
        let server = Server::start(lie.clone(), &world);
        let done = loads(&world, &server);
        // What is only listed is not asked for, and a size that is not said where the length is, is no lie.
        let harmless = matches!(lie, Lie::Lists(_) | Lie::Without("Content-Range"));
        let refused = done.code == Some(1) && done.said.contains("Error: ");
        let mut wrong = |what: &str| failed.push(format!("{lie:?}: {what}: {}", done.said));
        if !(refused || (harmless && done.code == Some(0))) {
            wrong("no error");
        }
        if done.said.contains("rhopo itself failed") || done.said.contains("panicked") {
            wrong("a panic");
        }
        if world.state() != before {
            wrong("what lies outside has changed");
        }
        if !beside(&world).is_empty()
            || fs::read_to_string(world.inside().join("own.rhai")).is_ok_and(|text| !text.contains("o/n"))
        {
            wrong(&format!("beside the cache: {:?}", beside(&world)));
        }
        if world.leak().is_some() {
            wrong("what lies outside was read");
        }
    }
    println!("hubs that lie: {count} tried, {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn an_honest_server_gives_a_model_and_gets_the_token() {
    let world = World::new();
    let server = Server::start(Lie::None, &world);
    let done = loads(&world, &server);
    assert_eq!(done.code, Some(0), "{}", done.said);
    let asked = server.asked();
    assert!(asked.iter().all(|request| request.contains(&format!("authorization: bearer {TOKEN}"))), "{asked:?}");
    let snapshot = world.inside().join("hub/models--o--n/snapshots").join(COMMIT);
    assert_eq!(fs::read(snapshot.join("merges.txt")).expect("an empty file is one"), b"");
}

/// A hub that sends to `path` of another server, which has all that was asked for.
fn assert_no_token_beyond(lie: fn(&'static str) -> Lie, path: &str) {
    let world = World::new();
    let other = Server::start(Lie::None, &world);
    // The text lives as long as the test program.
    let to = Box::leak(format!("{}{path}", other.endpoint).into_boxed_str());
    let server = Server::start(lie(to), &world);
    let done = loads(&world, &server);
    assert_eq!(done.code, Some(0), "{}", done.said);
    let asked = other.asked();
    assert!(!asked.is_empty() && asked.iter().all(|request| !request.contains("authorization")), "{asked:?}");
}

#[test]
fn a_server_that_is_redirected_to_gets_no_token() {
    assert_no_token_beyond(Lie::Redirect, &format!("/elsewhere/{WEIGHTS}"));
}

#[test]
fn a_server_that_has_the_list_of_files_elsewhere_gives_no_token_away() {
    assert_no_token_beyond(Lie::Moves, "/api/models/o/n/revision/main");
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Half a file that has lost its bytes, as after a power cut: it does not become the model, and the next download does.
#[test]
fn what_a_broken_download_left_is_checked_before_it_counts() {
    let world = World::new();
    let server = Server::start(Lie::Hashed, &world);
    let weights = &files()[WEIGHTS];
    let blobs = world.inside().join("hub/models--o--n/blobs");
    fs::create_dir_all(&blobs).expect("made");
    for lost in [weights.len(), weights.len() / 2] {
        fs::write(blobs.join(format!("{}.incomplete", sha256(weights))), vec![0; lost]).expect("written");
        let done = loads(&world, &server);
        assert!(done.code == Some(1) && done.said.contains("are not those it is called by"), "{}", done.said);
    }
    let done = loads(&world, &server);
    assert_eq!(done.code, Some(0), "{}", done.said);
}

#[test]
fn a_download_that_was_broken_off_goes_on_where_it_was() {
    let world = World::new();
    let broken = Server::start(Lie::BreaksOff, &world);
    let done = loads(&world, &broken);
    assert!(done.code == Some(1) && done.said.contains("bytes"), "{}", done.said);
    let whole = Server::start(Lie::None, &world);
    let done = loads(&world, &whole);
    assert_eq!(done.code, Some(0), "{}", done.said);
    let half = files()[WEIGHTS].len() / 2;
    let asked = whole.asked();
    assert!(asked.iter().any(|request| request.contains(&format!("range: bytes={half}-"))), "{asked:?}");
    let kept = world.inside().join("hub/models--o--n/snapshots").join(COMMIT).join(WEIGHTS);
    assert!(fs::read(kept).expect("a link to the weights") == files()[WEIGHTS], "the same bytes");
    let blobs = fs::read_dir(world.inside().join("hub/models--o--n/blobs")).expect("a folder");
    let left: Vec<_> = blobs
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with("incomplete"))
        .collect();
    assert_eq!(left, [""; 0]);
}
