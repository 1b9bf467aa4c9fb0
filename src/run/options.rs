//! What `--set` says of a run whatever its script: `reward`, in the place of its task's.
//!
//! Owns the names and what they hold; who obeys them asks the session.

/// The names, each with what a script must do for it to mean something.
pub const NAMES: [(&str, &str); 1] = [("reward", "load_task(")];

/// What was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunOptions {
    /// What gives the reward of every task.
    pub reward: Option<String>,
}
