//! A file of the hub on its way into the cache: what the server says of it, and its bytes.
//!
//! Owns the transfer and where it is put. The names in the cache come from the server, which may be anybody's (`HF_ENDPOINT`,
//! a redirect): each must be the name of a file and no path, and a file has the size that was said. The token is sent to the
//! endpoint and to nobody else.

use super::location::is_plain;
use super::lock::{Whose, take};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

type Fallible<T> = std::result::Result<T, String>;

/// Redirects that are followed.
const HOPS: usize = 10;
/// To a server that does not answer at all; one that has answered may take as long as it likes.
const CONNECT: Duration = Duration::from_secs(30);
const CHUNK: usize = 1 << 16;
/// Bytes of a list of files, at most.
const MOST_JSON: u64 = 32 << 20;
/// How often another process that loads the same file is looked at.
const WAIT: Duration = Duration::from_millis(200);

/// An address, and what may be asked of it.
pub(super) struct Endpoint<'a> {
    pub url: String,
    /// For this address and for no other that it sends to.
    pub token: Option<&'a str>,
    /// Set once nobody waits for the answer any more.
    pub left: &'a AtomicBool,
}

/// A file at one commit.
pub(super) struct Remote<'a> {
    pub at: Endpoint<'a>,
    pub commit: &'a str,
    /// Its name in the repository.
    pub name: &'a str,
}

/// What the server says of a file.
#[derive(Debug, PartialEq)]
struct About {
    /// What its content is called.
    etag: String,
    size: u64,
}

/// Puts the file into the folder of its repository in the cache, laid out as the hub's own tools do. A transfer that was broken
/// off goes on where it was.
///
/// # Errors
/// The reason why it could not be had.
pub(super) fn fetch(remote: &Remote<'_>, repository: &Path) -> Fallible<()> {
    if !Path::new(remote.name).iter().all(|part| part.to_str().is_some_and(is_plain)) || !is_plain(remote.commit) {
        return Err(format!("{:?} is no name of a file", remote.name));
    }
    let agent = agent();
    let (about, _) = ask(&agent, remote, "bytes=0-0")?;
    let folder = open(repository).map_err(|e| unwritten(repository, &e))?;
    let blobs = folder.open_dir("blobs").map_err(|e| unwritten(repository, &e))?;
    let part = format!("{}.incomplete", about.etag);
    let mut options = OpenOptions::new();
    let mut file =
        blobs.open_with(&part, options.read(true).append(true).create(true)).map_err(|e| unwritten(repository, &e))?;
    while take(&file) == Whose::Another {
        remote.at.go_on()?;
        thread::sleep(WAIT);
    }
    // Whoever had it may have put it in its place meanwhile.
    if size(&blobs, &about.etag) != Some(about.size) {
        load(&agent, remote, &about, &mut file)?;
        if let Err(e) = check(&about, &mut file) {
            blobs.remove_file(&part).ok();
            return Err(e);
        }
        file.sync_all()
            .and_then(|()| blobs.rename(&part, &blobs, &about.etag))
            .map_err(|e| unwritten(repository, &e))?;
    } else {
        blobs.remove_file(&part).ok();
    }
    link(&folder, remote, &about.etag).map_err(|e| unwritten(repository, &e))
}

fn agent() -> Agent {
    let config = Agent::config_builder().max_redirects(0).http_status_as_error(false);
    config.timeout_connect(Some(CONNECT)).user_agent(concat!("rhopo/", env!("CARGO_PKG_VERSION"))).build().into()
}

/// The repository's folder, with what is in each.
fn open(repository: &Path) -> io::Result<Dir> {
    Dir::create_ambient_dir_all(repository, ambient_authority())?;
    let folder = Dir::open_ambient_dir(repository, ambient_authority())?;
    folder.create_dir_all("blobs")?;
    Ok(folder)
}

fn size(folder: &Dir, name: &str) -> Option<u64> {
    folder.symlink_metadata(name).ok().filter(|found| found.is_file()).map(|found| found.len())
}

