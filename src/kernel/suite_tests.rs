//! The suite of operations: each on a device against its plain composition in f64 on the CPU, values and gradients, over
//! random ragged shapes; and the gradients of that oracle against finite differences.
//!
//! Owns how they are held to each other. What is tested of each operation is an entry of `entries_tests.rs`.

use super::entries_tests::{Case, Entry, carried, entries, over_several_chunks, upstream};
use super::simd::forced::at_every_level;
use super::tests::{bits, numbers, random};
use super::value::Value;
use crate::gpu::{self, Gpu};
use crate::tensor::rng::Key;
use crate::ui::out;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The largest errors of one operation.
#[derive(Clone, Copy, Default)]
struct Deviation {
    /// Of a value.
    value: f64,
    /// Of a value, as a share of the largest number of that value.
    relative: f64,
    /// Of a gradient, as a share of the largest number of that gradient.
    gradient: f64,
}

/// Ragged shapes of every entry.
fn ragged() -> Vec<Vec<Entry>> {
    let draw = |seed| {
        let key = Key::new(seed);
        entries(key, 1 + key.below(0, 90) as usize, 70)
    };
    (0..6).map(draw).collect()
}

/// Runs entries, the same operations with several shapes, at a place, shows how far each is from the oracle, and returns
/// all that it computed there.
///
/// # Panics
/// Where a deviation is above its entry's bounds; where an input that is trained alone gets another gradient than when
/// all are, or another input gets one as well.
fn check(on: &On, title: &str, shapes: Vec<Vec<Entry>>) -> Vec<Tensor> {
    let report = |entry: &Entry| (entry.name, on.bounds(entry), Deviation::default());
    let mut found: Vec<(&str, [f64; 2], Deviation)> = shapes[0].iter().map(report).collect();
    let mut computed = Vec::new();
    for entries in shapes {
        for (entry, (.., most)) in entries.into_iter().zip(&mut found) {
            entry.cases.iter().for_each(|case| computed.extend(compare(case, on, most)));
        }
    }
    let mut table =
        format!("{title}\n{:<14} {:>10} {:>10} {:>10}   bounds\n", "operation", "value", "relative", "gradient");
    for (name, [value, gradient], d) in &found {
        let Deviation { value: most, relative, gradient: grad } = d;
        writeln!(table, "{name:<14} {most:>10.1e} {relative:>10.1e} {grad:>10.1e}   {value:.0e}, {gradient:.0e}")
            .expect("a string can be written to");
    }
    // Shown in every run of the tests: a slow drift is seen long before a bound is broken.
    out::line(&table);
    let broken =
        |(_, [value, gradient], d): &&(&str, [f64; 2], Deviation)| !(d.relative <= *value && d.gradient <= *gradient);
    let broken: Vec<&str> = found.iter().filter(broken).map(|(name, ..)| *name).collect();
    assert!(broken.is_empty(), "{broken:?} deviate by more than their bounds:\n{table}");
    computed
}

/// Where operations run, and in which type.
enum On {
    Host,
    #[cfg_attr(not(feature = "emulate"), expect(dead_code, reason = "a build without an emulator has no device"))]
    Device {
        gpu: Gpu,
        compute: gpu::DType,
    },
}

impl On {
    fn compute(&self) -> gpu::DType {
        match self {
            Self::Host => gpu::DType::F32,
            Self::Device { compute, .. } => *compute,
        }
    }

    /// The type of an input.
    fn dtype(&self, case: &Case, input: usize) -> gpu::DType {
        if case.wide.contains(&input) { gpu::DType::F32 } else { self.compute() }
    }

    /// An entry's own bounds; in bf16, of which a number has 8 digits, those of a few roundings.
    fn bounds(&self, entry: &Entry) -> [f64; 2] {
        match self.compute() {
            gpu::DType::Bf16 => entry.bounds.map(|bound| bound.max(entry.roundings * f64::powi(2.0, -8))),
            _ => entry.bounds,
        }
    }

    /// The inputs there, and the numbers that they hold there in f64.
    fn inputs(&self, case: &Case) -> (Vec<Value>, Vec<Tensor>) {
        match self {
            Self::Host => (case.inputs.iter().map(Value::from).collect(), case.in_f64()),
            Self::Device { gpu, .. } => {
                let carry = |(i, t): (usize, &Tensor)| carried(t, gpu, self.dtype(case, i)).expect("a copy");
                let values: Vec<Value> = case.inputs.iter().enumerate().map(carry).collect();
                let exact = |value: &Value| {
                    let numbers = value.to_vec().expect("numbers").into_iter().map(f64::from).collect();
                    Tensor::from_vec::<_, f64>(numbers, value.dims(), &Device::Cpu).expect("the same shape")
                };
                let exact = values.iter().map(exact).collect();
                (values, exact)
            }
        }
    }
}

