//! What the engine says that a model on a device holds against what it asks the device for.

use rhopo::engine::memory::Memory;
use rhopo::engine::{AdamwOptions, ForwardRequest, Measure, Optimizer, Settings, Solo, measure};
use rhopo::gpu::{DType, Emulator, Gpu, Place};
use rhopo::model::rows::{Row, Rows};
use rhopo::model::{Adaptation, LoraOptions, Model, OpenOptions};
use rhopo::rl::mask::token_mean;
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Device, Tensor, ops};
use std::ops::Range;
use std::sync::Arc;

/// Rows without a common token, and how many tokens the model sees.
fn rows(vocabulary: u64) -> (Arc<Rows>, u64) {
    let tokens = |row: u64, from: u64, len: u64| -> Arc<[u32]> {
        (from..from + len).map(|t| Key::new(5).fold(row).below(t, vocabulary) as u32).collect()
    };
    let row = |i| Row::new(tokens(i, 0, 4), tokens(i, 4, 28));
    (Rows::new((0..3).map(row).collect()), 3 * 31)
}

/// A fixture on a device of its own.
fn open(family: &str, adaptation: &Adaptation, compute: DType) -> (Gpu, Arc<Model>) {
    let gpu = Gpu::emulated(0);
    let model = open_on(&gpu, family, adaptation, compute);
    (gpu, model)
}

fn open_on(gpu: &Gpu, family: &str, adaptation: &Adaptation, compute: DType) -> Arc<Model> {
    let dir = format!("{}/tests/fixtures/models/{family}", env!("CARGO_MANIFEST_DIR"));
    let options = OpenOptions { adaptation: adaptation.clone(), compute, ..OpenOptions::new(Key::new(2)) };
    Arc::new(Model::open(&rhopo::files::anywhere(&dir), &options, &Place::Gpu(gpu.clone())).expect("a model"))
}

/// measured / stated must lie in `range`.
fn holds(what: &str, measured: u64, stated: u64, range: Range<f64>) {
    let ratio = measured as f64 / stated as f64;
    println!("{what}: {ratio:.3}");
    assert!(range.contains(&ratio), "{what}: measured {measured}, stated {stated}, ratio {ratio:.3}");
}

fn logprob(engine: &Solo, model: &Arc<Model>, rows: &Arc<Rows>) -> Tensor {
    let (model, rows) = (model.into(), rows.clone());
    let request = ForwardRequest { model, rows, temperature: 1.0, measure: Measure::Logprob };
    measure(engine, &request, "").expect("log-probs")
}

fn engine(gpu: &Gpu) -> Solo {
    Solo::new(Settings::at(&Place::Gpu(gpu.clone())))
}

/// Of a family in a type, as a whole and by an adapter on all maps: weights, and activations that are kept.
fn family(family: &str, compute: DType) {
    let lora = LoraOptions { rank: 4, ..LoraOptions::default() };
    for adaptation in [Adaptation::None, Adaptation::New(lora)] {
        let (gpu, model) = open(family, &adaptation, compute);
        let memory = Memory::of(&model);
        let what = |what| format!("{what} of {} in {}", model.info, compute.name());
        holds(&what("weights"), gpu.counters().held, memory.weights, 1.0..1.03);
        let ((rows, tokens), engine) = (rows(model.config.vocab_size as u64), engine(&gpu));
        let before = gpu.counters().held;
        let kept = logprob(&engine, &model, &rows);
        let held = gpu.counters().held - before;
        holds(&what("activations"), held, tokens * memory.activations_per_token, 0.95..1.05);
        drop(kept);
        let before = gpu.counters().held;
        let frozen = model.frozen().expect("a frozen copy");
        let stated = Memory::of(&frozen);
        assert_eq!((stated.packed, stated.gradients, stated.moments, stated.activations_per_token), (0, 0, 0, 0));
        if let Adaptation::None = adaptation {
            let copied = gpu.counters().held - before;
            assert_eq!(copied, stated.weights, "the frozen copy of {}", model.info);
        }
        let before = gpu.counters().held;
        let _values = logprob(&engine, &frozen, &rows);
        assert_eq!(gpu.counters().held, before, "a frozen model keeps no activations");
    }
}

