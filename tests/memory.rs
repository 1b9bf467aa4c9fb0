//! What the engine says that it holds against what it asks the allocator for.

use rhopo::engine::memory::Memory;
use rhopo::engine::{
    AdamwOptions, Engine, ForwardRequest, Measure, Optimizer, SampleOptions, SampleRequest, Settings, Solo, measure,
};
use rhopo::gpu::Place;
use rhopo::model::rows::{Row, Rows};
use rhopo::model::{Adaptation, Config, LoraOptions, Model, OpenOptions};
use rhopo::rl::mask::token_mean;
use rhopo::tensor::rng::Key;
use rhopo::tensor::{Device, Tensor, ops};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes in use, and the most there were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(used, Ordering::Relaxed);
        // SAFETY: as this function's caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as this function's caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

fn used() -> u64 {
    USED.load(Ordering::Relaxed) as u64
}

/// Bytes that `run` had in use at most beyond those in use before it, and what it returned.
fn most<T>(run: impl FnOnce() -> T) -> (u64, T) {
    let before = used();
    MOST.store(before as usize, Ordering::Relaxed);
    let out = run();
    (MOST.load(Ordering::Relaxed) as u64 - before, out)
}

/// `rows` rows of `prompt` and `completion` tokens, no two alike, and how many of them the model sees.
fn rows(rows: u64, prompt: u64, completion: u64, vocabulary: u64) -> (Arc<Rows>, u64) {
    let key = Key::new(5);
    let tokens = |row: u64, from: u64, len: u64| -> Arc<[u32]> {
        (from..from + len).map(|t| key.fold(row).below(t, vocabulary) as u32).collect()
    };
    let row = |i| Row::new(tokens(i, 0, prompt), tokens(i, prompt, completion));
    (Rows::new((0..rows).map(row).collect()), rows * (prompt + completion - 1))
}

fn model() -> Arc<Model> {
    let config = serde_json::json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "vocab_size": 500,
        "hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 5, "num_attention_heads": 5,
        "num_key_value_heads": 1, "max_position_embeddings": 512, "tie_word_embeddings": true,
    });
    let config = Config::from_json(&config).expect("a configuration");
    Arc::new(Model::random(config, None, Key::new(1), &Place::Host).expect("a model"))
}

/// measured / stated must lie in `range`.
fn holds(what: &str, measured: u64, stated: u64, range: std::ops::Range<f64>) {
    let ratio = measured as f64 / stated as f64;
    println!("{what}: {ratio:.3}");
    assert!(range.contains(&ratio), "{what}: measured {measured}, stated {stated}, ratio {ratio:.3}");
}

fn logprob(engine: &Solo, model: &Arc<Model>, rows: &Arc<Rows>) -> Tensor {
    let (model, rows) = (model.into(), rows.clone());
    let request = ForwardRequest { model, rows, temperature: 1.0, measure: Measure::Logprob };
    measure(engine, &request, "").expect("log-probs")
}

/// The fixtures, trained as a whole and by an adapter on all maps.
fn every_family() {
    let families = [
        "gemma2", "gemma3", "gpt2", "gpt_neox", "granite", "llama2", "llama3", "mistral", "olmo2", "phi3", "qwen2",
        "qwen3", "smollm3",
    ];
    for family in families {
        let dir = format!("{}/tests/fixtures/models/{family}", env!("CARGO_MANIFEST_DIR"));
        let lora = LoraOptions { rank: 4, ..LoraOptions::default() };
        for adaptation in [Adaptation::None, Adaptation::New(lora)] {
            let options = OpenOptions { adaptation, ..OpenOptions::new(Key::new(2)) };
            let model = Arc::new(Model::open(&rhopo::files::anywhere(&dir), &options, &Place::Host).expect("a model"));
            let (rows, tokens) = rows(6, 20, 40, model.config.vocab_size as u64);
            let engine = Solo::new(Settings::default());
            let logprob = || logprob(&engine, &model, &rows);
            drop(logprob());
            let before = used();
            let _kept = logprob();
            let memory = Memory::training(&model.config, model.adapter.as_ref());
            let what = format!("activations of {}", model.info);
            holds(&what, used() - before, tokens * memory.activations_per_token, 0.95..1.05);
        }
    }
}

/// One test: what is counted belongs to the whole program.
#[test]
fn what_is_stated_is_what_is_held() {
    let engine = Solo::new(Settings::default());
    let (before, model) = (used(), model());
    let memory = Memory::training(&model.config, None);
    holds("weights", used() - before, memory.weights, 1.0..1.02);
    let (rows, tokens) = rows(6, 20, 40, 500);
    let logprob = || logprob(&engine, &model, &rows);
    // Threads, packed weights and the like are made once.
    drop(logprob());

    let before = used();
    let kept = logprob();
    holds("activations", used() - before, tokens * memory.activations_per_token, 0.98..1.02);
    drop(kept);
    every_family();

    let mut optimizer = Optimizer::adamw(&engine, &[(&model).into()], AdamwOptions::default()).expect("an optimizer");
    let mut step = || {
        let x = logprob();
        let inside = Tensor::from_vec(vec![1.0; rows.len() * rows.width()], &[rows.len(), rows.width()], &Device::Cpu);
        let loss = ops::MUL.on(&x, &x).and_then(|x| token_mean(&x, &inside?)).expect("a loss");
        optimizer.step(&engine, &loss).expect("a step");
    };
    // The moments are made by the first step, and a version's packed copies take over the memory of the last one's.
    step();
    let (peak, ()) = most(&mut step);
    let stated = memory.gradients + tokens * (memory.activations_per_token + memory.backward_per_token) + memory.logits;
    holds("a step", peak, stated, 0.8..1.1);

    let sampling = Memory::sampling(&model.config, None);
    let options = SampleOptions { n: 20, max_tokens: 60, ..SampleOptions::default() };
    let (key, prompts) = (Key::new(3), vec![vec![1, 2, 3]]);
    let request = SampleRequest { call: "sample", model: (&model).into(), prompts, places: None, options, key };
    let sample = || engine.sample(&request).expect("answers");
    drop(sample());
    let (peak, _) = most(sample);
    // The cache grows by doubling.
    holds("sampling", peak, 20 * (60 * sampling.cache_per_token + sampling.logits), 0.9..1.9);
}
