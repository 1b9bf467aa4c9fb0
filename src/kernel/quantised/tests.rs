//! Products over kept numbers against the plain matrix product of the same numbers, to the bit, and against f64.

use super::{Blocks, Column, Format, Matrix, Offset};
use crate::kernel::gemm::{Mat, Start, matmul, product_quantised};
use crate::kernel::simd::forced::at_every_level;
use crate::tensor::rng::Key;
use half::{bf16, f16};

/// Every width of codes, with and without parts and minima.
fn formats() -> Vec<Format> {
    let mut all = vec![Format::F32, Format::F16, Format::BF16];
    for (bits, centre) in [(2, 1), (3, 4), (4, 8), (5, 16), (6, 32), (8, 128)] {
        // 8 bits and a factor of 6 would not fit those of an f32.
        let parts = [(32, None), (256, Some(16)), (256, Some(32))].into_iter().take(if bits == 8 { 1 } else { 3 });
        for (block, part) in parts {
            for offset in [Offset::Centre(centre), Offset::Minimum, Offset::Minus] {
                all.push(Format::Blocks(Blocks { bits, offset, block, part }));
            }
        }
    }
    all
}

/// A random matrix, and its numbers `[n,k]` in f64 by the formula alone.
fn random(format: Format, [k, n]: [usize; 2], key: Key) -> (Matrix, Vec<f64>) {
    let column = |j: usize, out: &mut Column| {
        let key = key.fold(j as u64);
        let number = |i: usize| key.normal(i as u64) as f32 * 0.1;
        let Format::Blocks(blocks) = format else {
            out.codes.extend((0..k).map(|i| match format {
                Format::F16 => u32::from(f16::from_f32(number(i)).to_bits()),
                Format::BF16 => u32::from(bf16::from_f32(number(i)).to_bits()),
                _ => number(i).to_bits(),
            }));
            return;
        };
        out.codes.extend((0..k).map(|i| key.below(i as u64, 1 << blocks.bits) as u32));
        let minima = !matches!(blocks.offset, Offset::Centre(_));
        for i in 0..k / blocks.block {
            out.scales.push(f16::from_f32(number(i) * 0.1).to_bits());
            if minima {
                out.minima.push(f16::from_f32(number(k + i)).to_bits());
            }
        }
        for i in 0..blocks.part.map_or(0, |part| k / part) {
            out.scale_factors.push(key.below((2 * k + i) as u64, 90) as i8 - 32);
            if minima {
                out.minimum_factors.push(key.below((3 * k + i) as u64, 64) as i8);
            }
        }
    };
    let mut numbers = Vec::with_capacity(n * k);
    for j in 0..n {
        let mut c = Column::default();
        column(j, &mut c);
        numbers.extend((0..k).map(|p| match format {
            Format::F32 => f64::from(f32::from_bits(c.codes[p])),
            Format::F16 => f16::from_bits(c.codes[p] as u16).to_f64(),
            Format::BF16 => bf16::from_bits(c.codes[p] as u16).to_f64(),
            Format::Blocks(blocks) => {
                let half = |list: &[u16], factors: &[i8]| {
                    let factor = blocks.part.map_or(1.0, |part| f64::from(factors[p / part]));
                    f16::from_bits(list[p / blocks.block]).to_f64() * factor
                };
                let (scale, code) = (half(&c.scales, &c.scale_factors), f64::from(c.codes[p]));
                match blocks.offset {
                    Offset::Centre(centre) => (code - f64::from(centre)) * scale,
                    Offset::Minimum => code * scale + half(&c.minima, &c.minimum_factors),
                    Offset::Minus => code * scale - half(&c.minima, &c.minimum_factors),
                }
            }
        }));
    }
    (Matrix::pack(format, [k, n], column), numbers)
}

fn depth(format: Format) -> usize {
    if matches!(format, Format::Blocks(_)) { 512 } else { 300 }
}

#[test]
fn numbers_are_those_of_the_formula_rounded_once() {
    for (i, format) in formats().into_iter().enumerate() {
        let [k, n] = [depth(format), 37];
        let (matrix, numbers) = random(format, [k, n], Key::new(1).fold(i as u64));
        let got = matrix.unpacked().and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?)).expect("host numbers");
        for (at, (got, want)) in got.iter().zip(&numbers).enumerate() {
            assert!(*got == *want as f32, "{format:?} at {at}: {got} for {want}");
        }
    }
}

#[test]
fn products_have_the_bits_of_the_plain_product_for_any_rows_threads_and_instructions() {
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    for (i, format) in formats().into_iter().enumerate() {
        let [m, k, n] = [128, depth(format), 70];
        let (matrix, numbers) = random(format, [k, n], Key::new(2).fold(i as u64));
        let x: Vec<f32> = (0..m * k).map(|i| Key::new(3).normal(i as u64) as f32).collect();
        let plain = matrix.unpacked().and_then(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?)).expect("host numbers");
        let mut want = vec![0.0; m * n];
        matmul(Mat::new(&x, m, k), Mat::new(&plain, n, k).t(), &mut want, n, Start::Zero);
        for i in [0, m / 2, m - 1] {
            for j in 0..n {
                let terms = (0..k).map(|p| f64::from(x[i * k + p]) * numbers[j * k + p]);
                let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                let gap = (f64::from(want[i * n + j]) - exact).abs();
                assert!(gap < 3e-6 * size, "{format:?} ({i},{j}): off by {gap}, of {size}");
            }
        }
        let all = |rows: std::ops::Range<usize>| {
            let x = Mat::new(&x[rows.start * k..rows.end * k], rows.len(), k);
            product_quantised(x, &matrix, Start::Zero)
        };
        // The narrowest instructions are slow: what they are compared in is a few rows.
        for got in at_every_level(|_| all(0..13)) {
            assert_eq!(got, want[..13 * n], "{format:?}");
        }
        assert_eq!(all(0..m), want, "{format:?}");
        assert_eq!(single.install(|| all(0..m)), want, "{format:?} on one thread");
        for i in [0, 1, m - 1] {
            assert_eq!(all(i..i + 1), want[i * n..(i + 1) * n], "{format:?} row {i} alone");
        }
        // Sums that start from what is there.
        let out = product_quantised(Mat::new(&x, m, k), &matrix, Start::Rows(&want));
        let mut twice = want.clone();
        matmul(Mat::new(&x, m, k), Mat::new(&plain, n, k).t(), &mut twice, n, Start::Accumulate);
        assert_eq!(out, twice, "{format:?} added to what is there");
    }
}

#[test]
fn kept_bytes_are_the_formats() {
    let blocks = |bits, block, part, offset| Format::Blocks(Blocks { bits, offset, block, part });
    for (format, bits) in [
        (Format::F32, 32.0),
        (Format::F16, 16.0),
        (blocks(4, 32, None, Offset::Minimum), 5.0),
        (blocks(4, 256, Some(32), Offset::Minus), 4.625),
        (blocks(6, 256, Some(16), Offset::Centre(32)), 6.5625),
    ] {
        let (matrix, _) = random(format, [512, 64], Key::new(4));
        assert_eq!(matrix.bytes() as f64 * 8.0, bits * 512.0 * 64.0, "{format:?}");
    }
}

#[test]
fn halves_of_every_kind_become_the_same_numbers() {
    for bits in 0..=u16::MAX {
        let (got, want) = (super::unpack::half(u32::from(bits)), f16::from_bits(bits).to_f32());
        assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}: {got} for {want}");
    }
}
