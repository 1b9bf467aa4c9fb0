//! A program that runs beside this one and writes into a file. Owns its process: that it is asked to end, or made to.

use super::failure::unwritable;
use crate::error::{Error, Kind, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitStatus, Stdio};

/// A running program. It is asked to end when this value goes, and waited for.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    ended: bool,
}

impl Child {
    /// Starts a program with its arguments. All that it says is added to the file at `output`. Keys that interrupt this process
    /// do not reach it.
    ///
    /// # Errors
    /// No words; a program that cannot be started; a file that cannot be written.
    pub fn start(words: &[String], output: &Path) -> Result<Self> {
        let (name, arguments) = words.split_first().ok_or_else(|| Error::value("there is no program to start"))?;
        let file = fs::OpenOptions::new().create(true).append(true).open(output);
        let said = file.and_then(|file| Ok((file.try_clone()?, file))).map_err(|e| unwritable(output, &e))?;
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null()).stdout(said.0).stderr(said.1).process_group(0);
        let process = command.spawn().map_err(|e| Error::file(format!("cannot start {name}: {e}")))?;
        Ok(Self { process, ended: false })
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// A system that does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.process.try_wait();
        let status = status.map_err(|e| Error::new(Kind::Internal, format!("a process cannot be waited for: {e}")))?;
        self.ended |= status.is_some();
        Ok(status)
    }

    /// Asks it to end in order.
    pub fn terminate(&self) {
        self.send(Signal::TERM);
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.send(Signal::KILL);
    }

    fn send(&self, signal: Signal) {
        if !self.ended {
            // It may end by itself at this moment; until it is waited for, nobody else has its number.
            let _ = kill_process(Pid::from_child(&self.process), signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.terminate();
        if !self.ended {
            // Nobody is left who could be told.
            let _ = self.process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn shell(script: &str, output: &Path) -> Child {
        Child::start(&["sh".into(), "-c".into(), script.into()], output).expect("sh is there")
    }

    fn wait(child: &mut Child) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = child.ended().expect("known") {
                return status;
            }
            assert!(Instant::now() < until, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_it_says_is_added_to_a_file_and_its_end_is_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let output = dir.path().join("said.txt");
        for (script, code) in [("echo one; echo two >&2", 0), ("echo three; exit 3", 3)] {
            assert_eq!(wait(&mut shell(script, &output)).code(), Some(code));
        }
        assert_eq!(fs::read_to_string(&output).expect("written"), "one\ntwo\nthree\n");
        let e = Child::start(&["./no-such-program".into()], &output).expect_err("not there");
        assert!(e.what.starts_with("cannot start ./no-such-program: "), "{e}");
    }

    #[test]
    fn it_is_asked_to_end_and_made_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let output = dir.path().join("said.txt");
        let mut deaf = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done", &output);
        while fs::read_to_string(&output).map_or(0, |text| text.len()) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        deaf.terminate();
        std::thread::sleep(Duration::from_millis(100));
        assert!(deaf.ended().expect("known").is_none());
        deaf.kill();
        assert_eq!(wait(&mut deaf).code(), None);
        let begun = Instant::now();
        drop(shell("exec sleep 600", &output));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
