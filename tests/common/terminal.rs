//! A program in a pseudo-terminal: keys go in, what would be on the screen comes out.

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::cell::Cell;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    /// Everything that came out, without control sequences.
    screen: Arc<Mutex<String>>,
    /// How much of it was looked at.
    looked: Cell<usize>,
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    /// Starts rhopo in `dir` on a terminal of 100 columns.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let size = PtySize { rows: 40, cols: 100, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a terminal");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_rhopo"));
        command.args(args);
        command.cwd(dir);
        command.env("TERM", "xterm-256color");
        command.env("RHOPO_HISTORY", dir.join("history"));
        let child = pair.slave.spawn_command(command).expect("rhopo starts");
        let mut output = pair.master.try_clone_reader().expect("a reader");
        let screen = Arc::new(Mutex::new(String::new()));
        let shared = screen.clone();
        std::thread::spawn(move || {
            let (mut bytes, mut pending) = ([0; 4096], Vec::new());
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                pending.extend_from_slice(&bytes[..n]);
                let (plain, rest) = without_controls(&pending);
                pending = rest;
                shared.lock().expect("no reader panics").push_str(&plain);
            }
        });
        let keys = pair.master.take_writer().expect("a writer");
        Self { child, keys, screen, looked: Cell::new(0), _master: pair.master }
    }

    /// Waits until `text` comes after what was looked at before.
    pub fn expect(&self, text: &str, within: Duration) {
        let begun = Instant::now();
        loop {
            let seen = self.seen();
            if let Some(at) = seen[self.looked.get()..].find(text) {
                self.looked.set(self.looked.get() + at + text.len());
                return;
            }
            assert!(
                begun.elapsed() < within,
                "`{text}` did not come; after what was expected before came:\n{}",
                &seen[self.looked.get()..]
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("written");
    }

    /// Sends what need not be text.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.settle();
        self.keys.write_all(bytes).and_then(|()| self.keys.flush()).expect("written");
    }

    pub fn press(&mut self, key: char) {
        self.keys(&key.to_string());
    }

    /// Types a line.
    pub fn enter(&mut self, line: &str) {
        self.keys(&format!("{line}\r"));
    }

    /// Types a line once the terminal is quiet, and waits for what it gives: what is echoed while typing does not count.
    pub fn answer(&mut self, line: &str, text: &str) {
        self.settle();
        self.keys(line);
        self.settle();
        self.looked.set(self.seen().len());
        self.press('\r');
        self.expect(text, Duration::from_secs(30));
    }

    /// Waits until nothing has come for a moment.
    pub fn settle(&self) {
        let mut before = usize::MAX;
        while self.seen().len() != before {
            before = self.seen().len();
            std::thread::sleep(Duration::from_millis(120));
        }
    }

    /// Presses Ctrl-D at the prompt; returns the exit code. Between an answer and the next prompt the terminal would
    /// take the key itself, so the prompt is waited for.
    pub fn leave(&mut self, within: Duration) -> u32 {
        self.settle();
        self.press('\u{4}');
        self.wait(within)
    }

    /// The exit code.
    pub fn wait(&mut self, within: Duration) -> u32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.exit_code();
            }
            assert!(begun.elapsed() < within, "it goes on:\n{}", self.seen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn seen(&self) -> String {
        self.screen.lock().expect("no reader panics").clone()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have left on its own.
        let _ = self.child.kill();
    }
}

/// The text among control sequences, and bytes at the end that are not whole yet.
fn without_controls(bytes: &[u8]) -> (String, Vec<u8>) {
    let (mut plain, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        let start = i;
        if bytes[i] != 0x1b {
            plain.push(bytes[i]);
            i += 1;
            continue;
        }
        let end = match bytes.get(i + 1) {
            Some(b'[') => bytes[i + 2..].iter().position(|b| (0x40..=0x7e).contains(b)).map(|n| i + 2 + n + 1),
            Some(_) => Some(i + 2),
            None => None,
        };
        match end {
            Some(end) => i = end,
            None => return (String::from_utf8_lossy(&plain).into_owned(), bytes[start..].to_vec()),
        }
    }
    match std::str::from_utf8(&plain) {
        Ok(text) => (text.to_string(), Vec::new()),
        Err(e) if e.error_len().is_none() => {
            let rest = plain.split_off(e.valid_up_to());
            (String::from_utf8_lossy(&plain).into_owned(), rest)
        }
        Err(_) => (String::from_utf8_lossy(&plain).into_owned(), Vec::new()),
    }
}
