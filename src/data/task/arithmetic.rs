//! `arithmetic`: `12+34=` is to be continued with `46`. Both operands are uniform over the numbers of exactly the
//! chosen number of digits (with one digit, 0 to 9).
//!
//! A problem's own numbers decide whether it is held out (about one in eight is), whatever the seed or the other
//! options; `a+b` and `b+a` are always on the same side, and so are `a*b` and `b*a`.

use super::Task;
use crate::data::encode::Demo;
use crate::data::{Batch, Prompt, Prompts};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::rng::Key;
use serde_json::{Map, Value};
use std::cell::OnceCell;
use std::collections::HashSet;

/// Of this many problems one is held out.
const HELD_OUT: u64 = 8;
/// The split is part of the task's definition: changing this key makes another task.
const SPLIT: u64 = 0x5EED_A217;
/// Up to this many problems all are listed; beyond, held-out ones are drawn.
const LISTED: u64 = 1 << 22;
const MAX_DIGITS: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

impl Operation {
    const SIGNS: [&str; 3] = ["+", "-", "*"];

    fn parse(sign: &str) -> Result<Self> {
        match sign {
            "+" => Ok(Self::Add),
            "-" => Ok(Self::Subtract),
            "*" => Ok(Self::Multiply),
            _ => Err(Error::value(format!("arithmetic: unknown operation {sign:?} in `ops`"))
                .hint(format!("known: {}", Self::SIGNS.map(|sign| format!("{sign:?}")).join(", ")))),
        }
    }

    fn sign(self) -> &'static str {
        Self::SIGNS[self as usize]
    }
}

/// One problem: `left operation right =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Problem {
    operation: Operation,
    left: i64,
    right: i64,
}

impl Problem {
    fn answer(self) -> i64 {
        match self.operation {
            Operation::Add => self.left + self.right,
            Operation::Subtract => self.left - self.right,
            Operation::Multiply => self.left * self.right,
        }
    }

    fn held_out(self) -> bool {
        let (a, b) = match self.operation {
            Operation::Subtract => (self.left, self.right),
            Operation::Add | Operation::Multiply => (self.left.min(self.right), self.left.max(self.right)),
        };
        Key::new(SPLIT).fold(self.operation as u64).fold(a as u64).bits(b as u64).is_multiple_of(HELD_OUT)
    }

    fn prompt(self) -> Prompt {
        Prompt {
            content: format!("{}{}{}=", self.left, self.operation.sign(), self.right).into(),
            fields: Map::from_iter([("answer".to_string(), Value::from(self.answer().to_string()))]),
        }
    }
}

/// Problems of one difficulty.
#[derive(Debug)]
pub struct Arithmetic {
    digits: usize,
    operations: Vec<Operation>,
    /// The held-out problems in their order, once they were asked for; `None` within where they are too many to list.
    listed: OnceCell<Option<Vec<Problem>>>,
}

impl Arithmetic {
    /// `digits` of both operands, 1 to 9; `ops` among `+`, `-` and `*`.
    pub fn new<S: AsRef<str>>(digits: usize, ops: &[S]) -> Result<Self> {
        if !(1..=MAX_DIGITS).contains(&digits) {
            return Err(Error::value(format!("arithmetic: digits is {digits}, expected 1 to {MAX_DIGITS}")));
        }
        if ops.is_empty() {
            return Err(Error::value("arithmetic: `ops` is empty, expected at least one operation")
                .hint("for instance #{ ops: [\"+\"] }"));
        }
        let operations: Vec<Operation> =
            ops.iter().map(|sign| Operation::parse(sign.as_ref())).collect::<Result<_>>()?;
        if let Some(twice) = (1..operations.len()).find(|&i| operations[..i].contains(&operations[i])) {
            return Err(Error::value(format!("arithmetic: {:?} stands twice in `ops`", operations[twice].sign())));
        }
        Ok(Self { digits, operations, listed: OnceCell::new() })
    }

    /// The smallest operand and how many there are.
    fn range(&self) -> (u64, u64) {
        let top = 10u64.pow(self.digits as u32);
        if self.digits == 1 { (0, 10) } else { (top / 10, top - top / 10) }
    }

