//! Matrices in memory, and B in the order in which the tiles of a product read it.
//!
//! Owns packing; `gemm.rs` multiplies.

use super::awake::each_block;
use super::tile::{LINE, NR};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Depth of one block: a packed panel of it (KC × NR floats) stays in the first-level cache.
pub(super) const KC: usize = 256;
/// Numbers from which on packing is worth several threads.
const PARALLEL: usize = 100_000;

/// A matrix in memory: element (i, j) is `data[i * rs + j * cs]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub rs: usize,
    pub cs: usize,
}

impl<'a> Mat<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows `stride` floats apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        let mat = Self { data, rows, cols, rs: stride, cs: 1 };
        mat.check();
        mat
    }

    /// The transpose: the same memory.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, rs: self.cs, cs: self.rs, ..self }
    }

    pub(super) fn check(&self) {
        let last = if self.rows == 0 || self.cols == 0 {
            0
        } else {
            (self.rows - 1) * self.rs + (self.cols - 1) * self.cs + 1
        };
        assert!(last <= self.data.len(), "matrix reaches past its data");
    }
}

/// B `[k, n]` in the order in which the tiles read it: blocks of KC rows, in each panels of NR columns.
pub struct Packed {
    k: usize,
    n: usize,
    data: Vec<f32>,
}

impl Packed {
    pub fn new(b: Mat) -> Self {
        let mut packed = Self::scratch();
        packed.fill(b);
        packed
    }

    /// An empty one, to be filled again and again without new memory.
    pub const fn scratch() -> Self {
        Self { k: 0, n: 0, data: Vec::new() }
    }

    /// An empty one of `k` rows (at most one block deep) whose columns come one by one: a cache of keys.
    pub fn growing(k: usize) -> Self {
        assert!(k <= KC, "a growing matrix is one block deep");
        Self { k, n: 0, data: Vec::new() }
    }

    /// Adds a column to a growing matrix.
    pub fn push_column(&mut self, column: &[f32]) {
        assert_eq!(column.len(), self.k, "length of a column");
        let j = self.n % NR;
        if j == 0 {
            self.data.resize((self.n + NR) * self.k, 0.0);
        }
        let panel = &mut self.data[(self.n - j) * self.k..];
        column.iter().enumerate().for_each(|(p, x)| panel[p * NR + j] = *x);
        self.n += 1;
    }

    /// Takes the numbers of `b`, in the memory that it has where they fit.
    pub fn fill(&mut self, b: Mat) {
        self.fill_on(b, b.rows * b.cols >= PARALLEL);
    }

    pub(super) fn fill_on(&mut self, b: Mat, parallel: bool) {
        (self.k, self.n) = (b.rows, b.cols);
        let panels = self.n.div_ceil(NR);
        let size = self.k * panels * NR;
        self.data.clear();
        self.data.reserve(size);
        let blocks = self.data.spare_capacity_mut()[..size].chunks_mut((KC * panels * NR).max(1)).enumerate();
        for (block, out) in blocks {
            let (p0, kc) = (block * KC, out.len() / (panels * NR).max(1));
            let fill = |panel: usize, out: &mut [MaybeUninit<f32>]| pack_panel(b, p0, panel * NR, out);
            if parallel {
                each_block(out, kc * NR, fill);
            } else {
                out.chunks_mut(kc * NR).enumerate().for_each(|(panel, out)| fill(panel, out));
            }
        }
        // SAFETY: the panels of all blocks cover `size` numbers, and `pack_panel` wrote each of theirs.
        unsafe { self.data.set_len(size) };
    }

    #[cfg(test)]
    pub fn numbers(&self) -> &[f32] {
        &self.data
    }

    pub fn rows(&self) -> usize {
        self.k
    }

    pub fn cols(&self) -> usize {
        self.n
    }

    pub fn all(&self) -> Columns<'_> {
        self.columns(0..self.n)
    }

    /// Some of its columns, whole panels of them.
    pub fn columns(&self, range: Range<usize>) -> Columns<'_> {
        let whole = |end: usize| end.is_multiple_of(NR) || end == self.n;
        assert!(whole(range.start) && whole(range.end) && range.end <= self.n, "columns of a packed matrix");
        Columns { of: self, first: range.start / NR, n: range.len() }
    }
}

/// Columns of a packed matrix, read where they lie.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    of: &'a Packed,
    /// Panels before them.
    first: usize,
    n: usize,
}

impl<'a> Columns<'a> {
    pub fn rows(&self) -> usize {
        self.of.k
    }

    pub fn cols(&self) -> usize {
        self.n
    }

    /// Panel `panel` of the block that starts at row `p0`, `[kc, NR]`.
    pub(super) fn panel(&self, p0: usize, panel: usize) -> &'a [f32] {
        let Packed { k, n, data } = self.of;
        let (panels, kc) = (n.div_ceil(NR), KC.min(k - p0));
        let at = p0 * panels * NR + (self.first + panel) * kc * NR;
        &data[at..at + kc * NR]
    }
}

/// Copies numbers into memory that holds none yet.
pub(super) fn write(row: &mut [MaybeUninit<f32>], from: &[f32]) {
    row.iter_mut().zip(from).for_each(|(x, y)| *x = MaybeUninit::new(*y));
}

/// Writes the numbers of one panel: as many rows as `out` holds from row `p0` on, NR columns from `j0` on.
fn pack_panel(b: Mat, p0: usize, j0: usize, out: &mut [MaybeUninit<f32>]) {
    let width = NR.min(b.cols - j0);
    if b.cs == 1 {
        for (p, row) in out.chunks_exact_mut(NR).enumerate() {
            let at = (p0 + p) * b.rs + j0;
            if width == NR {
                write(row, &b.data[at..at + NR]);
                continue;
            }
            write(&mut row[..width], &b.data[at..at + width]);
            row[width..].fill(MaybeUninit::new(0.0));
        }
        return;
    }
    if width < NR {
        out.fill(MaybeUninit::new(0.0));
    }
    // A line of each column after the other, into memory that stays in the first-level cache meanwhile.
    let mut p = p0;
    for out in out.chunks_mut(LINE * NR) {
        match <&mut [_; LINE * NR]>::try_from(&mut *out) {
            Ok(out) if b.rs == 1 => {
                for j in 0..width {
                    let line = &b.data[(j0 + j) * b.cs + p..][..LINE];
                    for (i, x) in line.iter().enumerate() {
                        out[i * NR + j] = MaybeUninit::new(*x);
                    }
                }
            }
            _ => {
                for (i, row) in out.chunks_exact_mut(NR).enumerate() {
                    for (j, x) in row[..width].iter_mut().enumerate() {
                        *x = MaybeUninit::new(b.data[(j0 + j) * b.cs + (p + i) * b.rs]);
                    }
                }
            }
        }
        p += LINE;
    }
}

/// The panel of these rows and of NR columns from `j0` on, in memory that is kept.
pub(super) fn packed_panel<'a>(b: Mat, rows: Range<usize>, j0: usize, memory: &'a mut Vec<f32>) -> &'a [f32] {
    let size = rows.len() * NR;
    memory.clear();
    memory.reserve(size);
    pack_panel(b, rows.start, j0, &mut memory.spare_capacity_mut()[..size]);
    // SAFETY: `pack_panel` wrote all of them.
    unsafe { memory.set_len(size) };
    memory
}
