//! TensorBoard's event file: the numbers of `metrics.jsonl` once more, each a scalar at its step, as 32-bit floats.
//! Owns the bytes: frames of TFRecord, and in each an `Event` with a `Summary` of `Value`s, as protobuf has them. These
//! three messages are written by hand: libraries for them bring a compiler of protobuf, or are no longer kept.
//! Owns no names (`names.rs`), and reads nothing back.

use crate::error::Result;
use crate::files::{self, Location, Log};
use crate::run::line::Line;
use crate::run::names;
use std::time::{SystemTime, UNIX_EPOCH};

/// TensorBoard reads what has `tfevents` in its name. Neither a time nor a machine is part of it: a continued run goes on
/// in the same file.
pub const FILE: &str = "events.out.tfevents.rhopo";
/// The first event of a file says which kind of file it is.
const VERSION: &str = "brain.Event:2";

/// An event file that grows by one event a line of metrics.
#[derive(Debug)]
pub struct Events {
    log: Log,
    /// When the run began, in seconds since 1970; later by as long as no process went on with it.
    began: f64,
}

impl Events {
    /// Begins a file of a run that has lasted `seconds`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn create(path: &Location, seconds: f64) -> Result<Self> {
        let mut events = Self { log: Log::create(path)?, began: now() - seconds };
        let version = [double(1, events.began), message(3, VERSION.as_bytes())].concat();
        events.log.add(&frame(&version))?;
        Ok(events)
    }

    /// Goes on with a file that was `bytes` long; what comes after them goes. A file that has lost some of them, or of
    /// which nobody knows how long it was, is made again from the `lines` that are written.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn resume(path: &Location, bytes: Option<u64>, seconds: f64, lines: &[Line]) -> Result<Self> {
        if let Some(bytes) = bytes.filter(|_| files::is_file(path)) {
            let log = Log::resume(path, bytes)?;
            if log.bytes()? == bytes {
                return Ok(Self { log, began: now() - seconds });
            }
        }
        let mut events = Self::create(path, seconds)?;
        lines.iter().try_for_each(|line| events.line(line))?;
        Ok(events)
    }

    /// Bytes of the file.
    ///
    /// # Errors
    /// A file that cannot be looked at.
    pub fn bytes(&self) -> Result<u64> {
        self.log.bytes()
    }

    /// Adds the numbers of a line that is over.
    ///
    /// # Errors
    /// A write that fails.
    pub fn line(&mut self, line: &Line) -> Result<()> {
        let mut summary = Vec::new();
        for (name, value) in line.numbers() {
            // A script may log what is another name's tag: then that name keeps its own.
            let tag = names::tag(name);
            let tag = if line.get(&tag).is_some() { name } else { &tag };
            let scalar = [message(1, tag.as_bytes()), float(2, value as f32)].concat();
            summary.extend(message(1, &scalar));
        }
        let time = self.began + line.get("seconds").unwrap_or(0.0);
        let event = [double(1, time), integer(2, line.step), message(5, &summary)].concat();
        self.log.add(&frame(&event))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Wire types of protobuf: how many bytes a field has.
const VARINT: u8 = 0;
const EIGHT: u8 = 1;
const COUNTED: u8 = 2;
const FOUR: u8 = 5;

const fn key(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

fn integer(field: u8, n: u64) -> Vec<u8> {
    let mut bytes = vec![key(field, VARINT)];
    bytes.extend(varint(n));
    bytes
}

fn double(field: u8, x: f64) -> Vec<u8> {
    let mut bytes = vec![key(field, EIGHT)];
    bytes.extend(x.to_le_bytes());
    bytes
}

fn float(field: u8, x: f32) -> Vec<u8> {
    let mut bytes = vec![key(field, FOUR)];
    bytes.extend(x.to_le_bytes());
    bytes
}

/// A message within a message, or a text.
fn message(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![key(field, COUNTED)];
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

/// Seven bits a byte, the lowest first; all but the last have their top bit set.
fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// A record of a TFRecord file: its length and itself, each followed by its checksum.
fn frame(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    [&length, &masked(&length).to_le_bytes()[..], record, &masked(record).to_le_bytes()].concat()
}

/// The checksum as TFRecord stores it: changed, as bytes that hold their own plain checksum have all the same one.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The CRC with Castagnoli's polynomial, bits reversed.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bit = |crc: u32, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
