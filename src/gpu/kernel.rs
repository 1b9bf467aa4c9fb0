//! Kernels and how they are launched.
//!
//! Owns the description of a launch. Which kernels there are is `catalogue.rs`'s.

use super::array::{Array, DType};
use super::backend::{RawArg, Span};

/// A function of a source file of `kernels/`, compiled with definitions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    /// The file's name without `.cu`.
    pub file: &'static str,
    pub function: &'static str,
    /// As the catalogue has them: `X=float Y=bf16`.
    pub definitions: String,
}

impl Kernel {
    /// A function of a file that needs no definitions.
    pub fn plain(file: &'static str, function: &'static str) -> Self {
        Self { file, function, definitions: String::new() }
    }

    /// With names that stand for types.
    pub fn typed(file: &'static str, function: &'static str, types: &[(&str, DType)]) -> Self {
        let definition = |(name, dtype): &(&str, DType)| format!("{name}={}", dtype.c_name());
        let definitions = types.iter().map(definition).collect::<Vec<_>>().join(" ");
        Self { file, function, definitions }
    }

    /// With one definition more.
    pub fn with(mut self, name: &str, value: usize) -> Self {
        if !self.definitions.is_empty() {
            self.definitions.push(' ');
        }
        self.definitions.push_str(&format!("{name}={value}"));
        self
    }
}

/// How many blocks of how many threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub blocks: [u32; 2],
    /// Of a block: a multiple of 32, at most 1024.
    pub threads: u32,
    /// Bytes of memory that a block shares, beside what the kernel declares itself.
    pub shared: u32,
}

impl Grid {
    /// `blocks` blocks in a row.
    pub fn of(blocks: usize, threads: u32) -> Self {
        Self { blocks: [u32::try_from(blocks).unwrap_or(u32::MAX), 1], threads, shared: 0 }
    }

    /// Threads for `numbers` numbers, `each` of them to a thread.
    pub fn over(numbers: usize, each: usize) -> Self {
        const THREADS: u32 = 256;
        Self::of(numbers.div_ceil(each * THREADS as usize).max(1), THREADS)
    }
}

/// An argument of a kernel, in the order of its parameters.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    Array(&'a Array),
    U32(u32),
    U64(u64),
    I32(i32),
    F32(f32),
}

impl<'a> Arg<'a> {
    pub(super) fn array(&self) -> Option<&'a Array> {
        if let Self::Array(array) = *self { Some(array) } else { None }
    }

    pub(super) fn raw(&self) -> RawArg {
        match *self {
            Self::Array(a) => RawArg::Memory(a.span(), a.dtype()),
            Self::U32(x) => RawArg::U32(x),
            Self::U64(x) => RawArg::U64(x),
            Self::I32(x) => RawArg::I32(x),
            Self::F32(x) => RawArg::F32(x),
        }
    }
}

impl<'a> From<&'a Array> for Arg<'a> {
    fn from(a: &'a Array) -> Self {
        Self::Array(a)
    }
}

macro_rules! from_numbers {
    ($($number:ty, $arg:ident;)*) => {$(
        impl From<$number> for Arg<'_> {
            fn from(x: $number) -> Self {
                Self::$arg(x)
            }
        }
    )*};
}

from_numbers! {
    u32, U32;
    u64, U64;
    i32, I32;
    f32, F32;
}

/// A size: kernels take it as `u64`.
impl From<usize> for Arg<'_> {
    fn from(x: usize) -> Self {
        Self::U64(x as u64)
    }
}

impl Array {
    pub(super) fn span(&self) -> Span {
        Span { address: self.address(), offset: self.byte_offset(), bytes: self.bytes() }
    }
}
