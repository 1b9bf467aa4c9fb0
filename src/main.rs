//! The program: everything is in the library. Owns the allocator only.

use std::alloc::{GlobalAlloc, Layout};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(mimalloc::MiMalloc);

/// `mi_option_purge_delay` of mimalloc's options.
const PURGE_DELAY: i32 = 15;
/// Milliseconds for which freed memory is kept: longer than a step of a real model takes, which frees its activations and
/// asks for the same again. Where it is shorter, a fifth to a quarter of such a step is the kernel clearing pages.
const KEEP: std::ffi::c_long = 600_000;

/// mimalloc, which ends the process in order where the system gives no memory: what a program says otherwise is SIGABRT.
struct Allocator(mimalloc::MiMalloc);

impl Allocator {
    fn given(at: *mut u8) -> *mut u8 {
        if at.is_null() {
            rhopo::ui::cli::out_of_memory();
        }
        at
    }
}

// SAFETY: every call goes to mimalloc as it came, and what it returns is returned; null never is, as the process ends then.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the trait's promises, which are the same there.
        Self::given(unsafe { self.0.alloc(layout) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::given(unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        Self::given(unsafe { self.0.realloc(at, layout, size) })
    }
}

fn main() -> ExitCode {
    // SAFETY: sets one number; nothing else is done with the allocator's options.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP) };
    rhopo::ui::cli::main()
}
