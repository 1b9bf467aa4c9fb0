//! x · W for a W in few bits, every element one chain of fused multiply-adds over k, as in `gemm.rs`: the same bits as
//! with the unpacked W, for any number of rows and threads.
//!
//! Owns threads and blocking; the innermost tile is `tile.rs`'s.

use super::matrix::Matrix;
use super::unpack::STEP;
use crate::error::{Error, Kind, Result};
use crate::kernel::awake::each;
use crate::kernel::form::Routine;
use crate::kernel::gemm::Cut;
use crate::kernel::host;
use crate::kernel::tile::{MR, NR, Tile};
use crate::kernel::value::Value;
use candle_core::Tensor;
use std::ops::Range;

/// Depth to which a panel is unpacked at a time: it stays in half of the first-level cache.
const DEPTH: usize = 4 * STEP;
/// Below this many multiplications a product runs on the calling thread.
const SERIAL: usize = 400_000;
/// What unpacking a number costs, in multiplications.
const UNPACKING: usize = 3;

/// What is added to a product: its sums start from it.
#[derive(Clone, Copy)]
pub enum Addend<'a> {
    None,
    /// `[out]`, to every row.
    Bias(&'a Tensor),
    /// `[N,out]`
    Rows(&'a Value),
}

/// x `[N,in]` · W `[in,out]` + addend → `[N,out]`. W gets no gradient and carries none.
pub struct Product<'a> {
    pub x: &'a Value,
    pub weight: &'a Matrix,
    pub addend: Addend<'a>,
}

impl Routine for Product<'_> {
    type Out = Tensor;

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        [self.x]
    }

    fn host(self) -> Result<Tensor> {
        let Self { x, weight, addend } = self;
        let (m, n) = (x.dim(0)?, weight.cols());
        let x = host::read(x.host()?)?;
        let mut out = match addend {
            Addend::None => vec![0.0; m * n],
            Addend::Bias(bias) => host::read(bias)?.repeat(m),
            Addend::Rows(rows) => host::read(rows.host()?)?.to_vec(),
        };
        multiply(&x, weight, &mut out, matches!(addend, Addend::None));
        host::tensor(out, &[m, n])
    }

    fn device(self) -> Result<Tensor> {
        Err(Error::new(Kind::Internal, "a quantised weight was given a value on a device"))
    }

    fn plain(self) -> Result<Tensor> {
        let Self { x, weight, addend } = self;
        let y = x.host()?.matmul(&weight.unpacked()?.t()?)?;
        Ok(match addend {
            Addend::None => y,
            Addend::Bias(bias) => y.broadcast_add(bias)?,
            Addend::Rows(rows) => (y + rows.host()?)?,
        })
    }
}

/// Where the tiles of the result lie; tasks write disjoint ones.
struct Out(*mut f32);
// SAFETY: every task is given its own rectangle of the result.
unsafe impl Sync for Out {}

/// out `[m,n]` += x `[m,k]` · W; `zero`: out holds zeros.
pub(super) fn multiply(x: &[f32], w: &Matrix, out: &mut [f32], zero: bool) {
    let (k, n) = (w.rows(), w.cols());
    let m = out.len() / n;
    assert!(x.len() == m * k && out.len() == m * n, "sizes of a quantised product");
    if m == 0 || k == 0 {
        return;
    }
    let threads = if (m + UNPACKING) * n * k < SERIAL { 1 } else { rayon::current_num_threads() };
    let cut = Cut::new(m, n.div_ceil(NR), threads);
    let out = Out(out.as_mut_ptr());
    let task = |t: usize| {
        let (rows, panels) = cut.task(t);
        // SAFETY: the rectangle lies inside the result, and no other task has it.
        unsafe { rectangle(x, w, rows, panels, &out, zero) };
    };
    if threads == 1 {
        (0..cut.tasks()).for_each(task);
    } else {
        each(cut.tasks(), task);
    }
}

/// # Safety
/// `out` must be valid for the rows of n numbers, which no other thread may touch in these panels' columns.
unsafe fn rectangle(x: &[f32], w: &Matrix, rows: Range<usize>, panels: Range<usize>, out: &Out, zero: bool) {
    #[repr(align(64))]
    struct Scratch([f32; DEPTH * NR]);
    let mut scratch = Scratch([0.0; DEPTH * NR]);
    let (k, n) = (w.rows(), w.cols());
    for panel in panels {
        let j0 = panel * NR;
        let width = NR.min(n - j0);
        for p0 in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - p0);
            let b = w.panel(panel, p0, depth, &mut scratch.0);
            for i in rows.clone().step_by(MR) {
                let height = MR.min(rows.end - i);
                let a = x[i * k + p0..].as_ptr();
                // SAFETY: the tile lies inside this rectangle; x holds `height` rows of `depth`, and `b` as many rows.
                unsafe {
                    let c = out.0.add(i * n + j0);
                    Tile { a, rs: k, cs: 1, b: b.as_ptr(), k: depth, c, ldc: n }.run(height, width, zero && p0 == 0);
                }
            }
        }
    }
}
