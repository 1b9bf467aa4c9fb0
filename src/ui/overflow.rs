//! The end of the stack on which scripts run: reached, it ends the process in one line and with exit status 1, not with SIGABRT.
//! Values within values are dropped by calls within calls, in code of the language, and nothing there counts how deep.

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Around the end of the stack: more than its guard, and far less than what is in use of it.
const AROUND: usize = 1 << 20;
const SAID: &[u8] =
    b"Error: values lie too deep within each other: the stack is full\nHelp: is something put into itself over and over?\n";

/// The lowest address of the stack.
static END: AtomicUsize = AtomicUsize::new(0);
/// What happened before this module's handler was there.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// From here on the end of this thread's stack is told.
pub(super) fn tell() {
    let mut attributes = MaybeUninit::uninit();
    let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are filled by the first call before they are read, and destroyed after.
    let known = unsafe {
        let known = libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0;
        if known {
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
        known
    };
    if !known || lowest.is_null() {
        return;
    }
    END.store(lowest.addr(), Ordering::Relaxed);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
    // SAFETY: all zeros is a valid `sigaction`, whose fields are then set; the handler calls only what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        // On the stack that the standard library keeps for this: the thread's own is full.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGSEGV, std::ptr::null(), &raw mut before) == 0 && BEFORE.set(before).is_ok() {
            libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_fault(signal: libc::c_int, about: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a valid `about` to a handler that asked for it; `write`, `_exit` and `sigaction` may be
    // called in one.
    unsafe {
        let at = (*about).si_addr().addr();
        if at.abs_diff(END.load(Ordering::Relaxed)) < AROUND {
            libc::write(libc::STDERR_FILENO, SAID.as_ptr().cast(), SAID.len());
            libc::_exit(1);
        }
        // Something else: it happens again, and whoever was asked before is asked.
        if let Some(before) = BEFORE.get() {
            libc::sigaction(signal, before, std::ptr::null_mut());
        }
    }
}
