//! A device that is emulated on the CPU: the same kernels and the same host code, every access checked (feature
//! `emulate`; for tests, and slow).
//!
//! `Gpu::emulated(seed)` opens one. It is unkind on purpose: launches, copies and frees are queued and run when the
//! host waits, blocks and threads run in an order that `seed` gives, memory begins as NaN, and an access fails that is
//! out of its view's bounds, misaligned, reads what nothing wrote, or that no barrier separates from another thread's.
//! What a kernel did wrong is returned by the next call that waits, with the kernel's name and definitions, the
//! parameter, the block and the thread; the device has failed then, as after an illegal access on a real one.
//!
//! Owns the queue. `memory.rs` has what is known of each byte, `table.rs` the kernels, `product.rs` matrix products;
//! the threads of a block, and the checks of their accesses, are C++ (`emulator/`), compiled by the build script
//! together with every file of `kernels/` that the list has.
//!
//! A test of a kernel:
//!
//! ```text
//! let gpu = Gpu::emulated(seed);
//! let x = gpu.upload("x", &numbers, &[rows, width])?;
//! let y = gpu.empty("y", DType::F32, &[rows, width])?;
//! gpu.launch(&Kernel::typed("scale", "scale", &[("X", DType::F32)]), Grid::over(x.len(), 1), &[(&x).into(), ..])?;
//! let y: Vec<f32> = gpu.read(&y)?; // runs the queue: mistakes are reported here
//! ```

mod memory;
#[cfg(test)]
mod mistakes_tests;
mod product;
#[cfg(test)]
mod queue_tests;
mod table;
#[cfg(test)]
mod tests;

use super::backend::{Address, Backend, Facts, RawArg, RawProduct, Span};
use super::device::Gpu;
use super::kernel::{Grid, Kernel};
use crate::error::{Error, Kind, Result};
use memory::{Memories, Stamp};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Work that waits is run when it holds on to more bytes than this, or is longer: the host waits for none of it.
const QUEUED_BYTES: usize = 256 << 20;
const QUEUED: usize = 20_000;

/// What an emulated device has where nothing else is said.
const MEMORY: u64 = 8 << 30;

impl Gpu {
    /// An emulated device; `seed` gives the order of blocks and threads.
    pub fn emulated(seed: u64) -> Self {
        Self::new("emulated", Box::new(Emulator::new(seed, MEMORY)), None)
    }
}

/// An emulated device.
pub struct Emulator {
    facts: Facts,
    state: Mutex<State>,
}

struct State {
    memories: Memories,
    queue: Vec<Work>,
    /// Bytes that work in the queue holds on to.
    queued_bytes: usize,
    seed: u64,
    /// The clock of launches and barriers by which accesses are ordered.
    clock: u32,
    failed: Option<Error>,
}

enum Work {
    Upload(Span, Vec<u8>),
    Copy { to: Span, from: Span },
    Zero(Span),
    Launch(table::Launch),
    Product(RawProduct),
    Free(Address),
}

impl Emulator {
    /// A device with `memory` bytes.
    pub fn new(seed: u64, memory: u64) -> Self {
        let facts = Facts { name: "emulator".into(), architecture: "emulated".into(), memory, processors: 4 };
        let state =
            State { memories: Memories::new(memory), queue: Vec::new(), queued_bytes: 0, seed, clock: 1, failed: None };
        Self { facts, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a device that has not failed.
    fn working(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    fn queue(&self, work: Work, bytes: usize) -> Result<()> {
        let mut state = self.working()?;
        state.push(work, bytes)
    }
}

impl State {
    fn push(&mut self, work: Work, bytes: usize) -> Result<()> {
        self.queue.push(work);
        self.queued_bytes += bytes;
        if self.queued_bytes > QUEUED_BYTES || self.queue.len() > QUEUED { self.run() } else { Ok(()) }
    }

    /// Runs what is queued, in order. After a failure nothing runs any more.
    fn run(&mut self) -> Result<()> {
        self.queued_bytes = 0;
        for work in std::mem::take(&mut self.queue) {
            if let Work::Free(address) = work {
                self.memories.free(address);
                continue;
            }
            if self.failed.is_none()
                && let Err(error) = self.perform(work)
            {
                self.failed = Some(error);
            }
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn perform(&mut self, work: Work) -> Result<()> {
        let stamp = Stamp::host(self.clock);
        match work {
            Work::Upload(to, bytes) => self.memories.write(to, &bytes, stamp),
            Work::Copy { to, from } => self.memories.copy(to, from, stamp),
            Work::Zero(to) => self.memories.zero(to, stamp),
            Work::Product(product) => product::run(&mut self.memories, &product, stamp),
            Work::Launch(launch) => {
                self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                launch.run(&mut self.memories, self.seed, &mut self.clock)
            }
            Work::Free(address) => {
                self.memories.free(address);
                Ok(())
            }
        }
    }
}

impl Backend for Emulator {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn allocate(&self, name: &str, bytes: usize) -> Result<Option<Address>> {
        Ok(self.working()?.memories.allocate(name, bytes))
    }

    fn free(&self, address: Address) {
        let mut state = self.lock();
        let bytes = state.memories.promise(address);
        // An error of what ran before is kept, and told by the next call that can fail.
        let _ = state.push(Work::Free(address), bytes);
    }

    fn available(&self) -> Result<u64> {
        Ok(self.working()?.memories.available())
    }

    fn upload(&self, to: Span, from: &[u8]) -> Result<()> {
        self.queue(Work::Upload(to, from.to_vec()), from.len())
    }

    fn read(&self, parts: &mut [(Span, &mut [u8])]) -> Result<()> {
        let mut state = self.working()?;
        state.run()?;
        parts.iter_mut().try_for_each(|(from, to)| state.memories.read(*from, to))
    }

    fn copy(&self, to: Span, from: Span) -> Result<()> {
        self.queue(Work::Copy { to, from }, 0)
    }

    fn zero(&self, to: Span) -> Result<()> {
        self.queue(Work::Zero(to), 0)
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, args: &[RawArg]) -> Result<()> {
        self.queue(Work::Launch(table::Launch::new(kernel, grid, args)?), 0)
    }

    fn product(&self, product: &RawProduct) -> Result<()> {
        self.queue(Work::Product(*product), 0)
    }

    fn synchronise(&self) -> Result<()> {
        self.working()?.run()
    }
}

/// What host code or a kernel did wrong.
fn mistake(what: impl Into<String>) -> Error {
    Error::new(Kind::Internal, what)
}
