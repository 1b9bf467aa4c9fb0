//! Texts of any length in the room that the page has for them, and the list of what was left out.

use crate::files::{self, Location};
use std::io::{Read, Seek, SeekFrom};

/// Bytes and lines of the log, and letters of a line.
const LOG_BYTES: u64 = 64 << 10;
const LOG_LINES: usize = 200;
const LOG_LINE: usize = 1000;

/// What the page leaves out.
#[derive(Debug, Default)]
pub(super) struct Left(Vec<String>);

impl Left {
    /// So many more of a kind.
    pub fn more(&mut self, count: usize, one: &str, several: &str) {
        match count {
            0 => {}
            1 => self.0.push(format!("1 {one}")),
            _ => self.0.push(format!("{count} {several}")),
        }
    }

    pub fn say(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    pub fn told(self) -> Vec<String> {
        self.0
    }
}

/// The text, or its beginning and how much follows.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_string(),
        Some((at, _)) => format!("{}… ({} more characters)", &text[..at], text[at..].chars().count()),
    }
}

/// The beginning of a text file.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub text: String,
    /// Bytes that are not in it.
    pub more: u64,
}

/// The beginning of a text, up to so many bytes; none where it is no file of its own: a link may lead anywhere.
pub(super) fn head_of(path: &Location, most: u64) -> Option<Head> {
    if files::is_link(path) {
        return None;
    }
    let size = files::open(path).ok()?.size();
    let text = window(path, 0, most)?;
    Some(Head { text: text.replace("\r\n", "\n"), more: size.saturating_sub(most) })
}

/// A part of a text file: so many bytes from a place on.
pub(super) fn window(path: &Location, from: u64, most: u64) -> Option<String> {
    let mut file = files::open(path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of the run's log.
pub(super) fn tail_of(folder: &Location, left: &mut Left) -> String {
    let path = folder.join("log.txt");
    let Some(size) = files::open(&path).ok().filter(|_| !files::is_link(&path)).map(|file| file.size()) else {
        return String::new();
    };
    let from = size.saturating_sub(LOG_BYTES);
    let text = window(&path, from, LOG_BYTES).unwrap_or_default();
    let lines: Vec<&str> = text.lines().skip(usize::from(from > 0)).collect();
    let first = lines.len().saturating_sub(LOG_LINES);
    if from > 0 || first > 0 {
        left.say("the beginning of log.txt");
    }
    lines[first..].iter().map(|line| cut(line, LOG_LINE) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("日本語", 3), "日本語");
        assert_eq!(cut("日本語", 2), "日本… (1 more characters)");
    }

    #[test]
    fn a_log_of_any_length_gives_its_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let text: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
        std::fs::write(dir.path().join("log.txt"), text).expect("written");
        let mut left = Left::default();
        let tail = tail_of(&files::anywhere(dir.path()), &mut left);
        assert!(tail.starts_with("line 99800\n") && tail.ends_with("line 99999\n"), "{tail}");
        assert_eq!(left.told(), ["the beginning of log.txt"]);
        std::fs::write(dir.path().join("log.txt"), "x".repeat(5000)).expect("written");
        assert_eq!(
            tail_of(&files::anywhere(dir.path()), &mut Left::default()).chars().count(),
            1000 + "… (4000 more characters)\n".chars().count()
        );
    }
}
