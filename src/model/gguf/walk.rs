//! A walk over a GGUF file's metadata ahead of candle's reader, for the one value that makes it panic.
//!
//! Whatever else is wrong with the file is left for that reader to say: the walk just ends there.

use std::io::{BufReader, Read, Seek};

const ALIGNMENT: &[u8] = b"general.alignment";
/// Arrays within arrays at most, as candle has it.
const DEPTH: usize = 64;

/// Whether the file says `general.alignment` 0, by which candle would divide. The reader is past the magic.
pub fn alignment_is_zero<R: Read + Seek>(reader: &mut BufReader<R>) -> bool {
    let Some(version) = number(reader, 4) else { return false };
    Walk { reader, length: if version > 1 { 8 } else { 4 } }.find_zero().unwrap_or(false)
}

struct Walk<'a, R> {
    reader: &'a mut BufReader<R>,
    /// Bytes that a length takes: 4 in version 1.
    length: usize,
}

impl<R: Read + Seek> Walk<'_, R> {
    fn find_zero(&mut self) -> Option<bool> {
        let _tensors = self.length()?;
        for _ in 0..self.length()? {
            let alignment = self.is_alignment()?;
            let kind = number(self.reader, 4)?;
            match size(kind) {
                // Only whole numbers of up to 4 bytes count: candle takes the usual alignment for all others.
                Some(bytes @ 1..=4) if alignment && kind < 6 => {
                    if number(self.reader, bytes as usize)? == 0 {
                        return Some(true);
                    }
                }
                _ => self.skip(kind, 0)?,
            }
        }
        Some(false)
    }

    /// Reads a key; zero bytes at its end do not count.
    fn is_alignment(&mut self) -> Option<bool> {
        let bytes = self.length()?;
        if bytes > 1 << 10 {
            self.reader.seek_relative(bytes.try_into().ok()?).ok()?;
            return Some(false);
        }
        let mut key = vec![0; bytes as usize];
        self.reader.read_exact(&mut key).ok()?;
        let end = key.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        Some(&key[..end] == ALIGNMENT)
    }

    /// Passes over a value. Past the end of the file the next length cannot be read, which ends the walk.
    fn skip(&mut self, kind: u64, depth: usize) -> Option<()> {
        match (kind, size(kind)) {
            (_, Some(bytes)) => self.reader.seek_relative(bytes).ok(),
            (8, _) => {
                let bytes = self.length()?.try_into().ok()?;
                self.reader.seek_relative(bytes).ok()
            }
            (9, _) if depth <= DEPTH => {
                let (kind, n) = (number(self.reader, 4)?, self.length()?);
                match size(kind) {
                    Some(bytes) => self.reader.seek_relative(bytes.checked_mul(n.try_into().ok()?)?).ok(),
                    None => (0..n).try_for_each(|_| self.skip(kind, depth + 1)),
                }
            }
            _ => None,
        }
    }

    fn length(&mut self) -> Option<u64> {
        number(self.reader, self.length)
    }
}

/// Bytes of a value whose type has a fixed size.
fn size(kind: u64) -> Option<i64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// A whole number of `bytes` bytes, the lowest first.
fn number<R: Read>(reader: &mut R, bytes: usize) -> Option<u64> {
    let mut buffer = [0; 8];
    reader.read_exact(&mut buffer[..bytes]).ok()?;
    Some(u64::from_le_bytes(buffer))
}
