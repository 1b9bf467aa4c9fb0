//! Kernels and products on the emulated device against f64.

use crate::gpu::backend::RawArg;
use crate::gpu::{Arg, Array, DType, Gpu, Grid, Kernel, Product, Start};
use half::bf16;

/// Numbers between -1 and 1 that look random.
pub(super) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| draw()).collect()
}

pub(super) fn upload(gpu: &Gpu, name: &'static str, dtype: DType, numbers: &[f32], dims: &[usize]) -> Array {
    match dtype {
        DType::Bf16 => gpu.upload(name, &numbers.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), dims),
        _ => gpu.upload(name, numbers, dims),
    }
    .expect("room on the device")
}

fn read(gpu: &Gpu, array: &Array) -> Vec<f64> {
    match array.dtype() {
        DType::Bf16 => gpu.read::<bf16>(array).expect("numbers").iter().map(|x| x.to_f64()).collect(),
        _ => gpu.read::<f32>(array).expect("numbers").iter().map(|x| f64::from(*x)).collect(),
    }
}

/// The largest difference, relative to the largest number.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    let most = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    found.iter().zip(expected).fold(0.0_f64, |m, (f, e)| m.max((f - e).abs())) / most
}

struct Norm {
    y: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
}

pub(super) fn add_partials() -> Kernel {
    Kernel::typed("column_sums", "add_partials", &[("X", DType::F32)])
}

/// y = 2·x, by 64 threads. The catalogue does not have the kernel: it is launched without it.
pub(super) fn double(gpu: &Gpu, x: &Array, y: &Array) {
    let args: [Arg; 6] = [x.into(), y.into(), x.len().into(), 64_u32.into(), 0_i32.into(), 2.0_f32.into()];
    let args: Vec<RawArg> = args.iter().map(Arg::raw).collect();
    gpu.backend()
        .launch(&Kernel::plain("mistakes", "scale").with("MISTAKE", 0), Grid::of(1, 64), &args)
        .expect("queued");
}

const OFFSET: f32 = 1.0;
const EPS: f32 = 1e-5;

/// Forward and backward of `rows` rows, and what they should be.
fn rms_norm(seed: u64, [x_type, y_type]: [DType; 2], [rows, width]: [usize; 2]) -> (Norm, Norm) {
    let gpu = Gpu::emulated(seed);
    let x = upload(&gpu, "x", x_type, &numbers(rows * width, 1), &[rows, width]);
    let w = upload(&gpu, "w", DType::F32, &numbers(width, 2), &[width]);
    let dy = upload(&gpu, "dy", y_type, &numbers(rows * width, 3), &[rows, width]);
    let y = gpu.empty("y", y_type, &[rows, width]).expect("room on the device");
    let dx = gpu.empty("dx", x_type, &[rows, width]).expect("room on the device");
    let dw = gpu.zeros("dw", DType::F32, &[width]).expect("room on the device");
    let inverse = gpu.empty("inverse", DType::F32, &[rows]).expect("room on the device");
    let (slab, threads) = (3, (width.div_ceil(8) as u32).next_multiple_of(32));
    let slabs = rows.div_ceil(slab);
    let partial = gpu.empty("partial", DType::F32, &[slabs, width]).expect("room on the device");

    let kernel = |function| Kernel::typed("rms_norm", function, &[("X", x_type), ("Y", y_type)]);
    let args = [&x, &w, &y, &inverse].map(Into::into);
    let args = [&args[..], &[width.into(), EPS.into(), OFFSET.into()]].concat();
    gpu.launch(&kernel("rms_norm_forward"), Grid::of(rows, threads), &args).expect("queued");
    let args = [&x, &w, &inverse, &dy, &dx].map(Into::into);
    let args = [&args[..], &[width.into(), OFFSET.into()]].concat();
    gpu.launch(&kernel("rms_norm_backward"), Grid::of(rows, threads), &args).expect("queued");
    let args = [&x, &inverse, &dy, &partial].map(Into::into);
    let args = [&args[..], &[rows.into(), width.into(), slab.into()]].concat();
    let grid = Grid { blocks: [slabs as u32, width.div_ceil(64) as u32], threads: 64, shared: 0 };
    gpu.launch(&kernel("rms_norm_weight"), grid, &args).expect("queued");
    let args = [(&partial).into(), (&dw).into(), slabs.into(), width.into()];
    gpu.launch(&add_partials(), Grid::of(width.div_ceil(32), 256), &args).expect("queued");

    let (xs, ws, dys) = (read(&gpu, &x), read(&gpu, &w), read(&gpu, &dy));
    let mut expected = Norm { y: Vec::new(), dx: Vec::new(), dw: vec![0.0; width] };
    for (x, dy) in xs.chunks(width).zip(dys.chunks(width)) {
        let w = |i: usize| f64::from(OFFSET) + ws[i];
        let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / width as f64 + f64::from(EPS)).sqrt();
        let pull = (0..width).map(|i| dy[i] * w(i) * x[i]).sum::<f64>() * r * r / width as f64;
        for i in 0..width {
            expected.y.push(x[i] * r * w(i));
            expected.dx.push(r * (dy[i] * w(i) - x[i] * pull));
            expected.dw[i] += dy[i] * x[i] * r;
        }
    }
    (Norm { y: read(&gpu, &y), dx: read(&gpu, &dx), dw: read(&gpu, &dw) }, expected)
}

