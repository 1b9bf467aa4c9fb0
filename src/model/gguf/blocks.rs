//! The blocks of a GGUF file's tensors, as llama.cpp lays them out, taken apart into codes and scales.
//!
//! Owns the layout of every format that is read. What the numbers are is `kernel/quantised`'s to compute; the test here
//! holds both to candle's dequantisation.

use crate::kernel::quantised::{Blocks, Column, Format, Offset};
use candle_core::quantized::GgmlDType;

/// How the numbers of a format are kept; `None` for formats that are not read.
pub fn format(dtype: GgmlDType) -> Option<Format> {
    let small = |bits, offset| Blocks { bits, offset, block: 32, part: None };
    let large = |bits, offset, part| Blocks { bits, offset, block: 256, part: Some(part) };
    Some(Format::Blocks(match dtype {
        GgmlDType::F32 => return Some(Format::F32),
        GgmlDType::F16 => return Some(Format::F16),
        GgmlDType::BF16 => return Some(Format::BF16),
        GgmlDType::Q4_0 => small(4, Offset::Centre(8)),
        GgmlDType::Q4_1 => small(4, Offset::Minimum),
        GgmlDType::Q5_0 => small(5, Offset::Centre(16)),
        GgmlDType::Q5_1 => small(5, Offset::Minimum),
        GgmlDType::Q8_0 => small(8, Offset::Centre(128)),
        GgmlDType::Q2K => large(2, Offset::Minus, 16),
        GgmlDType::Q3K => large(3, Offset::Centre(4), 16),
        GgmlDType::Q4K => large(4, Offset::Minus, 32),
        GgmlDType::Q5K => large(5, Offset::Minus, 32),
        GgmlDType::Q6K => large(6, Offset::Centre(32), 16),
        GgmlDType::Q8_1 | GgmlDType::Q8K => return None,
    }))
}

