//! What people who know Python, NumPy or PyTorch write, and how it is written here: hints for what is not known, or does
//! not parse. Owns no errors, and does not decide whether something is one.

use crate::script::lang::lex::{self, Kind, Piece};

/// Functions and methods that there are not, and what is written for them.
const FUNCTIONS: [(&str, &str); 66] = [
    ("clamp", "clip(x, lo, hi)"),
    ("pow", "x ** y"),
    ("float", "x.to_float() of an int, text.parse_float() of a text"),
    ("int", "x.to_int() of a float, text.parse_int() of a text"),
    ("str", "x.to_string(), or `${x}` within a text"),
    ("bool", "a comparison, as x != 0 or text != \"\""),
    ("list", "[a, b]; a range as a list: list = []; for i in 0..n { list.push(i) }"),
    ("dict", "#{ key: value }"),
    ("range", "0..n, and range(from, to, step) for other steps"),
    ("xrange", "0..n"),
    ("enumerate", "for (item, i) in list { … }"),
    ("sorted", "list.sort(), which sorts in place and returns the list"),
    ("reversed", "list.reverse(), which turns it in place and returns it"),
    ("any", "list.some(|x| …)"),
    ("isinstance", "type_of(x) == \"string\""),
    ("type", "type_of(x)"),
    ("print", "print(`a is ${a}, b is ${b}`): one text"),
    ("format", "`n is ${n}`; fmt(x, 3) for three digits"),
    ("round", "x.round(); fmt(x, 3) for a text of three digits"),
    ("input", "nothing: scripts take hyper-parameters, args(#{ … }) and --set name=value"),
    ("open", "load_data(path)"),
    ("strip", "text.trim(), which trims in place and returns the text"),
    ("lstrip", "text.trim()"),
    ("rstrip", "text.trim()"),
    ("upper", "text.to_upper()"),
    ("lower", "text.to_lower()"),
    ("startswith", "text.starts_with(part)"),
    ("endswith", "text.ends_with(part)"),
    ("count", "text.split(part).len() - 1 of a text, list.filter(|x| …).len() of a list"),
    ("isdigit", "try { text.parse_int() } catch { … }"),
    ("extend", "list.append(other)"),
    ("copy", "let b = a: values are copied as they are assigned"),
    ("deepcopy", "let b = a: values are copied as they are assigned"),
    ("clone", "let b = a: a tensor never changes"),
    ("items", "for key in map.keys() { let value = map[key]; … }"),
    ("update", "map.mixin(other)"),
    ("setdefault", "map.fill_with(#{ key: value })"),
    ("not", "!x"),
    ("view", "x.reshape([-1, 1])"),
    ("unsqueeze", "x.reshape([-1, 1])"),
    ("squeeze", "x.reshape([-1])"),
    ("flatten", "x.reshape([-1]) of a tensor, a + b of the lists that a list holds"),
    ("permute", "x.transpose()"),
    ("cat", "concat([a, b], axis)"),
    ("mm", "matmul(a, b)"),
    ("tolist", "x.to_array()"),
    ("numpy", "x.to_array()"),
    ("cpu", "nothing: tensors of scripts are always in the host's memory"),
    ("to", "x.to_f64(), x.to_f32(); tensors of scripts have no device"),
    ("size", "x.shape"),
    ("dim", "x.shape.len()"),
    ("zeros_like", "zeros(x.shape)"),
    ("ones_like", "ones(x.shape)"),
    ("masked_fill", "where(condition, value, x)"),
    ("masked_mean", "token_mean(x, mask), or seq_mean(x, mask)"),
    ("topk", "sort(x) or argsort(x): the largest stand at the end"),
    ("kthvalue", "sort(x.reshape([-1])).to_array()[k]"),
    ("masked_select", "where(mask, x, 0); reductions take the mask themselves"),
    ("nonzero", "where(condition, a, b)"),
    ("logical_not", "1 - x: conditions of tensors hold 0 and 1"),
    ("logical_and", "a * b: conditions of tensors hold 0 and 1"),
    ("logical_or", "max(a, b): conditions of tensors hold 0 and 1"),
    ("zero_grad", "nothing: opt.step(loss) begins without gradients"),
    ("no_grad", "x.detach()"),
    ("help", ":help name at the prompt, and `rhopo doc name` elsewhere"),
    ("backward", "opt.step(loss); grad(loss, x) gives a gradient alone"),
];