    /// The `i`-th draw from all problems.
    fn draw(&self, key: Key, i: u64) -> Problem {
        let (low, count) = self.range();
        let operand = |j: u64| (low + key.below(3 * i + j, count)) as i64;
        let operation = self.operations[key.below(3 * i, self.operations.len() as u64) as usize];
        Problem { operation, left: operand(1), right: operand(2) }
    }

    fn train(&self, n: usize, key: Key) -> impl Iterator<Item = Problem> {
        (0..).map(move |i| self.draw(key, i)).filter(|problem| !problem.held_out()).take(n)
    }

    fn test(&self, n: usize) -> Vec<Problem> {
        let order = Key::new(SPLIT).fold(u64::MAX);
        if let Some(all) = self.listed.get_or_init(|| self.list(order)) {
            return all.iter().take(n).copied().collect();
        }
        let mut seen = HashSet::new();
        let drawn = (0..).map(|i| self.draw(order, i));
        drawn.filter(|problem| problem.held_out() && seen.insert(*problem)).take(n).collect()
    }

    /// All held-out problems, shuffled, if there are few enough problems to go through.
    fn list(&self, order: Key) -> Option<Vec<Problem>> {
        let (low, count) = self.range();
        if count * count * self.operations.len() as u64 > LISTED {
            return None;
        }
        let operands = low as i64..(low + count) as i64;
        let mut all = Vec::new();
        for &operation in &self.operations {
            for left in operands.clone() {
                all.extend(operands.clone().map(|right| Problem { operation, left, right }).filter(|p| p.held_out()));
            }
        }
        Some(order.permutation(all.len()).into_iter().map(|i| all[i]).collect())
    }
}

