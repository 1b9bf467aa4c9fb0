//! The program: everything is in the library. Owns the allocator only.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's options.
const PURGE_DELAY: i32 = 15;
/// Milliseconds for which freed memory is kept. A training step frees its activations and asks for the same again:
/// with mimalloc's own 10 ms a profile has 7 % of its samples in the kernel clearing pages, else 1 %.
const KEEP: std::ffi::c_long = 10_000;

fn main() -> ExitCode {
    // SAFETY: sets one number; nothing else is done with the allocator's options.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP) };
    rhopo::ui::cli::main()
}