/// The bytes that are not there yet.
fn load(agent: &Agent, remote: &Remote<'_>, about: &About, file: &mut File) -> Fallible<()> {
    let local = |e: io::Error| format!("it cannot be written: {e}");
    let mut there = file.metadata().map_err(local)?.len();
    if there > about.size {
        file.set_len(0).map_err(local)?;
        there = 0;
    }
    if there == about.size {
        return Ok(());
    }
    let (again, response) = ask(agent, remote, &format!("bytes={there}-"))?;
    if again != *about {
        return Err("the server gives another file than it said before".into());
    }
    if response.status() != 206 {
        // The server knows no ranges: it begins at the beginning.
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)).map(drop)).map_err(local)?;
        there = 0;
    }
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        remote.at.go_on()?;
        let read = body.read(&mut chunk).map_err(|e| format!("the connection broke off: {e}"))?;
        there += read as u64;
        match read {
            _ if there > about.size => {
                return Err(format!("the server sends more than the {} bytes it said", about.size));
            }
            0 if there < about.size => {
                return Err(format!("the connection ended after {there} of {} bytes", about.size));
            }
            0 => return Ok(()),
            read => file.write_all(&chunk[..read]).map_err(local)?,
        }
    }
}

/// Large files are called by the SHA-256 of their bytes.
fn check(about: &About, file: &mut File) -> Fallible<()> {
    if about.etag.len() != 64 || !about.etag.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut hash = Sha256::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| io::copy(file, &mut hash))
        .map_err(|e| format!("it cannot be read: {e}"))?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    match found.eq_ignore_ascii_case(&about.etag) {
        true => Ok(()),
        false => {
            Err(format!("its bytes are not those it is called by (SHA-256 {found}): they were left out, load it again"))
        }
    }
}

/// What an address answers, as JSON.
///
/// # Errors
/// The reason why it could not be had.
pub(super) fn json(at: &Endpoint<'_>) -> Fallible<Value> {
    let response = at.get(&agent(), None, &mut |_| Ok(()))?;
    succeeded(&response)?;
    let mut text = Vec::new();
    let body = response.into_body().into_reader();
    body.take(MOST_JSON + 1).read_to_end(&mut text).map_err(|e| format!("the connection broke off: {e}"))?;
    if text.len() as u64 > MOST_JSON {
        return Err(format!("the server's list of files has more than {MOST_JSON} bytes"));
    }
    serde_json::from_slice(&text).map_err(|e| format!("the server's list of files is no JSON: {e}"))
}

impl Endpoint<'_> {
    /// Whether somebody still waits.
    fn go_on(&self) -> Fallible<()> {
        if self.left.load(Ordering::Relaxed) { Err("nobody waits for it any more".into()) } else { Ok(()) }
    }

    /// Asks the address, and those that the server sends to; each answer is looked at on the way.
    fn get(
        &self,
        agent: &Agent,
        range: Option<&str>,
        look: &mut dyn FnMut(&Response<Body>) -> Fallible<()>,
    ) -> Fallible<Response<Body>> {
        let failed = |e: &dyn std::fmt::Display| format!("{e}");
        let first: Uri = self.url.parse().map_err(|e| failed(&e))?;
        let mut at = first.clone();
        for _ in 0..HOPS {
            self.go_on()?;
            let mut request = agent.get(&at).header("Accept-Encoding", "identity");
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            if let Some(token) = self.token.filter(|_| origin(&at) == origin(&first)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| failed(&e))?;
            look(&response)?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            at = follow(&at, header(&response, "location").unwrap_or_default())?;
        }
        Err(format!("the server sends from one address to the next, more than {HOPS} times"))
    }
}