/// Raises `most` to how far the case is from its oracle; what it computed.
fn compare(case: &Case, on: &On, most: &mut Deviation) -> Vec<Tensor> {
    let (carried, exact) = on.inputs(case);
    let found = case.run(&carried, &case.trained, on.compute());
    let oracle = case.oracle(&exact);
    assert_eq!(found.values.len(), oracle.values.len());
    for (value, exact) in found.values.iter().zip(&oracle.values) {
        let (gap, size) = gap(value, exact);
        raise(&mut most.value, gap);
        raise(&mut most.relative, gap / size);
    }
    let mut computed = found.values;
    for (i, (grad, exact)) in found.grads.iter().zip(&oracle.grads).enumerate() {
        assert_eq!(grad.is_some(), case.trained[i], "{}: input {i}", case.name);
        let (Some(grad), Some(exact)) = (grad, exact) else { continue };
        let (gap, size) = gap(grad, exact);
        raise(&mut most.gradient, gap / size);
        let alone: Vec<bool> = (0..case.inputs.len()).map(|other| other == i).collect();
        for (other, again) in case.run(&carried, &alone, on.compute()).grads.iter().enumerate() {
            let expected = (other == i).then_some(grad);
            assert_eq!(again.as_ref().map(bits), expected.map(bits), "{}: input {i} alone", case.name);
        }
        computed.push(grad.clone());
    }
    computed
}

/// The largest distance, and the largest number of `exact`.
fn gap(found: &Tensor, exact: &Tensor) -> (f64, f64) {
    assert_eq!(found.dims(), exact.dims());
    let (found, exact) = (numbers(found), numbers(exact));
    let (mut gap, mut size) = (0.0, 1e-3);
    found.iter().zip(&exact).for_each(|(a, b)| raise(&mut gap, (a - b).abs()));
    exact.iter().for_each(|x| raise(&mut size, x.abs()));
    (gap, size)
}

/// To the larger of both; a NaN stays.
fn raise(most: &mut f64, x: f64) {
    if x.is_nan() || x > *most {
        *most = x;
    }
}

/// At every instruction set that the processor has, which all come to the same bits.
#[test]
fn operations_on_the_host_equal_their_plain_compositions() {
    let found = at_every_level(|level| check(&On::Host, &format!("CPU, {level:?}"), ragged()));
    for other in &found[1..] {
        for (a, b) in found[0].iter().zip(other) {
            assert!(bits(a) == bits(b), "instruction sets differ in a result of shape {:?}", a.dims());
        }
    }
}

/// What is held to its plain composition by tests of its own on a device, over fewer shapes: `device/attention_tests.rs`.
#[cfg(feature = "emulate")]
const TESTED_ALONE: &[&str] = &["Attention"];

/// On the emulator, in both types that a device computes in; another order of blocks and threads gives the same bits.
#[cfg(feature = "emulate")]
#[test]
fn operations_on_a_device_equal_their_plain_compositions() {
    for compute in [gpu::DType::F32, gpu::DType::Bf16] {
        let shapes = || -> Vec<Vec<Entry>> {
            let known = |e: &Entry| !TESTED_ALONE.contains(&e.name);
            ragged().into_iter().map(|entries| entries.into_iter().filter(known).collect()).collect()
        };
        let on = |seed| On::Device { gpu: Gpu::emulated(seed), compute };
        let found = check(&on(1), &format!("emulated, {compute:?}"), shapes());
        let again = check(&on(2), &format!("emulated, {compute:?}, another order"), shapes());
        for (a, b) in found.iter().zip(&again) {
            assert!(bits(a) == bits(b), "the order of blocks shows in a result of shape {:?}", a.dims());
        }
    }
}

#[test]
fn operations_over_several_chunks_equal_their_plain_compositions() {
    check(&On::Host, "CPU, several chunks of the vocabulary", vec![over_several_chunks(Key::new(5))]);
}

/// Of Σ value·upstream, in f64.
#[test]
fn plain_compositions_match_finite_differences() {
    for entry in entries(Key::new(11), 4, 3) {
        for case in entry.cases.iter().filter(|case| case.trained.contains(&true)) {
            matches_finite_differences(case);
        }
    }
}

