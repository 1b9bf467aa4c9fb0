//! The logits of a language-model head on a device, a chunk at a time: how they are cut, and the products on both ways.
//!
//! Owns the one promise about memory: never more than a chunk of logits. What is made of a chunk is `logprob.rs`'s and
//! `divergence.rs`'s.

use super::elementwise::cast;
use crate::error::Result;
use crate::gpu::{Array, DType, Gpu, Operand, Product, Start};
use crate::kernel::logprob::Targets;
use crate::kernel::rank::Seen;
use crate::kernel::tape::{Grads, Tape, Var};
use std::ops::Range;

/// How logits `[U,V]` are cut: it depends on U and V alone, the columns on V alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Most columns of a chunk: what a block of threads holds (`softmax.cuh`).
    pub(super) columns: usize,
    /// Most numbers of a chunk, unless a row has more.
    pub(super) numbers: usize,
}

impl Cut {
    /// 24 MiB of f32, which stay in a large card's cache.
    pub(super) const USUAL: Self = Self { columns: 4096, numbers: 6 << 20 };

    /// Rows and columns of a whole chunk.
    pub(super) fn sizes(self, rows: usize, vocabulary: usize) -> (usize, usize) {
        let columns = self.columns.min(vocabulary).max(1);
        ((self.numbers / columns).clamp(1, rows.max(1)), columns)
    }
}

/// Numbers of a whole chunk of the logits of that many tokens.
pub fn chunk_numbers(vocabulary: usize) -> usize {
    let (rows, columns) = Cut::USUAL.sizes(usize::MAX, vocabulary);
    rows * columns
}

/// Some rows of h against some rows of W.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Chunk {
    /// Whether its rows have no chunk before it.
    pub(super) fn is_first(&self) -> bool {
        self.columns.start == 0
    }

    fn dims(&self) -> [usize; 2] {
        [self.rows.len(), self.columns.len()]
    }
}

/// Hidden states and a head: what its logits are made of.
pub(super) struct Side {
    /// `[U,H]`, of the type of W.
    h: Array,
    /// `[V,H]`
    w: Array,
    cap: Option<f32>,
    cut: Cut,
}

impl Side {
    pub(super) fn new([h, w]: [&Var; 2], cap: Option<f32>, cut: Cut) -> Result<Self> {
        let w = w.array()?.clone();
        Ok(Self { h: cast(h.array()?, w.dtype())?, w, cap, cut })
    }

    pub(super) fn gpu(&self) -> &Gpu {
        self.w.gpu()
    }

    pub(super) fn dtype(&self) -> DType {
        self.w.dtype()
    }

    /// U
    pub(super) fn rows(&self) -> usize {
        self.h.dims()[0]
    }

    /// The soft cap as kernels take it.
    pub(super) fn cap(&self) -> f32 {
        self.cap.unwrap_or(0.0)
    }

