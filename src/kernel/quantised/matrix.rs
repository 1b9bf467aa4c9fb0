//! A matrix kept in few bits, in the order in which products read it.
//!
//! Owns packing and looking up; what number a code comes to is `unpack.rs`'s.

use super::format::{Column, Format};
use super::unpack::{Affine, STEP, Words, half, unpack};
use crate::kernel::tile::NR;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Depth to which products unpack a panel at a time: it stays in half of the first-level cache.
pub const DEPTH: usize = 4 * STEP;

/// W `[k,n]` in panels of NR columns.
pub struct Matrix {
    format: Format,
    k: usize,
    n: usize,
    panels: Vec<Panel>,
}

/// NR columns.
struct Panel {
    /// In steps of STEP rows; in each first the words of the codes' low bits, then those of their high bits.
    words: Vec<Words>,
    /// For every block the scales, then the minima.
    halves: Vec<[u16; NR]>,
    /// For every part the factors to the scales, then those to the minima.
    factors: Vec<[i8; NR]>,
}

impl Matrix {
    /// Packs n columns of k numbers each; `read` takes column number j apart. k is a whole number of blocks.
    pub fn pack(format: Format, [k, n]: [usize; 2], read: impl Fn(usize, &mut Column) + Sync) -> Self {
        let pack = |column: &mut Column, j0: usize| {
            let mut panel = Panel::empty(format, k);
            for j in 0..NR.min(n - j0) {
                column.clear();
                read(j0 + j, column);
                panel.fill(j, column, format);
            }
            panel
        };
        let starts: Vec<usize> = (0..n).step_by(NR).collect();
        let panels = starts.into_par_iter().map_init(Column::default, pack).collect();
        Self { format, k, n, panels }
    }

    pub fn rows(&self) -> usize {
        self.k
    }

    pub fn cols(&self) -> usize {
        self.n
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let panel = |p: &Panel| size_of_val(&p.words[..]) + size_of_val(&p.halves[..]) + size_of_val(&p.factors[..]);
        self.panels.iter().map(panel).sum()
    }

    /// Rows `p0..p0+rows` of a panel in f32, `[rows,NR]`: where they lie, or unpacked into `scratch`, which holds them
    /// rounded up to whole steps. p0 is a multiple of STEP.
    pub fn panel<'a>(&'a self, panel: usize, p0: usize, rows: usize, scratch: &'a mut [f32]) -> &'a [f32] {
        let (panel, step) = (&self.panels[panel], self.format.bits());
        let at = p0 / STEP * step;
        let words = &panel.words[at..at + rows.div_ceil(STEP) * step];
        if self.format == Format::F32 {
            // SAFETY: a word is NR u32 without padding, and every bit pattern of a u32 is one of an f32.
            return unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), rows * NR) };
        }
        let mut affine = Affine::default();
        for (i, (words, out)) in words.chunks_exact(step).zip(scratch.chunks_exact_mut(STEP * NR)).enumerate() {
            let uniform = self.format.blocks().map_or(STEP, |blocks| blocks.uniform().min(STEP));
            for from in (0..STEP).step_by(uniform) {
                panel.scales(self.format, p0 + i * STEP + from, &mut affine);
                unpack(self.format, words, &affine, from..from + uniform, out);
            }
        }
        &scratch[..rows * NR]
    }

    /// Column j in f32, `[k]`.
    pub fn column(&self, j: usize, out: &mut [f32]) {
        assert!(j < self.n && out.len() == self.k, "a column of a matrix");
        let (panel, j) = (&self.panels[j / NR], j % NR);
        let [low, high] = self.format.planes();
        let mut affine = Affine::default();
        for (p, x) in out.iter_mut().enumerate() {
            let words = &panel.words[p / STEP * (low + high)..];
            let code = field(words, low, p % STEP, j) | field(&words[low..], high, p % STEP, j) << (low % 32);
            *x = match self.format {
                Format::F32 => f32::from_bits(code),
                Format::BF16 => f32::from_bits(code << 16),
                Format::F16 => half(code),
                Format::Blocks(blocks) => {
                    if p % blocks.uniform() == 0 {
                        panel.scales(self.format, p, &mut affine);
                    }
                    affine.number(code, j)
                }
            };
        }
    }

    /// All of it in f32, `[n,k]`.
    pub fn unpacked(&self) -> crate::Result<Tensor> {
        let mut data = vec![0.0; self.k * self.n];
        data.par_chunks_mut(self.k.max(1)).enumerate().for_each(|(j, column)| self.column(j, column));
        Ok(Tensor::from_vec(data, (self.n, self.k), &Device::Cpu)?)
    }
}

impl Panel {
    fn empty(format: Format, k: usize) -> Self {
        let (halves, factors) = format.blocks().map_or((0, 0), |blocks| {
            let parts = blocks.part.map_or(0, |part| k / part);
            (k / blocks.block * blocks.groups(), parts * blocks.groups())
        });
        Self {
            words: vec![Words([0; NR]); k.div_ceil(STEP) * format.bits()],
            halves: vec![[0; NR]; halves],
            factors: vec![[0; NR]; factors],
        }
    }

    /// Puts a column in its place.
    fn fill(&mut self, j: usize, column: &Column, format: Format) {
        let [low, high] = format.planes();
        let steps = self.words.chunks_exact_mut(low + high);
        for (codes, words) in column.codes.chunks(STEP).zip(steps) {
            let (words_low, words_high) = words.split_at_mut(low);
            pack_fields(codes, 0, low, j, words_low);
            pack_fields(codes, low, high, j, words_high);
        }
        let groups = format.blocks().map_or(1, |blocks| blocks.groups());
        for (g, list) in [&column.scales, &column.minima].into_iter().enumerate() {
            list.iter().enumerate().for_each(|(i, x)| self.halves[i * groups + g][j] = *x);
        }
        for (g, list) in [&column.scale_factors, &column.minimum_factors].into_iter().enumerate() {
            list.iter().enumerate().for_each(|(i, x)| self.factors[i * groups + g][j] = *x);
        }
    }

    /// The scales and offsets that serve row p on.
    fn scales(&self, format: Format, p: usize, out: &mut Affine) {
        let Some(blocks) = format.blocks() else { return };
        let groups = blocks.groups();
        let halves = &self.halves[p / blocks.block * groups..][..groups];
        let factors = blocks.part.map(|part| &self.factors[p / part * groups..][..groups]);
        out.set(blocks, halves, factors);
    }
}

/// The `bits` bits above the first `above` of every code, into words that hold as many as fit.
fn pack_fields(codes: &[u32], above: usize, bits: usize, j: usize, words: &mut [Words]) {
    if bits == 0 {
        return;
    }
    let mask = u32::MAX >> (32 - bits);
    for (codes, word) in codes.chunks(32 / bits).zip(words) {
        let place = |word: u32, (s, code): (usize, &u32)| word | ((code >> above) & mask) << (s * bits);
        word.0[j] = codes.iter().enumerate().fold(0, place);
    }
}

/// Field number p of `bits` bits in a column's words; 0 where there are no bits.
fn field(words: &[Words], bits: usize, p: usize, j: usize) -> u32 {
    if bits == 0 {
        return 0;
    }
    (words[p * bits / 32].0[j] >> (p * bits % 32)) & (u32::MAX >> (32 - bits))
}
