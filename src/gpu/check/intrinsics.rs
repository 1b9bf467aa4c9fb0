//! The instructions that kernels are built of: `kernels/intrinsics.cu` against the same in Rust.

use super::{Finding, difference, integers, normal, upload};
use crate::error::Result;
use crate::gpu::array::DType;
use crate::gpu::device::Gpu;
use crate::gpu::kernel::{Arg, Grid, Kernel};
use crate::tensor::rng::Key;
use half::bf16;

/// Of tiles and warps.
const SIDE: usize = 16;
const LANES: usize = 32;

/// Relative, as NVIDIA states it.
const EXP2_ERROR: f64 = 1.0 / (1 << 22) as f64;

/// Roundings, arithmetic, exchanges between lanes, copies, matrices and tensor cores.
///
/// # Errors
/// None: what fails is a finding.
pub fn intrinsics(gpu: &Gpu) -> Result<Vec<Finding>> {
    Ok(vec![
        Finding::held("f32 to bf16: the nearest, ties to even", rounding(gpu)),
        Finding::held("fmaf, division, square root: one rounding each", arithmetic(gpu)),
        Finding::held("exp2: within 2^-22, zero far below", powers(gpu)),
        Finding::held("upper halves of 128-bit products", high_halves(gpu)),
        Finding::held("exchanges between lanes", exchanges(gpu)),
        Finding::held("asynchronous copies, ldmatrix, mma m16n8k16", tiles(gpu)),
    ])
}

fn kernel(function: &'static str) -> Kernel {
    Kernel::plain("intrinsics", function)
}

/// Numbers of all sizes: every pattern of the upper half, with lower halves about the middle.
fn patterns() -> Vec<f32> {
    let lower = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let all = (0..1u32 << 16).flat_map(|upper| lower.map(|lower| f32::from_bits(upper << 16 | lower)));
    all.filter(|x| !x.is_nan()).collect()
}

fn rounding(gpu: &Gpu) -> Result<Option<String>> {
    let numbers = patterns();
    let x = gpu.upload("a check", &numbers, &[numbers.len()])?;
    let y = gpu.empty("a check", DType::Bf16, &[numbers.len()])?;
    let args: [Arg; 3] = [(&x).into(), (&y).into(), numbers.len().into()];
    gpu.launch(&kernel("round_bf16"), Grid::over(numbers.len(), 1), &args)?;
    let found: Vec<f32> = gpu.read::<bf16>(&y)?.into_iter().map(bf16::to_f32).collect();
    Ok(difference(&found, numbers.iter().map(|x| bf16::from_f32(*x).to_f32())))
}

fn arithmetic(gpu: &Gpu) -> Result<Option<String>> {
    const COUNT: usize = 1 << 14;
    let scaled = |seed: u64| {
        let key = Key::new(seed + 100);
        let scale = |at: usize| (key.uniform(at as u64) as f32 * 40.0 - 20.0).exp2();
        normal(seed, COUNT).into_iter().enumerate().map(|(at, x)| x * scale(at)).collect::<Vec<f32>>()
    };
    let [a, b, c] = [10, 11, 12].map(scaled);
    let a: Vec<f32> = a.into_iter().map(f32::abs).collect();
    let [x, y, z] = [&a, &b, &c].map(|numbers| upload(gpu, DType::F32, numbers, &[COUNT]));
    let (x, y, z) = (x?, y?, z?);
    let [fused, quotient, root] = [(); 3].map(|()| gpu.empty("a check", DType::F32, &[COUNT]));
    let (fused, quotient, root) = (fused?, quotient?, root?);
    let args: [Arg; 7] =
        [(&x).into(), (&y).into(), (&z).into(), (&fused).into(), (&quotient).into(), (&root).into(), COUNT.into()];
    gpu.launch(&kernel("arithmetic"), Grid::over(COUNT, 1), &args)?;
    let found = gpu.read_all::<f32>(&[&fused, &quotient, &root])?;
    let fused = difference(&found[0], (0..COUNT).map(|i| a[i].mul_add(b[i], c[i])));
    let quotient = difference(&found[1], (0..COUNT).map(|i| a[i] / b[i]));
    let root = difference(&found[2], (0..COUNT).map(|i| a[i].sqrt()));
    let named = |name: &str, wrong: Option<String>| wrong.map(|wrong| format!("{name}: {wrong}"));
    Ok(named("fmaf", fused).or(named("division", quotient)).or(named("square root", root)))
}