/// Takes a row of whole blocks apart.
pub fn read(dtype: GgmlDType, row: &[u8], out: &mut Column) {
    let blocks = row.chunks_exact(dtype.type_size());
    match dtype {
        GgmlDType::F32 => out.codes.extend(blocks.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        GgmlDType::F16 | GgmlDType::BF16 => out.codes.extend(blocks.map(|b| u32::from(half(b)))),
        GgmlDType::Q4_0 => blocks.for_each(|b| small(b, false, false, out)),
        GgmlDType::Q4_1 => blocks.for_each(|b| small(b, true, false, out)),
        GgmlDType::Q5_0 => blocks.for_each(|b| small(b, false, true, out)),
        GgmlDType::Q5_1 => blocks.for_each(|b| small(b, true, true, out)),
        GgmlDType::Q8_0 => blocks.for_each(|b| {
            out.scales.push(half(b));
            // Whole numbers from −128 on.
            out.codes.extend(b[2..].iter().map(|q| u32::from(q ^ 0x80)));
        }),
        GgmlDType::Q2K => blocks.for_each(|b| two(b, out)),
        GgmlDType::Q3K => blocks.for_each(|b| three(b, out)),
        GgmlDType::Q4K => blocks.for_each(|b| four_or_five(b, false, out)),
        GgmlDType::Q5K => blocks.for_each(|b| four_or_five(b, true, out)),
        GgmlDType::Q6K => blocks.for_each(|b| six(b, out)),
        GgmlDType::Q8_1 | GgmlDType::Q8K => unreachable!("refused when the file was opened"),
    }
}

fn half(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// 32 numbers: an f16 scale, an f16 minimum, fifth bits, then the low halves of the bytes and the high ones.
fn small(block: &[u8], minimum: bool, fifth: bool, out: &mut Column) {
    let mut rest = block;
    let mut take = |n: usize| {
        let (taken, after) = rest.split_at(n);
        rest = after;
        taken
    };
    out.scales.push(half(take(2)));
    if minimum {
        out.minima.push(half(take(2)));
    }
    let high = if fifth { take(4).try_into().map_or(0, u32::from_le_bytes) } else { 0 };
    let fifth = |j: usize| (high >> j & 1) << 4;
    let codes = take(16);
    out.codes.extend(codes.iter().enumerate().map(|(j, q)| u32::from(q & 15) | fifth(j)));
    out.codes.extend(codes.iter().enumerate().map(|(j, q)| u32::from(q >> 4) | fifth(j + 16)));
}

/// Q2_K: 16 bytes of factors, 64 of codes, scale and minimum. 32 bytes hold 128 codes, the low bits first.
fn two(block: &[u8], out: &mut Column) {
    let (factors, codes) = block[..80].split_at(16);
    out.scales.push(half(&block[80..]));
    out.minima.push(half(&block[82..]));
    out.scale_factors.extend(factors.iter().map(|f| (f & 15) as i8));
    out.minimum_factors.extend(factors.iter().map(|f| (f >> 4) as i8));
    for codes in codes.chunks_exact(32) {
        for shift in [0, 2, 4, 6] {
            out.codes.extend(codes.iter().map(|q| u32::from(q >> shift & 3)));
        }
    }
}

/// Q3_K: 32 bytes of third bits, 64 of codes as in Q2_K, 12 of factors with 6 bits each, the scale.
fn three(block: &[u8], out: &mut Column) {
    let (third, codes, factors) = (&block[..32], &block[32..96], &block[96..108]);
    out.scales.push(half(&block[108..]));
    for i in 0..16 {
        let low = factors[i % 8] >> (4 * (i / 8)) & 15;
        let high = factors[8 + i % 4] >> (2 * (i / 4)) & 3;
        out.scale_factors.push((low | high << 4) as i8 - 32);
    }
    for (i, codes) in codes.chunks_exact(32).enumerate() {
        for s in 0..4 {
            let code = |(q, t): (&u8, &u8)| u32::from(q >> (2 * s) & 3 | (t >> (4 * i + s) & 1) << 2);
            out.codes.extend(codes.iter().zip(third).map(code));
        }
    }
}

/// Q4_K and Q5_K: scale and minimum, 12 bytes of factors with 6 bits each, 32 of fifth bits, 128 of codes. 32 bytes
/// hold 64 codes, the low halves first.
fn four_or_five(block: &[u8], fifth: bool, out: &mut Column) {
    let (factors, rest) = block[4..].split_at(12);
    out.scales.push(half(block));
    out.minima.push(half(&block[2..]));
    for i in 0..8 {
        let (scale, minimum) = match i {
            0..4 => (factors[i] & 63, factors[i + 4] & 63),
            _ => {
                let low = factors[i + 4];
                (low & 15 | factors[i - 4] >> 6 << 4, low >> 4 | factors[i] >> 6 << 4)
            }
        };
        out.scale_factors.push(scale as i8);
        out.minimum_factors.push(minimum as i8);
    }
    let (high, codes) = rest.split_at(if fifth { 32 } else { 0 });
    for (i, codes) in codes.chunks_exact(32).enumerate() {
        for s in 0..2 {
            let fifth = |l: usize| high.get(l).map_or(0, |h| (h >> (2 * i + s) & 1) << 4);
            out.codes.extend(codes.iter().enumerate().map(|(l, q)| u32::from(q >> (4 * s) & 15 | fifth(l))));
        }
    }
}

/// Q6_K: 128 bytes of low bits, 64 of the two high bits, 16 factors, the scale. 128 numbers are in 64 bytes and 32.
fn six(block: &[u8], out: &mut Column) {
    let (low, high, factors) = (&block[..128], &block[128..192], &block[192..208]);
    out.scales.push(half(&block[208..]));
    out.scale_factors.extend(factors.iter().map(|&f| f as i8));
    for (low, high) in low.chunks_exact(64).zip(high.chunks_exact(32)) {
        for quarter in 0..4 {
            let low = &low[quarter % 2 * 32..][..32];
            let code = |(l, h): (&u8, &u8)| u32::from(l >> (quarter / 2 * 4) & 15 | (h >> (2 * quarter) & 3) << 4);
            out.codes.extend(low.iter().zip(high).map(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::quantised::Matrix;
    use crate::model::gguf::FORMATS;
    use crate::tensor::rng::Key;
    use candle_core::quantized::ggml_file::qtensor_from_ggml;
    use candle_core::{Device, Tensor};

    /// Blocks of random bytes hold every code and factor; where a scale is infinite there is nothing to compare.
    #[test]
    fn numbers_are_candles_to_the_bit_in_every_format() {
        let (n, k) = (33, 512);
        for dtype in FORMATS {
            let row = k / dtype.block_size() * dtype.type_size();
            let bytes: Vec<u8> = (0..n * row).map(|i| Key::new(7).below(i as u64, 256) as u8).collect();
            let reference = qtensor_from_ggml(dtype, &bytes, vec![n, k], &Device::Cpu)
                .and_then(|t| t.dequantize(&Device::Cpu))
                .and_then(|t| t.flatten_all()?.to_vec1::<f32>())
                .expect("candle reads the format");
            let take = |j: usize, column: &mut Column| read(dtype, &bytes[j * row..(j + 1) * row], column);
            let matrix = Matrix::pack(format(dtype).expect("a format that is read"), [k, n], take);
            // Factors of 4 and 6 bits take a byte each; 33 columns take two panels.
            let more = match dtype {
                GgmlDType::Q2K => 16,
                GgmlDType::Q3K | GgmlDType::Q4K | GgmlDType::Q5K => 4,
                _ => 0,
            };
            assert_eq!(matrix.bytes(), k / dtype.block_size() * (dtype.type_size() + more) * 64, "{dtype:?}");
            let numbers = |t: Tensor| t.flatten_all()?.to_vec1::<f32>();
            let got = matrix.unpacked().and_then(|t| Ok(numbers(t)?)).expect("host numbers");
            let mut compared = 0;
            for (i, (got, want)) in got.iter().zip(&reference).enumerate().filter(|(_, (_, want))| want.is_finite()) {
                assert!(got == want, "{dtype:?} at {i}: {got:e} for {want:e}");
                compared += 1;
            }
            assert!(compared > n * k * 3 / 4, "{dtype:?}: {compared} finite numbers");
        }
    }
}
