//! Planted mistakes (`emulator/mistakes.cu`), and what the emulator says of each.

use super::tests::{numbers, upload};
use crate::error::Result;
use crate::gpu::array::Array;
use crate::gpu::backend::RawArg;
use crate::gpu::{Arg, DType, Gpu, Grid, Kernel};

fn kernel(function: &'static str, mistake: bool) -> Kernel {
    Kernel::plain("mistakes", function).with("MISTAKE", usize::from(mistake))
}

/// The catalogue has none of these kernels: they are launched without it.
fn launch(gpu: &Gpu, kernel: &Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
    let args: Vec<RawArg> = args.iter().map(Arg::raw).collect();
    gpu.backend().launch(kernel, grid, &args)
}

/// The kernels with mistakes, and what they are launched with.
const KERNELS: [(&str, Grid); 19] = {
    const ONE: Grid = Grid { blocks: [1, 1], threads: 64, shared: 256 };
    const TWO: Grid = Grid { blocks: [2, 1], ..ONE };
    [
        ("no_barrier_after_a_write", ONE),
        ("no_barrier_before_reuse", ONE),
        ("no_barrier_after_reads", ONE),
        ("no_warp_barrier", ONE),
        ("blocks_write_one_number", TWO),
        ("blocks_wait_for_none", TWO),
        ("a_vector_past_the_end", ONE),
        ("before_the_beginning", ONE),
        ("a_vector_out_of_line", Grid { threads: 32, ..ONE }),
        ("shared_memory_not_written", ONE),
        ("no_wait_for_a_copy", ONE),
        ("no_barrier_after_a_copy", ONE),
        ("a_copy_in_flight_at_the_end", ONE),
        ("a_barrier_for_some", ONE),
        ("two_barriers_at_a_time", ONE),
        ("a_shuffle_for_some", ONE),
        ("two_shuffles_at_a_time", ONE),
        ("too_much_shared_memory", ONE),
        ("more_than_the_launch_gives", ONE),
    ]
};

struct Setting {
    gpu: Gpu,
    x: Array,
    /// A view in the middle of something larger.
    y: Array,
    /// Kept until the launch has run.
    others: Vec<Array>,
}

fn setting(seed: u64) -> Setting {
    let gpu = Gpu::emulated(seed);
    let x = upload(&gpu, "inputs", DType::F32, &numbers(256, 1), &[256]);
    let y = gpu
        .zeros("arena", DType::F32, &[1024])
        .expect("room on the device")
        .view(512, &[256])
        .expect("inside the array");
    Setting { gpu, x, y, others: Vec::new() }
}

fn told(result: Result<()>) -> String {
    result.map_or_else(|e| e.to_string(), |()| "nothing".into())
}

/// What is said of a kernel.
fn run(seed: u64, function: &'static str, mistake: bool, grid: Grid) -> String {
    let Setting { gpu, x, y, .. } = setting(seed);
    launch(&gpu, &kernel(function, mistake), grid, &[(&x).into(), (&y).into()]).expect("queued");
    told(gpu.synchronise())
}

