//! The memory of an emulated device: its bytes, and who touched them last.
//!
//! Owns allocation and what the host does with memory. What kernels do with it is checked by `emulator/emulator.h`,
//! whose `Cell` this has a second time.

use super::mistake;
use crate::error::Result;
use crate::gpu::backend::{Address, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::ops::Range;

/// When memory was written and by whom, as the emulator has it; 0 is never.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp(u64);

impl Stamp {
    /// The host, or what is no kernel; ordered before every launch that comes later.
    pub(super) fn host(clock: u32) -> Self {
        Self(u64::from(clock) << 32)
    }
}

/// Who touched some bytes last: `emu::Cell`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Cell {
    writer: u64,
    reader: u64,
}

/// Logarithms of the bytes of a cell: at first, and once a number of two bytes has been seen.
const WORDS: usize = 2;
const HALVES: usize = 1;

/// Names of freed memory that are kept for messages.
const NAMES: usize = 10_000;

/// As aligned as a device's memory.
#[derive(Clone, Copy)]
#[repr(align(256))]
struct Line(#[expect(dead_code, reason = "read as bytes, many lines at once")] [u8; 256]);

/// NaN in every format.
const POISON: Line = Line([0xff; 256]);

/// One allocation.
pub(super) struct Memory {
    name: CString,
    lines: Vec<Line>,
    bytes: usize,
    /// Writer and reader of each cell in turn: plain numbers, since zeros cost nothing until they are touched.
    cells: Vec<[u64; 2]>,
    /// A cell has `1 << shift` bytes.
    shift: usize,
    /// Places (offset, bytes) found to be written whole: that stays so.
    written: BTreeSet<(usize, usize)>,
}

/// A place in memory as a launch needs it.
pub(super) struct Place {
    pub(super) data: *mut u8,
    pub(super) cells: *mut Cell,
    pub(super) shift: usize,
    pub(super) name: *const std::ffi::c_char,
}

impl Memory {
    fn new(name: &str, bytes: usize) -> Self {
        Self {
            name: CString::new(name.replace('\0', " ")).unwrap_or_default(),
            lines: vec![POISON; bytes.div_ceil(256)],
            bytes,
            cells: vec![[0; 2]; bytes.div_ceil(1 << WORDS)],
            shift: WORDS,
            written: BTreeSet::new(),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: lines are plain bytes without padding, and at least `bytes` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.bytes) }
    }

    fn name(&self) -> String {
        CStr::to_string_lossy(&self.name).into_owned()
    }

    /// Has cells so small that the place is made of whole ones.
    fn refine(&mut self, offset: usize, bytes: usize, smallest: usize) {
        let whole = (offset | bytes).is_multiple_of(1 << WORDS) && smallest >= 1 << WORDS;
        if self.shift == WORDS && !whole {
            self.cells = self.cells.iter().flat_map(|c| [*c; 2]).collect();
            self.shift = HALVES;
        }
    }

    fn cells_of(&self, offset: usize, bytes: usize) -> Range<usize> {
        offset >> self.shift..(offset + bytes).div_ceil(1 << self.shift)
    }

    fn stamp(&mut self, offset: usize, bytes: usize, stamp: Stamp) {
        self.refine(offset, bytes, 1 << WORDS);
        let cells = self.cells_of(offset, bytes);
        self.cells[cells].iter_mut().for_each(|[writer, _]| *writer = stamp.0);
    }

    /// # Errors
    /// Bytes that nothing wrote.
    fn written(&mut self, span: Span, by: &str) -> Result<()> {
        let place = (span.offset, span.bytes);
        if self.written.contains(&place) {
            return Ok(());
        }
        let cells = self.cells_of(span.offset, span.bytes);
        match self.cells[cells].iter().position(|[writer, _]| *writer == 0) {
            Some(cell) => {
                let byte = cell << self.shift;
                Err(mistake(format!("{by}: `{}` byte {byte}: read before anything was written", self.name())))
            }
            None => {
                self.written.insert(place);
                Ok(())
            }
        }
    }
}

/// All allocations of a device.
pub(super) struct Memories {
    memories: BTreeMap<u64, Memory>,
    /// Names of those that went last.
    freed: BTreeMap<u64, String>,
    next: u64,
    limit: u64,
    /// Bytes that are held; what is queued to be freed is not, since what is allocated now is used after that.
    held: u64,
}

impl Memories {
    pub(super) fn new(limit: u64) -> Self {
        Self { memories: BTreeMap::new(), freed: BTreeMap::new(), next: 1, limit, held: 0 }
    }