fn powers(gpu: &Gpu) -> Result<Option<String>> {
    let mut numbers: Vec<f32> = (-4000..=4000).map(|n| n as f32 * 0.0101).collect();
    numbers.extend([f32::NEG_INFINITY, -200.0, 0.0, -0.0]);
    let x = gpu.upload("a check", &numbers, &[numbers.len()])?;
    let y = gpu.empty("a check", DType::F32, &[numbers.len()])?;
    let args: [Arg; 3] = [(&x).into(), (&y).into(), numbers.len().into()];
    gpu.launch(&kernel("powers_of_2"), Grid::over(numbers.len(), 1), &args)?;
    let found = gpu.read::<f32>(&y)?;
    let wrong = |(x, y): &(&f32, &f32)| {
        let exact = if **x < -150.0 { 0.0 } else { f64::from(**x).exp2() };
        (f64::from(**y) - exact).abs() > EXP2_ERROR * exact
    };
    Ok(numbers.iter().zip(&found).find(wrong).map(|(x, y)| format!("2^{x} is {y}")))
}

fn high_halves(gpu: &Gpu) -> Result<Option<String>> {
    const COUNT: usize = 1 << 10;
    let [a, b] = [13, 14].map(|seed| (0..COUNT as u64).map(|at| Key::new(seed).bits(at)).collect::<Vec<u64>>());
    let (x, y) = (gpu.upload("a check", &a, &[COUNT])?, gpu.upload("a check", &b, &[COUNT])?);
    let z = gpu.empty("a check", DType::U64, &[COUNT])?;
    let args: [Arg; 4] = [(&x).into(), (&y).into(), (&z).into(), COUNT.into()];
    gpu.launch(&kernel("high_halves"), Grid::over(COUNT, 1), &args)?;
    let found = gpu.read::<u64>(&z)?;
    let high = |i: usize| ((u128::from(a[i]) * u128::from(b[i])) >> 64) as u64;
    let wrong = (0..COUNT).find(|&i| found[i] != high(i));
    Ok(wrong.map(|i| format!("{:x} times {:x} has {:x} above, not {:x}", a[i], b[i], high(i), found[i])))
}

fn exchanges(gpu: &Gpu) -> Result<Option<String>> {
    let numbers: Vec<u32> = (0..LANES as u64).map(|at| Key::new(15).bits(at) as u32).collect();
    let x = gpu.upload("a check", &numbers, &[LANES])?;
    for lanes in [1, 2, 4, 8, 16] {
        let [flipped, turned] = [(); 2].map(|()| gpu.empty("a check", DType::U32, &[LANES]));
        let (flipped, turned) = (flipped?, turned?);
        let args: [Arg; 4] = [(&x).into(), (&flipped).into(), (&turned).into(), (lanes as i32).into()];
        gpu.launch(&kernel("exchanges"), Grid::of(1, LANES as u32), &args)?;
        let found = gpu.read_all::<u32>(&[&flipped, &turned])?;
        let right = |lane: &usize| {
            found[0][*lane] == numbers[lane ^ lanes] && found[1][*lane] == numbers[(lane + lanes) % LANES]
        };
        if let Some(lane) = (0..LANES).find(|lane| !right(lane)) {
            return Ok(Some(format!("lane {lane} at a distance of {lanes} got another lane's number")));
        }
    }
    Ok(None)
}

fn tiles(gpu: &Gpu) -> Result<Option<String>> {
    const COUNT: usize = SIDE * SIDE;
    let (a, b, start) = (integers(16, COUNT), integers(17, COUNT), integers(18, COUNT));
    let turned: Vec<f32> = (0..COUNT).map(|at| b[at % SIDE * SIDE + at / SIDE]).collect();
    let [x, y, t] = [&a, &b, &turned].map(|numbers| upload(gpu, DType::Bf16, numbers, &[SIDE, SIDE]));
    let (x, y, t, s) = (x?, y?, t?, upload(gpu, DType::F32, &start, &[SIDE, SIDE])?);
    for rows in [SIDE, 11] {
        let [plain, transposed] = [(); 2].map(|()| gpu.empty("a check", DType::F32, &[SIDE, SIDE]));
        let (plain, transposed) = (plain?, transposed?);
        let args: [Arg; 7] = [
            (&x).into(),
            (&y).into(),
            (&t).into(),
            (&s).into(),
            (&plain).into(),
            (&transposed).into(),
            (rows as i32).into(),
        ];
        gpu.launch(&kernel("tiles"), Grid::of(1, LANES as u32), &args)?;
        let sum = |at: usize| {
            let (row, column) = (at / SIDE, at % SIDE);
            let term = |k: usize| if row < rows { a[row * SIDE + k] * b[k * SIDE + column] } else { 0.0 };
            (0..SIDE).map(term).sum::<f32>() + start[at]
        };
        let found = gpu.read_all::<f32>(&[&plain, &transposed])?;
        for (found, name) in found.iter().zip(["as it is", "stored transposed"]) {
            // A zero may have either sign.
            let found: Vec<f32> = found.iter().map(|x| x + 0.0).collect();
            if let Some(wrong) = difference(&found, (0..COUNT).map(|at| sum(at) + 0.0)) {
                return Ok(Some(format!("{rows} rows, b {name}: {wrong}")));
            }
        }
    }
    Ok(None)
}
