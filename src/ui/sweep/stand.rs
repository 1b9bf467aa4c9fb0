//! How a run of a sweep stands, as its folder says: whether it is to begin, to go on, or to be left alone.

use crate::error::Result;
use crate::files;
use crate::files::Location;
use crate::run::folder::{CONFIG, LOCK};
use crate::run::status::{Ending, Status};

/// How a run stands in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Nothing,
    /// It can be continued.
    Begun,
    Failed,
    Finished,
    /// A process has it.
    Locked,
}

/// # Errors
/// A file of the folder that may not be read.
pub(super) fn stand(folder: &Location) -> Result<Stand> {
    if files::is_locked(&folder.join(LOCK)) {
        return Ok(Stand::Locked);
    }
    if !files::is_file(&folder.join(CONFIG)) {
        return Ok(Stand::Nothing);
    }
    Ok(match Status::read(folder)?.map(|status| status.status) {
        Some(Ending::Finished) => Stand::Finished,
        Some(Ending::Failed) => Stand::Failed,
        Some(Ending::Interrupted) | None => Stand::Begun,
    })
}
