//! How a run stands, as its folder says to whoever continues or lists it: `status.json`, written when a process ends. A run
//! without it goes on, or was killed.

use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::run::folder::{Folder, STATUS};
use serde::{Deserialize, Serialize};

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Finished,
    /// By a signal, between two steps or within one.
    Interrupted,
    Failed,
}

/// The file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub status: Ending,
    /// The step that began last.
    pub step: u64,
}

impl Status {
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(self, folder: &Folder) -> Result<()> {
        let text = serde_json::to_string(&self).map_err(|e| Error::file(format!("{STATUS}: {e}")))?;
        folder.write(STATUS, &format!("{text}\n"))
    }

    /// The run goes on.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn clear(folder: &Folder) -> Result<()> {
        let path = folder.file(STATUS);
        if files::exists(&path) { files::remove_file(&path) } else { Ok(()) }
    }

    /// What the run in a folder says; nothing where it was killed, also while it wrote this, or goes on.
    ///
    /// # Errors
    /// A file that may not be read.
    pub fn read(folder: &Location) -> Result<Option<Self>> {
        let path = folder.join(STATUS);
        if !files::exists(&path) {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&files::bytes(&path)?).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_status_is_that_of_a_run_that_was_killed() {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |bytes: &[u8]| {
            std::fs::write(dir.path().join(STATUS), bytes).expect("written");
            Status::read(&files::anywhere(dir.path())).expect("read")
        };
        let whole = Status { status: Ending::Finished, step: 3 };
        assert_eq!(read(b"{\"status\":\"finished\",\"step\":3}"), Some(whole));
        for half in [&b""[..], b"{\"status\":\"fini", b"\xff\x00"] {
            assert_eq!(read(half), None);
        }
    }
}
