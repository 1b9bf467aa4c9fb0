//! Which packed tokens attention's kernels join on a device: the lists that they walk, made on the host.
//!
//! Owns the lists, and that they are made and uploaded once for all layers. What is done along them is `attention.rs`'s and
//! the kernels'.

use crate::error::Result;
use crate::gpu::{Array, Gpu};
use crate::kernel::segments::{Segment, Segments};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows of a block's own tile; `ROWS` of the kernels.
pub(super) const ROWS: usize = 64;

/// Entries that one block walks: longer lists are cut, and the sums of their parts added in order.
const MOST: usize = 32;

/// What a block does not write a part of; `NO_PART` of the kernels.
const NO_PART: u32 = u32::MAX;

/// Tiles of queries with the rows that they belong to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Queries {
    /// Four numbers each: the first query, how many, the place of the first in its row, and where the row's ranges are.
    pub(super) items: Vec<u32>,
    /// Start and length of each range of tokens.
    pub(super) ranges: Vec<u32>,
}

impl Queries {
    /// Tiles of at most `rows` queries of every segment, those with the most keys first.
    pub(super) fn new(segments: &Segments, rows: usize) -> Self {
        let mut queries = Self::default();
        let mut tiles = Vec::new();
        for segment in segments.iter() {
            let at = queries.ranges.len() / 2;
            queries.ranges.extend(whole(segment).iter().flat_map(|range| [range.start as u32, range.len() as u32]));
            tiles.extend(cut(segment, rows).map(|tile| (tile, at)));
        }
        tiles.sort_by_key(|(tile, _)| Reverse(tile.place + tile.count)); // stable
        let item = |(tile, at): (Tile, usize)| [tile.first, tile.count, tile.place, at].map(|x| x as u32);
        queries.items = tiles.into_iter().flat_map(item).collect();
        queries
    }
}

/// Some tokens of a segment, the first of them at a place of its row.
#[derive(Debug, Clone, Copy)]
struct Tile {
    first: usize,
    count: usize,
    place: usize,
}

fn cut(segment: &Segment, rows: usize) -> impl Iterator<Item = Tile> {
    let (range, context) = (segment.range(), segment.context_len());
    range.clone().step_by(rows).map(move |first| Tile {
        first,
        count: rows.min(range.end - first),
        place: context + first - range.start,
    })
}

/// The ranges of a segment's row, its own last.
fn whole(segment: &Segment) -> Vec<Range<usize>> {
    segment.context.iter().cloned().chain([segment.range()]).collect()
}

/// Tiles of keys with the queries that see them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Keys {
    /// Five numbers each: the first key, how many, where its entries are, how many of them, and the part that they sum.
    pub(super) items: Vec<u32>,
    /// Six numbers each: the first query, how many, the place of the first in its row, the place that the tile's first
    /// key would have in that row (signed), and the first of the tile's keys that the row has and the one after the last.
    pub(super) entries: Vec<u32>,
    /// Four numbers for each tile whose entries were cut: the first key, how many, the first part, how many parts.
    pub(super) sums: Vec<u32>,
    pub(super) parts: usize,
}

impl Keys {
    /// Lists of at most `most` entries, the longest first.
    fn new(segments: &Segments, most: usize) -> Self {
        let tiles: Vec<Tile> = segments.iter().flat_map(|segment| cut(segment, ROWS)).collect();
        // Tiles lie in the order of tokens: that of a token is the last one that begins no later.
        let tile_of = |token: usize| tiles.partition_point(|tile| tile.first <= token) - 1;
        let mut entries: Vec<Vec<[u32; 6]>> = vec![Vec::new(); tiles.len()];
        for segment in segments.iter() {
            let ranges = whole(segment);
            for queries in cut(segment, ROWS) {
                let mut before = 0;
                for range in &ranges {
                    let end = range.end.min(range.start + (queries.place + queries.count).saturating_sub(before));
                    let seen = if range.start < end { tile_of(range.start)..tile_of(end - 1) + 1 } else { 0..0 };
                    for (tile, entries) in tiles[seen.clone()].iter().zip(&mut entries[seen]) {
                        let from = range.start.saturating_sub(tile.first);
                        let to = tile.count.min(range.end - tile.first);
                        let place = (before + tile.first) as i64 - range.start as i64;
                        let Tile { first, count, place: query } = queries;
                        entries.push([first as u32, count as u32, query as u32, place as u32, from as u32, to as u32]);
                    }
                    before += range.len();
                }
            }
        }
        let mut order: Vec<usize> = (0..tiles.len()).collect();
        order.sort_by_key(|&i| Reverse(entries[i].len().min(most))); // stable
        let mut keys = Self::default();
        order.into_iter().for_each(|i| keys.add(tiles[i], &entries[i], most));
        keys
    }

    fn add(&mut self, tile: Tile, entries: &[[u32; 6]], most: usize) {
        let [first, count] = [tile.first as u32, tile.count as u32];
        if entries.len() > most {
            let parts = entries.len().div_ceil(most);
            self.sums.extend([first, count, self.parts as u32, parts as u32]);
        }
        for part in entries.chunks(most) {
            let number = if entries.len() > most { self.parts as u32 } else { NO_PART };
            self.parts += usize::from(number != NO_PART);
            self.items.extend([first, count, self.entries.len() as u32 / 6, part.len() as u32, number]);
            self.entries.extend(part.iter().flatten());
        }
    }
}

