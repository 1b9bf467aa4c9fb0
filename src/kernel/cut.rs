//! How the result of a matrix product is cut over threads.
//!
//! Owns sizes alone: no cut changes a bit of the product.

use super::tile::MR;
use std::ops::Range;

/// Most rows of A that one task walks over a panel of B.
pub(super) const MC: usize = 20 * MR;

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
