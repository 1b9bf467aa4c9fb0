//! Every kernel that can be launched compiles for NVIDIA's architectures, and keeps its numbers in registers.

use rhopo::gpu::cuda::{Compiler, libraries};

/// Ampere, Hopper and Blackwell.
const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90a", "sm_100"];

/// What spills all the same.
struct Excepted {
    file: &'static str,
    definitions: &'static str,
    function: &'static str,
    architecture: &'static str,
    /// At most, written and read.
    bytes: u64,
    /// Why it is no harm.
    reason: &'static str,
}

const EXCEPTED: [Excepted; 0] = [];

/// Needs NVRTC, which is not on every machine: where `RHOPO_CUDA` is set, it must be there.
#[test]
fn every_kernel_compiles_and_none_spills() {
    if libraries().compiler.found.is_err() && std::env::var_os("RHOPO_CUDA").is_none() {
        eprintln!("NOT CHECKED: there is no NVRTC here. `pip install nvidia-cuda-nvrtc`, and set RHOPO_CUDA");
        return;
    }
    let compiler = Compiler::new().expect("NVRTC is where RHOPO_CUDA says");
    let mut wrong = Vec::new();
    let mut used = [false; EXCEPTED.len()];
    for architecture in ARCHITECTURES {
        for build in compiler.compile_all(architecture).expect("every kernel compiles") {
            let name = format!("{} {} for {architecture}", build.file, build.definitions);
            assert!(!build.compiled.functions.is_empty(), "{name}: no function");
            for usage in &build.compiled.functions {
                assert!(usage.registers > 0, "{name}: {usage:?}");
                let is = |e: &Excepted| {
                    (e.file, e.definitions, e.function, e.architecture)
                        == (build.file, build.definitions, usage.function.as_str(), architecture)
                };
                let excepted = EXCEPTED.iter().position(is);
                if let Some(found) = excepted.filter(|_| usage.spilled > 0) {
                    used[found] = true;
                }
                let allowed = excepted.map_or(0, |found| EXCEPTED[found].bytes);
                if usage.spilled > allowed {
                    wrong.push(format!("{name}: {} spills {} bytes", usage.function, usage.spilled));
                }
            }
        }
    }
    let idle = EXCEPTED.iter().zip(used).filter(|(_, used)| !used);
    wrong.extend(
        idle.map(|(e, _)| format!("{} of {} is excepted ({}) and does not spill", e.function, e.file, e.reason)),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
