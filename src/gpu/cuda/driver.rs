//! The backend that drives a GPU: copies, launches and products, queued in one stream.
//!
//! Owns which kernels are loaded. Handles and errors are `session.rs`'s, machine code `compile.rs`'s.

use super::compile::Compiler;
use super::libraries::libraries;
use super::products::Products;
use super::session::Session;
use super::staging::{Pinned, Uploads};
use crate::error::{Error, Kind, Result};
use crate::gpu::backend::{Address, Backend, Facts, RawArg, RawProduct, Span};
use crate::gpu::device::Gpu;
use crate::gpu::kernel::{Grid, Kernel};
use cudarc::driver::{result, sys};
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are read at once.
const READ: usize = 16 << 20;

/// Bytes that a block may share without asking.
const SHARED: u32 = 48 << 10;

/// Opens a GPU by its number.
///
/// # Errors
/// A library that is missing; no such GPU, or one that cannot be used.
pub fn open(index: usize) -> Result<Gpu> {
    for library in libraries().all() {
        library.require()?;
    }
    Ok(Gpu::new(&format!("cuda:{index}"), Box::new(Cuda::open(index)?), None))
}

struct Cuda {
    // Dropped before the session, whose context they need.
    loaded: Mutex<Loaded>,
    uploads: Mutex<Uploads>,
    downloads: Mutex<Pinned>,
    products: Mutex<Products>,
    compiler: Compiler,
    session: Session,
}

/// What was compiled and loaded so far.
#[derive(Default)]
struct Loaded {
    /// By file and definitions.
    modules: BTreeMap<(&'static str, String), sys::CUmodule>,
    functions: BTreeMap<Kernel, Function>,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Loaded {}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Bytes that a block may share now.
    shared: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place(span: &Span) -> u64 {
    span.address.0 + span.offset as u64
}

impl Cuda {
    fn open(index: usize) -> Result<Self> {
        let session = Session::open(index)?;
        Ok(Self {
            loaded: Mutex::default(),
            uploads: Mutex::new(Uploads::new(&session)?),
            downloads: Mutex::new(Pinned::new(&session, READ)?),
            products: Mutex::new(Products::new(&session)?),
            compiler: Compiler::new()?,
            session,
        })
    }

    /// The kernel, compiled and loaded when it is first used.
    fn function(&self, kernel: &Kernel, shared: u32) -> Result<sys::CUfunction> {
        let mut loaded = lock(&self.loaded);
        let known = loaded.functions.get(kernel).copied();
        let mut function = match known {
            Some(function) => function,
            None => self.load(&mut loaded, kernel)?,
        };
        if shared > function.shared {
            let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared).unwrap_or(i32::MAX);
            // SAFETY: the function is of a module that stays loaded.
            let set = unsafe { result::function::set_function_attribute(function.handle, which, bytes) };
            self.session.done(&format!("asking for {shared} shared bytes for {}", kernel.function), set)?;
            function.shared = shared;
        }
        if known.is_none_or(|known| known.shared != function.shared) {
            loaded.functions.insert(kernel.clone(), function);
        }
        Ok(function.handle)
    }

    fn load(&self, loaded: &mut Loaded, kernel: &Kernel) -> Result<Function> {
        let key = (kernel.file, kernel.definitions.clone());
        let module = match loaded.modules.get(&key) {
            Some(module) => *module,
            None => {
                let architecture = &self.session.facts.architecture;
                let compiled = self.compiler.compile(kernel.file, &kernel.definitions, architecture)?;
                // SAFETY: machine code as the compiler gave it, which the driver copies.
                let module = unsafe { result::module::load_data(compiled.code.as_ptr().cast()) };
                let module = self.session.done(&format!("loading {}.cu", kernel.file), module)?;
                loaded.modules.insert(key, module);
                module
            }
        };
        let name =
            CString::new(kernel.function).map_err(|_| Error::new(Kind::Internal, "a zero in a kernel's name"))?;
        // SAFETY: the module stays loaded.
        let handle = unsafe { result::module::get_function(module, name) };
        let handle = self.session.done(&format!("looking for {} in {}.cu", kernel.function, kernel.file), handle)?;
        Ok(Function { handle, shared: SHARED })
    }

    /// Copies what is under way into the parts, once it has arrived.
    fn arrive(&self, memory: &mut Pinned, parts: &mut Vec<(usize, &mut [u8])>) -> Result<()> {
        self.session.wait("reading")?;
        for (from, part) in parts.drain(..) {
            part.copy_from_slice(memory.part(from..from + part.len()));
        }
        Ok(())
    }
}

impl Backend for Cuda {
    fn facts(&self) -> &Facts {
        &self.session.facts
    }