fn succeeded(response: &Response<Body>) -> Fallible<()> {
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("http status: {}", status.as_u16())) }
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Asks for a range of the file.
fn ask(agent: &Agent, remote: &Remote<'_>, range: &str) -> Fallible<(About, Response<Body>)> {
    let mut etag = None;
    let mut look = |response: &Response<Body>| {
        if let Some(commit) = header(response, "x-repo-commit") {
            if commit != remote.commit {
                return Err(format!("the server gives a file of the commit {commit:?}, not of {}", remote.commit));
            }
            // A file that is kept elsewhere has the name that the hub gives it.
            let named = header(response, "x-linked-etag").or(header(response, "etag")).unwrap_or_default();
            etag = Some(plain(named)?);
        }
        Ok(())
    };
    let response = remote.at.get(agent, Some(range), &mut look)?;
    let whole = header(&response, "content-range").and_then(|range| range.rsplit('/').next());
    // An empty file has no range that could be asked for.
    if response.status() != 416 || whole != Some("0") {
        succeeded(&response)?;
    }
    let etag = etag.ok_or("the server does not say of which commit the file is")?;
    let whole = whole.or(header(&response, "content-length")).and_then(|size| size.parse().ok());
    let size = whole.ok_or("the server does not say how large the file is")?;
    Ok((About { etag, size }, response))
}

/// The name that a content has: of a file, and no path.
fn plain(etag: &str) -> Fallible<String> {
    let name = etag.trim_start_matches("W/").trim_matches('"');
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match is_plain(name) && name.len() <= 128 && name.chars().all(known) {
        true => Ok(name.to_string()),
        false => Err(format!("the server names the file's content {etag:?}")),
    }
}

fn origin(at: &Uri) -> (Option<&str>, Option<&str>, Option<u16>) {
    (at.scheme_str(), at.host(), at.port_u16())
}

/// Where a redirect leads: to an address, or to a path of the same server.
fn follow(from: &Uri, location: &str) -> Fallible<Uri> {
    let wrong = || format!("the server sends to {location:?}");
    let to: Uri = location.parse().map_err(|_| wrong())?;
    if to.host().is_some() {
        return if matches!(to.scheme_str(), Some("http" | "https")) { Ok(to) } else { Err(wrong()) };
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query =
        Some(to.into_parts().path_and_query.filter(|_| location.starts_with('/')).ok_or_else(wrong)?);
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// The file's name at its commit stands for its content.
fn link(folder: &Dir, remote: &Remote<'_>, etag: &str) -> io::Result<()> {
    let name = Path::new("snapshots").join(remote.commit).join(remote.name);
    let above = name.parent().expect("a commit is above it");
    folder.create_dir_all(above)?;
    let up: PathBuf = above.iter().map(|_| "..").collect();
    match folder.remove_file(&name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    #[cfg(unix)]
    return folder.symlink(up.join("blobs").join(etag), &name);
    #[cfg(not(unix))]
    return folder.copy(Path::new("blobs").join(etag), folder, &name).map(drop);
}

fn unwritten(repository: &Path, e: &io::Error) -> String {
    format!("{} cannot be written: {e}", repository.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_calls_a_content_is_a_name() {
        for (etag, name) in [("\"0a-b_c.d\"", "0a-b_c.d"), ("W/\"12\"", "12"), ("12", "12")] {
            assert_eq!(plain(etag).as_deref(), Ok(name));
        }
        for etag in ["", "\"\"", "..", "\"../x\"", "/etc/x", "a/b", "a\\b", "a b", "a\u{0}", &"a".repeat(200)] {
            plain(etag).expect_err(etag);
        }
    }

    #[test]
    fn a_redirect_leads_to_an_address_or_a_path() {
        let from: Uri = "http://one.example:81/a/b?c".parse().expect("an address");
        let to = |location: &str| follow(&from, location).map(|to| to.to_string());
        assert_eq!(to("/x?y").as_deref(), Ok("http://one.example:81/x?y"));
        assert_eq!(to("https://two.example/x").as_deref(), Ok("https://two.example/x"));
        for location in ["", "x/y", "file:///etc/passwd", "ftp://two.example/x", "../x"] {
            to(location).expect_err(location);
        }
        let [one, two] = ["http://one.example/x", "https://one.example/x"].map(|at| at.parse::<Uri>().expect("one"));
        assert_ne!(origin(&one), origin(&two), "the token does not leave TLS");
    }

    #[test]
    fn what_nobody_waits_for_is_not_asked_for() {
        let url = "http://127.0.0.1:9/never".to_string();
        let e = json(&Endpoint { url, token: None, left: &AtomicBool::new(true) }).expect_err("left alone");
        assert_eq!(e, "nobody waits for it any more");
    }
}
