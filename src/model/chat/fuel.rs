//! What one rendering may cost. Templates come with models and are programs: minijinja counts their instructions and what
//! they make, and our own filters and methods ask here before they make something large.

use minijinja::{Error, ErrorKind, State};
use std::fmt;
use std::time::Duration;

/// minijinja takes one for an instruction and one for 64 bytes that are made or gone through. A dialogue of a million tokens,
/// gone through twenty times, takes a quarter of it.
pub(super) const FUEL: u64 = 5_000_000;
const BYTES: u64 = 64;
/// Bytes of one text that our own filters and methods make. A small list that holds another one several times, and that one
/// others, has a text without end.
const LARGEST: usize = 32 << 20;
/// minijinja counts neither what comparing such lists takes, nor what their length does.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// Takes what going through so many bytes costs.
pub(super) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(1 + bytes as u64 / BYTES)
}

/// Bytes that may still be made.
pub(super) fn room(state: &State) -> usize {
    let (_, left) = state.fuel_levels().unwrap_or((0, FUEL));
    usize::try_from(left.saturating_mul(BYTES)).unwrap_or(usize::MAX).min(LARGEST)
}

/// Whether so many bytes may be made: minijinja takes what they cost once they are.
pub(super) fn reserve(state: &State, bytes: usize) -> Result<(), Error> {
    if bytes <= room(state) { Ok(()) } else { Err(spent()) }
}

pub(super) fn spent() -> Error {
    Error::from(ErrorKind::OutOfFuel)
}

/// A text that does not grow beyond its room.
pub(super) struct Bounded {
    text: String,
    room: usize,
}

impl Bounded {
    pub fn new(room: usize) -> Self {
        Self { text: String::new(), room }
    }

    /// The text, if all that was written had room.
    pub fn of(room: usize, write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> Result<String, Error> {
        let mut bounded = Self::new(room);
        write(&mut bounded).map(|()| bounded.text).map_err(|_| spent())
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.room = self.room.checked_sub(more.len()).ok_or(fmt::Error)?;
        self.text.push_str(more);
        Ok(())
    }
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = str::from_utf8(bytes).map_err(std::io::Error::other)?;
        fmt::Write::write_str(self, text).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