    /// Columns outside, rows inside.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (rows, vocabulary) = (self.rows(), self.w.dims()[0]);
        let (height, width) = self.cut.sizes(rows, vocabulary);
        let upto = |from: usize, size: usize, end: usize| from..(from + size).min(end);
        (0..vocabulary).step_by(width).flat_map(move |column| {
            (0..rows)
                .step_by(height)
                .map(move |row| Chunk { rows: upto(row, height, rows), columns: upto(column, width, vocabulary) })
        })
    }

    /// Memory for one chunk at a time, of logits or of their gradients.
    pub(super) fn buffer(&self, what: &'static str, dtype: DType) -> Result<Array> {
        let (height, width) = self.cut.sizes(self.rows(), self.w.dims()[0]);
        self.gpu().empty(what, dtype, &[height * width])
    }

    /// h·Wᵀ of the chunk, f32, in `buffer`; not capped yet.
    pub(super) fn logits(&self, chunk: &Chunk, buffer: &Array) -> Result<Array> {
        let logits = buffer.view(0, &chunk.dims())?;
        let (h, w) = (self.hidden(chunk)?, self.weight(chunk)?);
        let product = Product { a: (&h).into(), b: Operand::from(&w).t(), out: &logits, start: Start::Zero };
        self.gpu().product(product)?;
        Ok(logits)
    }

    fn hidden(&self, chunk: &Chunk) -> Result<Array> {
        self.h.rows(chunk.rows.start, chunk.rows.len())
    }

    fn weight(&self, chunk: &Chunk) -> Result<Array> {
        self.w.rows(chunk.columns.start, chunk.columns.len())
    }

    /// Carries the gradients of all logits, a chunk at a time, back to h and W. `fill` turns a chunk's logits into their
    /// gradients, of the type of W.
    pub(super) fn backward(
        &self,
        [h, w]: [&Var; 2],
        grads: &mut Grads,
        mut fill: impl FnMut(&Chunk, &Array, &Array) -> Result<()>,
    ) -> Result<()> {
        let gpu = self.gpu();
        let (logits, grad) = (self.buffer("logits", DType::F32)?, self.buffer("gradients of logits", self.dtype())?);
        let dh = h.needs_grad().then(|| gpu.empty("a gradient", DType::F32, self.h.dims())).transpose()?;
        let dw = grads.slot(w)?;
        for chunk in self.chunks() {
            grads.tape().stop().check()?;
            let dz = grad.view(0, &chunk.dims())?;
            fill(&chunk, &self.logits(&chunk, &logits)?, &dz)?;
            if let Some(dh) = &dh {
                let (out, b) = (dh.rows(chunk.rows.start, chunk.rows.len())?, self.weight(&chunk)?);
                let start = if chunk.is_first() { Start::Zero } else { Start::Accumulate };
                gpu.product(Product { a: (&dz).into(), b: (&b).into(), out: &out, start })?;
            }
            if let Some(dw) = &dw {
                let (out, b) = (dw.rows(chunk.columns.start, chunk.columns.len())?, self.hidden(&chunk)?);
                let (a, start) = (Operand::from(&dz).t(), Start::Accumulate);
                gpu.product(Product { a, b: (&b).into(), out: &out, start })?;
            }
        }
        match dh {
            Some(dh) => grads.add_owned(h, cast(&dh, h.array()?.dtype())?),
            None => Ok(()),
        }
    }
}

/// `seen(rows, columns, logits)` of one chunk after another, read to the host.
pub(in crate::kernel) fn read_chunks(tape: &Tape, [h, w]: [&Var; 2], seen: &mut Seen) -> Result<()> {
    let side = Side::new([h, w], None, Cut::USUAL)?;
    let buffer = side.buffer("logits", DType::F32)?;
    for chunk in side.chunks() {
        tape.stop().check()?;
        let logits: Vec<f32> = side.gpu().read(&side.logits(&chunk, &buffer)?)?;
        seen(chunk.rows, chunk.columns, &logits);
    }
    Ok(())
}

/// Pairs of a row and a token, on a device.
pub(super) struct Pairs {
    /// `[P]`
    pub(super) rows: Array,
    /// `[P]`
    pub(super) tokens: Array,
    /// Where each row's pairs begin, and the end: `[U+1]`.
    first: Array,
}

impl Pairs {
    pub(super) fn new(gpu: &Gpu, targets: &Targets, rows: usize) -> Result<Self> {
        let mut first = vec![0; rows + 1];
        for &row in &*targets.rows {
            first[row as usize + 1] += 1;
        }
        let mut sum = 0;
        for first in &mut first {
            sum += *first;
            *first = sum;
        }
        let upload = |what, numbers: &[u32]| gpu.upload(what, numbers, &[numbers.len()]);
        Ok(Self {
            rows: upload("rows", &targets.rows)?,
            tokens: upload("tokens", &targets.tokens)?,
            first: upload("pairs of rows", &first)?,
        })
    }

    /// P
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where the pairs of the chunk's rows begin.
    pub(super) fn first(&self, chunk: &Chunk) -> Result<Array> {
        self.first.view(chunk.rows.start, &[chunk.rows.len() + 1])
    }
}
