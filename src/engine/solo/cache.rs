//! The KV cache of decoding: keys and values of each prompt once, and of each row's own tokens.
//!
//! Owns attention during decoding; `sample` owns the loop. Rows that end drop their cache at once.

use super::network::Network;
use crate::engine::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::kernel::attention::{Heads, attention, attention_over};
use crate::kernel::awake::each_pair;
use crate::kernel::decode::{KeyValues, attend_row};
use crate::kernel::device::decode::{DeviceKeyValues, DeviceRows};
use crate::kernel::elementwise::gather;
use crate::kernel::form::Routine;
use crate::kernel::host;
use crate::kernel::segments::{Segments, before_window, skip};
use crate::kernel::tape::{Tape, Var};
use crate::kernel::value::Value;
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// The prompts' keys and values, all prompts end to end, per layer.
pub struct Prompts {
    layers: Vec<(Value, Value)>,
    /// Tokens of each prompt.
    ranges: Vec<Range<usize>>,
    /// Hidden states after each prompt's last token, `[prompts, H]`.
    pub last: Value,
}

impl Prompts {
    /// Runs the prompts, packed, in micro-batches of the token budget.
    pub fn prefill(network: &dyn Network, prompts: &[Arc<[u32]>], settings: &Settings) -> Result<Self> {
        let mut parts: Vec<Vec<[Value; 2]>> = vec![Vec::new(); network.sizes().layers];
        let (mut ranges, mut last, mut tokens) = (Vec::new(), Vec::new(), 0);
        let mut from = 0;
        while from < prompts.len() {
            settings.check()?;
            let mut to = from;
            let mut lengths: Vec<usize> = Vec::new();
            while to < prompts.len()
                && (to == from || lengths.iter().sum::<usize>() + prompts[to].len() <= settings.token_budget)
            {
                lengths.push(prompts[to].len());
                to += 1;
            }
            let ids: Arc<[u32]> = prompts[from..to].iter().flat_map(|p| p.iter().copied()).collect();
            let positions: Vec<u32> = lengths.iter().flat_map(|&n| 0..n as u32).collect();
            let segments = Arc::new(Segments::separate(&lengths)?);
            let mut tape = settings.tape(network.packs(), network.compute(), false).decoding();
            let attend = &mut |tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]| {
                parts[layer].push([k.value.clone(), v.value.clone()]);
                attention(tape, &q, &k, &v, &segments, network.heads(layer))
            };
            let hidden = network.hidden(&mut tape, ids, &positions, attend)?;
            let ends: Vec<u32> = segments.iter().map(|s| (s.start + s.len - 1) as u32).collect();
            last.push(gather(&mut tape, &hidden, ends.into())?.value);
            for n in lengths {
                ranges.push(tokens..tokens + n);
                tokens += n;
            }
            from = to;
        }
        let join = |parts: Vec<[Value; 2]>| -> Result<(Value, Value)> {
            let (k, v): (Vec<Value>, Vec<Value>) = parts.into_iter().map(|[k, v]| (k, v)).unzip();
            Ok((Value::stack(&k)?, Value::stack(&v)?))
        };
        let layers = parts.into_iter().map(join).collect::<Result<_>>()?;
        Ok(Self { layers, ranges, last: Value::stack(&last)? })
    }
}

/// Attention of the rows under way, one new token each.
pub trait Cache {
    /// Takes up a new row that continues `prompt`.
    fn push(&mut self, prompt: usize);
    /// Keeps the rows whose flag is set, in order.
    fn retain(&mut self, keep: &[bool]);
    /// Adds one token's key and value to each row, then attends.
    fn attend(&mut self, tape: &mut Tape, layer: usize, qkv: [Var; 3]) -> Result<Var>;
}

/// Makes the cache that serves where the prompts' keys and values are.
pub struct Caching<'a> {
    pub prompts: &'a Prompts,
    /// Of each layer.
    pub heads: Vec<Heads>,
    /// Rows that are taken up, at most.
    pub rows: usize,
    /// Tokens that a row adds, at most.
    pub most: usize,
}

