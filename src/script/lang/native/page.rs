//! What a page of Markdown says about functions: a section each, `## name`, with a summary, a list of parameters,
//! `Fails:`, `Note:` and an example.

use std::collections::BTreeMap;

/// What is said of one function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// One sentence or two.
    pub summary: String,
    /// Name (several that mean the same joined by commas), shape and meaning. Without a shape the type says it all.
    pub params: Vec<[String; 3]>,
    /// When it fails; empty where it cannot.
    pub errors: String,
    /// The paper and equation, where there is one, and what else is worth knowing.
    pub notes: String,
    /// A script that runs; `assert`s in it are checked.
    pub example: String,
}

impl Section {
    /// The shape and the meaning of a parameter.
    pub fn param(&self, name: &str) -> Option<(&str, &str)> {
        let named = |names: &str| names.split(", ").any(|known| known == name);
        self.params.iter().find(|[names, ..]| named(names)).map(|[_, shape, about]| (&shape[..], &about[..]))
    }
}

/// The page's title, `# Tensors`, and its sections by name.
pub fn read(text: &str) -> (String, BTreeMap<String, Section>) {
    let (mut title, mut sections) = (String::new(), BTreeMap::new());
    let (mut current, mut open) = (None::<(String, Vec<&str>)>, false);
    for line in text.lines() {
        open ^= line.starts_with("```");
        let heading = line.strip_prefix("## ").filter(|_| !open);
        match (heading, &mut current) {
            (Some(name), _) => {
                let before = current.replace((name.trim().to_string(), Vec::new()));
                sections.extend(before.map(|(name, lines)| (name, section(&lines))));
            }
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => title = line.strip_prefix("# ").map_or(title, |found| found.trim().to_string()),
        }
    }
    sections.extend(current.map(|(name, lines)| (name, section(&lines))));
    (title, sections)
}

fn section(lines: &[&str]) -> Section {
    let mut found = Section::default();
    let mut rest = lines.iter();
    let mut paragraph = String::new();
    while let Some(line) = rest.next() {
        if line.starts_with("```") {
            keep(&mut found, &mut paragraph);
            let example: Vec<&str> = rest.by_ref().take_while(|line| !line.starts_with("```")).copied().collect();
            found.example = example.join("\n");
            continue;
        }
        if line.trim().is_empty() || line.starts_with("- ") {
            keep(&mut found, &mut paragraph);
        }
        // A wrapped line goes on with its paragraph.
        let space = if paragraph.is_empty() { "" } else { " " };
        paragraph += &format!("{space}{}", line.trim());
        paragraph.truncate(paragraph.trim_end().len());
    }
    keep(&mut found, &mut paragraph);
    found
}

/// A paragraph that is whole goes where it belongs.
fn keep(section: &mut Section, paragraph: &mut String) {
    let text = std::mem::take(paragraph);
    if let Some(item) = text.strip_prefix("- `") {
        let (names, rest) = item.split_once('`').unwrap_or((item, ""));
        let (shape, about) = match rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once("): ")) {
            Some((shape, about)) => (shape, about),
            None => ("", rest.trim_start_matches(':').trim()),
        };
        section.params.push([names, shape, about].map(str::to_string));
    } else if let Some(errors) = text.strip_prefix("Fails:") {
        section.errors = errors.trim().to_string();
    } else if let Some(notes) = text.strip_prefix("Note:") {
        section.notes = notes.trim().to_string();
    } else if !text.is_empty() {
        let space = if section.summary.is_empty() { "" } else { " " };
        section.summary += &format!("{space}{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Tensors\n\n## sum\n\nThe sum of all cells,\nor along an axis.\n\n- `x` ([B,1] (rows)): what\n  \
                        to reduce\n- `axis`: left out: all\n\nFails: Per-token values.\n\nNote: slow\n\n```rhai\n## no \
                        heading\nassert(true);\n```\n\n## a + b\n\nThe sum.\n";

    #[test]
    fn sections_are_told_apart_and_wrapped_lines_joined() {
        let (title, sections) = read(PAGE);
        assert_eq!(title, "Tensors");
        assert_eq!(sections.keys().collect::<Vec<_>>(), ["a + b", "sum"]);
        let sum = &sections["sum"];
        assert_eq!(sum.summary, "The sum of all cells, or along an axis.");
        assert_eq!(sum.param("x"), Some(("[B,1] (rows)", "what to reduce")));
        assert_eq!(sum.param("axis"), Some(("", "left out: all")));
        assert_eq!((sum.errors.as_str(), sum.notes.as_str()), ("Per-token values.", "slow"));
        assert_eq!(sum.example, "## no heading\nassert(true);");
        assert_eq!(sections["a + b"].summary, "The sum.");
    }

    #[test]
    fn names_that_mean_the_same_share_an_item() {
        let (_, sections) = read("## f\n\n- `a, b` (number): both");
        assert_eq!(sections["f"].param("b"), Some(("number", "both")));
        assert_eq!(sections["f"].param("c"), None);
    }
}
