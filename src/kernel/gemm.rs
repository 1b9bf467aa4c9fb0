//! f32 matrix products on the CPU whose every element is summed over k in one fixed order, whatever the number
//! of rows, columns or threads: a row decoded alone has the same bits as in a batch.
//!
//! Owns blocking and threads; packing is `packed.rs`'s, the innermost tile `tile.rs`'s. No other device, no
//! differentiation.

use super::awake::each;
use super::packed::{KC, pack_rows, packed_panel, write};
pub use super::packed::{Mat, Packed};
use super::tile::{MR, NR, Tile};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows of A that one task walks over a panel of B.
const MC: usize = 20 * MR;
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
    Packed(&'a Packed),
    /// Packed by each task a panel at a time, in memory that the caches hold.
    Plain(Mat<'a>),
}

impl Right<'_> {
    /// (k, n)
    fn sizes(&self) -> (usize, usize) {
        match self {
            Self::Packed(b) => (b.rows(), b.cols()),
            Self::Plain(b) => (b.rows, b.cols),
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
    let result = f(Right::Packed(&packed));
    SCRATCH.set(packed);
    result
}

/// C (+)= A · B for row-major C `[m, n]` with rows `ldc` floats apart.
pub fn matmul(a: Mat, b: Mat, c: &mut [f32], ldc: usize, start: Start) {
    with_right(a.rows, b, |b| run_on(a, b, 0, (c, ldc), start, threads(a.rows, b)));
}

/// As `matmul`, on this thread, with memory that the caller keeps: for the small products inside other kernels.
pub fn matmul_serial(a: Mat, b: Mat, c: &mut [f32], ldc: usize, start: Start, scratch: &mut Packed) {
    scratch.fill_on(b, false);
    run_on(a, Right::Packed(scratch), 0, (c, ldc), start, 1);
}

/// As `matmul`, on this thread, with B packed before and only from column `from` on: of those before some are computed,
/// some not.
pub fn matmul_packed_serial(a: Mat, b: &Packed, from: usize, c: &mut [f32], ldc: usize, start: Start) {
    run_on(a, Right::Packed(b), from / NR, (c, ldc), start, 1);
}

/// A · B `[m, n]` in new memory; `start` may not be `Accumulate`, for there is nothing yet.
pub fn product(a: Mat, b: Mat, start: Start) -> Vec<f32> {
    with_right(a.rows, b, |b| new_product(a, b, start))
}

/// As `product`, with B packed before.
pub fn product_packed(a: Mat, b: &Packed, start: Start) -> Vec<f32> {
    new_product(a, Right::Packed(b), start)
}

fn new_product(a: Mat, b: Right, start: Start) -> Vec<f32> {
    assert!(!matches!(start, Start::Accumulate), "a new product has nothing to add to");
    let (m, (_, n)) = (a.rows, b.sizes());
    let mut c: Vec<f32> = Vec::with_capacity(m * n);
    // SAFETY: C has room for m·n numbers, and `run` writes each of them: every rectangle first writes what its sums
    // start from, or has its first tiles start from 0.
    unsafe {
        run(a, b, 0, Out { data: c.as_mut_ptr(), ldc: n }, start, threads(m, b));
        c.set_len(m * n);
    }
    c
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
    let task = |t: usize| {
        let (rows, columns) = cut.task(t);
        let columns = first + columns.start..first + columns.end;
        // SAFETY: this rectangle lies inside C, and no other task has it.
        unsafe { rectangle(a, b, rows, columns, &out, start) };
    };
    if threads == 1 {
        (0..cut.tasks()).for_each(task);
    } else {
        each(cut.tasks(), task);
    }
}

/// How C is cut into rectangles of nearly one size, a multiple of as many as there are threads where it is large enough.
pub(super) struct Cut {
    rows: usize,
    /// Tiles of rows.
    tiles: usize,
    panels: usize,
    /// Pieces of the rows, each at most `MC`, and of the panels.
    down: usize,
    across: usize,
}

impl Cut {
    pub(super) fn new(rows: usize, panels: usize, threads: usize) -> Self {
        let down = rows.div_ceil(MC);
        let mut across = 1;
        if threads > 1 {
            // Of few rows many narrow tasks: a thread that comes late, or is held up, costs little.
            across = (if down == 1 { 8 } else { 2 } * threads).div_ceil(down);
            while !(down * across).is_multiple_of(threads) && down * across < 8 * threads {
                across += 1;
            }
        }
        Self { rows, tiles: rows.div_ceil(MR), panels, down, across: across.min(panels) }
    }

    pub(super) fn tasks(&self) -> usize {
        self.down * self.across
    }

    /// The rows and panels of task `t`: all of a piece of the rows before the next one.
    pub(super) fn task(&self, t: usize) -> (Range<usize>, Range<usize>) {
        let part = |of: usize, parts: usize, i: usize| of * i / parts..of * (i + 1) / parts;
        let tiles = part(self.tiles, self.down, t / self.across);
        let rows = tiles.start * MR..self.rows.min(tiles.end * MR);
        (rows, part(self.panels, self.across, t % self.across))
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

/// Some rows and panels of C.
///
/// # Safety
/// As `run`, for this rectangle, which no other thread may touch.
unsafe fn rectangle(a: Mat, b: Right, rows: Range<usize>, columns: Range<usize>, out: &Out, start: Start) {
    let (k, n) = b.sizes();
    let (i0, rows) = (rows.start, rows.len());
    let (from, to) = (columns.start * NR, n.min(columns.end * NR));
    let zero = matches!(start, Start::Zero) && k > 0;
    if !zero && !matches!(start, Start::Accumulate) {
        for i in i0..i0 + rows {
            // SAFETY: the row lies inside this rectangle.
            let row = unsafe { std::slice::from_raw_parts_mut(out.data.add(i * out.ldc + from).cast(), to - from) };
            begin(row, i, from, n, start);
        }
    }
    // Kept by the thread: what it packs has the same size again and again.
    thread_local!(static PACKED_A: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    thread_local!(static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    let (mut packed_a, mut packed_b) = (PACKED_A.take(), PANEL.take());
    for p0 in (0..k).step_by(KC) {
        let kc = KC.min(k - p0);
        // Rows of A that are contiguous in k are read in place; a transposed A is copied into tiles of MR rows.
        let in_place = a.cs == 1;
        if !in_place {
            pack_rows(a, i0, rows, p0, kc, &mut packed_a);
        }
        for panel in columns.clone() {
            let j0 = panel * NR;
            let width = NR.min(n - j0);
            let panel = match b {
                Right::Packed(b) => b.panel(p0, panel),
                Right::Plain(b) => packed_panel(b, p0..p0 + kc, j0, &mut packed_b),
            };
            let mut i = 0;
            while i < rows {
                let height = height(rows - i, in_place);
                let (tile_a, rs, cs) =
                    if in_place { (&a.data[(i0 + i) * a.rs + p0..], a.rs, 1) } else { (&packed_a[i * kc..], 1, MR) };
                let (a, b) = (tile_a.as_ptr(), panel.as_ptr());
                // SAFETY: the tile lies inside this rectangle; `tile_a` holds `height` rows of `kc` (checked by
                // `Mat::check` or packed just above).
                unsafe {
                    let c = out.data.add((i0 + i) * out.ldc + j0);
                    Tile { a, rs, cs, b, k: kc, c, ldc: out.ldc }.run(height, width, zero && p0 == 0);
                }
                i += height;
            }
        }
    }
    PACKED_A.set(packed_a);
    PANEL.set(packed_b);
}

/// Rows of the next tile where this many are left: 13 are better two tiles of 7 and 6 than of 12 and 1, for a tile of one
/// row waits for each of its additions. Packed tiles have MR rows throughout.
fn height(left: usize, in_place: bool) -> usize {
    if in_place && left < 3 * MR { left.div_ceil(left.div_ceil(MR)) } else { MR.min(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::rng::Key;

    fn random(n: usize, key: u64) -> Vec<f32> {
        (0..n).map(|i| Key::new(key).normal(i as u64) as f32).collect()
    }

    #[test]
    fn products_match_a_double_loop_for_every_layout() {
        crate::kernel::simd::forced::at_every_level(|_| matches_a_double_loop());
    }

    fn matches_a_double_loop() {
        for (m, n, k) in [(1, 1, 1), (1, 33, 7), (13, 31, 300), (25, 64, 257), (120, 40, 16), (3, 100, 0)] {
            let (a, b, c) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
            let expect = |i: usize, j: usize, from: f32| {
                (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum::<f64>() + f64::from(from)
            };
            let a_t: Vec<f32> = (0..k * m).map(|x| a[x % m * k + x / m]).collect();
            let b_t: Vec<f32> = (0..n * k).map(|x| b[x % k * n + x / k]).collect();
            let bias = random(n, 4);
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                let left = if ta { Mat::new(&a_t, k, m).t() } else { Mat::new(&a, m, k) };
                let right = if tb { Mat::new(&b_t, n, k).t() } else { Mat::new(&b, k, n) };
                let starts = [
                    (Start::Zero, "zero"),
                    (Start::Bias(&bias), "bias"),
                    (Start::Rows(&c), "rows"),
                    (Start::Accumulate, "accumulate"),
                ];
                for (start, name) in starts {
                    let mut out = c.clone();
                    matmul(left, right, &mut out, n, start);
                    for i in 0..m {
                        for j in 0..n {
                            let from = match start {
                                Start::Zero => 0.0,
                                Start::Bias(b) => b[j],
                                Start::Rows(_) | Start::Accumulate => c[i * n + j],
                            };
                            let (got, want) = (f64::from(out[i * n + j]), expect(i, j, from));
                            assert!(
                                (got - want).abs() < 1e-4,
                                "{m}x{n}x{k} {ta} {tb} {name} ({i},{j}): {got} for {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_matrix_grown_by_columns_equals_one_packed_at_once() {
        let (m, n, k) = (4, 70, 16);
        let (a, b_t) = (random(m * k, 1), random(n * k, 2));
        let mut grown = Packed::growing(k);
        b_t.chunks(k).for_each(|column| grown.push_column(column));
        let (mut x, mut y) = (vec![0.0; m * n], vec![0.0; m * n]);
        matmul_packed_serial(Mat::new(&a, m, k), &grown, 0, &mut x, n, Start::Zero);
        matmul(Mat::new(&a, m, k), Mat::new(&b_t, n, k).t(), &mut y, n, Start::Zero);
        assert_eq!(x, y);
        let mut last = vec![0.0; m * n];
        matmul_packed_serial(Mat::new(&a, m, k), &grown, 40, &mut last, n, Start::Zero);
        last.chunks(n).zip(y.chunks(n)).for_each(|(x, y)| assert_eq!((x[0], &x[40..]), (0.0, &y[40..])));
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_in_a_batch() {
        let (m, n, k) = (128, 200, 700);
        let (a, b) = (random(m * k, 5), random(k * n, 6));
        let mut all = vec![0.0; m * n];
        matmul(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut all, n, Start::Zero);
        let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
        let mut one_thread = vec![0.0; m * n];
        single.install(|| matmul(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut one_thread, n, Start::Zero));
        assert_eq!(all, one_thread);
        for i in 0..m {
            let mut row = vec![0.0; n];
            matmul(Mat::new(&a[i * k..(i + 1) * k], 1, k), Mat::new(&b, k, n), &mut row, n, Start::Zero);
            assert_eq!(row, all[i * n..(i + 1) * n], "row {i}");
        }
    }
}
