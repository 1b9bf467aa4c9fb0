//! Values of the language as plain data.

use super::order;
use rhai::{Dynamic, FLOAT, INT};
use serde_json::Value;

/// A value as JSON, for `config.json`; what has no JSON form (a function, a tensor) is named by its type.
pub fn to_json(value: &Dynamic) -> Value {
    if value.is_unit() {
        return Value::Null;
    }
    if let Ok(map) = value.as_map_ref() {
        let entry = |key| (String::from(key), to_json(&map[key]));
        return Value::Object(order::keys(value, &map).into_iter().map(|key| entry(key.as_str())).collect());
    }
    if let Ok(array) = value.as_array_ref() {
        return Value::Array(array.iter().map(to_json).collect());
    }
    let int = value.as_int().map(|i: INT| Value::from(i));
    let number = int.or_else(|_| value.as_float().map(|x: FLOAT| Value::from(x)));
    let number = number.or_else(|kind| value.clone().try_cast::<u64>().map(Value::from).ok_or(kind));
    let plain = number.or_else(|_| value.as_bool().map(Value::from));
    plain.unwrap_or_else(|_| match value.clone().into_string() {
        Ok(text) => Value::String(text),
        Err(kind) => Value::String(format!("({kind})")),
    })
}

/// JSON as a value: maps keep the order of their keys, and whole numbers beyond those of `int` all their digits.
pub fn from_json(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(x) => (*x).into(),
        Value::Number(x) => match (x.as_i64(), x.as_u64()) {
            (Some(x), _) => Dynamic::from_int(x),
            (None, Some(x)) => Dynamic::from(x),
            (None, None) => Dynamic::from_float(x.as_f64().unwrap_or(FLOAT::NAN)),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => Dynamic::from_array(items.iter().map(from_json).collect()),
        Value::Object(map) => order::map(map.iter().map(|(key, value)| (key.into(), from_json(value)))),
    }
}

/// A value as error texts name it: `the float 0.5`, `a Tensor`.
pub fn describe(value: &Dynamic) -> String {
    match value.type_name() {
        "()" => "nothing".into(),
        "i64" => format!("the int {value}"),
        "u64" => format!("the whole number {value}"),
        "f64" => format!("the float {value}"),
        "bool" => format!("{value}"),
        "string" => format!("the string {value:?}"),
        "char" => format!("the letter {value}"),
        "array" => "an array".into(),
        "map" => "a map".into(),
        "Fn" => "a function".into(),
        other => format!("a {}", other.rsplit("::").next().unwrap_or(other).trim_end_matches('>')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::Engine;

    #[test]
    fn values_become_json() {
        let value: Dynamic = Engine::new().eval("#{ a: 1, b: [0.5, true, ()], c: \"x\", d: |x| x }").expect("a map");
        assert_eq!(to_json(&value), serde_json::json!({ "a": 1, "b": [0.5, true, null], "c": "x", "d": "(Fn)" }));
    }

    #[test]
    fn json_comes_back_as_it_was() {
        let text =
            r#"{"z":[{"b":null,"a":1.0},{"a":"x"}],"id":18446744073709551615,"n":-9223372036854775808,"x":1e300}"#;
        let json: Value = serde_json::from_str(text).expect("JSON");
        let value = from_json(&json);
        assert_eq!(to_json(&value).to_string(), json.to_string());
        assert_eq!(describe(&value.as_map_ref().expect("a map")["id"]), "the whole number 18446744073709551615");
    }
}