#[test]
fn the_emulator_finds_every_planted_mistake_of_a_kernel() {
    let said = KERNELS.map(|(function, grid)| run(3, function, true, grid).replace(" [MISTAKE=1]", ""));
    insta::assert_snapshot!(said.join("\n"), @r"
    no_barrier_after_a_write: `s` (shared) byte 136: read before anything was written (block 0,0 thread 29)
    no_barrier_before_reuse: `s` (shared) byte 96: read without a barrier after a write by thread 24 of the same block (block 0,0 thread 39)
    no_barrier_after_reads: `s` (shared) byte 0: written without a barrier after a read by several threads of the same block (block 0,0 thread 63)
    no_warp_barrier: `s` (shared) byte 8: read before anything was written (block 0,0 thread 29)
    blocks_write_one_number: `y` (arena) byte 0: written without a barrier after a write by thread 0 of another block (block 0,0 thread 0)
    blocks_wait_for_none: `y` (arena) byte 0: written without a barrier after a read by thread 0 of another block (block 0,0 thread 0)
    a_vector_past_the_end: `y` (arena): out of bounds: 16 bytes written at byte 1024 of 1024 (block 0,0 thread 63)
    before_the_beginning: `x` (inputs): out of bounds: 4 bytes read at byte -4 of 1024 (block 0,0 thread 0)
    a_vector_out_of_line: `x` (inputs): 16 bytes read at byte 228, which is not aligned to them (block 0,0 thread 14)
    shared_memory_not_written: `s` (shared) byte 252: read before anything was written (block 0,0 thread 0)
    no_wait_for_a_copy: `s` (shared) byte 464: read while a copy into it is in flight (block 0,0 thread 29)
    no_barrier_after_a_copy: `s` (shared) byte 556: read before anything was written (block 0,0 thread 29)
    a_copy_in_flight_at_the_end: a thread ended with copies still in flight (block 0,0 thread 29)
    a_barrier_for_some: 32 threads wait at a barrier, 32 have ended, 0 wait for other lanes of their warp (block 0,0)
    two_barriers_at_a_time: threads wait at different barriers, lines 102 and 104 (block 0,0)
    a_shuffle_for_some: 0 threads wait at a barrier, 33 have ended, 31 wait for other lanes of their warp (block 0,0)
    two_shuffles_at_a_time: lanes of one warp meet in different collectives, lines 116 and 118 (block 0,0 thread 0)
    too_much_shared_memory: `s` (shared): more than 48 KiB of shared memory declared (block 0,0 thread 29)
    more_than_the_launch_gives: `s` (shared): it ends at byte 260 of the launch's shared memory, which has 256 (block 0,0 thread 29)
    ");
}

#[test]
fn whatever_the_order_mistakes_are_found_and_what_is_right_runs() {
    for (function, grid) in KERNELS {
        for seed in 0..20 {
            assert_ne!(run(seed, function, true, grid), "nothing", "{function} with its mistake, seed {seed}");
            assert_eq!(run(seed, function, false, grid), "nothing", "{function} without its mistake, seed {seed}");
        }
    }
}

#[test]
fn the_emulator_finds_every_mistake_of_a_launch() {
    let scale = kernel("scale", false);
    let mut all = String::new();
    let mut case = |what: &str, grid: Grid, change: &dyn Fn(&mut Setting, &mut Vec<RawArg>)| {
        let mut setting = setting(3);
        let Setting { x, y, .. } = &setting;
        let args: [Arg; 6] = [x.into(), y.into(), 256_usize.into(), 64_u32.into(), 0_i32.into(), 2.0_f32.into()];
        let mut args: Vec<RawArg> = args.iter().map(Arg::raw).collect();
        change(&mut setting, &mut args);
        let gpu = &setting.gpu;
        let result = gpu.backend().launch(&scale, grid, &args).and_then(|()| gpu.synchronise());
        all += &format!("{what}: {}\n", told(result).replace(" [MISTAKE=0]", ""));
    };
    let grid = Grid::of(1, 64);
    case("right", grid, &|_, _| {});
    case("an argument too few", grid, &|_, args| args.truncate(5));
    case("u32 for u64", grid, &|_, args| args[2] = RawArg::U32(256));
    case("f32 for u32", grid, &|_, args| args[3] = RawArg::F32(64.0));
    case("u32 for i32", grid, &|_, args| args[4] = RawArg::U32(0));
    case("an array for a number", grid, &|_, args| args[5] = args[0]);
    case("a number for an array", grid, &|_, args| args[0] = RawArg::U64(0));
    case("an array of another type", grid, &|setting, args| {
        let array = setting.gpu.zeros("words", DType::U32, &[256]).expect("room on the device");
        args[0] = Arg::Array(&array).raw();
        setting.others.push(array);
    });
    case("an array that was freed", grid, &|setting, args| {
        args[0] = Arg::Array(&setting.gpu.zeros("short-lived", DType::F32, &[256]).expect("room on the device")).raw();
    });
    case("an array that nothing wrote", grid, &|setting, args| {
        let array = setting.gpu.empty("fresh", DType::F32, &[256]).expect("room on the device");
        args[0] = Arg::Array(&array).raw();
        setting.others.push(array);
    });
    case("too many threads", Grid::of(1, 1056), &|_, _| {});
    case("half a warp", Grid::of(1, 48), &|_, _| {});
    case("no blocks", Grid::of(0, 64), &|_, _| {});
    case("too many rows of blocks", Grid { blocks: [1, 65_536], ..grid }, &|_, _| {});
    case("too much shared memory", Grid { shared: (227 << 10) + 1, ..grid }, &|_, _| {});
    insta::assert_snapshot!(all, @r"
    right: nothing
    an argument too few: scale: 5 arguments for 6 parameters
    u32 for u64: scale: `count` is u64, and u32 is given
    f32 for u32: scale: `step` is u32, and f32 is given
    u32 for i32: scale: `first` is i32, and u32 is given
    an array for a number: scale: `factor` is f32, and an array of f32 is given
    a number for an array: scale: `x` is an array of f32, and u64 is given
    an array of another type: scale: `x` is an array of f32, and an array of u32 is given
    an array that was freed: scale: `short-lived` is used after it was freed
    an array that nothing wrote: scale: `x` (fresh) byte 116: read before anything was written (block 0,0 thread 29)
    too many threads: scale: blocks of 1056 threads: a multiple of 32 is needed, 1024 at most
    half a warp: scale: blocks of 48 threads: a multiple of 32 is needed, 1024 at most
    no blocks: scale: a grid of 0 x 1 blocks
    too many rows of blocks: scale: a grid of 1 x 65536 blocks: at most 2147483647 x 65535 can be launched
    too much shared memory: scale: 232449 bytes of shared memory: a block has 227 KiB at most
    ");
}

#[test]
fn a_kernel_that_was_not_compiled_is_named() {
    let gpu = Gpu::emulated(0);
    let told = told(launch(&gpu, &Kernel::plain("mistakes", "scale"), Grid::of(1, 32), &[]));
    assert_eq!(told, "scale: no such kernel in mistakes.cu");
}