    fn allocate(&self, _: &str, bytes: usize) -> Result<Option<Address>> {
        self.session.ready()?;
        Ok(self.session.allocate(bytes)?.map(Address))
    }

    fn free(&self, address: Address) {
        // Nothing can be done here about a device that has failed, which the next call will say.
        let _ = self.session.ready().and_then(|()| self.session.free(address.0));
    }

    fn available(&self) -> Result<u64> {
        self.session.ready()?;
        self.session.available()
    }

    fn upload(&self, to: Span, from: &[u8]) -> Result<()> {
        self.session.ready()?;
        lock(&self.uploads).send(&self.session, place(&to), from)
    }

    fn read(&self, parts: &mut [(Span, &mut [u8])]) -> Result<()> {
        self.session.ready()?;
        let mut memory = lock(&self.downloads);
        let mut under_way: Vec<(usize, &mut [u8])> = Vec::new();
        let mut used = 0;
        for (span, bytes) in parts {
            for (n, piece) in bytes.chunks_mut(READ).enumerate() {
                if used + piece.len() > READ {
                    self.arrive(&mut memory, &mut under_way)?;
                    used = 0;
                }
                let (from, to) = (place(span) + (n * READ) as u64, memory.part(used..used + piece.len()));
                // SAFETY: nothing looks at the target before the stream was waited for; the source is as long.
                let queued = unsafe { result::memcpy_dtoh_async(to, from, self.session.stream) };
                self.session.done("reading", queued)?;
                let length = piece.len();
                under_way.push((used, piece));
                used += length;
            }
        }
        self.arrive(&mut memory, &mut under_way)
    }

    fn copy(&self, to: Span, from: Span) -> Result<()> {
        self.session.ready()?;
        // SAFETY: both are memory of the device, of one length.
        let queued = unsafe { result::memcpy_dtod_async(place(&to), place(&from), from.bytes, self.session.stream) };
        self.session.done("copying", queued)
    }

    fn zero(&self, to: Span) -> Result<()> {
        self.session.ready()?;
        // SAFETY: memory of the device, of this length.
        let queued = unsafe { result::memset_d8_async(place(&to), 0, to.bytes, self.session.stream) };
        self.session.done("setting to zero", queued)
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, args: &[RawArg]) -> Result<()> {
        self.session.ready()?;
        let function = self.function(kernel, grid.shared)?;
        // A number of four bytes lies in the first four of its word: hosts of CUDA are little-endian.
        let mut words: Vec<u64> = args
            .iter()
            .map(|arg| match arg {
                RawArg::Memory(span, _) => place(span),
                RawArg::U64(number) => *number,
                RawArg::U32(number) => u64::from(*number),
                RawArg::I32(number) => u64::from(number.cast_unsigned()),
                RawArg::F32(number) => u64::from(number.to_bits()),
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let (blocks, threads) = ((grid.blocks[0], grid.blocks[1], 1), (grid.threads, 1, 1));
        self.session.queued(|last| {
            let _ = write!(last, "{}.cu {} {} {grid:?}", kernel.file, kernel.definitions, kernel.function);
        });
        // SAFETY: the arguments are those of the kernel in number, order and type, as the operations' tests hold on the
        // emulator; the driver copies them; arrays are freed in the stream, behind what is queued here.
        let queued = unsafe {
            result::launch_kernel(function, blocks, threads, grid.shared, self.session.stream, &mut pointers)
        };
        self.session.done(&format!("launching {} {grid:?}", kernel.function), queued)
    }

    fn product(&self, product: &RawProduct) -> Result<()> {
        self.session.ready()?;
        if product.a.span.bytes == 0 {
            // A sum of nothing, which the library does not take.
            return match product.start {
                Some(start) if place(&start) == place(&product.out.span) => Ok(()),
                Some(start) => self.copy(product.out.span, start),
                None => self.zero(product.out.span),
            };
        }
        self.session.queued(|last| {
            let _ = write!(last, "a matrix product {:?}", [product.a, product.b].map(|o| [o.rows, o.columns]));
        });
        lock(&self.products).multiply(&self.session, product)
    }

    fn unpinned_products(&self) -> u64 {
        lock(&self.products).unpinned()
    }

    fn synchronise(&self) -> Result<()> {
        self.session.ready()?;
        self.session.wait("waiting for what was queued")
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // What the parts hold is still in use by what is queued. Modules go with the context.
        let _ = self.synchronise();
    }
}
