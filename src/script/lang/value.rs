//! Values of the language as plain data.

use rhai::{Dynamic, FLOAT, INT};

/// A value as JSON, for `config.json`; what has no JSON form (a function, a tensor) is named by its type.
pub fn to_json(value: &Dynamic) -> serde_json::Value {
    use serde_json::Value;
    if value.is_unit() {
        return Value::Null;
    }
    if let Ok(map) = value.as_map_ref() {
        return Value::Object(map.iter().map(|(k, v)| (k.to_string(), to_json(v))).collect());
    }
    if let Ok(array) = value.as_array_ref() {
        return Value::Array(array.iter().map(to_json).collect());
    }
    let int = value.as_int().map(|i: INT| Value::from(i));
    let number = int.or_else(|_| value.as_float().map(|x: FLOAT| Value::from(x)));
    let plain = number.or_else(|_| value.as_bool().map(Value::from));
    plain.unwrap_or_else(|_| match value.clone().into_string() {
        Ok(text) => Value::String(text),
        Err(kind) => Value::String(format!("({kind})")),
    })
}

/// A value as error texts name it: `the float 0.5`, `a Tensor`.
pub fn describe(value: &Dynamic) -> String {
    match value.type_name() {
        "()" => "nothing".into(),
        "i64" => format!("the int {value}"),
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
}
