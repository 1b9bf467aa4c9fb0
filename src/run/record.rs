//! A file of the run folder that grows line by line beside the metrics, and goes on where a checkpoint stood. It is made
//! with its first line.

use crate::error::Result;
use crate::files::{self, Location, Log};
use crate::run::quote::hides;
use std::cell::RefCell;
use std::str::Chars;

/// Lines of text in a file.
#[derive(Debug)]
pub struct Record {
    path: Location,
    log: RefCell<Option<Log>>,
}

impl Record {
    pub fn new(path: Location) -> Self {
        Self { path, log: RefCell::default() }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn line(&self, text: &str) -> Result<()> {
        let mut log = self.log.borrow_mut();
        let log = match &mut *log {
            Some(log) => log,
            none => none.insert(Log::create(&self.path)?),
        };
        log.line(text)
    }

    /// Bytes of its lines; `None` where there are none.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub fn bytes(&self) -> Result<Option<u64>> {
        self.log.borrow().as_ref().map(Log::bytes).transpose()
    }

    /// Goes on where it had so many bytes: what came after them goes. A file that has lost some of them goes on with what
    /// is left of it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn resume(&self, bytes: Option<u64>) -> Result<()> {
        let there = files::is_file(&self.path);
        *self.log.borrow_mut() = match bytes {
            Some(bytes) if there => Some(Log::resume(&self.path, bytes)?),
            _ => None,
        };
        if there && bytes.is_none() { files::remove_file(&self.path) } else { Ok(()) }
    }
}

/// The text without what a terminal would obey: colours, cursors, titles.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip(&mut chars),
            '\n' | '\t' => plain.push(c),
            c if hides(c) => {}
            c => plain.push(c),
        }
    }
    plain
}

/// Reads on to the end of what ESC has begun.
fn skip(chars: &mut Chars<'_>) {
    match chars.next() {
        Some('[') => {
            let _ = chars.find(|c| ('@'..='~').contains(c));
        }
        Some(']') => {
            let mut last = ' ';
            let _ = chars.find(|c| *c == '\u{7}' || std::mem::replace(&mut last, *c) == '\u{1b}');
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_terminals_language_is_left_out() {
        let text = "\u{1b}[1;31mred\u{1b}[0m\tand\n\u{1b}]0;title\u{7}more\u{1b}]8;;x\u{1b}\\ \r\u{8}日本";
        assert_eq!(plain(text), "red\tand\nmore 日本");
        assert_eq!(plain("\u{1b}"), "");
        assert_eq!(plain("a\u{1b}[31"), "a");
    }

    #[test]
    fn it_goes_on_where_it_stood() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = files::anywhere(dir.path()).join("log.txt");
        let text = || fs::read_to_string(&path).expect("a file");
        let record = Record::new(path.clone());
        assert!(record.bytes().expect("none").is_none() && !path.exists());
        record.line("one").expect("written");
        let stood = record.bytes().expect("some");
        record.line("two").expect("written");
        assert_eq!((stood, text().as_str()), (Some(4), "one\ntwo\n"));

        let again = Record::new(path.clone());
        again.resume(stood).expect("resumed");
        again.line("other").expect("written");
        assert_eq!(text(), "one\nother\n");
        again.resume(Some(400)).expect("what is left");
        again.line("more").expect("written");
        assert_eq!(text(), "one\nother\nmore\n");
        again.resume(None).expect("begun again");
        assert!(!path.exists());
    }
}
