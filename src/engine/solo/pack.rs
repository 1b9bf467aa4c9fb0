//! Rows → micro-batches → packed tokens: where rows are cut, what they share, and which logits are scored.
//!
//! Owns no computation. The cut depends on the rows and the token budget alone.

use crate::error::Result;
use crate::kernel::logprob::Targets;
use crate::kernel::segments::{Segment, Segments};
use crate::model::rows::Rows;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Which tokens of a row are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// Those with a successor in the completion: what a log-prob or a value belongs to, `[B,T]`.
    States,
    /// The last one that is not this padding token, `[B,1]`.
    Last(Option<u32>),
}

/// Rows of each micro-batch, in row order. A row costs the tokens it adds: its prompt only where an earlier row of
/// the micro-batch does not have it already.
pub fn micro_batches(rows: &Rows, budget: usize, measured: Measured, share: bool) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let (mut start, mut used) = (0, 0);
    let mut prompts: BTreeSet<&[u32]> = BTreeSet::new();
    for (i, row) in rows.iter().enumerate() {
        // A log-prob's last token predicts nothing and is not run.
        let own = match measured {
            Measured::States => row.completion.len().saturating_sub(1),
            Measured::Last(_) => row.completion.len(),
        };
        let fresh = if share && prompts.contains(&*row.prompt) { own } else { own + row.prompt.len() };
        if i > start && used + fresh > budget {
            cuts.push(start..i);
            (start, used) = (i, 0);
            prompts.clear();
        }
        prompts.insert(&row.prompt);
        used += if i == start { own + row.prompt.len() } else { fresh };
    }
    if start < rows.len() {
        cuts.push(start..rows.len());
    }
    cuts
}

/// The tokens of some rows without padding.
pub struct Pack {
    pub ids: Arc<[u32]>,
    pub positions: Vec<u32>,
    pub segments: Arc<Segments>,
    /// Tokens that are measured: indices into `ids`, `[U]`.
    pub scored: Arc<[u32]>,
    /// Pairs of an index into `scored` and the token that followed, `[P]`; without a successor the token itself.
    pub targets: Targets,
    /// Where each pair stands in the `[B,T]` (or `[B,1]`) of all rows.
    pub cells: Vec<(usize, usize)>,
}

impl Pack {
    /// Packs the rows of `range`; `None` where there is nothing to measure.
    pub fn new(
        rows: &Rows,
        range: Range<usize>,
        measured: Measured,
        temperature: f64,
        share: bool,
    ) -> Result<Option<Self>> {
        let mut build = Builder::default();
        for members in groups(rows, range, measured, share) {
            match measured {
                Measured::States => build.states(rows, &members),
                Measured::Last(padding) => build.last(rows, &members, padding),
            }
        }
        if build.cells.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            ids: build.ids.into(),
            positions: build.positions,
            segments: Arc::new(Segments::new(build.segments)?),
            scored: build.scored.into(),
            targets: Targets { rows: build.pairs.into(), tokens: build.tokens.into(), temperature },
            cells: build.cells,
        }))
    }
}

/// Rows with something to measure, those of equal prompts together, in order of first appearance.
fn groups(rows: &Rows, range: Range<usize>, measured: Measured, share: bool) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut place: std::collections::BTreeMap<&[u32], usize> = std::collections::BTreeMap::new();
    let counts = |i: &usize| measured != Measured::States || !rows[*i].completion.is_empty();
    for i in range.filter(counts) {
        match place.get(&*rows[i].prompt) {
            Some(&group) if share => groups[group].push(i),
            _ => {
                place.insert(&rows[i].prompt, groups.len());
                groups.push(vec![i]);
            }
        }
    }
    groups
}

#[derive(Default)]
struct Builder {
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
    scored: Vec<u32>,
    pairs: Vec<u32>,
    tokens: Vec<u32>,
    cells: Vec<(usize, usize)>,
}

impl Builder {
    /// A prompt and the completions that follow it. A completion's last token predicts nothing and is not run.
    fn states(&mut self, rows: &Rows, members: &[usize]) {
        let prompt = &rows[members[0]].prompt;
        let context = self.segment(prompt, 0, Vec::new());
        self.score(context.end - 1);
        for &i in members {
            self.pair(rows[i].completion[0], (i, 0));
        }
        for &i in members {
            let completion = &rows[i].completion;
            if completion.len() < 2 {
                continue;
            }
            let range = self.segment(&completion[..completion.len() - 1], prompt.len(), vec![context.clone()]);
            for (t, at) in range.enumerate() {
                self.score(at);
                self.pair(completion[t + 1], (i, t + 1));
            }
        }
    }