/// Names that are no variables, and what is written for them.
const NAMES: [(&str, &str); 19] = [
    ("None", "nothing is written ()"),
    ("nil", "nothing is written ()"),
    ("undefined", "nothing is written ()"),
    ("True", "it is written true"),
    ("False", "it is written false"),
    ("self", "inside a method the value is called this"),
    ("pass", "an empty block is written { }"),
    ("inf", "1.0 / 0.0"),
    ("nan", "0.0 / 0.0"),
    ("elif", "it is written else if"),
    ("torch", PREFIX),
    ("np", PREFIX),
    ("numpy", PREFIX),
    ("jnp", PREFIX),
    ("tf", PREFIX),
    ("F", PREFIX),
    ("nn", PREFIX),
    ("math", PREFIX),
    ("random", "randn, rand and randint are functions without a prefix: randn([2, 3])"),
];

const PREFIX: &str = "functions have no prefix here: exp(x), zeros([2, 3]), softmax(x); `rhopo doc` lists all";
const FUNCTION: &str = "a function is written fn name(a, b) { … }; the last value is returned";
const BLOCK: &str = "a block stands in braces: if x > 0 { … } else { … }";
const CLOSURE: &str = "a function without a name is written |x| x + 1";

/// How what a function of that name does elsewhere is written here.
pub fn function(name: &str) -> Option<String> {
    let (_, way) = FUNCTIONS.iter().find(|(known, _)| *known == name)?;
    Some(if way.starts_with("nothing") {
        way.replacen("nothing", "there is no need of it", 1)
    } else {
        format!("write {way}")
    })
}

/// The same of a name that is no variable.
pub fn variable(name: &str) -> Option<String> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, way)| (*way).to_string())
}

/// What was meant at a place (from 1, in characters) of a line that does not parse.
pub fn syntax(line: &str, column: usize) -> Option<&'static str> {
    let pieces = lex::code(line);
    let start = line.char_indices().nth(column.checked_sub(1)?).map_or(line.len(), |(i, _)| i);
    let here = pieces.iter().position(|piece| start < piece.start + piece.text.len()).unwrap_or(pieces.len());
    let text = |at: usize| pieces.get(at).map_or("", |piece| piece.text);
    let (this, before) = (text(here), here.checked_sub(1).map_or("", text));
    sign(this, before, &pieces, here).or_else(|| first_word(text(0))).or_else(|| (this == ":").then_some(BLOCK))
}

