//! What a device must be able to do, in its own terms: addresses, bytes, launches.
//!
//! Owns the trait; `cuda/` and `emulate.rs` implement it.

use super::array::DType;
use super::kernel::{Grid, Kernel};
use crate::error::Result;

/// Memory as its backend knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(pub u64);

/// A place in a device's memory: `bytes` of them, `offset` bytes into what `address` names.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub address: Address,
    pub offset: usize,
    pub bytes: usize,
}

/// What is known of a device.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The card's own name.
    pub name: String,
    /// What kernels are compiled for: `sm_90a`; `emulated`.
    pub architecture: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Streaming multiprocessors: blocks that run side by side.
    pub processors: usize,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum RawArg {
    /// An array of numbers of a type.
    Memory(Span, DType),
    U32(u32),
    U64(u64),
    I32(i32),
    F32(f32),
}

/// A matrix of a product, row-major and contiguous as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct RawOperand {
    pub span: Span,
    pub dtype: DType,
    /// Stored rows and columns.
    pub rows: usize,
    pub columns: usize,
    /// The product reads it transposed.
    pub transposed: bool,
}

/// out `[M,N]` = a `[M,K]` · b `[K,N]` + what the sums start from; all sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct RawProduct {
    pub a: RawOperand,
    pub b: RawOperand,
    pub out: RawOperand,
    /// `[M,N]` of the type of `out`, perhaps `out` itself; zero where there is none.
    pub start: Option<Span>,
}

/// Drives a device. Work is queued and runs in the order of the calls; `read` and `synchronise` wait for all of it.
pub trait Backend: Send + Sync {
    fn facts(&self) -> &Facts;

    /// Memory of `bytes` bytes, aligned to 256; `name` is for messages. `None` where there is not enough of it.
    ///
    /// # Errors
    /// A device that has failed.
    fn allocate(&self, name: &str, bytes: usize) -> Result<Option<Address>>;

    /// Gives memory back, once what was queued before has run.
    fn free(&self, address: Address);

    /// Bytes that could be allocated now.
    ///
    /// # Errors
    /// A device that has failed.
    fn available(&self) -> Result<u64>;

    /// Copies bytes to the device; they may be changed when the call returns.
    ///
    /// # Errors
    /// A device that has failed.
    fn upload(&self, to: Span, from: &[u8]) -> Result<()>;

    /// Waits, and copies bytes from the device.
    ///
    /// # Errors
    /// A device that has failed, in this or an earlier call.
    fn read(&self, parts: &mut [(Span, &mut [u8])]) -> Result<()>;

    /// Copies bytes within the device.
    ///
    /// # Errors
    /// A device that has failed.
    fn copy(&self, to: Span, from: Span) -> Result<()>;

    /// Sets all bytes to zero.
    ///
    /// # Errors
    /// A device that has failed.
    fn zero(&self, to: Span) -> Result<()>;

    /// Queues a kernel.
    ///
    /// # Errors
    /// A kernel that does not compile, a grid that the device cannot run, a device that has failed.
    fn launch(&self, kernel: &Kernel, grid: Grid, args: &[RawArg]) -> Result<()>;

    /// Queues a matrix product.
    ///
    /// # Errors
    /// Types or shapes that the device cannot multiply, a device that has failed.
    fn product(&self, product: &RawProduct) -> Result<()>;

    /// How many shapes of products have an algorithm of their own, so that a row's bits may depend on how many there are.
    fn unpinned_products(&self) -> u64 {
        0
    }

    /// Waits until everything queued has run.
    ///
    /// # Errors
    /// A device that has failed.
    fn synchronise(&self) -> Result<()>;
}
