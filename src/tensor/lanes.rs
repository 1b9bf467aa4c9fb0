//! Operations along one axis, or over all cells: one driver for values and gradients.
//!
//! Owns no operation; those are in `reduce`. Lanes (the cells along the axis) are computed in tiles of eight beside each
//! other, which is a vector of the machine; what a lane gives does not depend on those beside it.

use crate::error::Result;
use crate::tensor::blocks::{BLOCK, Cell, make_chunks};
use crate::tensor::cells::{Cells, Numbers};
use crate::tensor::create::count;
use crate::tensor::{DType, Tensor, shape, tape};
use std::borrow::Cow;

/// What one lane becomes, written once for `K` lanes beside each other: `x[i][k]` is cell `i` of lane `k`.
pub(crate) trait Lane {
    /// Whether a lane becomes one cell.
    const REDUCES: bool;
    /// Whether `slope` looks at `x`; else it is empty.
    const SLOPE_READS: bool;

    /// Fills `out` (one cell, or as many as the lane) from `x`.
    fn value<const K: usize>(x: &[[f64; K]], out: &mut [[f64; K]]);

    /// Fills `grad` from upstream `g` and `x`. A lane whose upstream is zero everywhere gets zero whatever it gives.
    fn slope<const K: usize>(g: &[[f64; K]], x: &[[f64; K]], grad: &mut [[f64; K]]);
}

/// Lanes of a tile.
const TILE: usize = 8;

/// A [`Lane`] at both widths; `lane_op!` makes one.
pub(crate) struct LaneOp {
    pub one: OfLanes<1>,
    pub tile: OfLanes<TILE>,
    pub reduces: bool,
    pub slope_reads: bool,
}

/// `(upstream, x, gradient)`.
type Slope<const K: usize> = fn(&[[f64; K]], &[[f64; K]], &mut [[f64; K]]);

pub(crate) struct OfLanes<const K: usize> {
    pub value: fn(&[[f64; K]], &mut [[f64; K]]),
    pub slope: Slope<K>,
}

/// A [`LaneOp`] of a type that implements [`Lane`], compiled for every instruction set.
macro_rules! lane_op {
    ($lane:ty) => {{
        use $crate::tensor::lanes::{Lane, LaneOp, OfLanes};
        $crate::tensor::simd::simd! {
            fn value_of_one(x: &[[f64; 1]], out: &mut [[f64; 1]]) { <$lane as Lane>::value(x, out) }
        }
        $crate::tensor::simd::simd! {
            fn value_of_tile(x: &[[f64; 8]], out: &mut [[f64; 8]]) { <$lane as Lane>::value(x, out) }
        }
        $crate::tensor::simd::simd! {
            fn slope_of_one(g: &[[f64; 1]], x: &[[f64; 1]], grad: &mut [[f64; 1]]) { <$lane as Lane>::slope(g, x, grad) }
        }
        $crate::tensor::simd::simd! {
            fn slope_of_tile(g: &[[f64; 8]], x: &[[f64; 8]], grad: &mut [[f64; 8]]) { <$lane as Lane>::slope(g, x, grad) }
        }
        LaneOp {
            one: OfLanes { value: value_of_one, slope: slope_of_one },
            tile: OfLanes { value: value_of_tile, slope: slope_of_tile },
            reduces: <$lane as Lane>::REDUCES,
            slope_reads: <$lane as Lane>::SLOPE_READS,
        }
    }};
}
pub(crate) use lane_op;

/// How a row-major array splits into lanes: cell `i` of a lane stands at `outer·n·inner + i·inner + k`.
#[derive(Clone, Copy)]
pub(crate) struct Lanes {
    pub outer: usize,
    pub n: usize,
    pub inner: usize,
}

impl Lanes {
    fn lanes(self) -> usize {
        self.outer * self.inner
    }

    /// The same lanes with `n` cells each.
    fn of(self, n: usize) -> Self {
        Self { n, ..self }
    }

    /// `K` lanes from `first` on.
    fn load<const K: usize>(self, from: Numbers, first: usize, to: &mut Vec<[f64; K]>) {
        to.resize(self.n, [0.0; K]);
        match from {
            Numbers::F32(x) => self.gather(x, first, to, f64::from),
            Numbers::F64(x) => self.gather(x, first, to, |x| x),
        }
    }

