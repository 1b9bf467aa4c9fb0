//! What holds for row-wise and elementwise forms beyond the suite: the host's bits, bits of a row in any company, any
//! alignment, more rows and columns than one block takes.

use super::sums::add_bias;
use crate::gpu::{DType, Gpu};
use crate::kernel::elementwise::{Add, Columns, Gate, Gather, Gelu, Scale};
use crate::kernel::entries_tests::carried;
use crate::kernel::layer_norm::LayerNorm;
use crate::kernel::op::DeviceForm;
use crate::kernel::packs::Packs;
use crate::kernel::rms_norm::Rms;
use crate::kernel::rotary::{Angles, Rotary};
use crate::kernel::softcap::Softcap;
use crate::kernel::tape::{ParameterGrads, Tape, Var};
use crate::kernel::tests::random;
use crate::kernel::value::Value;
use crate::tensor::rng::Key;
use candle_core::Tensor;

/// Some of each kind: below, at and above what a warp or a block of threads takes, and odd.
const WIDTHS: [usize; 8] = [1, 12, 24, 33, 256, 1000, 2056, 8195];

fn t(dims: &[usize], stream: u64) -> Tensor {
    random(dims, Key::new(17).fold(stream))
}

/// The value of an operation, then the gradients of all its inputs under `dy`.
fn run<const N: usize>(op: impl DeviceForm<N>, inputs: [Value; N], dy: Value, compute: DType) -> Vec<Vec<f32>> {
    let mut tape = Tape::recording(Packs::new(0)).computing(compute);
    let vars: [Var; N] = std::array::from_fn(|i| tape.parameter(&inputs[i], i, true));
    let out = tape.finish(op, std::array::from_fn(|i| &vars[i])).expect("the operation runs");
    let mut grads = ParameterGrads::default();
    tape.backward(&out, dy, &mut grads).expect("walks back");
    let grads = (0..N).map(|i| grads.get(i).expect("a gradient").to_vec().expect("numbers"));
    std::iter::once(out.value.to_vec().expect("numbers")).chain(grads).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Runs an operation in f32 on the host and on the emulator: no bit may differ.
fn has_the_hosts_bits<const N: usize>(op: impl DeviceForm<N> + Clone, inputs: [Tensor; N], dy: &Tensor) {
    let gpu = Gpu::emulated(3);
    let name = std::any::type_name_of_val(&op);
    let host = run(op.clone(), inputs.each_ref().map(Value::from), dy.into(), DType::F32);
    let there = |t: &Tensor| carried(t, &gpu, DType::F32).expect("room on the device");
    let device = run(op, inputs.each_ref().map(there), there(dy), DType::F32);
    for (i, (host, device)) in host.iter().zip(&device).enumerate() {
        assert_eq!(host.len(), device.len());
        for (at, (a, b)) in host.iter().zip(device).enumerate() {
            assert!(a.to_bits() == b.to_bits(), "{name} {i}[{at}]: {a} on the host, {b} on the device");
        }
    }
}

/// Numbers of every size, both zeros and the borders of the functions' pieces among them.
fn wide_range(width: usize) -> Tensor {
    let edges = [0.0, -0.0, 0.625, -0.625, 1.0, -1.0, 14.0, -14.0, 90.0, -90.0, 1e-30, -1e-30, 13.3, -13.3, 5e3, -5e3];
    let more = (0..7 * width - edges.len()).map(|i| (i as f32 * 0.137).sin() * 2.0_f32.powi(i as i32 % 9 - 3));
    let all: Vec<f32> = edges.into_iter().chain(more).collect();
    Tensor::from_vec(all, (7, width), &candle_core::Device::Cpu).expect("as many numbers as the shape holds")
}

#[test]
fn f32_elementwise_forms_have_the_hosts_bits() {
    let (x, y, dy) = (wide_range(33), t(&[7, 33], 1), t(&[7, 33], 2));
    for form in [Gelu::Exact, Gelu::Tanh] {
        has_the_hosts_bits(form, [x.clone()], &dy);
        has_the_hosts_bits(Gate::Gelu(form), [x.clone(), y.clone()], &dy);
    }
    has_the_hosts_bits(Gate::Silu, [x.clone(), y.clone()], &dy);
    has_the_hosts_bits(Softcap { by: 0.7 }, [x.clone()], &dy);
    has_the_hosts_bits(Softcap { by: 30.0 }, [x.clone()], &dy.zeros_like().expect("zeros"));
    has_the_hosts_bits(Scale(0.37), [x.clone()], &dy);
    has_the_hosts_bits(Add, [x, y], &dy);
}

#[test]
fn f32_rotations_columns_and_gathered_rows_have_the_hosts_bits() {
    let positions: Vec<u32> = (0..7).map(|i| i * 977).collect();
    // A share of each head turns, an odd one among them; a whole head; pairs that are neighbours.
    for (half, head_dim) in [(5, 12), (3, 11), (6, 12), (1, 2)] {
        let frequencies: Vec<f32> = (0..half).map(|i| 0.3_f32.powi(i)).collect();
        let angles = Angles::new(&positions, &frequencies, 1.2);
        let [x, dy] = [1, 2].map(|stream| t(&[7, 3 * head_dim], stream));
        has_the_hosts_bits(Rotary { angles, head_dim }, [x], &dy);
    }
    // One block, some with gaps, neighbours; some that share columns, all of them in the last.
    for part in [(0, 36, 36, 1), (5, 8, 4, 3), (1, 7, 1, 5), (3, 3, 3, 11), (2, 3, 7, 9), (4, 0, 5, 3)] {
        let (start, stride, width, count) = part;
        let dy = t(&[7, width * count], 2);
        has_the_hosts_bits(Columns { start, stride, width, count }, [t(&[7, 36], 1)], &dy);
    }
    let ids: Vec<u32> = (0..90).map(|i| [7, 7, 0, 11, 7, i % 13][i as usize % 6]).collect();
    for width in [1, 12, 33, 300] {
        let op = Gather { ids: ids.clone().into() };
        has_the_hosts_bits(op, [t(&[13, width], 1)], &t(&[90, width], 2));
    }
}

const TYPES: [(DType, DType); 3] = [(DType::F32, DType::F32), (DType::Bf16, DType::F32), (DType::Bf16, DType::Bf16)];

/// Both norms of x of type `stream` on a device that computes in `compute`: value and gradients.
fn norms(gpu: &Gpu, (compute, stream): (DType, DType), x: &Tensor, dy: &Tensor) -> [Vec<Vec<f32>>; 2] {
    let width = x.dims()[1];
    let vector = |of| carried(&t(&[width], of), gpu, DType::F32).expect("room on the device");
    let (x, dy) = (
        || carried(x, gpu, stream).expect("room on the device"),
        || carried(dy, gpu, compute).expect("room on the device"),
    );
    let rms = run(Rms { eps: 1e-6, offset: 1.0 }, [x(), vector(3)], dy(), compute);
    [rms, run(LayerNorm { eps: 1e-5 }, [x(), vector(3), vector(4)], dy(), compute)]
}

#[test]
fn norms_of_a_row_do_not_depend_on_the_other_rows() {
    const ROWS: usize = 3;
    let gpu = Gpu::emulated(5);
    for (types, width) in TYPES.into_iter().flat_map(|types| WIDTHS.map(|width| (types, width))) {
        let (x, dy) = (t(&[ROWS, width], 1), t(&[ROWS, width], 2));
        let all = norms(&gpu, types, &x, &dy);
        for row in 0..ROWS {
            let [x, dy] = [&x, &dy].map(|t| t.narrow(0, row, 1).expect("inside the tensor"));
            for (all, alone) in all.iter().zip(norms(&gpu, types, &x, &dy)) {
                // The value and the gradient of x; those of the weights are sums over rows.
                for (all, alone) in all.iter().zip(alone).take(2) {
                    assert!(bits(&all[row * width..][..width]) == bits(&alone), "row {row} of {width}, {types:?}");
                }
            }
        }
    }
}

/// More rows than a slab of them, more slabs than a column has threads; more columns than a block takes.
#[test]
fn norms_of_any_size_are_those_of_f64() {
    let gpu = Gpu::emulated(6);
    let sizes = WIDTHS.map(|width| [2, width]).into_iter().chain([[63, 5], [65, 5], [700, 5]]);
    for (types, [rows, width]) in sizes.flat_map(|sizes| TYPES.map(|types| (types, sizes))) {
        let rounded = |t: Tensor, to: DType| match to {
            DType::Bf16 => {
                t.to_dtype(candle_core::DType::BF16).expect("a copy").to_dtype(candle_core::DType::F32).expect("a copy")
            }
            _ => t,
        };
        let (x, dy) = (rounded(t(&[rows, width], 1), types.1), rounded(t(&[rows, width], 2), types.0));
        let exact = |t: &Tensor| Value::from(t.to_dtype(candle_core::DType::F64).expect("a copy"));
        let vector = |of| exact(&t(&[width], of));
        let oracles = [
            run(Rms { eps: 1e-6, offset: 1.0 }, [exact(&x), vector(3)], exact(&dy), DType::F32),
            run(LayerNorm { eps: 1e-5 }, [exact(&x), vector(3), vector(4)], exact(&dy), DType::F32),
        ];
        for (found, oracle) in norms(&gpu, types, &x, &dy).iter().zip(&oracles) {
            for (i, (found, oracle)) in found.iter().zip(oracle).enumerate() {
                let dtype = [types.0, types.1, DType::F32, DType::F32][i];
                let bound = if dtype == DType::Bf16 { f64::powi(2.0, -8) } else { 2e-6 };
                // All inputs are about 1: so is what cancels where a row is one number.
                let size = oracle.iter().fold(1.0, |most: f64, x| most.max(f64::from(x.abs())));
                let gap = found.iter().zip(oracle).fold(0.0, |most: f64, (a, b)| most.max(f64::from((a - b).abs())));
                assert!(gap <= bound * size, "{i} of {rows} rows of {width}, {types:?}: {gap} of {size}");
            }
        }
    }
}

#[test]
fn a_bias_is_added_to_every_row() {
    let gpu = Gpu::emulated(8);
    for (dtype, width) in [DType::F32, DType::Bf16].into_iter().flat_map(|dtype| [1, 12, 33, 300].map(|w| (dtype, w))) {
        let y = carried(&t(&[5, width], 1), &gpu, dtype).expect("room on the device");
        let (before, b) = (y.to_vec().expect("numbers"), t(&[width], 2));
        add_bias(
            y.array().expect("on the device"),
            carried(&b, &gpu, DType::F32).expect("room on the device").array().expect("on the device"),
        )
        .expect("queued");
        let b: Vec<f32> = b.to_vec1().expect("numbers");
        let sums = before.iter().zip(b.iter().cycle()).map(|(y, b)| y + b);
        let expected: Vec<f32> = match dtype {
            DType::Bf16 => sums.map(|sum| half::bf16::from_f32(sum).to_f32()).collect(),
            _ => sums.collect(),
        };
        assert_eq!(y.to_vec().expect("numbers"), expected);
    }
}

/// Views begin anywhere: 16-byte accesses are taken where they can be, and nothing else changes.
#[test]
fn forms_do_not_depend_on_alignment() {
    let gpu = Gpu::emulated(7);
    let (x, dy) = (t(&[3, 64], 1), t(&[3, 64], 2));
    let shifted = |t: &Tensor, dtype, by: usize| {
        let flat = t.flatten_all().expect("numbers");
        let all = Tensor::cat(&[&flat.narrow(0, 0, by).expect("inside the tensor"), &flat], 0).expect("of one shape");
        let all = carried(&all, &gpu, dtype).expect("room on the device");
        Value::from(all.array().expect("on the device").view(by, t.dims()).expect("inside the array"))
    };
    for dtype in [DType::F32, DType::Bf16] {
        let at = |by: usize| {
            let (x, dy) = (|| shifted(&x, dtype, by), || shifted(&dy, dtype, by));
            let w = shifted(&t(&[64], 3), DType::F32, by);
            let gate = run(Gate::Silu, [x(), x()], dy(), dtype);
            let add = run(Add, [x(), x()], dy(), dtype);
            let rms = run(Rms { eps: 1e-6, offset: 0.0 }, [x(), w], dy(), dtype);
            [gate, add, rms].concat().iter().map(|numbers| bits(numbers)).collect::<Vec<_>>()
        };
        for by in 1..8 {
            assert!(at(by) == at(0), "{dtype:?}, {by} numbers from where memory is aligned");
        }
    }
}
