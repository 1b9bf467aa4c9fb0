//! The kernels that were compiled for the CPU, and launches of them.
//!
//! Owns the interface to the C++ of `emulator/`: its structs are declared here a second time.

use super::memory::{Cell, Memories, Place};
use super::mistake;
use crate::error::Result;
use crate::gpu::array::DType;
use crate::gpu::backend::RawArg;
use crate::gpu::kernel::{Grid, Kernel};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::OnceLock;

/// `emu::Entry`
#[repr(C)]
struct Entry {
    file: *const c_char,
    definitions: *const c_char,
    function: *const c_char,
    parameters: *const c_char,
    count: u64,
    kinds: *const u8,
    code: *const (),
    call: *const (),
}

/// `emu::View` and the number beside it: `emu::Argument`
#[repr(C)]
struct Argument {
    data: *mut u8,
    cells: *mut Cell,
    bytes: u64,
    shift: u64,
    name: *const c_char,
    array: *const c_char,
    number: u64,
}

/// `emu::Launch`
#[repr(C)]
struct Blocks {
    blocks: u32,
    blocks_y: u32,
    threads: u32,
    shared: u32,
    seed: u64,
}

unsafe extern "C" {
    /// Lists of entries, each ended by one without a file; the last list is null.
    fn emu_table() -> *const *const *const Entry;
    fn emu_launch(
        entry: *const Entry,
        launch: *const Blocks,
        arguments: *const Argument,
        clock: *mut u32,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// A kernel as it was compiled.
struct Compiled {
    entry: &'static Entry,
    /// Names and kinds of the parameters.
    parameters: Vec<(CString, u8)>,
}

// SAFETY: an entry is constant data and functions; the pointers in it are never written through.
unsafe impl Send for Compiled {}
// SAFETY: as above.
unsafe impl Sync for Compiled {}

/// By file, definitions and function.
type Table = BTreeMap<(String, String, String), Compiled>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table::new();
        // SAFETY: the generated table is an array that ends with null, of pointers to lists that end as said; all of it
        // is constant from before `main` on.
        unsafe {
            let mut lists = emu_table();
            while !(*lists).is_null() {
                let mut entry: *const Entry = **lists;
                while !(*entry).file.is_null() {
                    let name = [(*entry).file, (*entry).definitions, (*entry).function].map(|s| text(s));
                    table.insert(name.into(), Compiled::new(&*entry));
                    entry = entry.add(1);
                }
                lists = lists.add(1);
            }
        }
        table
    })
}

/// # Safety
/// A string that ends with a zero.
unsafe fn text(s: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}

impl Compiled {
    /// # Safety
    /// An entry of the table.
    unsafe fn new(entry: &'static Entry) -> Self {
        // SAFETY: `kinds` has one for each parameter and one more.
        let (names, kinds) =
            unsafe { (text(entry.parameters), std::slice::from_raw_parts(entry.kinds, entry.count as usize)) };
        let name = |s: &str| CString::new(s).unwrap_or_default();
        let parameters = names.split_terminator(',').map(name).zip(kinds.iter().copied()).collect();
        Self { entry, parameters }
    }
}

/// `emu::Kind`
const I32: u8 = 5;
const ARRAY: u8 = 16;

fn kind_of(dtype: DType) -> u8 {
    match dtype {
        DType::F32 => 0,
        DType::Bf16 => 1,
        DType::U32 => 2,
        DType::U64 => 3,
        DType::F64 => 4,
    }
}

fn kind_name(kind: u8) -> String {
    let number = ["f32", "bf16", "u32", "u64", "f64", "i32"].get((kind % ARRAY) as usize).unwrap_or(&"of another type");
    if kind >= ARRAY { format!("an array of {number}") } else { (*number).to_owned() }
}

/// A launch that can be run: its kernel exists and its arguments are of the right types.
pub(super) struct Launch {
    name: String,
    compiled: &'static Compiled,
    grid: Grid,
    args: Vec<RawArg>,
}

impl Launch {
    /// # Errors
    /// A kernel that was not compiled, arguments of other types, a grid that no device can run.
    pub(super) fn new(kernel: &Kernel, grid: Grid, args: &[RawArg]) -> Result<Self> {
        let name = match kernel.definitions.as_str() {
            "" => kernel.function.to_owned(),
            definitions => format!("{} [{definitions}]", kernel.function),
        };
        let key = (kernel.file.to_owned(), kernel.definitions.clone(), kernel.function.to_owned());
        let compiled = table().get(&key).filter(|c| !c.entry.code.is_null());
        let compiled = compiled.ok_or_else(|| mistake(format!("{name}: no such kernel in {}.cu", kernel.file)))?;
        let launch = Self { name, compiled, grid, args: args.to_vec() };
        launch.fits().map_err(|what| mistake(format!("{}: {what}", launch.name)))?;
        Ok(launch)
    }

