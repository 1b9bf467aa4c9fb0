//! One whole GRPO step (sampling, reference log-probs, update) on random models: `cargo bench`.

use criterion::{Criterion, criterion_group, criterion_main};
use rhopo::engine::{self, Settings};
use rhopo::gpu::Place;
use rhopo::run::bench::{Bench, SHAPES};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("grpo step");
    group.sample_size(10);
    for shape in SHAPES.iter().filter(|shape| ["uniform", "ragged"].contains(&shape.name)) {
        let mut bench = Bench::new(*shape, &Place::Host, engine::local(Settings::default())).expect("a random model");
        group.bench_function(shape.name, |b| b.iter(|| bench.step().expect("a step")));
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