    fn gather<T: Copy, const K: usize>(self, from: &[T], first: usize, to: &mut [[f64; K]], wide: impl Fn(T) -> f64) {
        let starts: [usize; K] = std::array::from_fn(|k| {
            let lane = first + k;
            lane / self.inner * self.n * self.inner + lane % self.inner
        });
        let last = (self.n - 1) * self.inner + 1;
        let lanes = starts.map(|start| &from[start..start + last]);
        for (i, cells) in to.iter_mut().enumerate() {
            *cells = std::array::from_fn(|k| wide(lanes[k][i * self.inner]));
        }
    }

    /// From lane by lane to the array's own order.
    fn restore<T: Cell>(self, cells: Vec<T>) -> Vec<T> {
        if self.inner == 1 || self.n == 1 {
            return cells;
        }
        transposed(&cells, self.outer, self.inner, self.n)
    }
}

/// Where lanes are taken from.
pub(crate) trait Source: Copy + Sync {
    /// `K` lanes from `first` on; `to` may hold anything.
    fn tile<const K: usize>(self, lanes: Lanes, first: usize, to: &mut Vec<[f64; K]>);

    /// All cells.
    fn wide<'a>(self) -> Cow<'a, [f64]>
    where
        Self: 'a;
}

impl Source for Numbers<'_> {
    fn tile<const K: usize>(self, lanes: Lanes, first: usize, to: &mut Vec<[f64; K]>) {
        lanes.load(self, first, to);
    }

    fn wide<'a>(self) -> Cow<'a, [f64]>
    where
        Self: 'a,
    {
        Numbers::wide(self)
    }
}

