//! A program that the user allowed, as lines: what it is given on its standard input, and what it says on its standard
//! output. It runs in the current folder, with this process's environment, and ends when this value goes.
//!
//! Owns the process, its pipes and how they are read without waiting for each other. Owns not which programs may run, nor
//! what the lines mean.

use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines that were said and not yet asked for: one that says more has to wait.
const WAITING: usize = 256;
/// Bytes of a line; what goes on is cut.
const LONGEST: u64 = 1 << 16;
/// Lines of its standard error that are kept.
const COMPLAINTS: usize = 8;
/// How long a program may take to end when there is no more to do.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at whether it has ended.
const NAP: Duration = Duration::from_millis(5);

/// What came of waiting for a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Said(String),
    /// Nothing within the time.
    Silence,
    /// The program has closed its output: there will be no more.
    End,
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// To the thread that writes: a program that does not read must not stop this one.
    input: Option<Sender<String>>,
    output: Receiver<String>,
    complaints: Arc<Mutex<VecDeque<String>>>,
    /// The thread that reads them, until the program has closed its standard error.
    complaining: JoinHandle<io::Result<()>>,
}

impl Program {
    /// Starts a program with its arguments.
    ///
    /// # Errors
    /// No words; a program that there is not, or that may not be run.
    pub fn start(words: &[String]) -> Result<Self> {
        let (name, arguments) = words.split_first().ok_or_else(|| Error::value("there is no program to start"))?;
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Python holds lines back that go into a pipe, and would wait for more while it is waited for.
        command.env("PYTHONUNBUFFERED", "1");
        let mut child = command.spawn().map_err(|e| {
            Error::file(format!("cannot start the program {name}: {e}"))
                .hint("it is looked for in PATH, and a path is taken from the current folder; no shell runs it")
        })?;
        let (input, lines) = channel::<String>();
        let mut pipe = child.stdin.take();
        thread::spawn(move || {
            let mut write = |line: String| pipe.as_mut().map_or(Ok(()), |pipe| pipe.write_all(line.as_bytes()));
            // A program that has ended says so at its other end.
            lines.into_iter().try_for_each(&mut write)
        });
        let (said, output) = sync_channel(WAITING);
        let pipe = child.stdout.take();
        thread::spawn(move || pipe.map_or(Ok(()), |pipe| each_line(pipe, |line| hand_over(&said, line))));
        let complaints = Arc::new(Mutex::new(VecDeque::new()));
        let (kept, pipe) = (complaints.clone(), child.stderr.take());
        let complaining = thread::spawn(move || pipe.map_or(Ok(()), |pipe| each_line(pipe, |line| keep(&kept, line))));
        Ok(Self { child, input: Some(input), output, complaints, complaining })
    }

    /// Hands a line over; it is written when the program reads.
    pub fn send(&self, mut line: String) {
        line.push('\n');
        if let Some(input) = &self.input {
            // The program's end is found where its answer is waited for.
            let _ = input.send(line);
        }
    }

    /// The next line that it says, waited for no longer than `wait`.
    pub fn line(&self, wait: Duration) -> Line {
        match self.output.recv_timeout(wait) {
            Ok(line) => Line::Said(line),
            Err(RecvTimeoutError::Timeout) => Line::Silence,
            Err(RecvTimeoutError::Disconnected) => Line::End,
        }
    }

    /// How it ended (`exit status: 1`), or that it still runs, and the last lines of its standard error.
    pub fn fate(&mut self) -> (String, Vec<String>) {
        let status = self.wait().map_or("it still runs".to_string(), |status| status.to_string());
        let until = Instant::now() + PATIENCE;
        while !self.complaining.is_finished() && Instant::now() < until {
            thread::sleep(NAP);
        }
        let complaints = self.complaints.lock().map(|lines| lines.iter().cloned().collect()).unwrap_or_default();
        (status, complaints)
    }

    /// How it ended, if it does so soon.
    fn wait(&mut self) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(NAP),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Program {
    /// Closes its input, which ends whoever reads to the end, and kills it if it goes on.
    fn drop(&mut self) {
        self.input = None;
        if self.wait().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Lines until the end, without what ends them; bytes that are no text are replaced.
fn each_line(pipe: impl Read, mut take: impl FnMut(String) -> io::Result<()>) -> io::Result<()> {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        if pipe.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        take(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string())?;
    }
}

fn hand_over(said: &SyncSender<String>, line: String) -> io::Result<()> {
    said.send(line).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

fn keep(kept: &Mutex<VecDeque<String>>, line: String) -> io::Result<()> {
    if let Ok(mut lines) = kept.lock() {
        if lines.len() == COMPLAINTS {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Program {
        Program::start(&["sh".into(), "-c".into(), script.into()]).expect("sh is there")
    }

    #[test]
    fn lines_go_in_and_come_out_and_neither_waits_for_the_other() {
        let echo = shell("cat");
        for i in 0..20_000 {
            echo.send(format!("line {i} {}", "x".repeat(100)));
        }
        for i in 0..20_000 {
            let Line::Said(line) = echo.line(LONG) else { panic!("line {i}") };
            assert!(line.starts_with(&format!("line {i} ")));
        }
        assert_eq!(echo.line(Duration::from_millis(1)), Line::Silence);
    }

    #[test]
    fn an_end_is_told_with_its_status_and_what_was_complained_of() {
        let mut ends = shell("echo 1; for i in 1 2 3 4 5 6 7 8 9; do echo $i >&2; done; exit 3");
        assert_eq!((ends.line(LONG), ends.line(LONG)), (Line::Said("1".into()), Line::End));
        let (status, complaints) = ends.fate();
        assert_eq!((status.as_str(), complaints.len(), complaints[7].as_str()), ("exit status: 3", COMPLAINTS, "9"));
    }

    #[test]
    fn what_does_not_end_is_ended_and_what_is_not_there_is_refused() {
        let begun = Instant::now();
        drop(shell("exec sleep 600"));
        assert!(begun.elapsed() < LONG);
        let e = Program::start(&["./no-such-program".into()]).expect_err("not there");
        assert!(e.what.starts_with("cannot start the program ./no-such-program: "), "{e}");
        Program::start(&[]).expect_err("nothing");
    }

    #[test]
    fn bytes_that_are_no_text_and_endless_lines_do_no_harm() {
        let odd = shell("printf '\\377\\n'; yes | tr -d '\\n'");
        assert_eq!(odd.line(LONG), Line::Said("\u{fffd}".into()));
        let Line::Said(line) = odd.line(LONG) else { panic!("a part of a line") };
        assert_eq!(line.len() as u64, LONGEST);
    }
}
