//! Samples of a run: rows of its last step, and a few from the way there. Of a file of any length only some places are read.

use super::cut::{Left, cut, window};
use crate::data::Content;
use crate::files::{self, Location};
use crate::run::digits::short;
use crate::run::samples::FIRST;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Rows of the last step; places on the way, and rows at each.
const LAST: usize = 8;
const PLACES: u64 = 6;
const EACH: usize = 2;
/// Bytes that are read at the end of the file, and at each place.
const END: u64 = 1 << 20;
const PLACE: u64 = 256 << 10;
/// Columns of a row, letters of a cell.
const COLUMNS: usize = 12;
const CELL: usize = 2000;

/// Rows under common heads.
#[derive(Debug, Default, Serialize)]
pub(super) struct Samples {
    head: Vec<Head>,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Head {
    name: String,
    /// Whether all below it is numbers.
    numbers: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    /// Whether it is the first of its step.
    begins: bool,
    cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
struct Cell {
    name: String,
    text: String,
    /// Whether it is prose, and not a number or a word.
    long: bool,
}

/// A line of the file, by its place.
type Lines = BTreeMap<u64, Map<String, Value>>;

/// The samples in the folder of a run.
pub(super) fn of(folder: &Location, left: &mut Left) -> Samples {
    let path = folder.join("samples.jsonl");
    let Some(size) = files::open(&path).ok().filter(|_| !files::is_link(&path)).map(|file| file.size()) else {
        return Samples::default();
    };
    let end = lines(&path, size.saturating_sub(END), END);
    let step = |row: &Map<String, Value>| row.get("step").and_then(Value::as_u64);
    // How many rows there are, where all are read.
    let count = (size <= END).then_some(end.len());
    let last = end.values().next_back().and_then(step);
    let of_last = end.into_iter().filter(|(_, row)| step(row) == last).take(LAST);
    let mut chosen = Lines::new();
    for place in 0..PLACES {
        let mut found = lines(&path, size / PLACES * place, PLACE).into_iter().filter(|(_, row)| step(row) != last);
        let Some((at, first)) = found.next() else { continue };
        let of_step = step(&first);
        chosen.insert(at, first);
        chosen.extend(found.take_while(|(_, row)| step(row) == of_step).take(EACH - 1));
    }
    chosen.extend(of_last);
    if size > 0 && chosen.is_empty() {
        left.say("samples whose rows are longer than 1 MiB");
    } else if count != Some(chosen.len()) {
        left.say("most samples, which are in samples.jsonl");
    }
    shown(chosen, left)
}

/// The whole lines that begin within a part of the file.
fn lines(path: &Location, from: u64, most: u64) -> Lines {
    // A line begins behind a line break, so one byte before the part counts.
    let before = u64::from(from > 0);
    let text = window(path, from - before, most + before).unwrap_or_default();
    let (mut at, mut found) = (from - before, Lines::new());
    for (i, line) in text.split_inclusive('\n').enumerate() {
        if let (true, Some(line)) = (i > 0 || from == 0, line.strip_suffix('\n'))
            && let Ok(row) = serde_json::from_str(line)
        {
            found.insert(at, row);
        }
        at += line.len() as u64;
    }
    found
}

fn shown(chosen: Lines, left: &mut Left) -> Samples {
    let mut head: Vec<String> = Vec::new();
    for name in chosen.values().flat_map(Map::keys) {
        if !head.contains(name) {
            head.push(name.clone());
        }
    }
    let place = |name: &String| match name.as_str() {
        "step" => 0,
        name => 1 + FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len()),
    };
    head.sort_by_key(place);
    left.more(head.len().saturating_sub(COLUMNS), "column of the samples", "columns of the samples");
    head.truncate(COLUMNS);
    let mut before = None;
    let row = |row: Map<String, Value>| {
        let step = row.get("step").cloned();
        let begins = before.replace(step.clone()) != Some(step);
        let cell = |name: &String| {
            let value = row.get(name).unwrap_or(&Value::Null);
            Cell { name: cut(name, CELL), text: cell(value), long: !value.is_number() && !value.is_boolean() }
        };
        Row { begins, cells: head.iter().map(cell).collect() }
    };
    let rows: Vec<Row> = chosen.into_values().map(row).collect();
    let numbers = |i: usize| rows.iter().all(|row| !row.cells[i].long || row.cells[i].text.is_empty());
    let head = head.iter().enumerate().map(|(i, name)| Head { name: cut(name, CELL), numbers: numbers(i) }).collect();
    Samples { rows, head }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(number) if number.is_f64() => short(number.as_f64().unwrap_or(f64::NAN)),
        other => cut(&Content::shown(other), CELL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Vec<String>>, Vec<String>) {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("samples.jsonl"), text).expect("written");
        let mut left = Left::default();
        let samples = of(&files::anywhere(dir.path()), &mut left);
        let row = |row: Row| row.cells.into_iter().map(|cell| cell.text).collect();
        let head = samples.head.iter().map(|head| head.name.clone()).collect();
        (std::iter::once(head).chain(samples.rows.into_iter().map(row)).collect(), left.told())
    }

    #[test]
    fn the_last_step_and_some_on_the_way_are_shown() {
        let line =
            |step: u64, i: u64| format!("{{\"step\":{step},\"own\":{i},\"text\":\"t{step}-{i}\",\"prompt\":\"p\"}}\n");
        let text: String = (1..=1000).flat_map(|step| (0..40).map(move |i| line(step, i))).collect();
        let (rows, _) = read(&text);
        assert_eq!(rows[0], ["step", "prompt", "text", "own"]);
        let steps: Vec<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
        assert_eq!(steps.iter().filter(|step| **step == "1000").count(), LAST);
        assert_eq!(rows[1], ["1", "p", "t1-0", "0"]);
        assert_eq!(steps.len(), LAST + PLACES as usize * EACH, "{steps:?}");
        assert!(
            steps.windows(2).all(|pair| pair[0].parse::<u64>().expect("a step") <= pair[1].parse().expect("a step"))
        );
    }

    #[test]
    fn a_few_rows_are_all_shown_once() {
        let (rows, _) = read("{\"step\":1,\"text\":\"a\"}\n{\"step\":2,\"text\":\"b\"}\n{\"step\":2,\"te");
        assert_eq!(rows, [["step", "text"], ["1", "a"], ["2", "b"]]);
        assert_eq!(read("").0, [[""; 0]]);
    }

    #[test]
    fn rows_of_any_size_leave_room() {
        let long = format!("{{\"step\":1,\"text\":\"{}\"}}\n", "x".repeat(3000));
        let (rows, _) = read(&long.repeat(3));
        assert!(rows[1][1].ends_with("… (1000 more characters)"), "{:?}", rows[1]);
        let (rows, left) = read(&format!("{{\"step\":1,\"text\":\"{}\"}}\n", "x".repeat(3 << 20)));
        assert_eq!((rows.len(), left), (1, vec!["samples whose rows are longer than 1 MiB".to_string()]));
        let wide = (0..50).map(|i| format!("\"c{i}\":1")).collect::<Vec<_>>().join(",");
        let (rows, left) = read(&format!("{{\"step\":1,{wide}}}\n"));
        assert!(rows[1].len() == COLUMNS && left.iter().any(|left| left == "39 columns of the samples"), "{left:?}");
    }
}
