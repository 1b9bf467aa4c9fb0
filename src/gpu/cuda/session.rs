//! A GPU's context, stream and pool of memory, and what becomes of the driver's errors.
//!
//! Owns the driver's handles and nothing that is built on them. One stream of its own: what is queued runs in the order
//! of the calls, whichever thread makes them. Memory that is given back stays with the pool, so that it can be had again
//! without the driver mapping it anew.

use super::libraries::libraries;
use crate::error::{Error, Kind, Result};
use crate::gpu::backend::Facts;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use std::ffi::c_void;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A GPU in use.
pub(super) struct Session {
    device: sys::CUdevice,
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    pool: sys::CUmemoryPool,
    pub(super) facts: Facts,
    /// What it failed with, for good.
    failure: OnceLock<String>,
    /// What was queued last, which a failure that shows later may come from.
    last: Mutex<String>,
}

// SAFETY: the driver's handles may be used from any thread, once the context is current there (`ready`).
unsafe impl Send for Session {}
// SAFETY: as above; the driver locks by itself.
unsafe impl Sync for Session {}

/// Starts the driver; it may be started more than once.
fn start() -> Result<()> {
    libraries().driver.require()?;
    result::init().map_err(|e| refused("the driver cannot be started", &e))
}

/// How many GPUs the driver sees.
fn count() -> Result<usize> {
    match start().and_then(|()| result::device::get_count().map_err(|e| refused("the GPUs cannot be counted", &e))) {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(e) => Err(e),
    }
}

/// What is known of each GPU that the driver sees.
///
/// # Errors
/// No driver, or one that cannot be started.
pub fn cards() -> Result<Vec<Facts>> {
    (0..count()?).map(|index| facts(device(index)?)).collect()
}

fn device(index: usize) -> Result<sys::CUdevice> {
    let count = count()?;
    match i32::try_from(index) {
        Ok(number) if index < count => {
            result::device::get(number).map_err(|e| refused(&format!("cuda:{index} cannot be opened"), &e))
        }
        _ => {
            let what = format!("there is no device cuda:{index}: the driver sees {count} GPUs");
            Err(Error::new(Kind::Device, what).hint("`rhopo gpu info` lists them; they are counted from 0"))
        }
    }
}

/// An error of the driver before any work was done.
fn refused(what: &str, e: &DriverError) -> Error {
    Error::new(Kind::Device, format!("{what}: {}", named(e))).hint("use --device cpu")
}

/// `CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)`
fn named(e: &DriverError) -> String {
    let text = e.error_string().map(|text| format!(" ({})", text.to_string_lossy())).unwrap_or_default();
    format!("{:?}{text}", e.0)
}

fn facts(device: sys::CUdevice) -> Result<Facts> {
    let unknown = |e: DriverError| refused("a GPU cannot be asked what it is", &e);
    let attribute = |which: Attribute| {
        // SAFETY: the device is one that the driver gave.
        unsafe { result::device::get_attribute(device, which) }.map_err(unknown)
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    // SAFETY: the device is one that the driver gave.
    let memory = unsafe { result::device::total_mem(device) }.map_err(unknown)?;
    Ok(Facts {
        name: result::device::get_name(device).map_err(unknown)?,
        architecture: architecture(major, minor),
        memory: memory as u64,
        processors: usize::try_from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?).unwrap_or(1),
    })
}

/// What kernels are compiled for: from Hopper on, with what only the very same processor has.
fn architecture(major: i32, minor: i32) -> String {
    format!("sm_{major}{minor}{}", if major == 9 { "a" } else { "" })
}

/// Errors after which the context is as it was before the call.
fn is_harmless(e: &DriverError) -> bool {
    use CUresult as E;
    matches!(
        e.0,
        E::CUDA_ERROR_INVALID_VALUE
            | E::CUDA_ERROR_OUT_OF_MEMORY
            | E::CUDA_ERROR_INVALID_IMAGE
            | E::CUDA_ERROR_NO_BINARY_FOR_GPU
            | E::CUDA_ERROR_INVALID_SOURCE
            | E::CUDA_ERROR_INVALID_HANDLE
            | E::CUDA_ERROR_NOT_FOUND
            | E::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
            | E::CUDA_ERROR_NOT_SUPPORTED
    )
}

