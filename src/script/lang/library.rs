//! What the modules of `std/` say about their functions: the comment above each, its signature and its example.
//!
//! Reads the text alone: a function is a line that begins with `fn`, its page is the `///` lines above it, and its
//! example stands between lines of three backticks in them.

/// A function of a module, as its comment describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// `linear`
    pub name: String,
    /// `step`, `steps`
    pub params: Vec<String>,
    /// The comment without the example.
    pub about: String,
    /// A script without the line that imports the module; empty where there is none.
    pub example: String,
}

/// The functions that others may call, in the order of the text.
pub fn functions(text: &str) -> Vec<Function> {
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("///") {
            comment.push(line.strip_prefix(' ').unwrap_or(line));
            continue;
        }
        if let Some(signature) = line.strip_prefix("fn ") {
            found.push(function(signature, &comment));
        }
        comment.clear();
    }
    found
}

fn function(line: &str, comment: &[&str]) -> Function {
    let signature = line.split('{').next().unwrap_or(line);
    let (name, params) = signature.split_once('(').unwrap_or((signature, ""));
    let params = params.trim().trim_end_matches(')').split(',').map(str::trim).filter(|param| !param.is_empty());
    let (name, params) = (name.trim().to_string(), params.map(str::to_string).collect());
    let mut parts = comment.split(|line| line.starts_with("```"));
    let about = parts.next().unwrap_or_default().join(" ");
    Function { name, params, about, example: parts.next().unwrap_or_default().join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_signatures_and_examples_are_told_apart() {
        let text = "//! A module.\n\n/// Half of x.\n/// Rounded down.\n/// ```\n/// assert_eq(m::half(3), 1);\n/// ```\n\
                    fn half(x) {\n    x / 2\n}\n\n/// Not for others.\nprivate fn one() { 1 }\n\nfn bare() { }\n";
        let [half, bare] = &functions(text)[..] else { panic!("two functions") };
        assert_eq!((half.name.as_str(), &half.params[..]), ("half", &["x".to_string()][..]));
        assert_eq!(
            (half.about.as_str(), half.example.as_str()),
            ("Half of x. Rounded down.", "assert_eq(m::half(3), 1);")
        );
        assert_eq!((bare.name.as_str(), bare.about.as_str(), bare.example.as_str()), ("bare", "", ""));
    }
}
