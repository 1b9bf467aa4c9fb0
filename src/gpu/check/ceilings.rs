//! What the device can do at most: the figures that others are measured by.

use super::{Finding, is_large, normal, upload};
use crate::error::Result;
use crate::gpu::array::DType;
use crate::gpu::device::Gpu;
use crate::gpu::product::{Operand, Product, Start};
use std::time::Instant;

/// Times of which the median is told.
const TIMES: usize = 5;

/// Copies within the device, to it and from it, and large products of bf16. Figures of an emulated device say nothing.
///
/// # Errors
/// A device that has failed, or has too little memory.
pub fn ceilings(gpu: &Gpu) -> Result<Vec<Finding>> {
    let (bytes, size, each) = if is_large(gpu) { (1 << 30, 8192, 10) } else { (1 << 16, 48, 1) };
    let facts = gpu.facts();
    let mut found = vec![Finding::told("device", format!("{}, {}", facts.name, facts.architecture))];
    let count = bytes / DType::F32.size();
    let (from, to) = (gpu.zeros("a check", DType::F32, &[count])?, gpu.empty("a check", DType::F32, &[count])?);
    let seconds = median(gpu, each, || gpu.copy(&to, &from))?;
    // Each byte is read and written.
    found.push(Finding::told("copy within the device", rate(2.0 * bytes as f64 / seconds)));
    let part = (bytes / 4).min(256 << 20) / DType::F32.size();
    let (view, numbers) = (from.view(0, &[part])?, vec![0f32; part]);
    let moved = (part * DType::F32.size()) as f64;
    let seconds = median(gpu, 1, || gpu.write(&view, &numbers))?;
    found.push(Finding::told("upload", rate(moved / seconds)));
    let seconds = median(gpu, 1, || gpu.read::<f32>(&view).map(drop))?;
    found.push(Finding::told("read", rate(moved / seconds)));
    drop((from, to, view));
    for result in [DType::Bf16, DType::F32] {
        let tera = product_rate(gpu, size, each, result)?;
        found.push(Finding::told(format!("bf16 product {size}³ in {result:?}"), format!("{tera:.1} TFLOP/s")));
    }
    Ok(found)
}

/// 10¹² operations a second of a large product of bf16.
///
/// # Errors
/// A device that has failed, or has too little memory.
pub fn matrix_rate(gpu: &Gpu) -> Result<f64> {
    let (size, each) = if is_large(gpu) { (8192, 10) } else { (48, 1) };
    product_rate(gpu, size, each, DType::Bf16)
}

fn product_rate(gpu: &Gpu, size: usize, each: usize, result: DType) -> Result<f64> {
    // Random numbers: of zeros, the card would take less power and run faster.
    let [a, b] = [6, 7].map(|seed| upload(gpu, DType::Bf16, &normal(seed, size * size), &[size, size]));
    let (a, b) = (a?, b?);
    let out = gpu.empty("a check", result, &[size, size])?;
    let multiply = || gpu.product(Product { a: (&a).into(), b: Operand::from(&b).t(), out: &out, start: Start::Zero });
    Ok(2.0 * (size as f64).powi(3) / median(gpu, each, multiply)? / 1e12)
}

fn rate(bytes: f64) -> String {
    format!("{:.1} GB/s", bytes / 1e9)
}

/// Seconds for one of `each` that are queued together, after one that is not timed.
fn median(gpu: &Gpu, each: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        gpu.synchronise()?;
        let start = Instant::now();
        (0..each).try_for_each(|_| work())?;
        gpu.synchronise()?;
        times.push(start.elapsed().as_secs_f64() / each as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[TIMES / 2])
}