pub(super) fn is_exhaustion(e: &DriverError) -> bool {
    e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

impl Session {
    pub(super) fn open(index: usize) -> Result<Self> {
        let device = device(index)?;
        let facts = facts(device)?;
        let refused = |e: DriverError| refused(&format!("cuda:{index} ({}) cannot be used", facts.name), &e);
        // SAFETY: the device is one that the driver gave.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(refused)?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(refused)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(refused)?;
        let pool = pool(index).map_err(refused)?;
        Ok(Self { device, context, stream, pool, facts, failure: OnceLock::new(), last: Mutex::default() })
    }

    /// To be called before anything else: makes the context current in this thread.
    pub(super) fn ready(&self) -> Result<()> {
        if let Some(failure) = self.failure.get() {
            return Err(self.dead(failure));
        }
        // SAFETY: the context is retained for as long as this value lives.
        self.done("making its context current", unsafe { result::ctx::set_current(self.context) })
    }

    fn dead(&self, failure: &str) -> Error {
        Error::new(Kind::Device, format!("{} has failed: {failure}", self.facts.name)).hint(
            "what was in its memory is lost: start again from the last checkpoint that the run saved \
             (`compute-sanitizer rhopo run …` may name the cause)",
        )
    }

    /// What the driver answered to what was being done. Most errors come from what was queued before, and end the
    /// context: the device stays failed.
    pub(super) fn done<T>(&self, doing: &str, answer: std::result::Result<T, DriverError>) -> Result<T> {
        answer.map_err(|e| match is_harmless(&e) {
            true => Error::new(Kind::Device, format!("{}: {doing}: {}", self.facts.name, named(&e))),
            false => {
                let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let failure = format!("{}, noticed when {doing}; last queued was {last}", named(&e));
                self.dead(self.failure.get_or_init(|| failure))
            }
        })
    }

    /// Notes what is queued, for what is said of a failure.
    pub(super) fn queued(&self, what: impl FnOnce(&mut String)) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clear();
        what(&mut last);
    }

    pub(super) fn wait(&self, doing: &str) -> Result<()> {
        // SAFETY: the stream lives as long as this value.
        self.done(doing, unsafe { result::stream::synchronize(self.stream) })
    }

    /// Memory of the pool, once what was queued before has run; none where there is not enough, even of what the pool
    /// holds and does not use.
    pub(super) fn allocate(&self, bytes: usize) -> Result<Option<u64>> {
        // SAFETY: pool and stream live as long as this value.
        let ask = || unsafe { result::mem_pool::alloc_async(self.pool, bytes, self.stream) };
        let answer = match ask() {
            Err(e) if is_exhaustion(&e) => {
                self.wait("waiting for memory")?;
                // SAFETY: the pool lives as long as this value.
                self.done("giving memory back", unsafe { result::mem_pool::trim_to(self.pool, 0) })?;
                ask()
            }
            answer => answer,
        };
        match answer {
            Err(e) if is_exhaustion(&e) => Ok(None),
            answer => self.done("taking memory", answer).map(Some),
        }
    }

    /// Gives memory back once what was queued before has run.
    pub(super) fn free(&self, address: u64) -> Result<()> {
        // SAFETY: the address is one that `allocate` gave, and given back once.
        self.done("giving memory back", unsafe { result::free_async(address, self.stream) })
    }

    /// Bytes that could be allocated: those that nobody has, and those of the pool that are not used.
    pub(super) fn available(&self) -> Result<u64> {
        let (free, _) = self.done("asking for free memory", result::mem_get_info())?;
        let held = self.pool_bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = self.pool_bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        Ok(free as u64 + held.saturating_sub(used))
    }

    fn pool_bytes(&self, which: sys::CUmemPool_attribute) -> Result<u64> {
        let mut bytes = 0u64;
        let to: *mut c_void = std::ptr::from_mut(&mut bytes).cast();
        // SAFETY: the pool lives, and these attributes are 64-bit numbers.
        self.done("asking its pool of memory", unsafe { result::mem_pool::get_attribute(self.pool, which, to) })?;
        Ok(bytes)
    }
}

/// A pool that keeps what it has.
fn pool(index: usize) -> std::result::Result<sys::CUmemoryPool, DriverError> {
    // SAFETY: plain data, for which zeros are what the driver asks for where nothing else is set.
    let mut properties: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
    properties.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = i32::try_from(index).unwrap_or(0);
    // SAFETY: the properties live until the call returns.
    let pool = unsafe { result::mem_pool::create(&properties) }?;
    let mut threshold = u64::MAX;
    let from: *mut c_void = std::ptr::from_mut(&mut threshold).cast();
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool lives, and the attribute is a 64-bit number.
    unsafe { result::mem_pool::set_attribute(pool, attribute, from) }?;
    Ok(pool)
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.ready().is_ok() && self.wait("ending").is_ok() {
            // SAFETY: nothing is queued any more, and nobody else has these handles. What cannot be given back goes with
            // the process.
            unsafe {
                let _ = result::mem_pool::destroy(self.pool);
                let _ = result::stream::destroy(self.stream);
                let _ = result::primary_ctx::release(self.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_named_by_capability() {
        let found = [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)].map(|(major, minor)| architecture(major, minor));
        assert_eq!(found, ["sm_80", "sm_89", "sm_90a", "sm_100", "sm_120"]);
    }

    #[test]
    fn only_what_leaves_the_context_whole_is_harmless() {
        let harmless = |e: CUresult| is_harmless(&DriverError(e));
        assert!(harmless(CUresult::CUDA_ERROR_OUT_OF_MEMORY) && harmless(CUresult::CUDA_ERROR_INVALID_VALUE));
        for e in [
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            CUresult::CUDA_ERROR_LAUNCH_FAILED,
            CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
            CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
            CUresult::CUDA_ERROR_UNKNOWN,
        ] {
            assert!(!harmless(e), "{e:?}");
        }
    }
}
