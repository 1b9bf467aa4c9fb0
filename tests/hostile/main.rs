//! Scripts that try to leave their folder or to end the process, and damaged ones.

mod attacks;
mod fuzz_scripts;
