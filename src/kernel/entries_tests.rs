//! What the suite tests of each operation: inputs, and the largest deviation from the plain composition in f64.
//!
//! An operation without an entry fails `suite_tests::every_operation_has_an_entry`.

use super::adamw::{Rule, Update};
use super::attention::{Attention, Heads};
use super::blend::Blend;
use super::divergence::{Divergence, LinearDivergence};
use super::dot::dot;
use super::elementwise::{Add, Columns, Gate, Gather, Gelu, Scale, add, columns, gated, scale};
use super::form::Routine;
use super::gradients::ParameterGrads;
use super::layer_norm::LayerNorm;
use super::linear::{Addend, Layout, Linear, LinearAdd, Out};
use super::logprob::{LinearLogprob, Targets};
use super::op::{DeviceForm, Tangent};
use super::packs::Packs;
use super::rank::ranks;
use super::rms_norm::Rms;
use super::rotary::{Angles, Rotary, Scaling, frequencies};
use super::softcap::Softcap;
use super::tape::{Tape, Var};
use super::tests::{HEADS, qkv, ragged, random};
use super::value::Value;
use crate::error::Result;
use crate::gpu::{self, Gpu};
use crate::tensor::rng::Key;
use candle_core::{DType, Device, Tensor};
use half::bf16;
use std::rc::Rc;
use std::sync::Arc;

/// An operation's cases, and the largest deviations that it may have from the oracle: of a value and of a gradient, each
/// as a share of its largest number.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) bounds: [f64; 2],
    /// How many roundings to bf16 a number may be off by where a device computes in that type.
    pub(super) roundings: f64,
    pub(super) cases: Vec<Case>,
}

/// Inputs, f32 on the CPU, and what is done with them wherever they are carried.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) inputs: Vec<Tensor>,
    /// The inputs that have a gradient.
    pub(super) trained: Vec<bool>,
    /// Those that are f32 on a device that computes in bf16: the residual stream, vectors of weights, routines' own.
    pub(super) wide: Vec<usize>,
    run: Box<Run>,
    /// The tangent of the value along tangents of all inputs; of what a pass has in it, not at its end.
    moved: Option<Box<Moved>>,
}

type Moved = dyn Fn(&[Tensor], &[bool], &[Tensor]) -> Result<Option<Tensor>>;

type Run = dyn Fn(&[Value], &[bool], gpu::DType) -> Result<Found>;

/// What a case comes to.
pub(super) struct Found {
    pub(super) values: Vec<Tensor>,
    /// Of each input; `None` where it is not trained.
    pub(super) grads: Vec<Option<Tensor>>,
}

