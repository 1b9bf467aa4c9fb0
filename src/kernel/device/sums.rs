//! Sums on a device: of two gradients, over the rows of a matrix, and of a bias and every row.

use super::launch::{over_numbers, over_rows};
use crate::error::Result;
use crate::gpu::{Arg, Array, DType, Grid, Kernel};

/// x + y of one shape, in x's type.
pub(in crate::kernel) fn add(x: &Array, y: &Array) -> Result<Array> {
    let sum = x.gpu().empty("a sum", x.dtype(), x.dims())?;
    let kernel = Kernel::typed("add", "add", &[("X", x.dtype()), ("Y", y.dtype())]);
    over_numbers(x.gpu(), &kernel, x.len(), &[x.into(), y.into(), (&sum).into(), x.len().into()])?;
    Ok(sum)
}

/// sum += x, in place.
pub(in crate::kernel) fn add_into(sum: &Array, x: &Array) -> Result<()> {
    let kernel = Kernel::typed("add", "add_into", &[("X", sum.dtype()), ("Y", x.dtype())]);
    over_numbers(sum.gpu(), &kernel, sum.len(), &[sum.into(), x.into(), sum.len().into()])
}

/// y `[N,W]` += b `[W]` f32 in every row, in place.
pub(in crate::kernel) fn add_bias(y: &Array, b: &Array) -> Result<()> {
    let (rows, width) = y.dims2()?;
    let kernel = Kernel::typed("bias", "add_bias", &[("X", y.dtype())]);
    over_rows(y.gpu(), &kernel, [rows, width], &[y.into(), b.into(), width.into()])
}

/// db `[W]` f32 += the sum of the rows of dy `[N,W]`.
pub(in crate::kernel) fn bias_gradient(db: &Array, dy: &Array) -> Result<()> {
    let (rows, _) = dy.dims2()?;
    add_column_sums(&Kernel::typed("column_sums", "sum_columns", &[("X", dy.dtype())]), db, rows, &[dy.into()])
}

/// into `[W]` f32 += a sum over `rows` rows in a fixed order: `kernel` takes `args`, then where it leaves the sums of slabs
/// of rows, the number of rows, W, and the rows of a slab.
pub(super) fn add_column_sums(kernel: &Kernel, into: &Array, rows: usize, args: &[Arg]) -> Result<()> {
    const SLAB: usize = 64;
    const THREADS: u32 = 256;
    const COLUMNS: usize = 32; // of a block of `add_partials`
    let (gpu, width) = (into.gpu(), into.len());
    let (slabs, blocks) = (rows.div_ceil(SLAB), width.div_ceil(THREADS as usize));
    if slabs * blocks == 0 {
        return Ok(());
    }
    let partial = gpu.empty("partial sums", DType::F32, &[slabs, width])?;
    let more = [(&partial).into(), rows.into(), width.into(), SLAB.into()];
    let grid = Grid { blocks: [slabs as u32, blocks as u32], threads: THREADS, shared: 0 };
    gpu.launch(kernel, grid, &[args, &more].concat())?;
    let last = Kernel::typed("column_sums", "add_partials", &[("X", DType::F32)]);
    let args = [(&partial).into(), into.into(), slabs.into(), width.into()];
    gpu.launch(&last, Grid::of(width.div_ceil(COLUMNS), THREADS), &args)
}
