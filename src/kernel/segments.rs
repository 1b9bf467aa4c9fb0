//! How packed tokens see each other: segments, some of which continue a prefix that others continue too.
//!
//! Owns the layout only; `attention.rs` computes over it, `engine::solo::pack` makes it.

use super::device::Lists;
use crate::error::{Error, Kind, Result};
use std::ops::Range;
use std::sync::Arc;

/// A run of tokens `start..start+len`. Each sees all of `context` and, causally, its own segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub start: usize,
    pub len: usize,
    /// Earlier token ranges seen whole, in order of position.
    pub context: Vec<Range<usize>>,
}

impl Segment {
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    pub fn context_len(&self) -> usize {
        self.context.iter().map(Range::len).sum()
    }

    /// The ranges that token `last` of this segment sees, in order of position: the context, then the segment so
    /// far, without the first `before` tokens of all that.
    pub fn seen(&self, last: usize, before: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        skip(self.context.iter().cloned().chain(std::iter::once(self.start..last + 1)), before)
    }
}

/// How many of `seen` tokens, the last of which is the query's own, lie before its sliding window.
pub fn before_window(seen: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| seen.saturating_sub(window))
}

/// Ranges end to end, without their first `count` tokens.
pub fn skip(ranges: impl Iterator<Item = Range<usize>>, mut count: usize) -> impl Iterator<Item = Range<usize>> {
    ranges.filter_map(move |range| {
        let cut = count.min(range.len());
        count -= cut;
        (cut < range.len()).then_some(range.start + cut..range.end)
    })
}

/// Segments in token order, covering every token once. A tree is a run of segments that see no others.
#[derive(Debug, Clone)]
pub struct Segments {
    segments: Vec<Segment>,
    trees: Vec<Range<usize>>,
    tokens: usize,
    lists: Arc<Lists>,
}

impl Segments {
    pub fn new(segments: Vec<Segment>) -> Result<Self> {
        let mut tokens = 0;
        let mut trees: Vec<Range<usize>> = Vec::new();
        let mut tree_start = 0;
        for (i, segment) in segments.iter().enumerate() {
            if segment.context.is_empty() {
                trees.push(i..i + 1);
                tree_start = segment.start;
            }
            let inside = segment.context.iter().all(|c| c.start >= tree_start && c.end <= segment.start);
            if segment.start != tokens || segment.len == 0 || trees.is_empty() || !inside {
                return Err(Error::new(Kind::Internal, format!("segment {i} of a packed batch is out of order")));
            }
            if let Some(tree) = trees.last_mut() {
                tree.end = i + 1;
            }
            tokens += segment.len;
        }
        Ok(Self { segments, trees, tokens, lists: Arc::default() })
    }

    /// Each sequence on its own.
    pub fn separate(lengths: &[usize]) -> Result<Self> {
        let mut start = 0;
        let one = |&len: &usize| {
            start += len;
            Segment { start: start - len, len, context: Vec::new() }
        };
        Self::new(lengths.iter().map(one).collect())
    }

    /// N
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// What attention's kernels walk on a device, made when it is first asked for.
    pub(super) fn lists(&self) -> &Lists {
        &self.lists
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Segment> {
        self.segments.iter()
    }

    /// The segments of each tree with the tokens that the tree covers.
    pub fn trees(&self) -> impl ExactSizeIterator<Item = (Range<usize>, &[Segment])> {
        self.trees.iter().map(|tree| {
            let segments = &self.segments[tree.clone()];
            let end = segments.last().map_or(0, |s| s.start + s.len);
            (segments[0].start..end, segments)
        })
    }

    /// Which tokens token i sees, as rows of 0/1 bytes `[N,N]`: what the plain composition masks with. With a `window`
    /// these are the last `window` of its row up to itself.
    pub fn visible(&self, window: Option<usize>) -> Vec<u8> {
        let mut seen = vec![0; self.tokens * self.tokens];
        for segment in &self.segments {
            for i in segment.range() {
                let row = &mut seen[i * self.tokens..(i + 1) * self.tokens];
                let before = before_window(segment.context_len() + i + 1 - segment.start, window);
                segment.seen(i, before).for_each(|range| row[range].fill(1));
            }
        }
        seen
    }
}
