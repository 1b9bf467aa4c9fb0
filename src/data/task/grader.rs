//! A reward that a program of the user's gives: each row is a line of JSON on its standard input, and it answers each with
//! a line that is a number.
//!
//! Owns that exchange. Which programs may be started is the command line's affair.

use super::composed::Reward;
use super::values;
use crate::budget;
use crate::data::{Batch, Column};
use crate::error::{Error, Kind, Result};
use crate::files::program::{Line, Program};
use crate::tensor::Tensor;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at Ctrl-C.
const NAP: Duration = Duration::from_millis(50);

/// A program, and how long it may take for one row. It is started with the first batch and serves all that follow.
#[derive(Debug)]
pub struct Grader {
    name: String,
    words: Vec<String>,
    patience: Duration,
    stop: Arc<AtomicBool>,
    program: RefCell<Option<Program>>,
}

impl Grader {
    /// `name` is what errors call it; `words` are the program and its arguments. Waiting ends once `stop` is set.
    pub fn new(name: &str, words: Vec<String>, patience: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { name: name.into(), words, patience, stop, program: RefCell::default() }
    }

    /// What `program` says of these rows.
    fn grade(&self, program: &mut Program, batch: &Batch) -> Result<Vec<f32>> {
        if let Line::Said(line) = program.line(Duration::ZERO) {
            return Err(self.error(format!("wrote a line that no row asked for: {line:?}")).hint(ONE_LINE));
        }
        rows(batch)?.into_iter().for_each(|row| program.send(row));
        let n = batch.len();
        let number = |i| match self.wait(program)? {
            Line::Said(line) => line.trim().parse().ok().filter(|x: &f32| x.is_finite()).ok_or_else(|| {
                let what = format!("gave row {i} {line:?}, expected a number{}", batch.shown(i));
                self.error(what).hint(ONE_LINE)
            }),
            Line::Silence => {
                let what =
                    format!("gave row {i} of {n} no number within {} s{}", self.patience.as_secs_f64(), batch.shown(i));
                Err(self.error(what).hint(
                    "it must answer each line as it reads it, without holding its output back; --exec-seconds waits longer",
                ))
            }
            Line::End => {
                let (status, complaints) = program.fate();
                let e = self.error(format!("ended before it gave row {i} of {n} a number: {status}"));
                Err(match complaints.is_empty() {
                    true => e.hint("it said nothing on its standard error"),
                    false => e.hint(format!("the last lines of its standard error:\n{}", complaints.join("\n"))),
                })
            }
        };
        (0..n).map(number).collect()
    }

    fn wait(&self, program: &Program) -> Result<Line> {
        let until = Instant::now() + self.patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match program.line(left.min(NAP)) {
                Line::Silence if self.stop.load(Ordering::Relaxed) => return Err(budget::interrupted()),
                Line::Silence if !left.is_zero() => {}
                line => return Ok(line),
            }
        }
    }

    fn error(&self, what: String) -> Error {
        Error::new(Kind::Value, format!("the reward {} {what}", self.name))
    }
}

const ONE_LINE: &str = "it must write one number a line for each line that it reads, and nothing else; messages go to its \
                        standard error";

impl Reward for Grader {
    fn score(&self, batch: &Batch) -> Result<Tensor> {
        let running = self.program.take();
        let mut program = running.map_or_else(|| Program::start(&self.words), Ok)?;
        // One that failed is not asked again: what it still says would belong to other rows.
        let rewards = self.grade(&mut program, batch)?;
        *self.program.borrow_mut() = Some(program);
        Tensor::from_vec(rewards, &[batch.len(), 1], batch.device())
    }
}

