//! A device: memory, copies and launches, with counters of what was done.
//!
//! Owns what is counted and what an exhausted memory is answered with. What really happens is the backend's.

use super::array::{Array, Buffer, DType, Number};
use super::backend::{Address, Backend, Facts, RawArg, RawProduct};
use super::catalogue;
use super::kernel::{Arg, Grid, Kernel};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was asked of a device so far.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Bytes of arrays that are held.
    pub held: u64,
    /// The most that were held at once.
    pub most: u64,
    /// The largest array, in bytes, and what it was for.
    pub largest: (u64, &'static str),
    /// How often the host waited for the device.
    pub waits: u64,
    pub launches: u64,
    /// Launches of each kernel, by its function's name.
    pub kernels: BTreeMap<&'static str, u64>,
    pub products: u64,
    /// Shapes of products, since the device was opened, for which a row's bits may depend on how many rows there are.
    pub unpinned_products: u64,
}

/// A device. A clone is the same one.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    /// As `--device` names it: `cuda:0`, `emulated`.
    name: String,
    backend: Box<dyn Backend>,
    counters: Mutex<Counters>,
    /// Bytes that arrays may take together.
    limit: u64,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu {}", self.0.name)
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Gpu {
    /// A device behind a backend; its arrays may take `limit` bytes together, or all that there are.
    pub fn new(name: &str, backend: Box<dyn Backend>, limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or(backend.facts().memory);
        Self(Arc::new(Inner { name: name.into(), backend, counters: Mutex::default(), limit }))
    }

    /// As `--device` names it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn facts(&self) -> &Facts {
        self.0.backend.facts()
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    /// What was asked of it since it was opened, or since `reset_counters`.
    pub fn counters(&self) -> Counters {
        let unpinned_products = self.backend().unpinned_products();
        Counters { unpinned_products, ..self.count().clone() }
    }

    /// Counts anew; what is held stays held.
    pub fn reset_counters(&self) {
        let mut counters = self.count();
        *counters = Counters { held: counters.held, most: counters.held, ..Counters::default() };
    }

    fn count(&self) -> MutexGuard<'_, Counters> {
        self.0.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that arrays could still take.
    ///
    /// # Errors
    /// A device that has failed.
    pub fn available(&self) -> Result<u64> {
        let held = self.count().held;
        Ok(self.backend().available()?.min(self.0.limit.saturating_sub(held)))
    }

    /// An array of numbers that are not set yet; `what` it is for is told where memory runs out.
    ///
    /// # Errors
    /// Too little memory; a device that has failed.
    pub fn empty(&self, what: &'static str, dtype: DType, dims: &[usize]) -> Result<Array> {
        let bytes = dims.iter().product::<usize>() * dtype.size();
        let room = self.count().held + bytes as u64 <= self.0.limit;
        let address = if room { self.backend().allocate(what, bytes.max(1))? } else { None };
        let Some(address) = address else { return Err(self.exhausted(what, bytes)?) };
        let mut counters = self.count();
        counters.held += bytes as u64;
        counters.most = counters.most.max(counters.held);
        if bytes as u64 > counters.largest.0 {
            counters.largest = (bytes as u64, what);
        }
        drop(counters);
        Ok(Array::new(Buffer { gpu: self.clone(), address, bytes }, dims, dtype))
    }

    fn exhausted(&self, what: &str, bytes: usize) -> Result<Error> {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        Ok(Error::new(
            Kind::Memory,
            format!(
                "{}: no memory for {what}: {:.3} GiB wanted, {:.3} GiB free of {:.1} GiB",
                self.0.name,
                gib(bytes as u64),
                gib(self.available()?),
                gib(self.0.limit)
            ),
        )
        .hint("lower --token-budget or the number of rows of a step, or train an adapter: load_model(name, #{ lora: #{} })"))
    }

    pub(super) fn free(&self, address: Address, bytes: usize) {
        self.backend().free(address);
        self.count().held -= bytes as u64;
    }

    /// An array of zeros.
    ///
    /// # Errors
    /// Too little memory; a device that has failed.
    pub fn zeros(&self, what: &'static str, dtype: DType, dims: &[usize]) -> Result<Array> {
        let array = self.empty(what, dtype, dims)?;
        self.zero(&array)?;
        Ok(array)
    }

    /// An array of these numbers.
    ///
    /// # Errors
    /// Too little memory; a device that has failed.
    pub fn upload<T: Number>(&self, what: &'static str, numbers: &[T], dims: &[usize]) -> Result<Array> {
        let array = self.empty(what, T::DTYPE, dims)?;
        self.write(&array, numbers)?;
        Ok(array)
    }

    /// Overwrites an array's numbers.
    ///
    /// # Errors
    /// Numbers of another type or count; a device that has failed.
    pub fn write<T: Number>(&self, array: &Array, numbers: &[T]) -> Result<()> {
        if array.dtype() != T::DTYPE || array.len() != numbers.len() {
            let what = format!("{} numbers of {:?} for {array:?}", numbers.len(), T::DTYPE);
            return Err(Error::new(Kind::Internal, what));
        }
        if numbers.is_empty() { Ok(()) } else { self.backend().upload(array.span(), bytes_of(numbers)) }
    }

    /// Sets an array's numbers to zero.
    ///
    /// # Errors
    /// A device that has failed.
    pub fn zero(&self, array: &Array) -> Result<()> {
        if array.is_empty() { Ok(()) } else { self.backend().zero(array.span()) }
    }

    /// Copies numbers within the device; both arrays have one type and count.
    ///
    /// # Errors
    /// Arrays that differ; a device that has failed.
    pub fn copy(&self, to: &Array, from: &Array) -> Result<()> {
        self.check_own([to, from])?;
        if to.dtype() != from.dtype() || to.len() != from.len() {
            return Err(Error::new(Kind::Internal, format!("a copy of {from:?} into {to:?}")));
        }
        if to.is_empty() { Ok(()) } else { self.backend().copy(to.span(), from.span()) }
    }

    /// The numbers of several arrays; the host waits once.
    ///
    /// # Errors
    /// Arrays of another type; a device that has failed.
    pub fn read_all<T: Number>(&self, arrays: &[&Array]) -> Result<Vec<Vec<T>>> {
        if let Some(other) = arrays.iter().find(|a| a.dtype() != T::DTYPE) {
            return Err(Error::new(Kind::Internal, format!("{other:?} read as {:?}", T::DTYPE)));
        }
        let mut out: Vec<Vec<T>> = arrays.iter().map(|a| vec![T::default(); a.len()]).collect();
        let spans = arrays.iter().map(|a| a.span());
        let mut parts: Vec<_> = spans.zip(out.iter_mut().map(|numbers| bytes_of_mut(numbers))).collect();
        parts.retain(|(span, _)| span.bytes > 0);
        self.count().waits += 1;
        self.backend().read(&mut parts)?;
        Ok(out)
    }

    /// The numbers of an array; the host waits.
    ///
    /// # Errors
    /// An array of another type; a device that has failed.
    pub fn read<T: Number>(&self, array: &Array) -> Result<Vec<T>> {
        Ok(self.read_all(&[array])?.swap_remove(0))
    }

    /// Queues a kernel.
    ///
    /// # Errors
    /// A kernel that the catalogue does not have; a device that has failed.
    pub fn launch(&self, kernel: &Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        if !catalogue::has(kernel) {
            return Err(Error::new(Kind::Internal, format!("{kernel:?} is not in the catalogue of kernels")));
        }
        self.check_own(args.iter().filter_map(Arg::array))?;
        let mut counters = self.count();
        counters.launches += 1;
        *counters.kernels.entry(kernel.function).or_default() += 1;
        drop(counters);
        let args: Vec<RawArg> = args.iter().map(Arg::raw).collect();
        self.backend().launch(kernel, grid, &args)
    }

    /// Addresses mean nothing on another device than their own.
    pub(super) fn check_own<'a>(&self, arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
        match arrays.into_iter().find(|array| array.gpu() != self) {
            Some(other) => {
                let what = format!("{other:?} of the device {} was given to {}", other.gpu().name(), self.name());
                Err(Error::new(Kind::Internal, what))
            }
            None => Ok(()),
        }
    }

    pub(super) fn multiply(&self, product: &RawProduct) -> Result<()> {
        self.count().products += 1;
        self.backend().product(product)
    }

    /// Waits until everything queued has run.
    ///
    /// # Errors
    /// A device that has failed, in this or an earlier call.
    pub fn synchronise(&self) -> Result<()> {
        self.count().waits += 1;
        self.backend().synchronise()
    }
}

fn bytes_of<T: Number>(numbers: &[T]) -> &[u8] {
    // SAFETY: a Number is plain data without padding, and any bytes may be read.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

fn bytes_of_mut<T: Number>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: a Number is plain data without padding, and every bit pattern is one.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}
