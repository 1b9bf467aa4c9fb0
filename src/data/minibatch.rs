//! Cutting a batch into mini-batches: shuffled from a key, every row once per epoch, a shorter last one kept.

use super::batch::Batch;
use crate::error::{Error, Result};
use crate::tensor::rng::Key;

const MOST_PARTS: usize = 1 << 16;

impl Batch {
    /// Mini-batches of `rows` rows, `epochs` times over, each epoch in an order of its own.
    pub fn minibatches(&self, rows: usize, epochs: usize, key: Key) -> Result<Vec<Batch>> {
        self.cut("minibatches", "rows", rows, 1, epochs, key)
    }

    /// Mini-batches of `groups` groups of `n` adjacent rows; groups stay whole and in order within.
    /// Without `n`, as many as `sample` made per prompt.
    pub fn minibatches_of_groups(
        &self,
        groups: usize,
        epochs: usize,
        n: Option<usize>,
        key: Key,
    ) -> Result<Vec<Batch>> {
        let n = n.or(self.group()).ok_or_else(|| {
            Error::value("minibatches_of_groups does not know how many rows make a group in this batch")
                .hint("give it as the third argument: b.minibatches_of_groups(groups, epochs, n)")
        })?;
        self.cut("minibatches_of_groups", "groups", groups, n, epochs, key)
    }

    /// Mini-batches of `pairs` pairs of rows (2k, 2k+1).
    pub fn minibatches_of_pairs(&self, pairs: usize, epochs: usize, key: Key) -> Result<Vec<Batch>> {
        self.cut("minibatches_of_pairs", "pairs", pairs, 2, epochs, key)
    }

    fn cut(&self, function: &str, what: &str, size: usize, unit: usize, epochs: usize, key: Key) -> Result<Vec<Batch>> {
        for (name, value) in [(what, size), ("epochs", epochs), ("n", unit)] {
            if value == 0 {
                return Err(Error::value(format!("{function}: {name} is 0, expected at least 1")));
            }
        }
        if !self.len().is_multiple_of(unit) {
            return Err(Error::shape(format!("{function}: {} rows are not a multiple of {unit}", self.len())));
        }
        let parts = epochs.checked_mul((self.len() / unit).div_ceil(size)).filter(|parts| *parts <= MOST_PARTS);
        if parts.is_none() {
            return Err(Error::value(format!("{function}: {epochs} epochs make more than {MOST_PARTS} parts"))
                .hint("all are made at once: call it once per epoch"));
        }
        // Single rows do not keep a group together; whole groups do.
        let group = if unit > 1 { Some(unit) } else { self.group().filter(|&n| n == 1) };
        let mut all = Vec::new();
        for epoch in 0..epochs {
            let order = key.fold(epoch as u64).permutation(self.len() / unit);
            for chunk in order.chunks(size) {
                let indices: Vec<usize> = chunk.iter().flat_map(|&u| u * unit..(u + 1) * unit).collect();
                all.push(self.select(&indices)?.with_group(group));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Batch, Column};
    use crate::error::Result;
    use crate::tensor::{Device, Tensor, rng::Key};

    /// A batch of `n` rows, numbered by the column `row`.
    fn numbered(n: usize) -> Batch {
        let rows = Tensor::from_vec((0..n).map(|i| i as f32).collect(), &[n, 1], &Device::Cpu).expect("a tensor");
        Batch::from_columns(vec![("row".into(), Column::Tensor(rows))], &Device::Cpu).expect("a batch")
    }

    fn rows(parts: Result<Vec<Batch>>) -> Vec<Vec<usize>> {
        let read = |b: &Batch| b.tensor("row").and_then(|t| t.to_vec()).expect("numbers");
        parts.expect("parts").iter().map(|b| read(b).iter().map(|&x| x as usize).collect()).collect()
    }

    #[test]
    fn every_row_comes_once_per_epoch() {
        let parts = rows(numbered(10).minibatches(4, 2, Key::new(1)));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
        for epoch in parts.chunks(3) {
            let mut all = epoch.concat();
            assert_ne!(all, (0..10).collect::<Vec<_>>(), "shuffled");
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(parts[..3], parts[3..], "each epoch has its own order");
        assert_eq!(parts, rows(numbered(10).minibatches(4, 2, Key::new(1))));
        assert_ne!(parts, rows(numbered(10).minibatches(4, 2, Key::new(2))));
    }

    #[test]
    fn groups_and_pairs_stay_whole() {
        let parts = rows(numbered(12).minibatches_of_groups(3, 1, Some(3), Key::new(4)));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [9, 3]);
        for group in parts.concat().chunks(3) {
            assert!(group[0] % 3 == 0 && group[1] == group[0] + 1 && group[2] == group[0] + 2, "{group:?}");
        }
        for pair in rows(numbered(10).minibatches_of_pairs(2, 1, Key::new(4))).concat().chunks(2) {
            assert!(pair[0] % 2 == 0 && pair[1] == pair[0] + 1, "{pair:?}");
        }
    }

    #[test]
    fn impossible_cuts_are_refused() {
        let text = |parts: Result<Vec<Batch>>| parts.expect_err("must be refused").what;
        let (b, key) = (numbered(10), Key::new(0));
        assert_eq!(text(b.minibatches(0, 1, key)), "minibatches: rows is 0, expected at least 1");
        assert_eq!(text(b.minibatches(4, 0, key)), "minibatches: epochs is 0, expected at least 1");
        let e = text(b.minibatches_of_groups(1, 1, Some(3), key));
        assert_eq!(e, "minibatches_of_groups: 10 rows are not a multiple of 3");
        assert!(text(b.minibatches_of_groups(1, 1, None, key)).contains("does not know how many rows"));
        assert_eq!(
            text(numbered(3).minibatches_of_pairs(1, 1, key)),
            "minibatches_of_pairs: 3 rows are not a multiple of 2"
        );
    }
}