#[test]
fn activations_are_as_stated_in_bf16() {
    for name in ["gemma2", "gpt2", "gpt_neox", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"] {
        family(name, DType::Bf16);
    }
}

#[test]
fn activations_are_as_stated_in_f32() {
    for name in ["gemma3", "gpt2", "granite", "llama3", "olmo2", "phi3"] {
        family(name, DType::F32);
    }
}

/// A loss of the log-probs, and an update of the weights.
fn step(engine: &Solo, optimizer: &mut Optimizer, model: &Arc<Model>, rows: &Arc<Rows>) {
    let x = logprob(engine, model, rows);
    let inside = Tensor::from_vec(vec![1.0; rows.len() * rows.width()], &[rows.len(), rows.width()], &Device::Cpu);
    let loss = ops::MUL.on(&x, &x).and_then(|x| token_mean(&x, &inside?)).expect("a loss");
    optimizer.step(engine, &loss).expect("a step");
}

#[test]
fn a_step_holds_at_most_what_is_stated() {
    let lora = LoraOptions { rank: 4, ..LoraOptions::default() };
    for (name, adaptation) in
        [("qwen2", Adaptation::None), ("qwen2", Adaptation::New(lora)), ("gemma2", Adaptation::None)]
    {
        for compute in [DType::F32, DType::Bf16] {
            let (gpu, model) = open(name, &adaptation, compute);
            let (memory, engine) = (Memory::of(&model), engine(&gpu));
            let (rows, tokens) = rows(model.config.vocab_size as u64);
            let mut optimizer =
                Optimizer::adamw(&engine, &[(&model).into()], AdamwOptions::default()).expect("an optimizer");
            step(&engine, &mut optimizer, &model, &rows);
            gpu.reset_counters();
            let before = gpu.counters().held;
            step(&engine, &mut optimizer, &model, &rows);
            let (numbers, hidden) = (4 + compute.size() as u64, model.config.hidden_size as u64);
            // A chunk has no more rows than there are tokens; what is under way at it is gone when the blocks' is made.
            let logits = memory.logits.min(tokens * model.vocab_size as u64 * numbers) + tokens * hidden * numbers;
            let under_way = logits.max(tokens * memory.backward_per_token);
            let stated = memory.gradients + tokens * memory.activations_per_token + under_way;
            let what = format!("a step of {} in {}", model.info, compute.name());
            holds(&what, gpu.counters().most - before, stated, 0.85..1.1);
        }
    }
}

/// Where the activations would be more than half of what is free they are computed again, and every bit is the same.
#[test]
fn what_a_device_has_no_room_for_is_computed_again() {
    let trained = |gpu: &Gpu, kept: bool| -> Vec<Vec<f32>> {
        let model = open_on(gpu, "qwen2", &Adaptation::None, DType::Bf16);
        let ((rows, tokens), engine) = (rows(model.config.vocab_size as u64), engine(gpu));
        let mut optimizer =
            Optimizer::adamw(&engine, &[(&model).into()], AdamwOptions::default()).expect("an optimizer");
        let before = gpu.counters().held;
        let x = logprob(&engine, &model, &rows);
        let held = gpu.counters().held - before;
        assert_eq!(held > tokens * Memory::of(&model).activations_per_token / 2, kept, "{held} bytes are held");
        drop(x);
        step(&engine, &mut optimizer, &model, &rows);
        (0..model.parameters().count()).map(|i| model.numbers(i).expect("numbers")).collect()
    };
    let (large, model) = open("qwen2", &Adaptation::None, DType::Bf16);
    let memory = Memory::of(&model);
    drop(model);
    let room = memory.weights + memory.gradients + memory.moments + 93 * memory.activations_per_token * 19 / 10;
    let small = Gpu::new("emulated", Box::new(Emulator::new(0, 1 << 30)), Some(room));
    assert!(trained(&small, false) == trained(&large, true));
}
