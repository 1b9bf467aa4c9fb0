//! Scripts that are entered while they run: a console that evaluates inputs, the pause between two steps of a run, and
//! edited files that are taken over.

pub mod console;
pub mod hot_reload;
mod evaluation;
pub mod pause_loop;
mod stored;
