//! Kernels from text to machine code, by NVRTC, on any machine: no GPU is needed.
//!
//! Owns how kernels are compiled, what the assembler says of them, and the cache of what was compiled. Kernels are
//! compiled for one architecture each, straight to machine code: a driver older than the compiler still loads that.

use super::libraries::libraries;
use super::source;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::gpu::catalogue::LIST;
use cudarc::nvrtc::{result, sys};
use rayon::prelude::*;
use std::ffi::{CStr, CString, c_char, c_int};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Beside the architecture and the definitions. No sum is fused that the text does not fuse: so a kernel without tensor
/// cores comes to the same bits wherever it is compiled.
const OPTIONS: [&str; 4] = ["--std=c++17", "--fmad=false", "-default-device", "--ptxas-options=-v"];

/// What a cached file begins with.
const MARK: &str = "rhopo kernel";

/// What the assembler says of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub function: String,
    /// Of a thread.
    pub registers: u32,
    /// Bytes of a thread that found no register, written and read.
    pub spilled: u64,
    /// Bytes of a block that the kernel declares itself.
    pub shared: u64,
}

/// A file's machine code.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub code: Vec<u8>,
    pub functions: Vec<Usage>,
    /// It had been compiled before.
    pub cached: bool,
}

/// A file of the list, compiled.
#[derive(Debug, Clone)]
pub struct Build {
    pub file: &'static str,
    pub definitions: &'static str,
    pub compiled: Compiled,
    pub seconds: f64,
}

/// Compiles files of `kernels/` and keeps what comes out.
#[derive(Debug)]
pub struct Compiler {
    /// Of NVRTC.
    version: &'static str,
    /// Without one, nothing is kept.
    folder: Option<PathBuf>,
}

impl Compiler {
    /// With the user's cache.
    ///
    /// # Errors
    /// No NVRTC on this machine.
    pub fn new() -> Result<Self> {
        Ok(Self { version: &libraries().compiler.require()?.version, folder: Self::cache_folder() })
    }

    /// Keeps what it compiles in a folder.
    ///
    /// # Errors
    /// No NVRTC on this machine.
    pub fn keeping_in(folder: PathBuf) -> Result<Self> {
        Ok(Self { folder: Some(folder), ..Self::new()? })
    }

    /// The user's cache of compiled kernels.
    pub fn cache_folder() -> Option<PathBuf> {
        Some(files::cache_folder()?.join("kernels"))
    }

    /// Where it keeps what it compiles.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Of NVRTC.
    pub fn version(&self) -> &str {
        self.version
    }

    /// The architectures that this NVRTC knows and kernels can be compiled for, without the letters that may follow:
    /// `sm_90`.
    ///
    /// # Errors
    /// NVRTC fails.
    pub fn architectures(&self) -> Result<Vec<String>> {
        let mut count: c_int = 0;
        // SAFETY: NVRTC is there; the pointer is to a number of the type that it writes.
        unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }.result().map_err(failed)?;
        let mut numbers: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the list has room for as many numbers as NVRTC said.
        unsafe { sys::nvrtcGetSupportedArchs(numbers.as_mut_ptr()) }.result().map_err(failed)?;
        /// Of the first that multiplies bf16 and copies asynchronously.
        const LEAST: c_int = 80;
        Ok(numbers.iter().filter(|number| **number >= LEAST).map(|number| format!("sm_{number}")).collect())
    }

    /// Compiles a file with definitions (`X=float Y=bf16`), or takes it from the cache.
    ///
    /// # Errors
    /// A text that does not compile; a cache that cannot be written.
    pub fn compile(&self, file: &str, definitions: &str, architecture: &str) -> Result<Compiled> {
        let text = source::text(file).ok_or_else(|| Error::new(Kind::Internal, format!("no kernel file `{file}`")))?;
        let mut options = vec![format!("--gpu-architecture={architecture}")];
        options.extend(OPTIONS.map(str::to_string));
        options.extend(definitions.split_whitespace().map(|definition| format!("-D{definition}")));
        let name = format!("{file}-{architecture}-{:016x}", hash(&(text, source::HEADERS, &options, self.version)));
        let path = self.folder.as_ref().map(|folder| folder.join(name));
        if let Some(compiled) = path.as_ref().and_then(|path| cached(path)) {
            return Ok(compiled);
        }
        let what = if definitions.is_empty() { format!("{file}.cu") } else { format!("{file}.cu ({definitions})") };
        let (log, code) = Program::new(file, text)?.compile(&options, &format!("{what} for {architecture}"))?;
        if let Some(path) = path {
            let path = files::anywhere(path);
            path.folder().map_or(Ok(()), |folder| files::create_folder(&folder))?;
            files::write(&path, packed(&log, &code))?;
        }
        Ok(Compiled { functions: usages(&log), code, cached: false })
    }

    /// Compiles every file with every set of definitions that the list has, on all threads, in the list's order.
    ///
    /// # Errors
    /// Those of `compile`.
    pub fn compile_all(&self, architecture: &str) -> Result<Vec<Build>> {
        let all: Vec<_> = LIST.iter().flat_map(|&(file, each)| each.iter().map(move |&with| (file, with))).collect();
        let build = |&(file, definitions): &(&'static str, &'static str)| {
            let start = Instant::now();
            let compiled = self.compile(file, definitions, architecture)?;
            Ok(Build { file, definitions, compiled, seconds: start.elapsed().as_secs_f64() })
        };
        all.par_iter().map(build).collect()
    }
}

fn failed(e: result::NvrtcError) -> Error {
    Error::new(Kind::Device, format!("NVRTC failed: {e}"))
}

