//! Sweeps: what is varied (`space.rs`), what is run (`plan.rs`), what comes next by the results so far (`learning.rs`), and
//! what came of it (`tally.rs`). Owns no processes and no terminal: `ui/sweep/` has them.

mod learning;
mod plan;
mod space;
mod tally;

pub use learning::Learning;
pub use plan::{Goal, PLAN, Plan, Point, Search};
pub use space::Axis;
pub use tally::{Row, rows};
