//! `arithmetic`: `12+34=` is to be continued with `46`. Both operands are uniform over the numbers of exactly the
//! chosen number of digits (with one digit, 0 to 9).
//!
//! A problem's own numbers decide whether it is held out (about one in eight is), whatever the seed or the other
//! options; `a+b` and `b+a` are always on the same side, and so are `a*b` and `b*a`.

use super::draw::Draw;
use super::drawn::{Family, HELD_OUT};
use crate::data::encode::{Demo, Pair};
use crate::data::{Batch, Prompt};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::rng::Key;
use serde_json::{Map, Value};

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
pub struct Problem {
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
        Key::new(Arithmetic::SPLIT).fold(self.operation as u64).fold(a as u64).bits(b as u64).is_multiple_of(HELD_OUT)
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
            return Err(Error::value(format!("arithmetic: {:?} is listed twice in `ops`", operations[twice].sign())));
        }
        Ok(Self { digits, operations })
    }

    /// The smallest operand and how many there are.
    fn range(&self) -> (u64, u64) {
        let top = 10u64.pow(self.digits as u32);
        if self.digits == 1 { (0, 10) } else { (top / 10, top - top / 10) }
    }
}

impl Family for Arithmetic {
    type Problem = Problem;
    const NAME: &'static str = "arithmetic";
    const SPLIT: u64 = 0x5EED_A217;

    fn draw(&self, key: Key, i: u64) -> Problem {
        let (low, count) = self.range();
        let operand = |j: u64| (low + key.below(3 * i + j, count)) as i64;
        let operation = self.operations[key.below(3 * i, self.operations.len() as u64) as usize];
        Problem { operation, left: operand(1), right: operand(2) }
    }

    fn held_out(&self, problem: &Problem) -> bool {
        problem.held_out()
    }

    fn list(&self) -> Option<Vec<Problem>> {
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
        Some(all)
    }

    fn prompt(&self, problem: &Problem) -> Prompt {
        problem.prompt()
    }

    fn demo(&self, problem: &Problem, _: &mut Draw) -> Demo {
        super::demo(problem.prompt(), problem.answer().to_string())
    }

    /// The answer against a number near it: 1, 2 or 10 more or less.
    fn pair(&self, problem: &Problem, draw: &mut Draw) -> Pair {
        let answer = problem.answer();
        let by = *draw.of(&[1, 2, 10]);
        // A sum or a product below 0 would be told by its sign alone.
        let less = draw.coin() && (answer < 0 || answer >= by);
        let wrong = if less { answer - by } else { answer + by };
        super::pair(problem.prompt(), answer.to_string(), wrong.to_string())
    }

    /// 1 where the text, without surrounding white space, is exactly the answer; else 0.
    fn score(&self, batch: &Batch) -> Result<Tensor> {
        let (texts, answers) = (super::values(batch, "text")?, super::values(batch, "answer")?);
        super::rewards(batch, |i| {
            let right = super::said(&texts[i]).trim() == super::written((i, "answer"), &answers[i])?;
            Ok(f64::from(u8::from(right)))
        })
    }

