//! Tasks whose problems are drawn from a family: which ones are for training, which are held out, and in what order.
//!
//! Owns the split's machinery. Which side a problem is on is the family's affair, and follows from the problem alone.

use super::draw::Draw;
use super::{Task, User};
use crate::budget::Count;
use crate::data::encode::{Demo, Pair};
use crate::data::{Batch, Prompt, Prompts};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::tensor::rng::Key;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::rc::Rc;

/// Of this many problems one is held out.
pub(super) const HELD_OUT: u64 = 8;
/// After so many draws in a row that bring no new held-out problem there are no more.
const PATIENCE: u64 = 1 << 14;
/// Marks the keys of what an answer is made with, apart from those of problems.
const ANSWERS: u64 = u64::MAX - 1;

/// What a task is: its problems, good and flawed answers to them, and a reward.
pub trait Family: Debug {
    type Problem: Clone + Debug + Eq + Hash;
    const NAME: &'static str;
    /// The key of the split, a part of the task's definition: another number makes another task.
    const SPLIT: u64;

    /// The `i`-th draw from all problems.
    fn draw(&self, key: Key, i: u64) -> Self::Problem;

    /// Whether a problem is held out, whatever the options.
    fn held_out(&self, problem: &Self::Problem) -> bool;

    /// All held-out problems, where all problems can be gone through.
    fn list(&self) -> Option<Vec<Self::Problem>> {
        None
    }

    fn prompt(&self, problem: &Self::Problem) -> Prompt;
    fn demo(&self, problem: &Self::Problem, draw: &mut Draw) -> Demo;
    fn pair(&self, problem: &Self::Problem, draw: &mut Draw) -> Pair;

    /// As [`Task::score`], and so are these.
    fn score(&self, batch: &Batch) -> Result<Tensor>;
    fn reads(&self) -> &'static [&'static str];
    fn max_tokens(&self) -> usize;
    fn turns(&self) -> usize {
        1
    }

    /// Who answers the assistant, in a task of several turns.
    fn user(&self) -> Option<Rc<dyn User>> {
        None
    }
}

/// A family as a task.
#[derive(Debug)]
pub struct Drawn<F: Family> {
    family: F,
    held: RefCell<Held<F::Problem>>,
}

/// The held-out problems found so far, in their order.
#[derive(Debug)]
struct Held<P> {
    found: Vec<P>,
    seen: HashSet<P>,
    /// The draw to go on with.
    next: u64,
    /// There are no others.
    all: bool,
}

impl<F: Family> Drawn<F> {
    pub fn new(family: F) -> Self {
        let held = Held { found: Vec::new(), seen: HashSet::new(), next: 0, all: false };
        Self { family, held: RefCell::new(held) }
    }

    /// A prompt and its bytes; so the next two.
    fn prompt(&self, problem: &F::Problem) -> (Prompt, u64) {
        let prompt = self.family.prompt(problem);
        let bytes = prompt.bytes();
        (prompt, bytes)
    }

    fn demo(&self, problem: &F::Problem, draw: &mut Draw) -> (Demo, u64) {
        let demo = self.family.demo(problem, draw);
        let bytes = demo.bytes();
        (demo, bytes)
    }

    fn pair(&self, problem: &F::Problem, draw: &mut Draw) -> (Pair, u64) {
        let pair = self.family.pair(problem, draw);
        let bytes = pair.bytes();
        (pair, bytes)
    }

    /// `n` training problems, each with the choices that its answers are made with.
    fn train(&self, n: usize, key: Key) -> impl Iterator<Item = (F::Problem, Draw)> {
        let all = (0..).map(move |i| (self.family.draw(key, i), i));
        let train = all.filter(|(problem, _)| !self.family.held_out(problem)).take(n);
        train.map(move |(problem, i)| (problem, Draw::new(key.fold(ANSWERS).fold(i))))
    }

    /// The first `n` held-out problems.
    fn test(&self, n: usize) -> Result<impl Iterator<Item = (F::Problem, Draw)>> {
        let mut held = self.held.borrow_mut();
        held.extend(&self.family, n)?;
        let problems: Vec<F::Problem> = held.found.iter().take(n).cloned().collect();
        let key = Key::new(F::SPLIT).fold(ANSWERS);
        Ok(problems.into_iter().enumerate().map(move |(i, problem)| (problem, Draw::new(key.fold(i as u64)))))
    }
}

/// What `make` makes of each problem, as far as there is memory and nobody asks to stop.
fn each<P, T>(problems: impl Iterator<Item = (P, Draw)>, make: impl Fn(P, &mut Draw) -> (T, u64)) -> Result<Vec<T>> {
    let mut count = Count::default();
    let one = |(problem, mut draw): (P, Draw)| {
        let (made, bytes) = make(problem, &mut draw);
        count.take(bytes)?;
        Ok(made)
    };
    problems.map(one).collect()
}

impl<P: Clone + Eq + Hash> Held<P> {
    /// Finds problems until there are `n`, or no others.
    fn extend<F: Family<Problem = P>>(&mut self, family: &F, n: usize) -> Result<()> {
        let order = Key::new(F::SPLIT).fold(u64::MAX);
        if self.next == 0
            && !self.all
            && let Some(all) = family.list()
        {
            self.found = order.permutation(all.len()).into_iter().map(|i| all[i].clone()).collect();
            self.all = true;
        }
        let (mut idle, mut count) = (0, Count::default());
        while self.found.len() < n && !self.all {
            count.take(2 * size_of::<P>() as u64)?;
            let problem = family.draw(order, self.next);
            self.next += 1;
            if family.held_out(&problem) && self.seen.insert(problem.clone()) {
                self.found.push(problem);
                idle = 0;
            } else {
                idle += 1;
                self.all = idle == PATIENCE;
            }
        }
        Ok(())
    }
}

impl<F: Family> Task for Drawn<F> {
    fn name(&self) -> &str {
        F::NAME
    }

    fn prompts(&self, n: usize, key: Key) -> Result<Prompts> {
        each(self.train(n, key), |problem, _| self.prompt(&problem)).map(Prompts::of)
    }

    fn demos(&self, n: usize, key: Key) -> Result<Vec<Demo>> {
        each(self.train(n, key), |problem, draw| self.demo(&problem, draw))
    }

    fn pairs(&self, n: usize, key: Key) -> Result<Vec<Pair>> {
        each(self.train(n, key), |problem, draw| self.pair(&problem, draw))
    }

    fn test_prompts(&self, n: usize) -> Result<Prompts> {
        each(self.test(n)?, |problem, _| self.prompt(&problem)).map(Prompts::of)
    }

    fn test_demos(&self, n: usize) -> Result<Vec<Demo>> {
        each(self.test(n)?, |problem, draw| self.demo(&problem, draw))
    }

    fn test_pairs(&self, n: usize) -> Result<Vec<Pair>> {
        each(self.test(n)?, |problem, draw| self.pair(&problem, draw))
    }

    fn score(&self, batch: &Batch) -> Result<Tensor> {
        self.family.score(batch)
    }

    fn reads(&self) -> &'static [&'static str] {
        self.family.reads()
    }

    fn max_tokens(&self) -> usize {
        self.family.max_tokens()
    }

    fn turns(&self) -> usize {
        self.family.turns()
    }

    fn user(&self) -> Result<Rc<dyn User + '_>> {
        self.family.user().map(|user| user as Rc<dyn User>).ok_or_else(|| super::no_user(F::NAME))
    }
}
