//! What `--set` says of a run whatever its script: another reward in the place of its task's, and how it is evaluated while
//! it goes.
//!
//! Owns the names and what they hold; who obeys them asks the session.

use crate::error::{Error, Result};

/// What a name holds on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Count,
    Flag,
}

/// A name that every script understands.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether a script must track a policy for it to mean something; all of them need a task.
    pub tracks: bool,
}

/// The names.
pub const KNOWN: [Known; 4] = [
    Known { name: "reward", kind: Kind::Text, tracks: false },
    Known { name: "eval_every", kind: Kind::Count, tracks: true },
    Known { name: "eval_n", kind: Kind::Count, tracks: true },
    Known { name: "keep", kind: Kind::Flag, tracks: true },
];

impl Known {
    /// What a script must call for the name to mean something, where `text` does not.
    pub fn lacks(&self, text: &str) -> Option<&'static str> {
        let needed = [Some("load_task("), self.tracks.then_some("run.track(")];
        needed.into_iter().flatten().find(|call| !text.contains(call))
    }
}

/// What was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunOptions {
    /// What gives the reward of every task.
    pub reward: Option<String>,
    /// Steps from one evaluation to the next.
    pub eval_every: Option<u64>,
    /// Held-out prompts of each of them.
    pub eval_n: Option<usize>,
    /// The model of the best evaluation is kept.
    pub keep: bool,
    /// The script evaluates by a hyper-parameter `eval_every` of its own.
    pub own: bool,
    /// Of an answer, as the script's own hyper-parameter says.
    pub max_tokens: Option<usize>,
}

impl RunOptions {
    /// # Errors
    /// A number of which nothing would come.
    pub fn check(self) -> Result<Self> {
        let zero = [("eval_every", self.eval_every), ("eval_n", self.eval_n.map(|n| n as u64))];
        if let Some((name, _)) = zero.iter().find(|(_, n)| *n == Some(0)) {
            return Err(Error::value(format!("--set {name}: expected 1 or more")).hint("leave it out for none"));
        }
        if self.own && self.eval_n.is_some() {
            return Err(Error::value("--set eval_n: the script evaluates by itself, by an `eval_every` of its own")
                .hint("its own hyper-parameters say on how much: `rhopo doc` and its page name them"));
        }
        let alone = [("eval_n", self.eval_n.is_some()), ("keep", self.keep && !self.own)];
        match alone.iter().find(|(_, said)| *said && self.eval_every.is_none()) {
            Some((name, _)) => Err(Error::value(format!("--set {name}: nothing is evaluated during the run"))
                .hint("add how often: --set eval_every=20")),
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_come_to_nothing_is_refused() {
        let every = RunOptions { eval_every: Some(20), keep: true, ..RunOptions::default() };
        assert_eq!(every.clone().check().expect("both are said"), every);
        RunOptions { eval_every: Some(0), ..every.clone() }.check().expect_err("never");
        RunOptions { eval_every: None, ..every.clone() }.check().expect_err("keeps what is never evaluated");
        let own = RunOptions { eval_every: None, own: true, ..every };
        own.clone().check().expect("the script evaluates");
        RunOptions { eval_n: Some(8), ..own }.check().expect_err("it would say nothing to the script");
    }

    #[test]
    fn a_name_says_what_a_script_lacks() {
        let of = |name: &str| KNOWN.iter().find(|known| known.name == name).expect("known");
        assert_eq!(of("reward").lacks("let task = load_task(x);"), None);
        assert_eq!(of("keep").lacks("let task = load_task(x);"), Some("run.track("));
        assert_eq!(of("reward").lacks(""), Some("load_task("));
    }
}