    /// A prompt and the completions that follow it, up to the last token that counts.
    fn last(&mut self, rows: &Rows, members: &[usize], padding: Option<u32>) {
        let counts = |tokens: &[u32]| tokens.iter().rposition(|&token| Some(token) != padding).map(|last| last + 1);
        let prompt = &rows[members[0]].prompt;
        let context = self.segment(prompt, 0, Vec::new());
        // Scored tokens stand in order of the packed ids: rows without a completion end with the prompt.
        let (empty, full): (Vec<usize>, Vec<usize>) =
            members.iter().partition(|&&i| counts(&rows[i].completion).is_none());
        let last = counts(prompt).unwrap_or(prompt.len()) - 1;
        if !empty.is_empty() {
            self.score(context.start + last);
        }
        for i in empty {
            self.pair(prompt[last], (i, 0));
        }
        for i in full {
            let completion = &rows[i].completion[..counts(&rows[i].completion).unwrap_or(0)];
            let range = self.segment(completion, prompt.len(), vec![context.clone()]);
            self.score(range.end - 1);
            self.pair(completion[completion.len() - 1], (i, 0));
        }
    }

    fn segment(&mut self, tokens: &[u32], position: usize, context: Vec<Range<usize>>) -> Range<usize> {
        let start = self.ids.len();
        self.ids.extend_from_slice(tokens);
        self.positions.extend((position..position + tokens.len()).map(|p| p as u32));
        self.segments.push(Segment { start, len: tokens.len(), context });
        start..self.ids.len()
    }

    fn score(&mut self, at: usize) {
        self.scored.push(at as u32);
    }

    fn pair(&mut self, token: u32, cell: (usize, usize)) {
        self.pairs.push(self.scored.len() as u32 - 1);
        self.tokens.push(token);
        self.cells.push(cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rows::Row;

    fn rows(list: &[(&[u32], &[u32])]) -> Arc<Rows> {
        Rows::new(list.iter().map(|(p, c)| Row::new(*p, *c)).collect())
    }

    #[test]
    fn a_shared_prompt_is_packed_once() {
        let rows = rows(&[(&[1, 2], &[3, 4, 5]), (&[9], &[8]), (&[1, 2], &[6, 7]), (&[7], &[])]);
        let pack = Pack::new(&rows, 0..4, Measured::States, 1.0, true).unwrap().unwrap();
        assert_eq!(*pack.ids, [1, 2, 3, 4, 6, 9]);
        assert_eq!(pack.positions, [0, 1, 2, 3, 2, 0]);
        assert_eq!(*pack.scored, [1, 2, 3, 4, 5]);
        assert_eq!(*pack.targets.rows, [0, 0, 1, 2, 3, 4]);
        assert_eq!(*pack.targets.tokens, [3, 6, 4, 5, 7, 8]);
        assert_eq!(pack.cells, [(0, 0), (2, 0), (0, 1), (0, 2), (2, 1), (1, 0)]);
        let apart = Pack::new(&rows, 0..4, Measured::States, 1.0, false).unwrap().unwrap();
        assert_eq!(*apart.ids, [1, 2, 3, 4, 9, 1, 2, 6]);
    }

    #[test]
    fn a_row_is_scored_at_its_last_token() {
        let rows = rows(&[(&[1, 2], &[3, 4]), (&[1, 2], &[]), (&[1, 2], &[5])]);
        let of = |padding| Pack::new(&rows, 0..3, Measured::Last(padding), 1.0, true).unwrap().unwrap();
        let pack = of(None);
        assert_eq!(*pack.ids, [1, 2, 3, 4, 5]);
        assert_eq!(*pack.scored, [1, 3, 4]);
        assert_eq!(pack.cells, [(1, 0), (0, 0), (2, 0)]);
        let pack = of(Some(4));
        assert_eq!((&*pack.ids, &*pack.scored), (&[1, 2, 3, 5][..], &[1, 2, 3][..]), "padding at the end is skipped");
        let pack = of(Some(5));
        assert_eq!((&*pack.ids, &*pack.scored), (&[1, 2, 3, 4][..], &[1, 3][..]));
        assert_eq!(pack.cells, [(1, 0), (2, 0), (0, 0)], "nothing is left of the last row's completion");
    }

    #[test]
    fn cuts_depend_on_rows_and_budget_alone() {
        let rows = rows(&[(&[1, 2], &[3, 4]), (&[1, 2], &[3, 4]), (&[1, 2], &[3, 4]), (&[5], &[6, 7, 8])]);
        assert_eq!(micro_batches(&rows, 100, Measured::States, true), Vec::from_iter(std::iter::once(0..4)));
        assert_eq!(micro_batches(&rows, 4, Measured::States, true), [0..2, 2..3, 3..4]);
        assert_eq!(micro_batches(&rows, 4, Measured::States, false), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(micro_batches(&rows, 1, Measured::States, true).len(), 4, "a row longer than the budget goes alone");
    }
}
