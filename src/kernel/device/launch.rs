//! How kernels over rows and over plain vectors are launched.
//!
//! Owns the number of threads of a row, which comes from its width alone: a row's sums have the same order in any company.

use crate::error::Result;
use crate::gpu::{Arg, Gpu, Grid, Kernel};

/// Numbers that a thread handles at a time: `EACH` of `gpu/kernels/vector.cuh`.
const EACH: usize = 8;

/// Queues a kernel that gives each of `rows` rows of `width` numbers a block of threads.
pub(super) fn over_rows(gpu: &Gpu, kernel: &Kernel, [rows, width]: [usize; 2], args: &[Arg]) -> Result<()> {
    if rows * width == 0 {
        return Ok(());
    }
    let threads = width.div_ceil(EACH).next_multiple_of(32).clamp(32, 1024);
    gpu.launch(kernel, Grid::of(rows, threads as u32), args)
}

/// Queues a kernel over `numbers` numbers, each by itself.
pub(super) fn over_numbers(gpu: &Gpu, kernel: &Kernel, numbers: usize, args: &[Arg]) -> Result<()> {
    if numbers == 0 { Ok(()) } else { gpu.launch(kernel, Grid::over(numbers, EACH), args) }
}