/// `Queries` on a device.
pub(super) struct QueryArrays {
    /// `[items,4]`
    pub(super) items: Array,
    /// `[ranges,2]`
    pub(super) ranges: Array,
}

impl QueryArrays {
    pub(super) fn upload(gpu: &Gpu, queries: &Queries) -> Result<Self> {
        Ok(Self { items: rows(gpu, &queries.items, 4)?, ranges: rows(gpu, &queries.ranges, 2)? })
    }
}

/// `Keys` on a device.
pub(super) struct KeyArrays {
    /// `[items,5]`
    pub(super) items: Array,
    /// `[entries,6]`
    pub(super) entries: Array,
    /// `[cut tiles,4]`
    pub(super) sums: Array,
    pub(super) parts: usize,
}

fn rows(gpu: &Gpu, numbers: &[u32], width: usize) -> Result<Array> {
    gpu.upload("lists of attention", numbers, &[numbers.len() / width, width])
}

/// The lists of some segments on each device that has asked for them.
#[derive(Default)]
pub(in crate::kernel) struct Lists {
    queries: PerDevice<QueryArrays>,
    keys: PerDevice<KeyArrays>,
}

impl Lists {
    pub(super) fn queries(&self, segments: &Segments, gpu: &Gpu) -> Result<Arc<QueryArrays>> {
        self.queries.get(gpu, || QueryArrays::upload(gpu, &Queries::new(segments, ROWS)))
    }

    pub(super) fn keys(&self, segments: &Segments, gpu: &Gpu) -> Result<Arc<KeyArrays>> {
        self.keys.get(gpu, || {
            let Keys { items, entries, sums, parts } = Keys::new(segments, MOST);
            let (items, entries, sums) = (rows(gpu, &items, 5)?, rows(gpu, &entries, 6)?, rows(gpu, &sums, 4)?);
            Ok(KeyArrays { items, entries, sums, parts })
        })
    }
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lists")
    }
}

/// The copy of a value that lies on each device.
struct PerDevice<T>(Mutex<Vec<(Gpu, Arc<T>)>>);

impl<T> Default for PerDevice<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PerDevice<T> {
    fn get(&self, gpu: &Gpu, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = all.iter().find(|(other, _)| other == gpu) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        all.push((gpu.clone(), made.clone()));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::ragged;
    use crate::tensor::rng::Key;

    /// Which tokens a token sees by the lists of queries.
    fn seen_by_queries(lists: &Queries, tokens: usize) -> Vec<u8> {
        let mut seen = vec![0; tokens * tokens];
        for item in lists.items.chunks_exact(4) {
            let [first, count, place, at] = [0, 1, 2, 3].map(|i| item[i] as usize);
            let row = lists.ranges[2 * at..].chunks_exact(2).flat_map(|r| r[0]..r[0] + r[1]);
            let row: Vec<u32> = row.take(place + count).collect();
            for i in 0..count {
                row[..=place + i].iter().for_each(|&key| seen[(first + i) * tokens + key as usize] += 1);
            }
        }
        seen
    }

    /// Which tokens a token sees by the lists of keys.
    fn seen_by_keys(lists: &Keys, tokens: usize) -> Vec<u8> {
        let mut seen = vec![0; tokens * tokens];
        for item in lists.items.chunks_exact(5) {
            let [first, list, count] = [0, 2, 3].map(|i| item[i] as usize);
            for entry in lists.entries[6 * list..6 * (list + count)].chunks_exact(6) {
                let [query, queries, place] = [0, 1, 2].map(|i| entry[i] as usize);
                for (i, key) in (0..queries).flat_map(|i| (entry[4]..entry[5]).map(move |key| (i, key))) {
                    let sees = i64::from(entry[3] as i32) + i64::from(key) <= (place + i) as i64;
                    seen[(query + i) * tokens + first + key as usize] += u8::from(sees);
                }
            }
        }
        seen
    }

    #[test]
    fn lists_join_what_segments_join() {
        for seed in 0..20 {
            let segments = ragged(Key::new(seed), 200);
            let expected = segments.visible(None);
            for rows in [1, 7, ROWS] {
                let queries = Queries::new(&segments, rows);
                assert!(seen_by_queries(&queries, segments.tokens()) == expected, "seed {seed}, tiles of {rows} rows");
            }
            for most in [1, 3, MOST] {
                let keys = Keys::new(&segments, most);
                assert!(seen_by_keys(&keys, segments.tokens()) == expected, "seed {seed}, lists of {most}");
                let parts: Vec<u32> = keys.items.chunks_exact(5).map(|i| i[4]).filter(|&p| p != NO_PART).collect();
                assert_eq!(parts, (0..keys.parts as u32).collect::<Vec<_>>());
                let summed: u32 = keys.sums.chunks_exact(4).map(|sum| sum[3]).sum();
                assert_eq!(summed as usize, keys.parts);
            }
        }
    }

    /// A context may be a part of an earlier segment.
    #[test]
    fn a_row_may_continue_the_middle_of_a_segment() {
        let segment = |start, len, context: &[Range<usize>]| Segment { start, len, context: context.to_vec() };
        let segments = vec![
            segment(0, 200, &[]),
            segment(200, 3, std::slice::from_ref(&(0..77))),
            segment(203, 90, &[10..77, 90..150]),
        ];
        let segments = Segments::new(segments).expect("segments in order");
        let queries = seen_by_queries(&Queries::new(&segments, ROWS), 293);
        assert!(queries == segments.visible(None) && seen_by_keys(&Keys::new(&segments, MOST), 293) == queries);
    }
}
