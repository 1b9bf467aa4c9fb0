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
        scaled(&halves[0], factors.map(|f| &f[0]), &mut out.scale);
        let times = match offset {
            Offset::Centre(code) => {
                let code = f32::from(code);
                out.offset.iter_mut().zip(&out.scale).for_each(|(x, scale)| *x = -code * scale);
                return;
            }
            Offset::Minimum => 1.0,
            Offset::Minus => -1.0,
        };
        scaled(&halves[1], factors.map(|f| &f[1]), &mut out.offset);
        out.offset.iter_mut().for_each(|x| *x *= times);
    }
}

// Loops over numbers in place here and below: `map` of an array is a function of its own, without wide instructions.
#[inline(always)]
fn scaled(halves: &[u16; NR], factors: Option<&[i8; NR]>, out: &mut [f32; NR]) {
    out.iter_mut().zip(halves).for_each(|(x, h)| *x = half(u32::from(*h)));
    if let Some(factors) = factors {
        out.iter_mut().zip(factors).for_each(|(x, f)| *x *= f32::from(*f));
    }
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
    let per_word = 32 / LOW;
    for p0 in rows.step_by(per_word) {
        let low = &words[p0 / per_word].0;
        for s in 0..per_word {
            let (p, out) = (p0 + s, row(out, p0 + s));
            for (j, x) in out.iter_mut().enumerate() {
                let mut code = (low[j] >> (s * LOW)) & ((1 << LOW) - 1);
                if HIGH > 0 {
                    code |= ((words[LOW + p * HIGH / 32].0[j] >> (p * HIGH % 32)) & ((1 << HIGH) - 1)) << LOW;
                }
                *x = number(code, affine.scale[j], affine.offset[j]);
            }
        }
    }
}

/// Row p of a panel.
#[inline(always)]
fn row(panel: &mut [f32], p: usize) -> &mut [f32; NR] {
    (&mut panel[p * NR..(p + 1) * NR]).try_into().expect("NR numbers")
}

simd! {
    fn f16(words: &[Words], out: &mut [f32]) {
        for p in 0..STEP {
            row(out, p).iter_mut().zip(&words[p / 2].0).for_each(|(x, h)| *x = half((h >> (p % 2 * 16)) & 0xffff));
        }
    }
}

simd! {
    fn bf16(words: &[Words], out: &mut [f32]) {
        for p in 0..STEP {
            let number = |h: &u32| f32::from_bits(h >> (p % 2 * 16) << 16);
            row(out, p).iter_mut().zip(&words[p / 2].0).for_each(|(x, h)| *x = number(h));
        }
    }
}
