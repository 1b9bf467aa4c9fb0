//! Attention of one new token of each row over the keys and values kept on a device from the tokens before it.
//!
//! Owns the kept keys and values of a layer; where a row's tokens lie among them is the caller's (`engine::solo::cache`).

use super::attention::Shape;
use super::attention_lists::{Queries, QueryArrays, ROWS};
use crate::error::Result;
use crate::gpu::{Array, DType, Gpu, Grid, Kernel};
use crate::kernel::attention::Heads;
use std::ops::Range;

/// Room for the keys and values of a layer's tokens.
pub struct DeviceKeyValues {
    heads: Heads,
    /// `[tokens, key*dim]`
    keys: Array,
    values: Array,
}

/// Where the tokens of each row lie among those kept, its new one included.
pub struct DeviceRows {
    lists: QueryArrays,
    /// Of the new tokens, `[rows]`.
    places: Array,
}

impl DeviceRows {
    /// Rows of a prompt and of their own tokens, the last of which is new.
    pub fn new(gpu: &Gpu, rows: &[[Range<usize>; 2]]) -> Result<Self> {
        let (mut queries, mut places) = (Queries::default(), Vec::new());
        for (i, [prompt, own]) in rows.iter().enumerate() {
            let place = prompt.len() + own.len() - 1;
            queries.items.extend([i, 1, place, 2 * i].map(|n| n as u32));
            queries.ranges.extend([prompt.start, prompt.len(), own.start, own.len()].map(|n| n as u32));
            places.push(own.end as u32 - 1);
        }
        let places = gpu.upload("places of new tokens", &places, &[rows.len()])?;
        Ok(Self { lists: QueryArrays::upload(gpu, &queries)?, places })
    }
}

impl DeviceKeyValues {
    /// Room for `tokens` tokens.
    pub fn new(gpu: &Gpu, dtype: DType, heads: Heads, tokens: usize) -> Result<Self> {
        let empty = |what| gpu.empty(what, dtype, &[tokens, heads.key * heads.dim]);
        Ok(Self { heads, keys: empty("kept keys")?, values: empty("kept values")? })
    }

    /// Keeps keys and values `[len, key*dim]` as tokens `from ..`.
    pub fn keep(&self, from: usize, k: &Array, v: &Array) -> Result<()> {
        let (len, _) = k.dims2()?;
        k.gpu().copy(&self.keys.rows(from, len)?, k)?;
        v.gpu().copy(&self.values.rows(from, len)?, v)
    }

    /// Keeps one new key and value `[rows, key*dim]` of each row; then its query `[rows, query*dim]` attends. The sums
    /// have the order of `attention`, so that a token's log-prob has the same bits when it is sampled and when it is
    /// scored.
    pub fn attend(&self, [q, k, v]: [&Array; 3], rows: &DeviceRows) -> Result<Array> {
        let (count, width) = k.dims2()?;
        let kernel = Kernel::typed("append", "append", &[("Y", k.dtype())]);
        let to = [k.into(), v.into(), (&rows.places).into(), (&self.keys).into(), (&self.values).into(), width.into()];
        k.gpu().launch(&kernel, Grid::of(count, 128), &to)?;
        let group = self.heads.group();
        let pack = if group <= ROWS { group } else { 1 };
        let shape = Shape::new(self.heads, q.dtype())?;
        Ok(shape.forward(q, [&self.keys, &self.values], &rows.lists, pack)?.0)
    }
}
