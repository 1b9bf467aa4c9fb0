//! A file of the hub on its way into the cache: what the server says of it, and its bytes.
//!
//! Owns the transfer and where it is put. The names in the cache come from the server, which may be anybody's (`HF_ENDPOINT`,
//! a redirect): each must be the name of a file and no path, and a file has the size that was said. The token is sent to the
//! endpoint and to nobody else.

use super::location::is_plain;
use super::lock::{Whose, take};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
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
/// How often another process that loads the same file is looked at.
const WAIT: Duration = Duration::from_millis(200);

/// A file at one commit.
pub(super) struct Remote<'a> {
    pub url: String,
    pub token: Option<&'a str>,
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
        thread::sleep(WAIT);
    }
    // Whoever had it may have put it in its place meanwhile.
    if size(&blobs, &about.etag) != Some(about.size) {
        load(&agent, remote, &about, &mut file)?;
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

/// Asks for a range of the file, and follows where the server sends it.
fn ask(agent: &Agent, remote: &Remote<'_>, range: &str) -> Fallible<(About, Response<Body>)> {
    let failed = |e: &dyn std::fmt::Display| format!("{e}");
    let first: Uri = remote.url.parse().map_err(|e| failed(&e))?;
    let (mut at, mut etag) = (first.clone(), None);
    for _ in 0..HOPS {
        let mut request = agent.get(&at).header("Range", range).header("Accept-Encoding", "identity");
        if let Some(token) = remote.token.filter(|_| origin(&at) == origin(&first)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|e| failed(&e))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(commit) = header("x-repo-commit") {
            if commit != remote.commit {
                return Err(format!("the server gives a file of the commit {commit:?}, not of {}", remote.commit));
            }
            // A file that is kept elsewhere has the name that the hub gives it.
            let named = header("x-linked-etag").or(header("etag")).unwrap_or_default();
            etag = Some(plain(named)?);
        }
        let status = response.status();
        if status.is_redirection() {
            at = follow(&at, header("location").unwrap_or_default())?;
            continue;
        }
        if !status.is_success() {
            return Err(format!("http status: {}", status.as_u16()));
        }
        let etag = etag.ok_or("the server does not say of which commit the file is")?;
        let whole = header("content-range").and_then(|range| range.rsplit('/').next());
        let whole = whole.or(header("content-length")).and_then(|size| size.parse().ok());
        let size = whole.ok_or("the server does not say how large the file is")?;
        return Ok((About { etag, size }, response));
    }
    Err(format!("the server sends from one address to the next, more than {HOPS} times"))
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
}