/// A lane by itself: the only one of a long array on all cores, and in place where it stands so.
fn one<'a, S: Source + 'a>(from: S, lanes: Lanes, lane: usize, room: &'a mut Vec<[f64; 1]>) -> Cow<'a, [f64]> {
    if lanes.lanes() == 1 && lanes.n > BLOCK {
        return from.wide();
    }
    from.tile(lanes, lane, room);
    Cow::Borrowed(room.as_flattened())
}

/// `[batch,m,n]` to `[batch,n,m]`.
pub(crate) fn transposed<T: Cell>(from: &[T], batch: usize, m: usize, n: usize) -> Vec<T> {
    /// A square of cells stays in the first-level cache.
    const SIDE: usize = 16;
    let strip = |chunk: usize, to: &mut [T]| {
        let (entry, first) = (chunk / n.div_ceil(SIDE), chunk % n.div_ceil(SIDE) * SIDE);
        let from = &from[entry * m * n..(entry + 1) * m * n];
        for i in (0..m).step_by(SIDE) {
            for (j, to) in to.chunks_exact_mut(m).enumerate() {
                for (i, to) in to.iter_mut().enumerate().skip(i).take(SIDE) {
                    *to = from[i * n + first + j];
                }
            }
        }
    };
    debug_assert_eq!(from.len(), batch * m * n);
    if n.is_multiple_of(SIDE) || batch == 1 {
        return make_chunks(from.len(), SIDE * m, from.len(), strip);
    }
    // Chunks must not reach over the end of an entry.
    let entries: Vec<Vec<T>> = from.chunks_exact((m * n).max(1)).map(|entry| transposed(entry, 1, m, n)).collect();
    entries.concat()
}

/// Applies `op` along `axis`, which stays as an axis of length 1 where the op reduces.
pub(crate) fn along(op: &'static LaneOp, name: &str, x: &Tensor, axis: i64) -> Result<Tensor> {
    let at = shape::axis(name, x.dims(), axis)?;
    let dims = x.dims();
    let lanes = Lanes { outer: dims[..at].iter().product(), n: dims[at], inner: dims[at + 1..].iter().product() };
    let mut out = dims.to_vec();
    if op.reduces {
        out[at] = 1;
    }
    run(op, x, lanes, &out)
}

/// Applies `op` to all cells at once: a reduction gives one number of shape `[]`.
pub(crate) fn over_all(op: &'static LaneOp, x: &Tensor) -> Result<Tensor> {
    run(op, x, Lanes { outer: 1, n: x.len(), inner: 1 }, if op.reduces { &[] } else { x.dims() })
}

fn run(op: &'static LaneOp, x: &Tensor, lanes: Lanes, dims: &[usize]) -> Result<Tensor> {
    count(dims)?;
    let cells = Cells::of(x.data())?;
    let held = cells.read();
    let m = if op.reduces { 1 } else { lanes.n };
    let result = match x.dtype() {
        DType::F64 => Tensor::from_vec_f64(values(op, lanes, m, held.numbers()), dims, x.device())?,
        _ => Tensor::from_vec(values(op, lanes, m, held.numbers()), dims, x.device())?,
    };
    let result = result.with_tokens(x.is_tokens() && !op.reduces);
    Ok(tape::record(result, &[x], |_, _| {
        let x = x.data().clone();
        move |upstream| {
            let cells = Cells::of(&x)?;
            let held = cells.read();
            Ok(vec![slopes(op, lanes, m, held.numbers(), &upstream)])
        }
    }))
}

/// `m` cells for every lane, lane by lane.
pub(crate) fn values<T: Cell>(op: &LaneOp, lanes: Lanes, m: usize, x: impl Source) -> Vec<T> {
    if lanes.n == 0 {
        let mut y = vec![[0.0]; m];
        (op.one.value)(&[], &mut y);
        return y.iter().cycle().take(lanes.lanes() * m).map(|[y]| T::narrow(*y)).collect();
    }
    let cells = by_chunks(lanes, m, |first, out| {
        let (mut one_x, mut one_y) = (Vec::new(), vec![[0.0]; m]);
        let (mut tile_x, mut tile_y) = (Vec::new(), vec![[0.0; TILE]; m]);
        for (i, out) in out.chunks_mut(TILE * m).enumerate() {
            let first = first + i * TILE;
            if out.len() == TILE * m {
                x.tile(lanes, first, &mut tile_x);
                (op.tile.value)(&tile_x, &mut tile_y);
                scatter(&tile_y, out, |y, _| T::narrow(y));
                continue;
            }
            for (k, out) in out.chunks_mut(m).enumerate() {
                (op.one.value)(one(x, lanes, first + k, &mut one_x).as_chunks().0, &mut one_y);
                scatter(&one_y, out, |y, _| T::narrow(y));
            }
        }
    });
    lanes.of(m).restore(cells)
}

fn slopes(op: &LaneOp, lanes: Lanes, m: usize, x: Numbers, upstream: &[f64]) -> Vec<f64> {
    let n = lanes.n;
    if n == 0 {
        return Vec::new();
    }
    let upstream = Numbers::F64(upstream);
    let cells = by_chunks(lanes, n, |first, out: &mut [f64]| {
        let (mut one_g, mut one_x) = (Vec::new(), Vec::new());
        let (mut tile_g, mut tile_x, mut tile) = (Vec::new(), Vec::new(), Vec::new());
        for (i, out) in out.chunks_mut(TILE * n).enumerate() {
            let first = first + i * TILE;
            if out.len() == TILE * n {
                lanes.of(m).load(upstream, first, &mut tile_g);
                let live: [bool; TILE] = std::array::from_fn(|k| tile_g.iter().any(|g| g[k] != 0.0));
                if live == [false; TILE] {
                    continue;
                }
                if op.slope_reads {
                    lanes.load(x, first, &mut tile_x);
                }
                tile.resize(n, [0.0; TILE]);
                (op.tile.slope)(&tile_g, &tile_x, &mut tile);
                scatter(&tile, out, |d, k| if live[k] { d } else { 0.0 });
                continue;
            }
            for (k, out) in out.chunks_mut(n).enumerate() {
                let g = one(upstream, lanes.of(m), first + k, &mut one_g);
                if g.iter().all(|g| *g == 0.0) {
                    continue;
                }
                let x = if op.slope_reads { one(x, lanes, first + k, &mut one_x) } else { Cow::default() };
                (op.one.slope)(g.as_chunks().0, x.as_chunks().0, out.as_chunks_mut().0);
            }
        }
    });
    lanes.restore(cells)
}

/// `m` cells for every lane, lane by lane: `fill(first lane, cells)` for whole tiles.
fn by_chunks<T: Cell>(lanes: Lanes, m: usize, fill: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    let tiles = (BLOCK / (TILE * lanes.n)).max(1);
    make_chunks(lanes.lanes() * m, tiles * TILE * m, lanes.lanes() * lanes.n, |i, out| fill(i * tiles * TILE, out))
}

/// `out[k·m + i]` from cell `i` of lane `k`.
fn scatter<T, const K: usize>(from: &[[f64; K]], out: &mut [T], make: impl Fn(f64, usize) -> T) {
    for (k, out) in out.chunks_exact_mut(from.len().max(1)).enumerate() {
        out.iter_mut().zip(from).for_each(|(out, cells)| *out = make(cells[k], k));
    }
}