    fn fits(&self) -> std::result::Result<(), String> {
        let (parameters, grid) = (&self.compiled.parameters, self.grid);
        if self.args.len() != parameters.len() {
            return Err(format!("{} arguments for {} parameters", self.args.len(), parameters.len()));
        }
        for (arg, (name, expected)) in self.args.iter().zip(parameters) {
            let found = match arg {
                RawArg::Memory(_, dtype) => ARRAY + kind_of(*dtype),
                RawArg::U32(_) => kind_of(DType::U32),
                RawArg::U64(_) => kind_of(DType::U64),
                RawArg::F32(_) => kind_of(DType::F32),
                RawArg::I32(_) => I32,
            };
            // Kernels may read an array's bits as signed numbers.
            let signed = (*expected, found) == (ARRAY + I32, ARRAY + kind_of(DType::U32));
            if found != *expected && !signed {
                let (name, expected, found) = (name.to_string_lossy(), kind_name(*expected), kind_name(found));
                return Err(format!("`{name}` is {expected}, and {found} is given"));
            }
        }
        let [x, y] = grid.blocks;
        match () {
            () if grid.threads == 0 || !grid.threads.is_multiple_of(32) || grid.threads > 1024 => {
                Err(format!("blocks of {} threads: a multiple of 32 is needed, 1024 at most", grid.threads))
            }
            () if x == 0 || y == 0 => Err(format!("a grid of {x} x {y} blocks")),
            () if x > i32::MAX as u32 || y > 65_535 => {
                Err(format!("a grid of {x} x {y} blocks: at most 2147483647 x 65535 can be launched"))
            }
            () if grid.shared > 227 << 10 => {
                Err(format!("{} bytes of shared memory: a block has 227 KiB at most", grid.shared))
            }
            () => Ok(()),
        }
    }

    /// # Errors
    /// What the emulator found wrong.
    pub(super) fn run(&self, memories: &mut Memories, seed: u64, clock: &mut u32) -> Result<()> {
        for arg in &self.args {
            if let RawArg::Memory(span, dtype) = arg {
                memories.prepare(*span, dtype.size(), &self.name)?;
            }
        }
        let mut arguments = Vec::with_capacity(self.args.len());
        for (arg, (name, _)) in self.args.iter().zip(&self.compiled.parameters) {
            arguments.push(self.argument(*arg, name, memories)?);
        }
        let Grid { blocks, threads, shared } = self.grid;
        let launch = Blocks { blocks: blocks[0], blocks_y: blocks[1], threads, shared, seed };
        let mut why = [0 as c_char; 512];
        // SAFETY: the arguments fit the entry's parameters (`fits`); each place lies in memory that `memories`,
        // borrowed exclusively, holds for the length of the call; `why` has the room that is said.
        let failed =
            unsafe { emu_launch(self.compiled.entry, &launch, arguments.as_ptr(), clock, why.as_mut_ptr(), why.len()) };
        if failed == 0 {
            return Ok(());
        }
        // SAFETY: the emulator ends it with a zero.
        Err(mistake(format!("{}: {}", self.name, unsafe { text(why.as_ptr()) })))
    }

    fn argument(&self, arg: RawArg, name: &CStr, memories: &mut Memories) -> Result<Argument> {
        use std::ptr::{null, null_mut};
        let name = name.as_ptr();
        let number = |number: u64| Argument {
            data: null_mut(),
            cells: null_mut(),
            bytes: 0,
            shift: 0,
            name,
            array: null(),
            number,
        };
        Ok(match arg {
            RawArg::U32(x) => number(x.into()),
            RawArg::U64(x) => number(x),
            RawArg::I32(x) => number(x.cast_unsigned().into()),
            RawArg::F32(x) => number(x.to_bits().into()),
            RawArg::Memory(span, _) => {
                let Place { data, cells, shift, name: array } = memories.place(span, &self.name)?;
                Argument { data, cells, bytes: span.bytes as u64, shift: shift as u64, array, ..number(0) }
            }
        })
    }
}
