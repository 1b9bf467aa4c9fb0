//! How long an emulated access takes: `cargo test --release --features emulate --lib speed -- --nocapture`.

use super::{double, numbers, upload};
use crate::gpu::{DType, Gpu, Operand, Product, Start};
use std::time::Instant;

#[test]
fn numbers_are_moved_and_multiplied_fast_enough_for_tests() {
    let gpu = Gpu::emulated(1);
    let time = |what: &str, count: usize, work: &dyn Fn()| {
        gpu.synchronise().unwrap();
        let start = Instant::now();
        work();
        gpu.synchronise().unwrap();
        let nanoseconds = start.elapsed().as_nanos() as f64 / count as f64;
        println!("{what}: {nanoseconds:.2} ns");
        nanoseconds
    };
    let count = 1 << 16;
    let x = upload(&gpu, "x", DType::F32, &numbers(count, 1), &[count]);
    let y = gpu.empty("y", DType::F32, &[count]).unwrap();
    let access = time("a number read, a number written", count, &|| double(&gpu, &x, &y));
    let (m, k, n) = (128, 512, 512);
    let a = upload(&gpu, "a", DType::F32, &numbers(m * k, 1), &[m, k]);
    let b = upload(&gpu, "b", DType::F32, &numbers(n * k, 2), &[n, k]);
    let out = gpu.empty("out", DType::F32, &[m, n]).unwrap();
    let product = time("a multiplication and addition", m * k * n, &|| {
        gpu.product(Product { a: (&a).into(), b: Operand::from(&b).t(), out: &out, start: Start::Zero }).unwrap();
    });
    // Ten times what a busy machine takes.
    assert!(access < 500.0 && product < 10.0, "{access} {product}");
}
