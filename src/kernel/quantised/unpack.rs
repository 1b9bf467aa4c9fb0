//! From codes to f32 numbers: the one place where a kept number is computed, once rounded.
//!
//! Owns the loops over a step of a panel, for every instruction set; where the codes lie is `matrix.rs`'s.

use super::format::{Blocks, Format, Offset};
use crate::kernel::simd::simd;
use crate::kernel::tile::NR;
use std::ops::Range;

/// Rows that are packed together: as many as the widest word holds of the narrowest field.
pub const STEP: usize = 32;

/// One word of each column of a panel, side by side.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Words(pub [u32; NR]);

/// number = code·scale + offset, for each column of a panel.
pub struct Affine {
    scale: [f32; NR],
    offset: [f32; NR],
}

impl Default for Affine {
    fn default() -> Self {
        Self { scale: [0.0; NR], offset: [0.0; NR] }
    }
}

impl Affine {
    /// From f16 scales, minima after them where there are any, and the factors to both.
    pub fn set(&mut self, blocks: Blocks, halves: &[[u16; NR]], factors: Option<&[[i8; NR]]>) {
        affine(blocks.offset, halves, factors, self);
    }

    pub fn number(&self, code: u32, j: usize) -> f32 {
        number(code, self.scale[j], self.offset[j])
    }
}

#[inline(always)]
fn number(code: u32, scale: f32, offset: f32) -> f32 {
    (code as i32 as f32).mul_add(scale, offset)
}

simd! {
    fn affine(offset: Offset, halves: &[[u16; NR]], factors: Option<&[[i8; NR]]>, out: &mut Affine) {
        out.scale = scaled(&halves[0], factors.map(|f| &f[0]));
        out.offset = match offset {
            Offset::Centre(code) => out.scale.map(|scale| -f32::from(code) * scale),
            Offset::Minimum => scaled(&halves[1], factors.map(|f| &f[1])),
            Offset::Minus => scaled(&halves[1], factors.map(|f| &f[1])).map(|minimum| -minimum),
        };
    }
}

#[inline(always)]
fn scaled(halves: &[u16; NR], factors: Option<&[i8; NR]>) -> [f32; NR] {
    let mut x = halves.map(|h| half(u32::from(h)));
    if let Some(factors) = factors {
        x.iter_mut().zip(factors).for_each(|(x, f)| *x *= f32::from(*f));
    }
    x
}

/// The number that an f16's bits stand for.
#[inline(always)]
pub fn half(bits: u32) -> f32 {
    const UP: f32 = f32::from_bits((127 + 112) << 23); // 2¹¹², between the exponents' origins
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * UP).to_bits();
    let other = magnitude | 0x7f80_0000;
    let magnitude = if bits & 0x7c00 == 0x7c00 { other } else { finite };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// Rows `rows` of a step into their places in `out` `[STEP,NR]`.
pub fn unpack(format: Format, words: &[Words], affine: &Affine, rows: Range<usize>, out: &mut [f32]) {
    match (format, format.planes()) {
        (Format::F32, _) => unreachable!("read where they lie"),
        (Format::F16, _) => f16(words, out),
        (Format::BF16, _) => bf16(words, out),
        (_, [2, 0]) => two(words, affine, rows, out),
        (_, [2, 1]) => three(words, affine, rows, out),
        (_, [4, 0]) => four(words, affine, rows, out),
        (_, [4, 1]) => five(words, affine, rows, out),
        (_, [4, 2]) => six(words, affine, rows, out),
        (_, [8, 0]) => eight(words, affine, rows, out),
        _ => unreachable!("codes have 2, 3, 4, 5, 6 or 8 bits"),
    }
}

/// A loop for each width of codes, so that shifts and masks are constants.
macro_rules! widths {
    ($($name:ident: $low:literal $high:literal;)*) => {
        $(simd! {
            fn $name(words: &[Words], affine: &Affine, rows: Range<usize>, out: &mut [f32]) {
                planes::<$low, $high>(words, affine, rows, out);
            }
        })*
    };
}
widths! {
    two: 2 0;
    three: 2 1;
    four: 4 0;
    five: 4 1;
    six: 4 2;
    eight: 8 0;
}

#[inline(always)]
fn planes<const LOW: usize, const HIGH: usize>(words: &[Words], affine: &Affine, rows: Range<usize>, out: &mut [f32]) {
    for (p, out) in rows.clone().zip(out[rows.start * NR..].chunks_exact_mut(NR)) {
        let low = fields::<LOW>(words, p);
        let high = if HIGH > 0 { fields::<HIGH>(&words[LOW..], p) } else { [0; NR] };
        for (j, x) in out.iter_mut().enumerate() {
            *x = number(low[j] | high[j] << LOW, affine.scale[j], affine.offset[j]);
        }
    }
}

/// Field number p of every column.
#[inline(always)]
fn fields<const BITS: usize>(words: &[Words], p: usize) -> [u32; NR] {
    words[p * BITS / 32].0.map(|word| (word >> (p * BITS % 32)) & ((1 << BITS) - 1))
}

simd! {
    fn f16(words: &[Words], out: &mut [f32]) {
        for (p, out) in out.chunks_exact_mut(NR).enumerate() {
            out.iter_mut().zip(fields::<16>(words, p)).for_each(|(x, h)| *x = half(h));
        }
    }
}

simd! {
    fn bf16(words: &[Words], out: &mut [f32]) {
        for (p, out) in out.chunks_exact_mut(NR).enumerate() {
            out.iter_mut().zip(fields::<16>(words, p)).for_each(|(x, h)| *x = f32::from_bits(h << 16));
        }
    }
}
