//! f32 matrix products on the CPU whose every element is summed over k in one fixed order, whatever the number
//! of rows, columns or threads: a row decoded alone has the same bits as in a batch.
//!
//! Owns blocking; how C is cut over threads is `cut.rs`'s, packing `packed.rs`'s, the innermost tile `tile.rs`'s. No other
//! device, no differentiation.

use super::awake::each;
use super::cut::{Cut, MC};
pub use super::packed::{Columns, Mat, Packed};
use super::packed::{KC, packed_panel, write};
use super::quantised::{DEPTH, Matrix};
use super::tile::{LINE, NR, Tile};
use super::tiles::{Left, Tiles};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Below this many multiplications a product runs on the calling thread, unless it reads at least `READ` numbers of B:
/// a row or two against a large weight is not much to compute, but long to read.
const SERIAL: usize = 400_000;
const READ: usize = 100_000;

/// What the sum over k starts from.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// Each row starts from these `[n]` numbers.
    Bias(&'a [f32]),
    /// Each row starts from its own row of this `[m,n]` matrix.
    Rows(&'a [f32]),
    /// What C holds already.
    Accumulate,
}

/// B of a product.
#[derive(Clone, Copy)]
enum Right<'a> {
    Packed(Columns<'a>),
    /// Packed by each task a panel at a time, in memory that the caches hold.
    Plain(Mat<'a>),
    /// Kept in few bits: unpacked by each task, as a plain one is packed.
    Quantised(&'a Matrix),
}

impl Right<'_> {
    /// (k, n)
    fn sizes(&self) -> (usize, usize) {
        match self {
            Self::Packed(b) => (b.rows(), b.cols()),
            Self::Plain(b) => (b.rows, b.cols),
            Self::Quantised(b) => (b.rows(), b.cols()),
        }
    }

    /// Rows of a block.
    fn depth(&self) -> usize {
        match self {
            Self::Packed(_) | Self::Plain(_) => KC,
            Self::Quantised(_) => DEPTH,
        }
    }

    /// Step number `step` through `blocks` × `panels` in the order in which B lies in memory: its block and its panel.
    fn at(&self, step: usize, blocks: usize, panels: usize) -> (usize, usize) {
        match self {
            Self::Packed(_) | Self::Plain(_) => (step / panels, step % panels),
            Self::Quantised(_) => (step % blocks, step / blocks),
        }
    }

    /// Rows `rows`, one block, of a panel, `[kc, NR]`: where they lie, or made in `memory`.
    fn panel<'m>(&'m self, rows: Range<usize>, panel: usize, memory: &'m mut Vec<f32>) -> &'m [f32] {
        match self {
            Self::Packed(b) => b.panel(rows.start, panel),
            Self::Plain(b) => packed_panel(*b, rows, panel * NR, memory),
            Self::Quantised(b) => {
                memory.resize(DEPTH * NR, 0.0);
                b.panel(panel, rows.start, rows.len(), memory)
            }
        }
    }
}

/// Calls `f` with B packed where many rows read it, else as it is.
fn with_right<T>(rows: usize, b: Mat, f: impl FnOnce(Right) -> T) -> T {
    // Kept from call to call: packing into new memory costs as much as the packing itself. It is taken out while in
    // use, because this thread may be given another product to do while it waits for its own.
    thread_local!(static SCRATCH: RefCell<Packed> = const { RefCell::new(Packed::scratch()) });
    if rows <= MC {
        return f(Right::Plain(b));
    }
    let mut packed = SCRATCH.replace(Packed::scratch());
    packed.fill(b);
    let result = f(Right::Packed(packed.all()));
    SCRATCH.set(packed);
    result
}

/// C (+)= A · B for row-major C `[m, n]` with rows `ldc` floats apart.
pub fn matmul(a: Mat, b: Mat, c: &mut [f32], ldc: usize, start: Start) {
    with_right(a.rows, b, |b| run_on(a, b, 0, (c, ldc), start, threads(a.rows, b)));
}

/// As `matmul`, with B packed before.
pub fn matmul_packed(a: Mat, b: &Packed, c: &mut [f32], ldc: usize, start: Start) {
    let b = Right::Packed(b.all());
    run_on(a, b, 0, (c, ldc), start, threads(a.rows, b));
}

/// As `matmul`, by columns packed before, added to what C holds.
pub fn matmul_columns(a: Mat, b: Columns, c: &mut [f32], ldc: usize) {
    let b = Right::Packed(b);
    run_on(a, b, 0, (c, ldc), Start::Accumulate, threads(a.rows, b));
}

/// As `matmul`, on this thread, with memory that the caller keeps: for the small products inside other kernels.
pub fn matmul_serial(a: Mat, b: Mat, c: &mut [f32], ldc: usize, start: Start, scratch: &mut Packed) {
    scratch.fill_on(b, false);
    run_on(a, Right::Packed(scratch.all()), 0, (c, ldc), start, 1);
}

/// As `matmul`, on this thread, with B packed before and only from column `from` on: of those before some are computed,
/// some not.
pub fn matmul_packed_serial(a: Mat, b: &Packed, from: usize, c: &mut [f32], ldc: usize, start: Start) {
    run_on(a, Right::Packed(b.all()), from / NR, (c, ldc), start, 1);
}

/// A · B `[m, n]` in new memory; `start` may not be `Accumulate`, for there is nothing yet.
pub fn product(a: Mat, b: Mat, start: Start) -> Vec<f32> {
    with_right(a.rows, b, |b| new_product(a, b, start))
}

/// As `product`, with B packed before.
pub fn product_packed(a: Mat, b: &Packed, start: Start) -> Vec<f32> {
    new_product(a, Right::Packed(b.all()), start)
}

/// As `product`, by columns packed before, in place of what `c` held.
pub fn product_into(a: Mat, b: Columns, start: Start, c: &mut Vec<f32>) {
    fill_product(a, Right::Packed(b), start, c);
}

/// As `product`, with a B in few bits.
pub fn product_quantised(a: Mat, b: &Matrix, start: Start) -> Vec<f32> {
    new_product(a, Right::Quantised(b), start)
}

fn new_product(a: Mat, b: Right, start: Start) -> Vec<f32> {
    let mut c = Vec::new();
    fill_product(a, b, start, &mut c);
    c
}

fn fill_product(a: Mat, b: Right, start: Start, c: &mut Vec<f32>) {
    assert!(!matches!(start, Start::Accumulate), "a new product has nothing to add to");
    let (m, (_, n)) = (a.rows, b.sizes());
    c.clear();
    c.reserve(m * n);
    // SAFETY: C has room for m·n numbers, and `run` writes each of them: every rectangle first writes what its sums
    // start from, or has its first tiles start from 0.
    unsafe {
        run(a, b, 0, Out { data: c.as_mut_ptr(), ldc: n }, start, threads(m, b));
        c.set_len(m * n);
    }
}

/// How many threads a product of `rows` rows is cut over.
fn threads(rows: usize, b: Right) -> usize {
    let (k, n) = b.sizes();
    let large = rows * n * k >= SERIAL || n * k >= READ;
    if large { rayon::current_num_threads() } else { 1 }
}

/// Runs on a C that exists.
fn run_on(a: Mat, b: Right, first: usize, (c, ldc): (&mut [f32], usize), start: Start, threads: usize) {
    let (m, (_, n)) = (a.rows, b.sizes());
    assert!(m == 0 || n == 0 || (n <= ldc && (m - 1) * ldc + n <= c.len()), "result of a matrix product");
    // SAFETY: C holds every row, as just checked.
    unsafe { run(a, b, first, Out { data: c.as_mut_ptr(), ldc }, start, threads) };
}

/// Where the tiles of C lie; tasks write disjoint ones.
struct Out {
    data: *mut f32,
    ldc: usize,
}
// SAFETY: every task is given its own rectangle of C.
unsafe impl Sync for Out {}

/// Computes the panels from number `first` on.
///
/// # Safety
/// `out` must be valid for writes of all m rows of n numbers, and for reads too with `Start::Accumulate`.
unsafe fn run(a: Mat, b: Right, first: usize, out: Out, start: Start, threads: usize) {
    let (m, (k, n)) = (a.rows, b.sizes());
    assert_eq!(a.cols, k, "inner sizes of a matrix product");
    a.check();
    let panels = n.div_ceil(NR).saturating_sub(first);
    if m == 0 || panels == 0 {
        return;
    }
    let cut = Cut::new(m, panels, threads);
    let run = |part: Part| {
        let task = |t: usize| {
            let (rows, columns) = cut.task(t);
            // SAFETY: this rectangle lies inside C, and no other task has it.
            unsafe { part.rectangle(rows, first + columns.start..first + columns.end) };
        };
        if threads == 1 {
            (0..cut.tasks()).for_each(task);
        } else {
            each(cut.tasks(), task);
        }
    };
    let out = &out;
    if a.cs == 1 || k == 0 {
        return run(Part { left: Left::Rows(a), right: b, k: 0..k, out, start });
    }
    // Kept from call to call, and taken out while in use, as in `with_right`.
    thread_local!(static TILES: RefCell<Tiles> = const { RefCell::new(Tiles::scratch()) });
    let mut tiles = TILES.replace(Tiles::scratch());
    let depth = Tiles::depth(m);
    for p0 in (0..k).step_by(depth) {
        let part = p0..k.min(p0 + depth);
        tiles.fill(a, part.clone(), threads > 1);
        let start = if p0 == 0 { start } else { Start::Accumulate };
        run(Part { left: Left::Tiles(&tiles), right: b, k: part, out, start });
    }
    TILES.set(tiles);
}

/// A product, over whole blocks of k.
struct Part<'a> {
    left: Left<'a>,
    right: Right<'a>,
    k: Range<usize>,
    out: &'a Out,
    /// From what the sums start in the first of the blocks.
    start: Start<'a>,
}

impl Part<'_> {
    /// Some rows and panels of C; the rows start with a tile.
    ///
    /// # Safety
    /// As `run`, for this rectangle, which no other thread may touch.
    unsafe fn rectangle(&self, rows: Range<usize>, columns: Range<usize>) {
        let Part { left, right, out, start, .. } = *self;
        let (_, n) = right.sizes();
        let (from, to) = (columns.start * NR, n.min(columns.end * NR));
        let zero = matches!(start, Start::Zero) && !self.k.is_empty();
        if !zero && !matches!(start, Start::Accumulate) {
            for i in rows.clone() {
                // SAFETY: the row lies inside this rectangle.
                let row = unsafe { std::slice::from_raw_parts_mut(out.data.add(i * out.ldc + from).cast(), to - from) };
                begin(row, i, from, n, start);
            }
        }
        // Kept by the thread: what it packs has the same size again and again.
        thread_local!(static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
        let mut memory = PANEL.take();
        let (depth, blocks) = (right.depth(), self.k.len().div_ceil(right.depth()));
        let at = |step: usize| {
            let (block, panel) = right.at(step, blocks, columns.len());
            let p0 = self.k.start + block * depth;
            (p0..self.k.end.min(p0 + depth), columns.start + panel)
        };
        let steps = blocks * columns.len();
        for step in 0..steps {
            let (block, panel) = at(step);
            let (p0, kc, j0) = (block.start, block.len(), panel * NR);
            let width = NR.min(n - j0);
            let panel = right.panel(block, panel, &mut memory);
            // While this panel is multiplied, the next one is fetched: few rows would wait for every line of it.
            let mut next: &[f32] = match right {
                Right::Packed(b) if step + 1 < steps => {
                    let (block, panel) = at(step + 1);
                    b.panel(block.start, panel)
                }
                _ => &[],
            };
            let mut i = rows.start;
            while i < rows.end {
                let ahead = if next.is_empty() { std::ptr::null() } else { next.as_ptr() };
                next = next.get(kc * LINE..).unwrap_or_default();
                let height = left.height(rows.end - i);
                let (tile, rs, cs) = left.tile(i, p0);
                let (a, b) = (tile.as_ptr(), panel.as_ptr());
                // SAFETY: the tile lies inside this rectangle; `tile` holds `height` rows of `kc` (checked by `Mat::check`,
                // or copied before), and `panel` as many rows.
                unsafe {
                    let c = out.data.add(i * out.ldc + j0);
                    Tile { a, rs, cs, b, k: kc, c, ldc: out.ldc, ahead }.run(height, width, zero && p0 == 0);
                }
                i += height;
            }
        }
        PANEL.set(memory);
    }
}

/// Writes what the sums of C's row i start from, in the columns from j0 on.
fn begin(row: &mut [MaybeUninit<f32>], i: usize, j0: usize, n: usize, start: Start) {
    let columns = j0..j0 + row.len();
    match start {
        Start::Bias(bias) => write(row, &bias[columns]),
        Start::Rows(rows) => write(row, &rows[i * n..(i + 1) * n][columns]),
        Start::Zero => row.fill(MaybeUninit::new(0.0)),
        Start::Accumulate => {}
    }
}