/// What the sign or word at the place says, and the one before it.
fn sign(this: &str, before: &str, pieces: &[Piece<'_>], here: usize) -> Option<&'static str> {
    let is_text = |at: usize| pieces.get(at).is_some_and(|piece| piece.kind == Kind::Text);
    match (before, this) {
        ("lambda", _) | (_, "lambda") => Some(CLOSURE),
        (_, "and") | ("and", _) => Some("`and` is written &&"),
        (_, "or") | ("or", _) => Some("`or` is written ||"),
        (_, "is") | ("is", _) => Some("`is` is written ==, and nothing is written (): x == ()"),
        ("not", "in") | (_, "not") => Some("`not` is written !, `x not in list` is !(x in list)"),
        ("not", _) => Some("`not` is written !"),
        ("f", _) if is_text(here) => Some("a text with values in it stands between backquotes: `n is ${n}`"),
        (_, this) if this.starts_with('\'') => Some("a text stands in double quotes: \"text\"; 'x' is one letter"),
        (_, "++" | "--") => Some("it is written i += 1"),
        (_, "@") => Some("a product of matrices is written matmul(a, b)"),
        (_, "#") => Some("a comment begins with //, a map with #{"),
        ("elif", _) | (_, "elif") => Some("it is written else if"),
        (_, "except" | "finally") => Some("it is written try { … } catch (e) { … }"),
        (_, "null") => Some("nothing is written ()"),
        (_, this) if this.starts_with('=') && !this.starts_with("==") && opened_by(pieces, here) == Some("(") => {
            Some("arguments have no names: options come in a map, f(x, #{ n: 4 }), others by their place")
        }
        (_, ":") if opened_by(pieces, here) == Some("{") => Some("a map is written #{ a: 1 }"),
        (_, ":") if opened_by(pieces, here) == Some("[") => {
            Some("a part of a list is list.extract(1..3), of a text text[1..3]")
        }
        (_, "for") if opened_by(pieces, here) == Some("[") => Some("it is written list.map(|x| …)"),
        (_, this) if this.starts_with('.') && opened_by(pieces, here) == Some("[") => {
            Some("all cells of a last axis are taken by gather(x, index, axis); x[i] is a row")
        }
        (_, ",") if opened_by(pieces, here) == Some("[") => Some("places follow one another: x[0][1]"),
        (_, ",") if pieces.first().is_some_and(|first| first.text == "let") => {
            Some("a statement declares one variable: let pair = f(); let a = pair[0];")
        }
        (_, ",") if pieces[..here].iter().any(|piece| piece.text == "for") => {
            Some("it is written for (item, i) in list { … }; the keys of a map: for key in map.keys() { … }")
        }
        (_, ",") if opened_by(pieces, here) == Some("(") => Some("several values together are a list: [a, b]"),
        (_, "if") if here > 0 => Some("a choice is written if condition { a } else { b }"),
        _ => None,
    }
}

/// What a line that begins with a word of Python's was meant to be.
fn first_word(word: &str) -> Option<&'static str> {
    match word {
        "def" => Some(FUNCTION),
        "class" => Some("there are no classes: a map with closures, or a module of functions, does their work"),
        "raise" => Some("it is written throw \"text\""),
        "assert" => Some("it is a function: assert(condition, \"text\")"),
        "from" => Some("a module is loaded with import \"std/reward\" as reward;"),
        "with" => Some("there is none: files close by themselves, and x.detach() takes no gradient"),
        "print" => Some("it is a function: print(`a is ${a}`)"),
        "del" => Some("it is written map.remove(key), list.remove(at)"),
        _ => None,
    }
}

/// The bracket that is open at a place.
fn opened_by<'a>(pieces: &[Piece<'a>], here: usize) -> Option<&'a str> {
    let mut depth = 0;
    let open = pieces.get(..here)?.iter().rev().find(|piece| {
        match piece.text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => depth -= 1,
            _ => {}
        }
        depth < 0
    });
    open.map(|piece| piece.text)
}

/// Whether a name is declared in a text, or is a parameter in one of these signatures: then a closure may be in it.
pub fn holds_a_closure<'a>(name: &str, text: &str, signatures: impl IntoIterator<Item = &'a str>) -> bool {
    let is_parameter = |signature: &str| {
        let list = signature.split_once('(').map_or("", |(_, list)| list);
        list.trim_end_matches(')').split(',').any(|parameter| parameter.trim() == name)
    };
    let declared = |keyword| lex::declared(text, keyword).contains(&name);
    declared("let") || declared("const") || signatures.into_iter().any(is_parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_languages_are_answered() {
        assert_eq!(function("clamp").as_deref(), Some("write clip(x, lo, hi)"));
        assert_eq!(function("clip"), None);
        assert_eq!(variable("None").as_deref(), Some("nothing is written ()"));
    }

    #[test]
    fn lines_that_do_not_parse_are_answered() {
        for (line, column, words) in [
            ("let m = {a: 1};", 11, "#{ a: 1 }"),
            ("def f(x):", 5, "fn name(a, b)"),
            ("if a and b { }", 6, "&&"),
            ("if not a { }", 8, "!"),
            ("print(f\"n is {n}\");", 8, "`n is ${n}`"),
            ("let q = p.prompts(n=4);", 20, "#{ n: 4 }"),
            ("let s = 'hello';", 9, "double quotes"),
            ("let x = 3 if true else 4;", 11, "if condition"),
            ("for i in range(3):", 18, "braces"),
            ("let x = [1,2,3][0:2];", 18, "list.extract(1..3)"),
            ("let f = lambda x: x + 1;", 16, "|x| x + 1"),
        ] {
            let said = syntax(line, column).unwrap_or_default();
            assert!(said.contains(words), "{line}: {said}");
        }
        assert_eq!(syntax("let a = [1, 2;", 14), None);
    }

    #[test]
    fn a_closure_may_be_in_a_variable_or_a_parameter() {
        assert!(holds_a_closure("f", "let f = |x| x;", []));
        assert!(holds_a_closure("f", "", ["g(a, f)"]));
        assert!(!holds_a_closure("f", "fn f(x) { x }", ["f(x)"]));
    }
}