/// Each row as a line: `prompt`, `text`, and every other column that has one value a row.
fn rows(batch: &Batch) -> Result<Vec<String>> {
    let single = |column: &Column| match column {
        Column::List(_) => true,
        Column::Tensor(tensor) => tensor.dims()[1] == 1,
    };
    let first = ["prompt", "text"];
    let others = batch.columns().filter(|(name, column)| single(column) && !first.contains(name));
    let names: Vec<&str> =
        first.into_iter().filter(|name| batch.get(name).is_ok()).chain(others.map(|(name, _)| name)).collect();
    let columns = names.iter().map(|name| Ok((*name, values(batch, name)?))).collect::<Result<Vec<_>>>()?;
    let row = |i: usize| {
        let entries = columns.iter().map(|(name, column)| (name.to_string(), column[i].clone()));
        Value::Object(entries.collect::<Map<_, _>>()).to_string()
    };
    Ok((0..batch.len()).map(row).collect())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::data::task::checks::column;
    use crate::tensor::Device;
    use serde_json::json;

    fn grader(script: &str) -> Grader {
        let words = ["sh", "-c", script].map(String::from).to_vec();
        Grader::new("exec:mine", words, Duration::from_secs(20), Arc::default())
    }

    fn batch(n: usize) -> Batch {
        let texts = (0..n).map(|i| format!("answer {i}").into()).collect();
        let facts = (0..n).map(|i| json!([i])).collect();
        let columns = vec![column("text", texts), column("prompt", vec![json!("1+1="); n]), column("facts", facts)];
        Batch::from_columns(columns, &Device::Cpu).expect("a batch")
    }

    fn error(script: &str, n: usize) -> Error {
        grader(script).score(&batch(n)).expect_err("refused")
    }

    #[test]
    fn rows_are_lines_of_json_in_one_order() {
        let mut rows = batch(2);
        rows.set("length", Column::Tensor(Tensor::from_vec(vec![3.0, 4.5], &[2, 1], &Device::Cpu).expect("numbers")))
            .expect("a column");
        let lines = super::rows(&rows).expect("lines");
        assert_eq!(lines[0], r#"{"prompt":"1+1=","text":"answer 0","facts":[0],"length":3}"#);
        assert_eq!(lines[1], r#"{"prompt":"1+1=","text":"answer 1","facts":[1],"length":4.5}"#);
    }

    #[test]
    fn one_program_serves_all_batches() {
        let counting = grader("n=0; while read -r line; do echo $n; n=$((n + 1)); done");
        assert_eq!(counting.score(&batch(3)).expect("rewards").to_vec().expect("numbers"), [0.0, 1.0, 2.0]);
        assert_eq!(counting.score(&batch(2)).expect("rewards").to_vec().expect("numbers"), [3.0, 4.0]);
    }

    #[test]
    fn what_goes_wrong_is_told_with_the_row() {
        let e = error("read -r line; echo 1; read -r line; echo nan", 3);
        let row = "(the answer \"answer 1\" to the prompt \"1+1=\")";
        assert_eq!(e.what, format!("the reward exec:mine gave row 1 \"nan\", expected a number {row}"));
        let e = error("read -r line; echo 1; echo no >&2; exit 4", 256);
        assert_eq!(e.what, "the reward exec:mine ended before it gave row 1 of 256 a number: exit status: 4");
        assert_eq!(e.hint.as_deref(), Some("the last lines of its standard error:\nno"));
        let mut slow = grader("read -r line; echo 1; exec sleep 600");
        slow.patience = Duration::from_millis(300);
        let e = slow.score(&batch(2)).expect_err("silence");
        let silent = "the reward exec:mine gave row 1 of 2 no number within 0.3 s";
        assert_eq!(e.what, format!("{silent} {row}"));
        slow.stop.store(true, Ordering::Relaxed);
        assert_eq!(slow.score(&batch(2)).expect_err("stopped").kind, Kind::Interrupted);
    }

    #[test]
    fn lines_that_no_row_asked_for_are_not_the_next_rows() {
        let talking = grader("while read -r line; do echo 1; echo 2; done");
        talking.score(&batch(1)).expect("one number");
        std::thread::sleep(Duration::from_millis(200));
        let e = talking.score(&batch(1)).expect_err("the other one");
        assert_eq!(e.what, "the reward exec:mine wrote a line that no row asked for: \"2\"");
    }
}