impl<'a> Routine for Caching<'a> {
    type Out = Box<dyn Cache + 'a>;

    fn values(&self) -> impl IntoIterator<Item = &Value> {
        self.prompts.layers.iter().flat_map(|(k, v)| [k, v]).chain([&self.prompts.last])
    }

    fn host(self) -> Result<Self::Out> {
        Ok(Box::new(HostCache::new(self.prompts, self.heads)?))
    }

    fn device(self) -> Result<Self::Out> {
        Ok(Box::new(DeviceCache::new(self)?))
    }

    fn plain(self) -> Result<Self::Out> {
        Ok(Box::new(PlainCache::new(self.prompts, self.heads)?))
    }
}

/// For f32 in the host's memory: each row has its own growing memory, and rows are attended to in parallel.
struct HostCache {
    /// Of each layer.
    heads: Vec<Heads>,
    /// By prompt, then layer.
    prompts: Vec<Vec<KeyValues>>,
    rows: Vec<HostRow>,
}

/// Rows that one thread attends to at a time.
const ROWS: usize = 4;

struct HostRow {
    prompt: usize,
    layers: Vec<KeyValues>,
}

impl HostCache {
    fn new(prompts: &Prompts, heads: Vec<Heads>) -> Result<Self> {
        let mut kept: Vec<Vec<KeyValues>> = prompts.ranges.iter().map(|_| Vec::new()).collect();
        for ((k, v), heads) in prompts.layers.iter().zip(&heads) {
            let width = heads.key * heads.dim;
            let (k, v) = (host::read(k.host()?)?, host::read(v.host()?)?);
            for (range, kept) in prompts.ranges.iter().zip(&mut kept) {
                let range = range.start * width..range.end * width;
                let mut layer = KeyValues::new(*heads);
                layer.extend(&k[range.clone()], &v[range]);
                kept.push(layer);
            }
        }
        Ok(Self { heads, prompts: kept, rows: Vec::new() })
    }
}

impl Cache for HostCache {
    fn push(&mut self, prompt: usize) {
        let layers = self.heads.iter().map(|&heads| KeyValues::new(heads)).collect();
        self.rows.push(HostRow { prompt, layers });
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.rows.retain(|_| *keep.next().expect("one flag per row"));
    }

    fn attend(&mut self, tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]) -> Result<Var> {
        let heads = self.heads[layer];
        let (query, key) = (heads.query * heads.dim, heads.key * heads.dim);
        let prompts = &self.prompts;
        let mut out = vec![0.0; self.rows.len() * query];
        let (q, k, v) = (host::read(q.tensor()?)?, host::read(k.tensor()?)?, host::read(v.tensor()?)?);
        let (q, k, v): (&[f32], &[f32], &[f32]) = (&q, &k, &v);
        let some = |block: usize, rows: &mut [HostRow], out: &mut [f32]| {
            let mut scores = Vec::new();
            for ((row, out), i) in rows.iter_mut().zip(out.chunks_exact_mut(query)).zip(block * ROWS..) {
                let own = &mut row.layers[layer];
                own.extend(&k[i * key..(i + 1) * key], &v[i * key..(i + 1) * key]);
                attend_row(
                    &q[i * query..(i + 1) * query],
                    &[&prompts[row.prompt][layer], own],
                    heads,
                    out,
                    &mut scores,
                );
            }
        };
        each_pair((&mut self.rows, ROWS), (&mut out, ROWS * query), some);
        Ok(tape.constant(host::tensor(out, &[self.rows.len(), query])?))
    }
}

/// On a device: the tokens of all prompts end to end, then a stretch of its own for each row.
struct DeviceCache {
    gpu: Gpu,
    /// Tokens of each prompt.
    prompts: Vec<Range<usize>>,
    layers: Vec<DeviceKeyValues>,
    /// Tokens that a row adds, at most.
    most: usize,
    /// Where the next row's stretch begins, and where the last one may end.
    free: Range<usize>,
    rows: Vec<DeviceRow>,
    /// Where the rows' tokens lie, while a token runs through the layers.
    places: Option<DeviceRows>,
}

struct DeviceRow {
    prompt: usize,
    own: Range<usize>,
}