impl Task for Arithmetic {
    fn name(&self) -> &'static str {
        "arithmetic"
    }

    fn prompts(&self, n: usize, key: Key) -> Result<Prompts> {
        Ok(Prompts { items: self.train(n, key).map(Problem::prompt).collect() })
    }

    fn held_out(&self, n: usize) -> Result<Prompts> {
        Ok(Prompts { items: self.test(n).into_iter().map(Problem::prompt).collect() })
    }

    /// 1 where the text, without surrounding white space, is exactly the answer; else 0.
    fn score(&self, batch: &Batch) -> Result<Tensor> {
        let (texts, answers) = (batch.list("text")?, batch.list("answer")?);
        let right = |(text, answer): (&Value, &Value)| {
            let same = text.as_str().zip(answer.as_str()).is_some_and(|(text, answer)| text.trim() == answer);
            if same { 1.0 } else { 0.0 }
        };
        Tensor::from_vec(texts.iter().zip(answers.iter()).map(right).collect(), &[batch.len(), 1], batch.device())
    }

    fn demos(&self, n: usize, key: Key) -> Result<Vec<Demo>> {
        let demo = |problem: Problem| {
            let Prompt { content, fields } = problem.prompt();
            Demo { prompt: content, completion: problem.answer().to_string().into(), fields }
        };
        Ok(self.train(n, key).map(demo).collect())
    }

    /// The longest answer, a sign, the end token, and room for white space.
    fn max_tokens(&self) -> usize {
        2 * self.digits + 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Column, Content};
    use crate::tensor::Device;
    use std::sync::Arc;

    fn text(content: &Content) -> &str {
        match content {
            Content::Text(text) => text,
            Content::Messages(_) => panic!("arithmetic asks in texts"),
        }
    }

    fn texts(prompts: &Prompts) -> Vec<&str> {
        prompts.items.iter().map(|prompt| text(&prompt.content)).collect()
    }

    #[test]
    fn training_and_held_out_problems_never_overlap() {
        for (digits, ops) in [(1, vec!["+", "*"]), (2, vec!["+"]), (2, vec!["+", "-", "*"]), (4, vec!["-"])] {
            let task = Arithmetic::new(digits, &ops).expect("a task");
            let held = task.held_out(2000).expect("prompts");
            let held: HashSet<&str> = texts(&held).into_iter().collect();
            let train = task.prompts(5000, Key::new(1)).expect("prompts");
            assert_eq!(train.len(), 5000);
            assert!(texts(&train).iter().all(|text| !held.contains(text)));
            let demos = task.demos(5000, Key::new(2)).expect("demonstrations");
            assert!(demos.iter().all(|demo| !held.contains(text(&demo.prompt))));
        }
    }

    #[test]
    fn about_one_in_eight_is_held_out_and_order_does_not_matter() {
        let task = Arithmetic::new(2, &["+"]).expect("a task");
        let held = task.held_out(usize::MAX).expect("prompts");
        assert!((900..1130).contains(&held.len()), "{} of 8100", held.len());
        let all: HashSet<&str> = texts(&held).into_iter().collect();
        assert_eq!(all.len(), held.len(), "no problem twice");
        for text in &all {
            let (a, b) = text.trim_end_matches('=').split_once('+').expect("a sum");
            assert!(all.contains(format!("{b}+{a}=").as_str()), "{text}");
        }
        let digits = |text: &str| text.trim_end_matches('=').split('+').all(|x| x.len() == 2);
        assert!(all.iter().all(|text| digits(text)));
    }

    #[test]
    fn the_held_out_list_is_fixed_and_a_longer_one_continues_a_shorter() {
        for digits in [2, 5] {
            let task = || Arithmetic::new(digits, &["+", "*"]).expect("a task");
            let (short, long) = (task().held_out(50).expect("prompts"), task().held_out(300).expect("prompts"));
            assert_eq!(short.items[..], long.items[..50]);
            assert_eq!(long.len(), 300);
        }
        let signs = Arithmetic::new(2, &["+", "*"]).expect("a task").held_out(200).expect("prompts");
        let sums = texts(&signs).iter().filter(|text| text.contains('+')).count();
        assert!((60..140).contains(&sums), "both operations come early: {sums} of 200 are sums");
    }

    #[test]
    fn every_small_task_has_held_out_problems() {
        for sign in Operation::SIGNS {
            let held = Arithmetic::new(1, &[sign]).expect("a task").held_out(usize::MAX).expect("prompts");
            assert!((4..=30).contains(&held.len()), "{} of 100 for {sign}", held.len());
        }
    }

    #[test]
    fn prompts_follow_the_key_and_carry_the_answer() {
        let task = Arithmetic::new(3, &["*"]).expect("a task");
        let make = |seed| task.prompts(20, Key::new(seed)).expect("prompts");
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        for prompt in make(3).items {
            let (a, b) = text(&prompt.content).trim_end_matches('=').split_once('*').expect("a product");
            let product: i64 = a.parse::<i64>().expect("a number") * b.parse::<i64>().expect("a number");
            assert_eq!(prompt.fields["answer"], product.to_string());
        }
        let nine = Arithmetic::new(9, &["*"]).expect("a task").demos(50, Key::new(0)).expect("demonstrations");
        assert!(nine.iter().all(|demo| text(&demo.completion).len() >= 17), "no overflow");
    }

    #[test]
    fn only_the_exact_answer_is_right() {
        let list = |values: &[&str]| Column::List(Arc::new(values.iter().map(|&v| v.into()).collect()));
        let columns = vec![
            ("text".to_string(), list(&["46", " 46\n", "460", "046", ""])),
            ("answer".to_string(), list(&["46"; 5])),
        ];
        let batch = Batch::from_columns(columns, &Device::Cpu).expect("a batch");
        let task = Arithmetic::new(2, &["+"]).expect("a task");
        assert_eq!(task.score(&batch).and_then(|s| s.to_rows()).expect("rows"), [[1.0], [1.0], [0.0], [0.0], [0.0]]);
    }

    #[test]
    fn impossible_options_are_refused() {
        let text = |digits, ops: &[&str]| Arithmetic::new(digits, ops).expect_err("must be refused").what;
        assert_eq!(text(0, &["+"]), "arithmetic: digits is 0, expected 1 to 9");
        assert_eq!(text(2, &["/"]), "arithmetic: unknown operation \"/\" in `ops`");
        assert_eq!(text(2, &["+", "+"]), "arithmetic: \"+\" stands twice in `ops`");
        assert_eq!(text(2, &[]), "arithmetic: `ops` is empty, expected at least one operation");
    }
}
