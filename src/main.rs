//! The program: everything is in the library. Owns the allocator only.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's options.
const PURGE_DELAY: i32 = 15;
/// Milliseconds for which freed memory is kept: longer than a step of a real model takes, which frees its activations and
/// asks for the same again. Where it is shorter, a fifth to a quarter of such a step is the kernel clearing pages.
const KEEP: std::ffi::c_long = 600_000;

fn main() -> ExitCode {
    // SAFETY: sets one number; nothing else is done with the allocator's options.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP) };
    rhopo::ui::cli::main()
}
