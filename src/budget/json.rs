//! What JSON takes in memory once it is read: many times its text.

use super::Count;
use crate::error::Result;
use serde_json::{Map, Value};

/// A value in its place in an array, which grows by doubling.
const ITEM: u64 = 2 * size_of::<Value>() as u64;
/// A key with its value: the entry, its hash, the table, and the key's own letters.
const ENTRY: u64 = ITEM + 2 * size_of::<String>() as u64 + 48;
/// An object, however small.
const OBJECT: u64 = 128;

/// Bytes at most that the values of a text take.
pub fn of_text(text: &[u8]) -> u64 {
    let node = |byte: &u8| match byte {
        b',' | b'[' => ITEM,
        b':' => ENTRY,
        b'{' => OBJECT + ITEM,
        _ => 0,
    };
    text.iter().map(node).sum::<u64>() + text.len() as u64
}

/// Bytes that a value takes, about.
pub fn of_value(value: &Value) -> u64 {
    match value {
        Value::String(text) => ITEM + text.len() as u64,
        Value::Array(items) => ITEM + items.iter().map(of_value).sum::<u64>(),
        Value::Object(map) => ITEM + of_map(map),
        _ => ITEM,
    }
}

/// Bytes that an object takes, about.
pub fn of_map(map: &Map<String, Value>) -> u64 {
    OBJECT + map.iter().map(|(key, value)| ENTRY + key.len() as u64 + of_value(value)).sum::<u64>()
}

/// Copies of values, each asked for before it is made.
///
/// # Errors
/// Those of [`Count::take`].
pub fn cloned<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Vec<Value>> {
    let mut count = Count::default();
    let one = |value: &Value| {
        count.take(of_value(value))?;
        Ok(value.clone())
    };
    values.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_takes_what_its_values_do() {
        for text in [r#"{"prompt": "1+1=", "x": [{"a": 1}, {"a": [2, 3]}]}"#, "[1,2,3]", "[[[[]]]]", r#""text""#] {
            let value: Value = serde_json::from_str(text).expect("JSON");
            let (least, most) = (of_value(&value), of_text(text.as_bytes()) + ITEM);
            assert!(least <= most && most < 3 * least, "{text}: {least} to {most}");
        }
    }
}
