//! Rhai definition files, from which editors complete and check: a declaration for each signature of the reference.

use crate::script::reference::Entry;
use std::collections::BTreeMap;

/// `rhopo.d.rhai` for global functions, and a file for each module: names and texts.
pub fn files(entries: &[Entry]) -> Vec<(String, String)> {
    let mut modules: BTreeMap<&str, String> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.topic.starts_with("std/")) {
        let (module, name) = entry.path.split_once("::").unwrap_or(("", &entry.path));
        // Operators and indexing have no name that could be completed.
        if !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let text = modules.entry(module).or_default();
        for declaration in declarations(name, entry) {
            *text += &format!("\n/// {}\n{declaration}\n", entry.summary);
        }
    }
    let file = |(module, text): (&str, String)| match module {
        "" => ("rhopo.d.rhai".to_string(), format!("module static;\n{text}")),
        module => (format!("{module}.d.rhai"), format!("module {module};\n{text}")),
    };
    modules.into_iter().map(file).collect()
}

/// One declaration with all parameters, and one without those that may be left out.
fn declarations(name: &str, entry: &Entry) -> Vec<String> {
    let open = entry.signature.find('(');
    let Some((open, close)) = open.zip(entry.signature.rfind(')')).filter(|(open, close)| open < close) else {
        return Vec::new();
    };
    let all: Vec<&str> = entry.signature[open + 1..close].split(", ").filter(|part| !part.is_empty()).collect();
    let needed: Vec<&str> = all.iter().copied().filter(|part| !part.contains("?:")).collect();
    // Of a method the value in front of the dot is the first parameter.
    let own = entry.signature[..open].split_once('.').map(|(own, _)| own);
    let result = entry.signature[close + 1..].trim().strip_prefix("->").map_or("()", str::trim);
    let declare = |parts: &[&str]| {
        let parts = parts.iter().map(|part| {
            let (name, kind) = part.split_once(':').unwrap_or((part, "?"));
            format!("{}: {}", name.trim_end_matches('?'), simple(kind))
        });
        let all: Vec<String> = own.map(|own| format!("{own}: ?")).into_iter().chain(parts).collect();
        format!("fn {name}({}) -> {};", all.join(", "), simple(result))
    };
    let mut found = vec![declare(&needed)];
    if needed.len() < all.len() {
        found.push(declare(&all));
    }
    found
}

/// A type that is one word; the language has no others.
fn simple(kind: &str) -> &str {
    let kind = kind.trim();
    let word = kind == "()" || kind.chars().all(char::is_alphanumeric);
    if word && kind != "number" { kind } else { "?" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, signature: &str) -> Entry {
        Entry {
            topic: "Tensors".into(),
            path: path.into(),
            signature: signature.into(),
            summary: "What it does.".into(),
            params: Vec::new(),
            errors: "",
            notes: "",
            example: String::new(),
        }
    }

    #[test]
    fn optional_parameters_give_two_declarations_and_methods_their_object() {
        let given = [
            entry("sample", "sample(model: Model, prompts: Prompts | array, options?: map) -> Batch"),
            entry("prompts", "task.prompts(n: int) -> Prompts"),
            entry("kl::k3", "kl::k3(logp: Tensor, ref: Tensor) -> Tensor"),
            entry("[]", "x[i] -> Tensor"),
        ];
        let found = files(&given);
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["rhopo.d.rhai", "kl.d.rhai"]);
        let lines: Vec<&str> = found[0].1.lines().filter(|line| line.starts_with("fn")).collect();
        assert_eq!(
            lines,
            [
                "fn sample(model: Model, prompts: ?) -> Batch;",
                "fn sample(model: Model, prompts: ?, options: map) -> Batch;",
                "fn prompts(task: ?, n: int) -> Prompts;"
            ]
        );
        assert!(
            found[1].1.starts_with("module kl;\n")
                && found[1].1.contains("fn k3(logp: Tensor, ref: Tensor) -> Tensor;")
        );
    }
}
