//! Memory of the host that the GPU copies from and to by itself, so that a copy needs nothing of the caller's any more
//! once it is queued.

use super::session::Session;
use crate::error::Result;
use cudarc::driver::{result, sys};
use std::collections::VecDeque;
use std::ops::Range;

/// Places begin at multiples of this.
const ALIGNMENT: usize = 256;

/// Pages of the host that stay where they are.
pub(super) struct Pinned {
    start: *mut u8,
    pub(super) bytes: usize,
}

// SAFETY: memory like any other; who has the value has the memory.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(session: &Session, bytes: usize) -> Result<Self> {
        // SAFETY: what comes back is written before it is read.
        let start = session.done("taking memory of the host for copies", unsafe { result::malloc_host(bytes, 0) })?;
        Ok(Self { start: start.cast(), bytes })
    }

    /// A part of it that nothing queued reads or writes.
    pub(super) fn part(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.bytes, "a part of what there is");
        // SAFETY: within the memory, which is borrowed as a whole.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: given once by the driver, and back once. What cannot be given back goes with the process.
        let _ = unsafe { result::free_host(self.start.cast()) };
    }
}

/// Bytes on their way to the device.
pub(super) struct Uploads {
    memory: Pinned,
    ring: Ring<Event>,
    idle: Vec<Event>,
}

/// A mark in the stream.
struct Event(sys::CUevent);

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Event {}

impl Uploads {
    /// The most that is copied in one piece.
    const PIECE: usize = 16 << 20;

    pub(super) fn new(session: &Session) -> Result<Self> {
        let memory = Pinned::new(session, 4 * Self::PIECE)?;
        Ok(Self { ring: Ring::new(memory.bytes), memory, idle: Vec::new() })
    }

    /// Queues a copy; the bytes may change when this returns.
    pub(super) fn send(&mut self, session: &Session, to: u64, bytes: &[u8]) -> Result<()> {
        for (n, piece) in bytes.chunks(Self::PIECE).enumerate() {
            let (range, left) = self.ring.take(piece.len());
            if let Some(Event(last)) = left.last() {
                // SAFETY: the event was recorded in the stream. Those before it have passed when it has.
                session.done("waiting for an upload", unsafe { result::event::synchronize(*last) })?;
            }
            self.idle.extend(left);
            let place = self.memory.part(range.clone());
            place.copy_from_slice(piece);
            let to = to + (n * Self::PIECE) as u64;
            // SAFETY: the ring keeps the place until the event has passed; the target is as long as `bytes`.
            session.done("uploading", unsafe { result::memcpy_htod_async(to, place, session.stream) })?;
            let event = match self.idle.pop() {
                Some(event) => event,
                None => {
                    let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
                    Event(session.done("making an event", result::event::create(flags))?)
                }
            };
            // SAFETY: event and stream live.
            session.done("recording an event", unsafe { result::event::record(event.0, session.stream) })?;
            self.ring.keep(range, event);
        }
        Ok(())
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        for Event(event) in self.idle.drain(..).chain(self.ring.kept.drain(..).map(|(_, event)| event)) {
            // SAFETY: made once, destroyed once. What cannot be destroyed goes with the process.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}

/// Places in a piece of memory, taken one behind the other and from the beginning again; each is kept until its ticket
/// has passed, and tickets pass in order.
struct Ring<T> {
    bytes: usize,
    next: usize,
    /// The oldest first.
    kept: VecDeque<(Range<usize>, T)>,
}

impl<T> Ring<T> {
    fn new(bytes: usize) -> Self {
        Self { bytes, next: 0, kept: VecDeque::new() }
    }

    /// A place, and the tickets of those who had it: it is free once the last of them has passed.
    fn take(&mut self, bytes: usize) -> (Range<usize>, Vec<T>) {
        assert!(bytes <= self.bytes, "a piece fits in");
        let start = if self.next + bytes > self.bytes { 0 } else { self.next };
        let range = start..start + bytes;
        self.next = range.end.next_multiple_of(ALIGNMENT);
        let overlaps = |(other, _): &(Range<usize>, T)| other.start < range.end && range.start < other.end;
        let passed = self.kept.iter().rposition(overlaps).map_or(0, |last| last + 1);
        (range, self.kept.drain(..passed).map(|(_, ticket)| ticket).collect())
    }

    fn keep(&mut self, range: Range<usize>, ticket: T) {
        self.kept.push_back((range, ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::rng::Key;

    /// No place is given again before its ticket was handed out to be waited for.
    #[test]
    fn a_place_is_given_again_only_with_its_ticket() {
        let mut ring = Ring::new(1 << 14);
        let mut busy: Vec<(Range<usize>, u64)> = Vec::new();
        let key = Key::new(3);
        for ticket in 0..10_000u64 {
            let bytes = 1 + (key.uniform(ticket) * f64::from(1 << 12)) as usize;
            let (range, waited) = ring.take(bytes);
            assert!(range.end <= 1 << 14 && range.len() == bytes);
            // Tickets pass in order: with the last one, all before it.
            busy.retain(|(_, other)| waited.last().is_none_or(|last| other > last));
            assert!(busy.iter().all(|(other, _)| other.end <= range.start || range.end <= other.start), "{range:?}");
            busy.push((range.clone(), ticket));
            ring.keep(range, ticket);
        }
        assert!(busy.len() > 1, "several are under way at once");
    }
}
