//! Matrix products of an emulated device.
//!
//! Every number of the result is one chain of fused multiply-adds over K, from the number that its sum starts from:
//! its bits depend on nothing but its row, its column and the types.

use super::memory::{Memories, Stamp};
use crate::error::Result;
use crate::gpu::array::DType;
use crate::gpu::backend::{RawOperand, RawProduct, Span};
use half::bf16;

/// Columns whose sums run side by side.
const WIDTH: usize = 16;
/// Rows whose sums run side by side.
const HEIGHT: usize = 4;
/// Multiplications from which on a second thread is worth its start.
const LARGE: usize = 1 << 20;

/// # Errors
/// Memory that is not there or not written.
pub(super) fn run(memories: &mut Memories, product: &RawProduct, stamp: Stamp) -> Result<()> {
    let (m, n) = (product.out.rows, product.out.columns);
    let k = if product.a.transposed { product.a.rows } else { product.a.columns };
    let a = rows_of(memories, &product.a, product.a.transposed)?; // [M,K]
    let b = rows_of(memories, &product.b, !product.b.transposed)?; // [N,K]
    let mut out = match product.start {
        Some(start) => numbers(memories, start, product.out.dtype)?,
        None => vec![0.0; m * n],
    };
    let panels = panels(&b, n, k);
    let threads = if m * n * k < LARGE { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let rows = m.div_ceil(threads).next_multiple_of(HEIGHT);
    // Threads of their own: one of rayon's would take up other work while it waits, which may ask this device.
    std::thread::scope(|scope| {
        let mut parts = out.chunks_mut(rows * n).zip(a.chunks((rows * k).max(1)));
        let first = parts.next();
        for (out, a) in parts {
            let panels = &panels;
            scope.spawn(move || multiply(out, a, panels, [n, k]));
        }
        if let Some((out, a)) = first {
            multiply(out, a, &panels, [n, k]);
        }
    });
    let bytes: Vec<u8> = match product.out.dtype {
        DType::Bf16 => out.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        _ => out.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    memories.write(product.out.span, &bytes, stamp)
}

fn numbers(memories: &mut Memories, span: Span, dtype: DType) -> Result<Vec<f32>> {
    let bytes = memories.bytes(span, "product")?;
    Ok(match dtype {
        DType::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    })
}

/// A matrix as f32, transposed where that is asked.
fn rows_of(memories: &mut Memories, matrix: &RawOperand, transposed: bool) -> Result<Vec<f32>> {
    let stored = numbers(memories, matrix.span, matrix.dtype)?;
    if !transposed {
        return Ok(stored);
    }
    let mut out = vec![0.0; stored.len()];
    for (i, row) in stored.chunks(matrix.columns.max(1)).enumerate() {
        for (j, x) in row.iter().enumerate() {
            out[j * matrix.rows + i] = *x;
        }
    }
    Ok(out)
}

/// b `[N,K]` in panels `[K,WIDTH]`, the last one filled up with zeros.
fn panels(b: &[f32], n: usize, k: usize) -> Vec<f32> {
    let mut panels = vec![0.0; n.div_ceil(WIDTH) * WIDTH * k];
    for (j, row) in b.chunks(k.max(1)).enumerate() {
        let panel = &mut panels[j / WIDTH * WIDTH * k..];
        for (i, x) in row.iter().enumerate() {
            panel[i * WIDTH + j % WIDTH] = *x;
        }
    }
    panels
}

fn multiply(out: &mut [f32], a: &[f32], panels: &[f32], [n, k]: [usize; 2]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { multiply_fma(out, a, panels, [n, k]) };
    }
    multiply_with(out, a, panels, [n, k]);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_fma(out: &mut [f32], a: &[f32], panels: &[f32], [n, k]: [usize; 2]) {
    multiply_with(out, a, panels, [n, k]);
}

#[inline(always)]
fn multiply_with(out: &mut [f32], a: &[f32], panels: &[f32], [n, k]: [usize; 2]) {
    for (p, panel) in panels.chunks((WIDTH * k).max(1)).enumerate() {
        let (first, count) = (p * WIDTH, WIDTH.min(n - p * WIDTH));
        for (out, a) in out.chunks_mut(HEIGHT * n).zip(a.chunks((HEIGHT * k).max(1))) {
            let rows = out.len() / n;
            let mut sums = [[0.0_f32; WIDTH]; HEIGHT];
            for (r, sums) in sums.iter_mut().enumerate().take(rows) {
                sums[..count].copy_from_slice(&out[r * n + first..][..count]);
            }
            if rows == HEIGHT {
                let (a0, rest) = a.split_at(k);
                let (a1, rest) = rest.split_at(k);
                let (a2, a3) = rest.split_at(k);
                for (i, b) in panel.chunks_exact(WIDTH).enumerate() {
                    for (sums, a) in sums.iter_mut().zip([a0[i], a1[i], a2[i], a3[i]]) {
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = a.mul_add(*b, *sum);
                        }
                    }
                }
            } else {
                for (sums, a) in sums.iter_mut().zip(a.chunks(k.max(1))) {
                    for (a, b) in a.iter().zip(panel.chunks_exact(WIDTH)) {
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = a.mul_add(*b, *sum);
                        }
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(rows) {
                out[r * n + first..][..count].copy_from_slice(&sums[..count]);
            }
        }
    }
}
