//! A of a product as its tiles read it: where it lies, or, of a transpose, packed some blocks of k at a time.
//!
//! Owns packing; `gemm.rs` multiplies. B is packed by `packed.rs`.

use super::awake::each_block;
use super::packed::{KC, Mat};
use super::tile::MR;
use std::ops::Range;

/// Numbers from one tile to the next: a line more than it holds. A multiple of 4 KiB apart, tiles that are written side by
/// side would drive each other out of the first-level cache.
const STRIDE: usize = KC * MR + 16;
/// Tiles that are written side by side: what they read of a row of A's transpose is whole lines.
const TOGETHER: usize = 8;
/// Most numbers that are packed at a time, but for one block, which may have more: they stay in the caches (4 MiB).
const NUMBERS: usize = 1 << 20;

/// A of a product.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// Contiguous in k: read where it lies.
    Rows(Mat<'a>),
    /// A transpose, of which some blocks were copied into tiles, once for all tasks.
    Tiles(&'a Tiles),
}

impl<'a> Left<'a> {
    /// What a tile reads from row i and column p0 on, and how far apart its rows and columns are.
    pub(super) fn tile(&self, i: usize, p0: usize) -> (&'a [f32], usize, usize) {
        match self {
            Self::Rows(a) => (&a.data[i * a.rs + p0..], a.rs, 1),
            Self::Tiles(tiles) => (tiles.tile(i, p0), 1, MR),
        }
    }

    /// Rows of the next tile where this many are left: 13 are better two tiles of 7 and 6 than of 12 and 1, for a tile of
    /// one row waits for each of its additions. Copied tiles have MR rows throughout.
    pub(super) fn height(&self, left: usize) -> usize {
        match self {
            Self::Rows(_) if left < 3 * MR => left.div_ceil(left.div_ceil(MR)),
            _ => MR.min(left),
        }
    }
}

/// Tiles of MR rows and KC columns, each with its rows side by side.
pub(super) struct Tiles {
    /// The first column of A.
    from: usize,
    /// Tiles of a block.
    tiles: usize,
    data: Vec<f32>,
}

impl Tiles {
    /// An empty one, to be filled again and again without new memory.
    pub(super) const fn scratch() -> Self {
        Self { from: 0, tiles: 0, data: Vec::new() }
    }

    /// How many columns of an A of so many rows are packed at a time.
    pub(super) fn depth(rows: usize) -> usize {
        (NUMBERS / KC / rows.max(1)).max(1) * KC
    }

    /// Takes some columns of `a`, from the start of a block on.
    pub(super) fn fill(&mut self, a: Mat, columns: Range<usize>, parallel: bool) {
        self.from = columns.start;
        self.tiles = a.rows.div_ceil(MR).next_multiple_of(TOGETHER);
        let size = columns.len().div_ceil(KC) * self.tiles * STRIDE;
        if self.data.len() < size {
            self.data.resize(size, 0.0);
        }
        let tiles = self.tiles;
        let pack = |part: usize, out: &mut [f32]| {
            let (block, tile) = (part * TOGETHER / tiles, part * TOGETHER % tiles);
            let p0 = columns.start + block * KC;
            pack_tiles(a, tile * MR, p0..columns.end.min(p0 + KC), out);
        };
        if parallel {
            each_block(&mut self.data[..size], TOGETHER * STRIDE, pack);
        } else {
            self.data[..size].chunks_mut(TOGETHER * STRIDE).enumerate().for_each(|(part, out)| pack(part, out));
        }
    }

    /// The tile that starts with row i, from column p0 of A on.
    fn tile(&self, i: usize, p0: usize) -> &[f32] {
        let p = p0 - self.from;
        &self.data[(p / KC * self.tiles + i / MR) * STRIDE..][p % KC * MR..]
    }
}

/// One block's columns in the rows from `i0` on, as many tiles of them as `out` has room for.
fn pack_tiles(a: Mat, i0: usize, columns: Range<usize>, out: &mut [f32]) {
    // Column by column: of a transpose one row after the other is read.
    for (p, column) in columns.enumerate() {
        for (tile, i) in out.chunks_exact_mut(STRIDE).zip((i0..a.rows).step_by(MR)) {
            let to = &mut tile[p * MR..(p + 1) * MR];
            let at = i * a.rs + column * a.cs;
            if a.rs == 1 && i + MR <= a.rows {
                to.copy_from_slice(&a.data[at..at + MR]);
                continue;
            }
            for (i, x) in to[..MR.min(a.rows - i)].iter_mut().enumerate() {
                *x = a.data[at + i * a.rs];
            }
        }
    }
}