    pub(super) fn available(&self) -> u64 {
        self.limit - self.held
    }

    pub(super) fn allocate(&mut self, name: &str, bytes: usize) -> Option<Address> {
        if bytes as u64 > self.available() {
            return None;
        }
        self.held += bytes as u64;
        let address = self.next;
        self.next += 1;
        self.memories.insert(address, Memory::new(name, bytes));
        Some(Address(address))
    }

    /// Counts memory as free that is given back once what is queued has run; its bytes.
    pub(super) fn promise(&mut self, address: Address) -> usize {
        let bytes = self.memories.get(&address.0).map_or(0, |m| m.bytes);
        self.held -= bytes as u64;
        bytes
    }

    pub(super) fn free(&mut self, address: Address) {
        if let Some(memory) = self.memories.remove(&address.0) {
            self.freed.insert(address.0, memory.name());
            if self.freed.len() > NAMES {
                self.freed.pop_first();
            }
        }
    }

    fn get(&mut self, span: Span, by: &str) -> Result<&mut Memory> {
        if let Some(name) = self.freed.get(&span.address.0) {
            return Err(mistake(format!("{by}: `{name}` is used after it was freed")));
        }
        match self.memories.get_mut(&span.address.0) {
            Some(m) if span.offset + span.bytes <= m.bytes => Ok(m),
            Some(m) => Err(mistake(format!(
                "{by}: {} bytes at byte {} of `{}`, which has {}",
                span.bytes,
                span.offset,
                m.name(),
                m.bytes
            ))),
            None => Err(mistake(format!("{by}: no memory was allocated at {:?}", span.address))),
        }
    }

    /// Has cells that fit a place, an array of numbers of this size; to be asked for all places of a launch before
    /// `place` is asked for one of them.
    ///
    /// # Errors
    /// Memory that is not there.
    pub(super) fn prepare(&mut self, span: Span, number: usize, by: &str) -> Result<()> {
        self.get(span, by)?.refine(span.offset, span.bytes, number);
        Ok(())
    }

    /// Where a launch finds a place.
    ///
    /// # Errors
    /// Memory that is not there.
    pub(super) fn place(&mut self, span: Span, by: &str) -> Result<Place> {
        let memory = self.get(span, by)?;
        let cell = span.offset >> memory.shift;
        Ok(Place {
            data: memory.bytes_mut()[span.offset..].as_mut_ptr(),
            cells: memory.cells[cell..].as_mut_ptr().cast(),
            shift: memory.shift,
            name: memory.name.as_ptr(),
        })
    }

    /// The bytes of a place, all of which something wrote.
    ///
    /// # Errors
    /// Memory that is not there or not written.
    pub(super) fn bytes(&mut self, span: Span, by: &str) -> Result<&[u8]> {
        let memory = self.get(span, by)?;
        memory.written(span, by)?;
        Ok(&memory.bytes()[span.offset..span.offset + span.bytes])
    }

    /// # Errors
    /// Memory that is not there.
    pub(super) fn write(&mut self, to: Span, from: &[u8], stamp: Stamp) -> Result<()> {
        let memory = self.get(to, "upload")?;
        memory.bytes_mut()[to.offset..to.offset + to.bytes].copy_from_slice(from);
        memory.stamp(to.offset, to.bytes, stamp);
        Ok(())
    }

    /// # Errors
    /// Memory that is not there.
    pub(super) fn zero(&mut self, to: Span, stamp: Stamp) -> Result<()> {
        let memory = self.get(to, "zero")?;
        memory.bytes_mut()[to.offset..to.offset + to.bytes].fill(0);
        memory.stamp(to.offset, to.bytes, stamp);
        Ok(())
    }

    /// # Errors
    /// Memory that is not there or not written.
    pub(super) fn copy(&mut self, to: Span, from: Span, stamp: Stamp) -> Result<()> {
        let overlap = to.offset < from.offset + from.bytes && from.offset < to.offset + to.bytes;
        if to.address == from.address && overlap {
            return Err(mistake("copy: the two places overlap"));
        }
        let bytes = self.bytes(from, "copy")?.to_vec();
        let memory = self.get(to, "copy")?;
        memory.bytes_mut()[to.offset..to.offset + to.bytes].copy_from_slice(&bytes);
        memory.stamp(to.offset, to.bytes, stamp);
        Ok(())
    }

    /// # Errors
    /// Memory that is not there or not written.
    pub(super) fn read(&mut self, from: Span, to: &mut [u8]) -> Result<()> {
        to.copy_from_slice(self.bytes(from, "read by the host")?);
        Ok(())
    }
}