#[test]
fn rms_norm_is_that_of_f64_for_all_types_and_odd_widths() {
    let bound = |dtype| if dtype == DType::Bf16 { 4e-3 } else { 2e-6 };
    for types in [[DType::F32, DType::F32], [DType::F32, DType::Bf16], [DType::Bf16, DType::Bf16]] {
        for sizes in [[1, 1], [5, 12], [4, 64], [7, 251], [3, 896]] {
            let (found, expected) = rms_norm(7, types, sizes);
            let errors = [(&found.y, &expected.y, types[1]), (&found.dx, &expected.dx, types[0])];
            for (found, expected, dtype) in errors {
                // One number is its own root mean square: its gradient is a difference of equals.
                let error = if sizes[1] == 1 { found[0] - expected[0] } else { error(found, expected) };
                assert!(error <= bound(dtype), "{types:?} {sizes:?}: {error}");
            }
            assert!(error(&found.dw, &expected.dw) <= 2e-6, "{types:?} {sizes:?}");
        }
    }
}

#[test]
fn the_order_of_blocks_and_threads_changes_no_bit() {
    let run = |seed| {
        let norm = rms_norm(seed, [DType::F32, DType::Bf16], [7, 251]).0;
        [norm.y, norm.dx, norm.dw].concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert!((1..4).all(|seed| run(seed) == run(0)));
}

#[test]
fn a_step_past_the_end_of_a_view_is_named() {
    let gpu = Gpu::emulated(1);
    let arena = upload(&gpu, "arena", DType::F32, &numbers(1024, 1), &[1024]);
    let partial = arena.view(0, &[2, 100]).expect("inside the array");
    let into = arena.view(512, &[96]).expect("inside the array");
    let args = [(&partial).into(), (&into).into(), 2_usize.into(), 100_usize.into()];
    gpu.launch(&add_partials(), Grid::of(4, 256), &args).expect("queued");
    let told = gpu.synchronise().unwrap_err().to_string();
    let wanted = "add_partials [X=float]: `into` (arena): out of bounds: 4 bytes read at byte ";
    assert!(told.starts_with(wanted), "{told}");
    assert_eq!(gpu.read::<f32>(&into).unwrap_err().to_string(), told, "the device has failed");
}

#[test]
fn products_are_those_of_f64_in_all_forms() {
    for dtype in [DType::F32, DType::Bf16] {
        for [m, k, n] in [[1, 1, 1], [3, 7, 5], [9, 64, 33], [70, 130, 121]] {
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let gpu = Gpu::emulated(0);
                let dims = |t, rows, columns| if t { [columns, rows] } else { [rows, columns] };
                let a = upload(&gpu, "a", dtype, &numbers(m * k, 1), &dims(ta, m, k));
                let b = upload(&gpu, "b", dtype, &numbers(k * n, 2), &dims(tb, k, n));
                let out = upload(&gpu, "out", DType::F32, &numbers(m * n, 3), &[m, n]);
                let (av, bv, start) = (read(&gpu, &a), read(&gpu, &b), read(&gpu, &out));
                let at = |v: &[f64], t, [i, j]: [usize; 2], [rows, columns]: [usize; 2]| match t {
                    true => v[j * rows + i],
                    false => v[i * columns + j],
                };
                let mut expected = start;
                for (at_out, sum) in expected.iter_mut().enumerate() {
                    let [i, j] = [at_out / n, at_out % n];
                    *sum += (0..k).map(|l| at(&av, ta, [i, l], [m, k]) * at(&bv, tb, [l, j], [k, n])).sum::<f64>();
                }
                let operand = |x, t| {
                    let x = crate::gpu::Operand::from(x);
                    if t { x.t() } else { x }
                };
                let product = Product { a: operand(&a, ta), b: operand(&b, tb), out: &out, start: Start::Accumulate };
                gpu.product(product).expect("queued");
                assert!(error(&read(&gpu, &out), &expected) < 1e-6, "{dtype:?} {m} {k} {n} {ta} {tb}");
            }
        }
    }
}