    fn reads(&self) -> &'static [&'static str] {
        &["answer"]
    }

    /// The longest answer, a sign, the end token, and room for white space.
    fn max_tokens(&self) -> usize {
        2 * self.digits + 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::task::checks::{self, column, reward, text};
    use crate::data::task::drawn::Drawn;
    use crate::data::{Prompts, Task};
    use std::collections::HashSet;

    fn task(digits: usize, ops: &[&str]) -> Drawn<Arithmetic> {
        Drawn::new(Arithmetic::new(digits, ops).expect("a task"))
    }

    fn texts(prompts: &Prompts) -> Vec<&str> {
        prompts.items.iter().map(|prompt| text(&prompt.content)).collect()
    }

    #[test]
    fn training_and_held_out_problems_never_overlap() {
        for (digits, ops) in [(1, vec!["+", "*"]), (2, vec!["+"]), (2, vec!["+", "-", "*"]), (4, vec!["-"])] {
            let task = self::task(digits, &ops);
            let held = task.test_prompts(2000).expect("prompts");
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
        let task = task(2, &["+"]);
        let held = task.test_prompts(usize::MAX).expect("prompts");
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
            let task = || self::task(digits, &["+", "*"]);
            let (short, long) = (task().test_prompts(50).expect("prompts"), task().test_prompts(300).expect("prompts"));
            assert_eq!(short.items[..], long.items[..50]);
            assert_eq!(long.len(), 300);
        }
        let signs = task(2, &["+", "*"]).test_prompts(200).expect("prompts");
        let sums = texts(&signs).iter().filter(|text| text.contains('+')).count();
        assert!((60..140).contains(&sums), "both operations come early: {sums} of 200 are sums");
    }

    #[test]
    fn every_small_task_has_held_out_problems() {
        for sign in Operation::SIGNS {
            let held = task(1, &[sign]).test_prompts(usize::MAX).expect("prompts");
            assert!((4..=30).contains(&held.len()), "{} of 100 for {sign}", held.len());
        }
    }

    #[test]
    fn prompts_follow_the_key_and_carry_the_answer() {
        let nine = task(9, &["*"]).demos(50, Key::new(0)).expect("demonstrations");
        let task = task(3, &["*"]);
        let make = |seed| task.prompts(20, Key::new(seed)).expect("prompts");
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        for prompt in make(3).items {
            let (a, b) = text(&prompt.content).trim_end_matches('=').split_once('*').expect("a product");
            let product: i64 = a.parse::<i64>().expect("a number") * b.parse::<i64>().expect("a number");
            assert_eq!(prompt.fields["answer"], product.to_string());
        }
        assert!(nine.iter().all(|demo| text(&demo.completion).len() >= 17), "no overflow");
    }

    #[test]
    fn only_the_exact_answer_is_right() {
        let list = |values: &[&str]| values.iter().map(|&value| value.into()).collect();
        let columns =
            vec![column("text", list(&["46", " 46\n", "460", "046", ""])), column("answer", list(&["46"; 5]))];
        assert_eq!(reward(&task(2, &["+"]), columns).expect("rewards"), [1.0, 1.0, 0.0, 0.0, 0.0]);
        checks::any_text_is_scored(&task(2, &["+"]), &[("answer", "46".into())]);
        let columns = vec![column("text", list(&["46"])), column("answer", vec![Value::Null])];
        let e = reward(&task(2, &["+"]), columns).expect_err("no answer");
        assert_eq!(e.what, "task.score: row 0: `answer` must be a text or a number, found null");
    }

    #[test]
    fn answers_and_wrong_ones_near_them() {
        for (digits, ops) in [(1, vec!["+", "-", "*"]), (2, vec!["+"]), (9, vec!["*"])] {
            checks::the_parts_never_overlap(&task(digits, &ops), 200);
            checks::demonstrations_are_good(&task(digits, &ops), 1000);
        }
        for pair in task(2, &["+"]).pairs(500, Key::new(8)).expect("pairs") {
            let number = |content| text(content).parse::<i64>().expect("a number");
            assert!([1, 2, 10].contains(&(number(&pair.chosen) - number(&pair.rejected)).abs()), "{pair:?}");
        }
    }

    /// Models have been trained on this split: it must not move.
    #[test]
    fn the_problems_are_those_of_earlier_versions() {
        let sums = task(2, &["+"]);
        assert_eq!(
            texts(&sums.test_prompts(6).expect("prompts")),
            ["59+99=", "68+83=", "13+54=", "51+59=", "99+33=", "33+13="]
        );
        assert_eq!(
            texts(&sums.prompts(6, Key::new(7)).expect("prompts")),
            ["81+10=", "99+40=", "52+94=", "99+90=", "98+35=", "17+92="]
        );
        assert_eq!(
            texts(&task(5, &["+", "-", "*"]).test_prompts(3).expect("prompts")),
            ["20470+32591=", "79316*70154=", "40136-77706="]
        );
    }

    #[test]
    fn impossible_options_are_refused() {
        let text = |digits, ops: &[&str]| Arithmetic::new(digits, ops).expect_err("must be refused").what;
        assert_eq!(text(0, &["+"]), "arithmetic: digits is 0, expected 1 to 9");
        assert_eq!(text(2, &["/"]), "arithmetic: unknown operation \"/\" in `ops`");
        assert_eq!(text(2, &["+", "+"]), "arithmetic: \"+\" is listed twice in `ops`");
        assert_eq!(text(2, &[]), "arithmetic: `ops` is empty, expected at least one operation");
    }
}