impl DeviceCache {
    fn new(caching: Caching) -> Result<Self> {
        let Caching { prompts, heads, rows, most } = caching;
        let gpu = prompts.last.array()?.gpu().clone();
        let end = prompts.ranges.last().map_or(0, |range| range.end);
        let free = end..end + rows * most;
        let mut layers = Vec::with_capacity(heads.len());
        for ((k, v), heads) in prompts.layers.iter().zip(heads) {
            let (k, v) = (k.array()?, v.array()?);
            let layer = DeviceKeyValues::new(&gpu, k.dtype(), heads, free.end)?;
            layer.keep(0, k, v)?;
            layers.push(layer);
        }
        Ok(Self { gpu, prompts: prompts.ranges.clone(), layers, most, free, rows: Vec::new(), places: None })
    }

    /// Gives every row one token more.
    fn advance(&mut self) -> Result<()> {
        for DeviceRow { own, .. } in &mut self.rows {
            own.end += 1;
            if own.len() > self.most || own.end > self.free.end {
                return Err(Error::new(Kind::Internal, "a row outgrew its place in the KV cache"));
            }
        }
        let places = self.rows.iter().map(|row| [self.prompts[row.prompt].clone(), row.own.clone()]);
        self.places = Some(DeviceRows::new(&self.gpu, &places.collect::<Vec<_>>())?);
        Ok(())
    }
}

impl Cache for DeviceCache {
    fn push(&mut self, prompt: usize) {
        self.rows.push(DeviceRow { prompt, own: self.free.start..self.free.start });
        self.free.start += self.most;
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.rows.retain(|_| *keep.next().expect("one flag per row"));
    }

    fn attend(&mut self, tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]) -> Result<Var> {
        if layer == 0 {
            self.advance()?;
        }
        let places = self.places.as_ref().expect("the first layer comes first");
        Ok(tape.constant(self.layers[layer].attend([q.array()?, k.array()?, v.array()?], places)?))
    }
}

/// As plain compositions, on any device: all tokens in one tensor per layer, and a mask.
struct PlainCache<'a> {
    prompts: &'a Prompts,
    /// Of each layer.
    heads: Vec<Heads>,
    layers: Vec<(Tensor, Tensor)>,
    /// The tokens of `layers` that each row sees.
    rows: Vec<Vec<Range<usize>>>,
}

impl<'a> PlainCache<'a> {
    fn new(prompts: &'a Prompts, heads: Vec<Heads>) -> Result<Self> {
        let tensors = |(k, v): &(Value, Value)| Ok((k.host()?.clone(), v.host()?.clone()));
        let layers = prompts.layers.iter().map(tensors).collect::<Result<_>>()?;
        Ok(Self { prompts, heads, layers, rows: Vec::new() })
    }
}

impl Cache for PlainCache<'_> {
    fn push(&mut self, prompt: usize) {
        self.rows.push(vec![self.prompts.ranges[prompt].clone()]);
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.rows.retain(|_| *keep.next().expect("one flag per row"));
    }

    fn attend(&mut self, tape: &mut Tape, layer: usize, [q, k, v]: [Var; 3]) -> Result<Var> {
        let heads = self.heads[layer];
        let (keys, values) = &mut self.layers[layer];
        let before = keys.dim(0)?;
        *keys = Tensor::cat(&[&*keys, k.tensor()?], 0)?;
        *values = Tensor::cat(&[&*values, v.tensor()?], 0)?;
        if layer == 0 {
            for (i, row) in self.rows.iter_mut().enumerate() {
                row.push(before + i..before + i + 1);
            }
        }
        let total = keys.dim(0)?;
        let mut visible = vec![0u8; self.rows.len() * total];
        for (row, seen) in visible.chunks_exact_mut(total).zip(&self.rows) {
            let count = seen.iter().map(Range::len).sum();
            skip(seen.iter().cloned(), before_window(count, heads.window)).for_each(|range| row[range].fill(1));
        }
        let out = attention_over(q.tensor()?, keys, values, visible, heads)?;
        Ok(tape.constant(out))
    }
}
