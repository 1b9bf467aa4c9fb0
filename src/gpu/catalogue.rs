//! Every kernel that can be launched: the files of `kernels/`, and the definitions that each is compiled with.
//!
//! The build script includes `LIST` for the emulator, and the tests compile all of it: nothing else can be launched.

use super::kernel::Kernel;

include!("list.rs");

/// Whether the kernel's file is listed with its definitions.
pub(super) fn has(kernel: &Kernel) -> bool {
    LIST.iter().any(|(file, definitions)| *file == kernel.file && definitions.contains(&kernel.definitions.as_str()))
}