fn matches_finite_differences(case: &Case) {
    const STEP: f64 = 1e-5;
    let inputs = case.in_f64();
    let found = case.oracle(&inputs);
    let sum = |inputs: &[Tensor]| -> f64 {
        let value = numbers(&case.oracle(inputs).values[0]);
        value.iter().zip(numbers(&upstream(&found.values[0]))).map(|(x, y)| x * y).sum()
    };
    for (i, grad) in found.grads.iter().enumerate() {
        let Some(grad) = grad.as_ref().map(numbers) else { continue };
        for at in (0..grad.len()).step_by(1 + grad.len() / 25) {
            let moved = |by: f64| {
                let mut inputs = inputs.clone();
                let mut flat = numbers(&inputs[i]);
                flat[at] += by;
                inputs[i] = Tensor::from_vec(flat, inputs[i].dims(), &Device::Cpu).expect("the same shape");
                sum(&inputs)
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let found = grad[at];
            assert!((slope - found).abs() < 1e-6 * (1.0 + slope.abs()), "{} {i}[{at}]: {found} for {slope}", case.name);
        }
    }
}

/// J·u of every operation within a pass, at every instruction set: by central differences of the plain composition in
/// f64, and by the backward pass, ⟨dy, J·u⟩ = ⟨Jᵀ·dy, u⟩; along all inputs together and along each alone.
#[test]
fn forward_derivatives_match_finite_differences() {
    let mut table = String::from("forward derivatives\n");
    let mut broken = Vec::new();
    let shapes = [1, 7, 60].map(|n| entries(Key::new(n as u64), n, 70));
    let mut most: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    for case in shapes.iter().flatten().flat_map(|entry| &entry.cases) {
        let tangents: Vec<Tensor> =
            case.inputs.iter().enumerate().map(|(i, t)| random(t.dims(), Key::new(31).fold(i as u64))).collect();
        let all = vec![true; case.inputs.len()];
        let alone = (0..case.inputs.len()).map(|i| all.iter().enumerate().map(|(k, _)| k == i).collect());
        for moving in std::iter::once(all.clone()).chain(alone) {
            let mut found = at_every_level(|_| case.moved(&moving, &tangents)).into_iter();
            let Some(first) = found.next().flatten() else { continue };
            for other in found {
                assert!(bits(&first) == bits(&other.expect("a tangent")), "{}: instruction sets differ", case.name);
            }
            let most = most.entry(case.name).or_default();
            let (gap, size) = gap(&first, &differences(case, &moving, &tangents));
            raise(&mut most[0], gap / size);
            raise(&mut most[1], transposed(case, &moving, &tangents, &first));
        }
    }
    for (name, [forward, transposed]) in &most {
        writeln!(table, "{name:<14} {forward:>10.1e} of the largest, against the backward pass {transposed:>10.1e}")
            .expect("a string can be written to");
        if !(*forward < 3e-6 && *transposed < 1e-5) {
            broken.push(*name);
        }
    }
    out::line(&table);
    assert!(broken.is_empty(), "{broken:?}:\n{table}");
    assert!(most.len() >= 11, "operations have no forward derivative: {:?}", most.keys());
}

/// (f(x + h·u) − f(x − h·u)) / 2h of the plain composition in f64.
fn differences(case: &Case, moving: &[bool], tangents: &[Tensor]) -> Tensor {
    const STEP: f64 = 1e-5;
    let moved = |by: f64| {
        let shift = |((x, u), moves): ((Tensor, &Tensor), &bool)| {
            if !moves {
                return x;
            }
            let u = u.to_dtype(DType::F64).expect("a copy");
            (x + (u * by).expect("a product")).expect("of one shape")
        };
        let inputs: Vec<Tensor> = case.in_f64().into_iter().zip(tangents).zip(moving).map(shift).collect();
        case.oracle(&inputs).values.swap_remove(0)
    };
    ((moved(STEP) - moved(-STEP)).expect("of one shape") / (2.0 * STEP)).expect("a quotient")
}

/// How far ⟨dy, J·u⟩ and ⟨Jᵀ·dy, u⟩ are apart, as a share of the product of the lengths that the first is made of.
fn transposed(case: &Case, moving: &[bool], tangents: &[Tensor], moved: &Tensor) -> f64 {
    let inputs: Vec<Value> = case.inputs.iter().map(Value::from).collect();
    let found = case.run(&inputs, moving, gpu::DType::F32);
    let dot = |a: &Tensor, b: &Tensor| numbers(a).iter().zip(numbers(b)).map(|(a, b)| a * b).sum::<f64>();
    let dy = upstream(&found.values[0]);
    let back: f64 = found.grads.iter().zip(tangents).filter_map(|(g, u)| Some(dot(g.as_ref()?, u))).sum();
    let length = |t: &Tensor| dot(t, t).sqrt();
    (dot(&dy, moved) - back).abs() / (length(&dy) * length(moved)).max(1e-3)
}

/// Every type that the sources of `kernel/` make an operation or a routine.
#[test]
fn every_operation_has_an_entry() {
    let known: Vec<&str> = entries(Key::new(0), 2, 2).iter().map(|entry| entry.name).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernel");
    let mut declared = Vec::new();
    for file in std::fs::read_dir(folder).expect("the folder of operations") {
        let path = file.expect("an entry").path();
        if path.is_dir() || path.to_string_lossy().ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        let line =
            |line: &&str| line.starts_with("impl") && (line.contains("Operation<") || line.contains("Routine for"));
        for line in text.lines().filter(line) {
            let name = line.split(" for ").nth(1).expect("a type");
            declared.push(name.split(|c: char| !c.is_alphanumeric()).next().expect("a name").to_string());
        }
    }
    assert!(declared.len() > 10, "operations are declared in another way than this test looks for: {declared:?}");
    let missing: Vec<&String> = declared.iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?} have no entry in src/kernel/entries_tests.rs");
}
