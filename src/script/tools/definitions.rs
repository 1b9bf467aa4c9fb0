//! Rhai definition files, from which editors complete and check: a declaration for each signature of the reference.

use crate::script::lang::native::{Form, Param, Shape};
use crate::script::lang::reference::Entry;
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
        let forms = entry.forms.iter().filter(|_| entry.shape == Shape::Call);
        for declaration in forms.flat_map(|form| declarations(name, form)) {
            *text += &format!("\n/// {}\n{declaration}\n", entry.section.summary);
        }
    }
    let file = |(module, text): (&str, String)| match module {
        "" => ("rhopo.d.rhai".to_string(), format!("module static;\n{text}")),
        module => (format!("{module}.d.rhai"), format!("module {module};\n{text}")),
    };
    modules.into_iter().map(file).collect()
}

/// A declaration for each number of arguments that a form takes.
fn declarations(name: &str, form: &Form) -> Vec<String> {
    let result = if form.returns.is_empty() { "()" } else { simple(&form.returns) };
    // Of a method the value in front of the dot is the first parameter.
    let all: Vec<String> = form.receiver.iter().chain(&form.params).map(param).collect();
    let (fewest, most) = form.arguments();
    (fewest..=most).map(|count| format!("fn {name}({}) -> {result};", all[..count].join(", "))).collect()
}

fn param(param: &Param) -> String {
    format!("{}: {}", param.name, simple(&param.kind))
}

/// A type that is one word; the language has no others.
fn simple(kind: &str) -> &str {
    let word = !kind.is_empty() && kind.chars().all(char::is_alphanumeric);
    if word && !["number", "any"].contains(&kind) { kind } else { "?" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::lang::native::{Presence, Section};

    fn entry(path: &str, shape: Shape, receiver: Option<Param>, params: Vec<Param>, returns: &str) -> Entry {
        Entry {
            topic: "Tensors".into(),
            path: path.into(),
            shape,
            forms: vec![Form { receiver, params, returns: returns.into() }],
            section: Section { summary: "What it does.".into(), ..Section::default() },
        }
    }

    #[test]
    fn optional_parameters_give_two_declarations_and_methods_their_object() {
        let needed = Param::needed;
        let options = Param { presence: Presence::Options, ..needed("options", "map") };
        let asked = vec![needed("model", "Model"), needed("prompts", "Prompts | array"), options];
        let given = [
            entry("sample", Shape::Call, None, asked, "Batch"),
            entry("prompts", Shape::Call, Some(needed("task", "Task")), vec![needed("n", "int")], "Prompts"),
            entry("kl::k3", Shape::Call, None, vec![needed("logp", "Tensor"), needed("ref", "Tensor")], "Tensor"),
            entry("[]", Shape::Index, Some(needed("x", "Tensor")), vec![needed("i", "int")], "Tensor"),
        ];
        let found = files(&given);
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["rhopo.d.rhai", "kl.d.rhai"]);
        let lines: Vec<&str> = found[0].1.lines().filter(|line| line.starts_with("fn")).collect();
        assert_eq!(
            lines,
            [
                "fn sample(model: Model, prompts: ?) -> Batch;",
                "fn sample(model: Model, prompts: ?, options: map) -> Batch;",
                "fn prompts(task: Task, n: int) -> Prompts;"
            ]
        );
        assert!(
            found[1].1.starts_with("module kl;\n")
                && found[1].1.contains("fn k3(logp: Tensor, ref: Tensor) -> Tensor;")
        );
    }
}
