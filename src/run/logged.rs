//! `metrics.jsonl` line by line, as far as it can be read: one that is still being written does not count, one that is damaged is
//! told from others, and a number that JSON cannot hold costs no line. Owns no meaning of what stands there.

use crate::run::quote::one_line;
use serde_json::{Map, Value};
use std::path::Path;

/// The objects of a text; nothing in the place of a line that cannot be read.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Option<Map<String, Value>>> + '_ {
    text.split_inclusive('\n').filter(|line| !line.trim().is_empty()).filter_map(|line| match object(line) {
        None if !line.ends_with('\n') => None,
        read => Some(read),
    })
}

/// What is said of a file with such lines.
pub(super) fn damage(path: &Path, lines: usize) -> Option<String> {
    let of = match lines {
        0 => return None,
        1 => "1 line that could not be read is".to_string(),
        _ => format!("{lines} lines that could not be read are"),
    };
    Some(one_line(&format!("{}: {of} left out", path.display())))
}

fn object(line: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(line).ok().or_else(|| serde_json::from_str(&finite(line)).ok())
}

/// The line with `null` in the place of numbers that are not finite: `NaN`, `-Infinity`, `1e999`.
fn finite(line: &str) -> String {
    let (mut out, mut word, mut quoted, mut escaped) = (String::new(), String::new(), false, false);
    for c in line.chars() {
        if !quoted && (c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            word.push(c);
            continue;
        }
        let odd = word.parse::<f64>().is_ok_and(|x| !x.is_finite());
        out += if odd { "null" } else { &word };
        word.clear();
        out.push(c);
        (quoted, escaped) = (quoted ^ (c == '"' && !escaped), quoted && c == '\\' && !escaped);
    }
    out.push_str(&word);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn damaged_lines_are_told_and_one_that_is_being_written_does_not_count() {
        let read: Vec<_> = lines("{\"step\":1}\nga\u{0}rbage\n\n[1]\n{\"step\":2}\r\n{\"st").collect();
        let steps: Vec<Option<u64>> = read.iter().map(|line| line.as_ref()?.get("step")?.as_u64()).collect();
        assert_eq!(steps, [Some(1), None, None, Some(2)]);
        assert_eq!(damage(Path::new("a"), 0), None);
        assert_eq!(damage(Path::new("a"), 2).as_deref(), Some("a: 2 lines that could not be read are left out"));
    }

    #[test]
    fn a_number_that_json_cannot_hold_costs_no_line() {
        let line = r#"{"step":3,"a":NaN,"NaN \" NaN":-Infinity,"b":1e999,"c":-1e-3,"t":"1e999 NaN"}"#;
        let read = object(line).map(Value::Object);
        let expected = json!({ "step": 3, "a": null, "NaN \" NaN": null, "b": null, "c": -1e-3, "t": "1e999 NaN" });
        assert_eq!(read, Some(expected));
    }
}