impl Case {
    /// In the form that serves these inputs; `compute` is the type that a device computes in.
    pub(super) fn run(&self, inputs: &[Value], trained: &[bool], compute: gpu::DType) -> Found {
        (self.run)(inputs, trained, compute).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    pub(super) fn in_f64(&self) -> Vec<Tensor> {
        self.inputs.iter().map(|t| t.to_dtype(DType::F64).expect("a copy")).collect()
    }

    /// The plain composition in f64 of these inputs: no other form serves that type.
    pub(super) fn oracle(&self, inputs: &[Tensor]) -> Found {
        let inputs: Vec<Value> = inputs.iter().map(Value::from).collect();
        self.run(&inputs, &self.trained, gpu::DType::F32)
    }

    /// The forward derivative along tangents of the inputs that are `trained`; nothing where it has none.
    pub(super) fn moved(&self, trained: &[bool], tangents: &[Tensor]) -> Option<Tensor> {
        let moved = self.moved.as_ref()?;
        moved(&self.inputs, trained, tangents).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// On a device that computes in bf16 these inputs, by their numbers, are f32 all the same.
    fn wide(mut self, inputs: &[usize]) -> Self {
        self.wide = inputs.to_vec();
        self
    }

    /// Without gradients from input `from` on.
    fn frozen(mut self, from: usize) -> Self {
        self.trained[from..].fill(false);
        self
    }
}

/// The gradient that a value of this shape, type and place is given.
pub(super) fn upstream(value: &Tensor) -> Tensor {
    random(value.dims(), Key::new(99)).to_dtype(value.dtype()).expect("a copy")
}

/// The same for a value wherever it is, in its type.
fn upstream_of(value: &Value) -> Result<Value> {
    match value {
        Value::Host(t) => Ok(upstream(t).into()),
        Value::Device(a) => carried(&random(a.dims(), Key::new(99)), a.gpu(), a.dtype()),
    }
}

/// A tensor of the host on a device, in a type.
pub(super) fn carried(t: &Tensor, gpu: &Gpu, dtype: gpu::DType) -> Result<Value> {
    let numbers: Vec<f32> = t.flatten_all()?.to_vec1()?;
    Ok(match dtype {
        gpu::DType::Bf16 => {
            let rounded: Vec<bf16> = numbers.into_iter().map(bf16::from_f32).collect();
            gpu.upload("an input", &rounded, t.dims())?.into()
        }
        _ => gpu.upload("an input", &numbers, t.dims())?.into(),
    })
}

/// A value as a tensor on the host.
fn tensor_of(value: &Value) -> Result<Tensor> {
    match value {
        Value::Host(t) => Ok(t.clone()),
        Value::Device(_) => Ok(Tensor::from_vec(value.to_vec()?, value.dims(), &Device::Cpu)?),
    }
}

/// Operations on a tape.
fn on_tape(
    name: &'static str,
    inputs: Vec<Tensor>,
    apply: impl Fn(&mut Tape, &[Var]) -> Result<Var> + 'static,
) -> Case {
    let trained = vec![true; inputs.len()];
    let (apply, again) = {
        let apply = Rc::new(apply);
        (apply.clone(), apply)
    };
    let moved = move |inputs: &[Tensor], trained: &[bool], tangents: &[Tensor]| {
        let along = tangents.iter().map(Value::from).enumerate().filter(|(i, _)| trained[*i]).collect();
        let mut tape = Tape::recording(Packs::new(0)).along(Arc::new(along));
        let vars: Vec<Var> = (0..inputs.len()).map(|i| tape.parameter(&inputs[i], i, trained[i])).collect();
        again(&mut tape, &vars)?.tangent().map(tensor_of).transpose()
    };
    let run = move |inputs: &[Value], trained: &[bool], compute: gpu::DType| {
        let mut tape = Tape::recording(Packs::new(0)).computing(compute);
        let vars: Vec<Var> = (0..inputs.len()).map(|i| tape.parameter(&inputs[i], i, trained[i])).collect();
        let out = apply(&mut tape, &vars)?;
        let mut grads = ParameterGrads::default();
        tape.backward(&out, upstream_of(&out.value)?, &mut grads)?;
        let grad = |i| grads.get(i).map(tensor_of).transpose();
        Ok(Found { values: vec![tensor_of(&out.value)?], grads: (0..inputs.len()).map(grad).collect::<Result<_>>()? })
    };
    Case { name, inputs, trained, wide: Vec::new(), run: Box::new(run), moved: Some(Box::new(moved)) }
}

fn name_of<O>() -> &'static str {
    let path = std::any::type_name::<O>();
    path.rsplit("::").next().unwrap_or(path)
}

/// One operation alone.
fn operation<const N: usize, O: Tangent<N> + Clone>(op: O, inputs: [Tensor; N]) -> Case {
    on_tape(name_of::<O>(), inputs.to_vec(), move |tape, vars| {
        tape.apply(op.clone(), std::array::from_fn(|i| &vars[i]))
    })
}

/// One at the end of a pass, which has no forward derivative.
fn ending<const N: usize, O: DeviceForm<N> + Clone>(op: O, inputs: [Tensor; N]) -> Case {
    let case = on_tape(name_of::<O>(), inputs.to_vec(), move |tape, vars| {
        tape.finish(op.clone(), std::array::from_fn(|i| &vars[i]))
    });
    Case { moved: None, ..case }
}

/// What nothing is differentiated through.
fn routine(name: &'static str, inputs: Vec<Tensor>, run: impl Fn(&[Value]) -> Result<Vec<Tensor>> + 'static) -> Case {
    let none = vec![false; inputs.len()];
    let run = move |inputs: &[Value], _: &[bool], _: gpu::DType| {
        Ok(Found { values: run(inputs)?, grads: vec![None; inputs.len()] })
    };
    let wide = (0..inputs.len()).collect();
    Case { name, inputs, trained: none, wide, run: Box::new(run), moved: None }
}

fn entry(bounds: [f64; 2], cases: impl Into<Vec<Case>>) -> Entry {
    let cases = cases.into();
    Entry { name: cases[0].name, bounds, roundings: 2.0, cases }
}

/// Every operation with random inputs of `n` rows; `most` bounds the lengths of the segments that are attended over.
pub(super) fn entries(key: Key, n: usize, most: u64) -> Vec<Entry> {
    let mut all = layers(key, n);
    all.extend(over_tokens(key, n, most));
    all.extend(over_the_vocabulary(key, n));
    all.extend(routines(key, n));
    all
}

/// What a layer is made of.
fn layers(key: Key, n: usize) -> Vec<Entry> {
    let t = |dims: &[usize], stream: u64| random(dims, key.fold(stream));
    let weights = [(Layout::OutIn, t(&[33, 40], 2)), (Layout::InOut, t(&[40, 33], 2))];
    let outs = [Out::Weight, Out::F32];
    let plain = weights.iter().flat_map(|(layout, w)| {
        outs.map(|out| operation(Linear { layout: *layout, out }, [t(&[n, 40], 1), w.clone()]))
    });
    let plain: Vec<Case> = plain.collect();
    let biases = outs.map(|out| (Addend::Bias(out), t(&[33], 3)));
    let addends = [&biases[..], &[(Addend::Residual, t(&[n, 33], 3))]].concat();
    let added = weights.iter().flat_map(|(layout, w)| {
        addends.iter().map(|(addend, more)| {
            operation(LinearAdd { layout: *layout, addend: *addend }, [t(&[n, 40], 1), w.clone(), more.clone()])
                .wide(&[2])
        })
    });
    let added: Vec<Case> = added.collect();
    vec![
        entry([1e-6, 1e-6], plain),
        entry([2e-6, 1e-6], added),
        entry(
            [5e-7, 2e-6],
            [(48, 0.0), (16, 0.0), (48, 1.0), (16, 1.0)].map(|(width, offset)| {
                operation(Rms { eps: 1e-6, offset }, [t(&[n, 48], 1), t(&[width], 2)])
                    // The residual stream, or heads.
                    .wide(if width == 48 { &[0, 1] } else { &[1] })
            }),
        ),
        entry(
            [5e-7, 1e-6],
            [operation(LayerNorm { eps: 1e-5 }, [t(&[n, 45], 1), t(&[45], 2), t(&[45], 3)]).wide(&[0, 1, 2])],
        ),
        entry(
            [2e-7, 5e-6],
            [Gelu::Exact, Gelu::Tanh].map(|form| operation(form, [(t(&[n, 30], 1) * 3.0).expect("a product")])),
        ),
        entry(
            [5e-7, 5e-6],
            [Gate::Silu, Gate::Gelu(Gelu::Exact), Gate::Gelu(Gelu::Tanh)]
                .map(|f| operation(f, [t(&[n, 30], 1), t(&[n, 30], 2)])),
        ),
        entry([5e-7, 5e-6], [0.5, 4.0].map(|by| operation(Softcap { by }, [t(&[n, 30], 1)]))),
        entry([1e-7, 1e-7], [operation(Scale(0.37), [t(&[n, 30], 1)])]),
        entry(
            [1e-7, 1e-7],
            [&[0][..], &[0, 1], &[]].map(|wide| operation(Add, [t(&[n, 30], 1), t(&[n, 30], 2)]).wide(wide)),
        ),
        entry(
            [5e-7, 5e-7],
            [
                operation(Columns { start: 5, stride: 8, width: 4, count: 3 }, [t(&[n, 36], 1)]),
                on_tape("Columns", vec![t(&[n, 36], 1)], |tape, v| {
                    // Parts of an activation, as of GPT-NeoX's joint projection: their gradients meet in one.
                    let x = scale(tape, &v[0], 2.0)?;
                    let part = |start| Columns { start, stride: 12, width: 4, count: 3 };
                    let [q, k, v] = [part(0), part(4), part(8)].map(|part| columns(tape, &x, part));
                    let y = gated(tape, &q?, &k?, Gate::Silu)?;
                    let y = gated(tape, &v?, &y, Gate::Silu)?;
                    let overlapping = columns(tape, &x, Columns { start: 5, stride: 1, width: 4, count: 3 })?;
                    add(tape, &y, &overlapping)
                }),
            ],
        ),
    ]
}

/// What knows of a token's place.
fn over_tokens(key: Key, n: usize, most: u64) -> Vec<Entry> {
    let t = |dims: &[usize], stream: u64| random(dims, key.fold(stream));
    let positions: Vec<u32> = (0..n as u32).map(|i| i * 3).collect();
    let rotary = |(dims, magnitude)| {
        let angles = Angles::new(&positions, &frequencies(dims, 1e4, &Scaling::None), magnitude);
        operation(Rotary { angles, head_dim: 8 }, [t(&[n, 24], 1)])
    };
    let ids = (0..n).map(|i| key.below(i as u64, 12) as u32).collect();
    let segments = Arc::new(ragged(key, most));
    let plain = [None, Some(2), Some(13), Some(61), Some(1000)].map(|window| Heads { window, ..HEADS });
    let capped = [
        Heads { scale: 0.1, ..HEADS },
        Heads { scale: 0.3, softcap: Some(1.5), ..HEADS },
        Heads { scale: 0.3, softcap: Some(4.0), window: Some(13), ..HEADS },
    ];
    let attended =
        |heads: &Heads| operation(Attention { segments: segments.clone(), heads: *heads }, qkv(segments.tokens(), key));
    let attended: Vec<Case> = plain.iter().chain(&capped).map(attended).collect();
    vec![
        entry([3e-7, 3e-7], [(8, 1.0), (4, 1.3)].map(rotary)),
        entry([0.0, 5e-7], [operation(Gather { ids }, [t(&[12, 20], 1)])]),
        entry([1e-6, 5e-6], attended),
    ]
}

/// What scores tokens, some rows several times.
fn over_the_vocabulary(key: Key, n: usize) -> Vec<Entry> {
    let rows: Arc<[u32]> = (0..n as u32).flat_map(|r| vec![r; 1 + r as usize % 3]).collect();
    let tokens = (0..rows.len()).map(|i| key.below(i as u64, 50) as u32).collect();
    scoring(key, n, 50, Targets { rows, tokens, temperature: 0.7 })
}

/// More logits than a chunk holds, of rows and of columns.
pub(super) fn over_several_chunks(key: Key) -> Vec<Entry> {
    let (rows, tokens) = ((0..300).collect(), (0..300).map(|i| i * 30 % 9001).collect());
    scoring(key, 300, 9001, Targets { rows, tokens, temperature: 1.3 })
}

fn scoring(key: Key, n: usize, vocabulary: usize, targets: Targets) -> Vec<Entry> {
    let t = |rows: usize, width: usize, stream: u64| random(&[rows, width], key.fold(stream));
    let own = [t(n, 24, 1), t(vocabulary, 24, 2)];
    let both = [t(n, 24, 1), t(vocabulary, 24, 2), t(n, 18, 3), t(vocabulary, 18, 4)];
    let caps = [[None, None], [Some(3.0), None], [None, Some(3.0)], [Some(3.0), Some(5.0)]];
    let logprobs = [None, Some(3.0)]
        .map(|softcap| ending(LinearLogprob { targets: targets.clone(), softcap, found: None }, own.clone()));
    let divergence = |of: Divergence, [softcap, other]: [Option<f32>; 2]| {
        ending(LinearDivergence { of, targets: targets.clone(), softcap, other }, both.clone()).frozen(2)
    };
    let kinds = [Divergence::Full, Divergence::Forward];
    let kls: Vec<Case> = kinds.into_iter().flat_map(|of| caps.map(|caps| divergence(of, caps))).collect();
    // Where two distributions share little, its gradient is a small difference of large numbers.
    let kinds = [Divergence::Jsd(0.3), Divergence::Jsd(0.85)];
    let jsds: Vec<Case> = kinds.into_iter().flat_map(|of| caps.map(|caps| divergence(of, caps))).collect();
    let ranked = {
        let targets = targets.clone();
        routine("Rank", own.to_vec(), move |x| {
            let found = ranks(&Tape::forward_only(Packs::new(0)), &x[0], &x[1], &targets)?;
            Ok(vec![Tensor::from_vec(found.iter().map(|&r| r as f32).collect(), (found.len(), 1), &Device::Cpu)?])
        })
    };
    vec![
        entry([0.0, 0.0], [ranked]),
        entry([1e-6, 3e-5], logprobs),
        entry([5e-6, 3e-5], kls),
        entry([5e-6, 1e-4], jsds),
    ]
}

fn copy(value: &Value) -> Result<Value> {
    Ok(match value {
        Value::Host(t) => t.copy()?.into(),
        Value::Device(a) => carried(&tensor_of(value)?, a.gpu(), a.dtype())?,
    })
}

/// What is computed of gradients and parameters.
fn routines(key: Key, n: usize) -> Vec<Entry> {
    let t = |stream: u64| random(&[n, 200], key.fold(stream));
    let rule = Rule { beta1: 0.9, beta2: 0.99, rate: 1e-2, root: 0.3, eps: 1e-8, keep: 0.999, scale: 0.7 };
    let inputs = vec![t(1), t(2), t(3), t(4).sqr().expect("squares")];
    vec![
        Entry {
            roundings: 5.0, // one operation after another, and each rounds
            ..entry(
                [5e-7, 1e-6],
                [on_tape("Sum", vec![t(1), t(2)], |tape, v| {
                    // Gradients of one activation that are shared, owned, and both.
                    let x = add(tape, &v[0], &v[1])?;
                    let y = gated(tape, &x, &x, Gate::Silu)?;
                    let y = add(tape, &x, &y)?;
                    let y = add(tape, &y, &x)?;
                    add(tape, &y, &v[0])
                })],
            )
        },
        entry(
            [2e-7, 0.0],
            [1.0, 0.75].map(|keep| {
                routine("Blend", vec![t(1), t(2)], move |x| {
                    let into = copy(&x[0])?;
                    Blend { into: &into, keep, x: &x[1], by: -0.5 }.run()?;
                    Ok(vec![tensor_of(&into)?])
                })
            }),
        ),
        entry(
            [1e-13, 0.0],
            [routine("Dot", vec![t(1), t(2)], |x| Ok(vec![Tensor::new(dot(&x[0], &x[1])?, &Device::Cpu)?]))],
        ),
        entry(
            [3e-7, 0.0],
            [routine("Update", inputs, move |x| {
                let x = x.iter().map(copy).collect::<Result<Vec<_>>>()?;
                Update { rule: &rule, parameter: &x[0], grad: &x[1], first: &x[2], second: &x[3] }.run()?;
                [0, 2, 3].into_iter().map(|i| tensor_of(&x[i])).collect()
            })],
        ),
    ]
}