fn hash(of: &impl Hash) -> u64 {
    // Its keys are fixed: the same in every run of this binary, which is all that a cache needs.
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A text that NVRTC has taken, until it is dropped.
struct Program {
    program: sys::nvrtcProgram,
}

impl Program {
    fn new(file: &str, text: &str) -> Result<Self> {
        let text_of = |text: &str| CString::new(text).map_err(|_| Error::new(Kind::Internal, "a zero in a kernel"));
        let (name, text) = (text_of(&format!("{file}.cu"))?, text_of(text)?);
        let names = source::HEADERS.iter().map(|(name, _)| text_of(name)).collect::<Result<Vec<_>>>()?;
        let texts = source::HEADERS.iter().map(|(_, text)| text_of(text)).collect::<Result<Vec<_>>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
        let (names, texts, count) = (pointers(&names), pointers(&texts), source::HEADERS.len() as c_int);
        let mut program = std::ptr::null_mut();
        // SAFETY: NVRTC is there, and copies the texts, all of which end in a zero and live until it returns.
        let made = unsafe {
            sys::nvrtcCreateProgram(&mut program, text.as_ptr(), name.as_ptr(), count, texts.as_ptr(), names.as_ptr())
        };
        made.result().map_err(failed)?;
        Ok(Self { program })
    }

    /// The log and the machine code.
    fn compile(&self, options: &[String], what: &str) -> Result<(String, Vec<u8>)> {
        // SAFETY: the program lives.
        let compiled = unsafe { result::compile_program(self.program, options) };
        // SAFETY: the program lives.
        let log = unsafe { result::get_program_log(self.program) }.map_err(failed)?;
        let log = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect::<Vec<u8>>();
        let log = String::from_utf8_lossy(&log).into_owned();
        if let Err(e) = compiled {
            // SAFETY: gives a text that lives for ever.
            let why = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(e.0)) }.to_string_lossy();
            return Err(Error::new(Kind::Device, format!("{what} does not compile: {why}\n{}", log.trim_end())));
        }
        let mut bytes = 0;
        // SAFETY: the program lives, and was compiled for a real architecture.
        unsafe { sys::nvrtcGetCUBINSize(self.program, &mut bytes) }.result().map_err(failed)?;
        let mut code = vec![0u8; bytes];
        // SAFETY: there is room for as many bytes as NVRTC said.
        unsafe { sys::nvrtcGetCUBIN(self.program, code.as_mut_ptr().cast()) }.result().map_err(failed)?;
        Ok((log, code))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program lives until here. There is nothing to do about one that cannot be destroyed.
        let _ = unsafe { result::destroy_program(self.program) };
    }
}

/// A file of the cache: a line with a checksum and the length of the log, the log, the machine code.
fn packed(log: &str, code: &[u8]) -> Vec<u8> {
    let rest = [log.as_bytes(), code].concat();
    let head = format!("{MARK} {:016x} {}\n", hash(&(log.len(), &rest)), log.len());
    [head.into_bytes(), rest].concat()
}

/// The log and the machine code; none of a file that is not as it was written.
fn unpacked(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.strip_prefix(MARK)?;
    let (sum, length) = head.trim_start().split_once(' ')?;
    let (length, rest): (usize, _) = (length.parse().ok()?, &bytes[end + 1..]);
    let whole = u64::from_str_radix(sum, 16).ok()? == hash(&(length, rest));
    let (log, code) = rest.split_at_checked(length).filter(|_| whole)?;
    Some((std::str::from_utf8(log).ok()?, code))
}

fn cached(path: &Path) -> Option<Compiled> {
    let bytes = files::bytes(&files::anywhere(path)).ok()?;
    let (log, code) = unpacked(&bytes)?;
    Some(Compiled { functions: usages(log), code: code.to_vec(), cached: true })
}

/// What the assembler says (`-v`) of each function, in its order.
fn usages(log: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        if let Some((_, name)) = line.split_once("Function properties for ") {
            let frame = lines.next().unwrap_or_default();
            let spilled = before(frame, " bytes spill stores") + before(frame, " bytes spill loads");
            found.push(Usage { function: name.trim().to_string(), spilled, ..Usage::default() });
        } else if let (Some((_, used)), Some(last)) = (line.split_once(": Used "), found.last_mut()) {
            last.registers = before(used, " registers") as u32;
            last.shared = before(used, " bytes smem");
        }
    }
    found
}

/// The number that stands before a word; 0 where there is none.
fn before(line: &str, word: &str) -> u64 {
    let number = line.split_once(word).and_then(|(front, _)| front.rsplit([' ', ',']).next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_words_are_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'f' for 'sm_90a'\n\
                   ptxas info    : Function properties for f\n\
                   \x20   8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n\
                   ptxas info    : Used 255 registers, used 1 barriers, 8 bytes cumulative stack size, 128 bytes smem\n\
                   ptxas info    : Compiling entry function 'g' for 'sm_90a'\n\
                   ptxas info    : Function properties for g\n\
                   \x20   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 32 registers, 400 bytes cmem[0]\n";
        let usage = |function: &str, registers, spilled, shared| Usage {
            function: function.into(),
            registers,
            spilled,
            shared,
        };
        assert_eq!(usages(log), [usage("f", 255, 28, 128), usage("g", 32, 0, 0)]);
    }

    #[test]
    fn a_broken_file_of_the_cache_is_none() {
        let bytes = packed("log\nof two lines", &[0, 10, 255]);
        assert_eq!(unpacked(&bytes), Some(("log\nof two lines", &[0, 10, 255][..])));
        for cut in 0..bytes.len() {
            assert_eq!(unpacked(&bytes[..cut]), None, "{cut} bytes");
            let mut other = bytes.clone();
            other[cut] ^= 1;
            assert_eq!(unpacked(&other), None, "byte {cut}");
        }
    }
}
