//! A look at script text as somebody types it: words, texts, comments, brackets, whether something is unfinished.
//!
//! Owns no grammar: what compiles is the language's affair. Unlike its parser, this never fails on half a line.

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Space,
    Comment,
    /// A string of any form with its quotes, and what is put into it.
    Text,
    Number,
    Word,
    Keyword,
    /// One bracket, or a run of other signs.
    Sign,
}

/// A piece of the text; pieces follow each other without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// In bytes, from the beginning.
    pub start: usize,
    /// Whether what was opened was closed: quotes, a comment.
    pub closed: bool,
}

pub const KEYWORDS: [&str; 24] = [
    "let", "const", "fn", "private", "if", "else", "switch", "for", "in", "while", "loop", "do", "until", "break",
    "continue", "return", "throw", "try", "catch", "import", "export", "as", "true", "false",
];

/// Last letters of signs after which an expression goes on.
const OPEN_ENDED: &str = "+-*/%=<>&|^,.:!?";

/// The pieces of `text`, all of it.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut found, mut start) = (Vec::new(), 0);
    while start < text.len() {
        let (kind, len, closed) = first(&text[start..]);
        found.push(Piece { kind, text: &text[start..start + len], start, closed });
        start += len;
    }
    found
}

/// Kind, length in bytes and whether it is closed, of what `rest` begins with.
fn first(rest: &str) -> (Kind, usize, bool) {
    let run = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
    let Some(c) = rest.chars().next() else { return (Kind::Space, 0, true) };
    if c.is_whitespace() {
        return (Kind::Space, run(char::is_whitespace), true);
    }
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()), true);
    }
    if rest.starts_with("/*") {
        let (len, closed) = block_comment(rest);
        return (Kind::Comment, len, closed);
    }
    if let Some((len, closed)) = string(rest) {
        return (Kind::Text, len, closed);
    }
    if c.is_ascii_digit() {
        return (Kind::Number, number(rest), true);
    }
    if is_word(c) {
        let len = run(is_word);
        let kind = if KEYWORDS.contains(&&rest[..len]) { Kind::Keyword } else { Kind::Word };
        return (kind, len, true);
    }
    if is_bracket(c) || c == ';' {
        return (Kind::Sign, c.len_utf8(), true);
    }
    (Kind::Sign, sign(rest), true)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_bracket(c: char) -> bool {
    "()[]{}".contains(c)
}

/// Signs until something else begins; `#{` is left to its bracket.
fn sign(rest: &str) -> usize {
    let stops =
        |&(i, c): &(usize, char)| i > 0 && (is_word(c) || c.is_whitespace() || is_bracket(c) || "\"'`#;".contains(c));
    let end = rest.char_indices().find(stops).map_or(rest.len(), |(i, _)| i);
    // Looked for in the signs alone: what follows them may be long.
    let comment = ["//", "/*"].iter().filter_map(|sign| rest[..end].find(sign)).min().filter(|at| *at > 0);
    comment.unwrap_or(end)
}

fn number(rest: &str) -> usize {
    let mut before = ' ';
    let mut seen_point = false;
    for (i, c) in rest.char_indices() {
        let exponent = (c == '-' || c == '+') && matches!(before, 'e' | 'E') && !rest.starts_with("0x");
        // `1.0`, but neither `1..2` nor `1.abs()`.
        let point = c == '.'
            && !seen_point
            && rest[i + 1..].chars().next().is_none_or(|next| next != '.' && !next.is_alphabetic());
        if !is_word(c) && !exponent && !point {
            return i;
        }
        seen_point |= point;
        before = c;
    }
    rest.len()
}

fn block_comment(rest: &str) -> (usize, bool) {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest[at..];
        let step = match here {
            _ if here.starts_with("/*") => {
                depth += 1;
                2
            }
            _ if here.starts_with("*/") => {
                depth -= 1;
                2
            }
            _ => here.chars().next().map_or(1, char::len_utf8),
        };
        at += step;
        if depth == 0 {
            return (at, true);
        }
    }
    (rest.len(), false)
}

/// `"…"`, `'…'`, `` `…${x}…` `` and `#"…"#`: length and whether it is closed.
fn string(rest: &str) -> Option<(usize, bool)> {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if hashes > 0 && rest[hashes..].starts_with('"') {
        let end = format!("\"{}", &rest[..hashes]);
        let body = hashes + 1;
        return Some(rest[body..].find(&end).map_or((rest.len(), false), |at| (body + at + end.len(), true)));
    }
    let quote = rest.chars().next().filter(|c| "\"'`".contains(*c))?;
    let mut at = 1;
    while let Some(c) = rest[at..].chars().next() {
        at += c.len_utf8();
        match c {
            _ if c == quote => return Some((at, true)),
            '\\' if quote != '`' => at += rest[at..].chars().next().map_or(0, char::len_utf8),
            // A line break ends what was never closed: the rest of the script is not one long text.
            '\n' if quote != '`' => return Some((at - 1, false)),
            '$' if quote == '`' && rest[at..].starts_with('{') => at = interpolation(rest, at),
            _ => {}
        }
    }
    Some((rest.len(), false))
}

/// The end of `{…}` at `at`, texts in it passed over.
fn interpolation(rest: &str, mut at: usize) -> usize {
    let mut depth = 0;
    while at < rest.len() {
        let (_, len, _) = first(&rest[at..]);
        match &rest[at..at + len] {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        at += len;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Whether more has to come before this can be run: an open bracket, text or comment, or an operator at the end.
pub fn unfinished(text: &str) -> bool {
    let pieces = pieces(text);
    let mut depth = 0_i64;
    for piece in &pieces {
        match (piece.kind, piece.text) {
            (Kind::Sign, "(" | "[" | "{") => depth += 1,
            (Kind::Sign, ")" | "]" | "}") => depth -= 1,
            // A quote that its line does not close is a mistake to be told, and a multi-line text goes on.
            (Kind::Text, text) if !piece.closed && text.starts_with(['`', '#']) => return true,
            (Kind::Comment, _) if !piece.closed => return true,
            _ => {}
        }
    }
    let last = pieces.iter().rfind(|piece| !matches!(piece.kind, Kind::Space | Kind::Comment));
    depth > 0 || last.is_some_and(|piece| piece.kind == Kind::Sign && piece.text.ends_with(|c| OPEN_ENDED.contains(c)))
}

/// The pieces that are neither space nor comment.
pub fn code(text: &str) -> Vec<Piece<'_>> {
    pieces(text).into_iter().filter(|piece| !matches!(piece.kind, Kind::Space | Kind::Comment)).collect()
}

/// The names that stand behind a keyword such as `let`.
pub fn declared<'a>(text: &'a str, keyword: &str) -> Vec<&'a str> {
    let code = code(text);
    let pairs = code.windows(2).filter(|pair| pair[0].kind == Kind::Keyword && pair[0].text == keyword);
    pairs.filter(|pair| pair[1].kind == Kind::Word).map(|pair| pair[1].text).collect()
}

/// Whether a function's name is an operator's.
pub fn is_operator(name: &str) -> bool {
    !name.chars().any(is_word)
}

/// Whether the last thing said is a `;`.
pub fn ends_silently(text: &str) -> bool {
    let meant = |piece: &&Piece<'_>| !matches!(piece.kind, Kind::Space | Kind::Comment);
    pieces(text).iter().rfind(meant).is_some_and(|piece| piece.text == ";")
}

/// Whether a comment to the end of its line is the last thing in the text.
pub fn ends_in_comment(text: &str) -> bool {
    let last = pieces(text).into_iter().rfind(|piece| piece.kind != Kind::Space);
    last.is_some_and(|piece| piece.kind == Kind::Comment && piece.text.starts_with("//"))
}

/// Whether the last thing in the text is a function's definition, which no `;` follows.
pub fn ends_in_function(text: &str) -> bool {
    let last = &text[last_statement(text)..];
    ["fn ", "private fn "].iter().any(|begin| last.starts_with(begin))
}

/// Whether the text imports a module.
pub fn mentions_import(text: &str) -> bool {
    pieces(text).iter().any(|piece| piece.kind == Kind::Keyword && piece.text == "import")
}

/// Whether `name` stands in the text as a word.
pub fn mentions(text: &str, name: &str) -> bool {
    pieces(text).iter().any(|piece| piece.kind == Kind::Word && piece.text == name)
}

/// Where the last statement of a text begins.
pub fn last_statement(text: &str) -> usize {
    statements(text).pop().unwrap_or(0)
}

/// Where the statements of a text begin, functions among them.
pub fn statements(text: &str) -> Vec<usize> {
    const BLOCKS: [&str; 10] = ["fn", "private", "if", "while", "for", "loop", "switch", "try", "do", "{"];
    let (mut starts, mut depth, mut over, mut block) = (Vec::new(), 0_usize, true, false);
    for piece in pieces(text).iter().filter(|piece| !matches!(piece.kind, Kind::Space | Kind::Comment)) {
        // `else` and `catch` go on with what a block seemed to end.
        if over && !matches!(piece.text, ";" | "else" | "catch" | "until") {
            starts.push(piece.start);
            block = BLOCKS.contains(&piece.text);
        }
        over = false;
        match (piece.kind, piece.text) {
            (Kind::Sign, "(" | "[" | "{") => depth += 1,
            (Kind::Sign, ")" | "]" | "}") => {
                depth = depth.saturating_sub(1);
                over = depth == 0 && block && piece.text == "}";
            }
            (Kind::Sign, ";") => over = depth == 0,
            _ => {}
        }
    }
    starts
}

/// The text without the functions whose name `is_gone`.
pub fn without_functions(text: &str, is_gone: impl Fn(&str) -> bool) -> String {
    functions(text)
        .iter()
        .filter(|(name, _)| is_gone(name))
        .fold(text.to_string(), |text, (_, part)| text.replacen(part, "", 1))
}

/// `_` as a name becomes `name`; in a `switch` it stays what it is there, the case for everything else.
pub fn replace_blank(text: &str, name: &str) -> String {
    let pieces = pieces(text);
    let mut replaced = String::with_capacity(text.len());
    for (i, piece) in pieces.iter().enumerate() {
        let case = pieces[i + 1..].iter().find(|next| next.kind != Kind::Space).is_some_and(|next| {
            next.text.starts_with("=>") || next.text == "if" // a case with a condition
        });
        replaced += if piece.kind == Kind::Word && piece.text == "_" && !case { name } else { piece.text };
    }
    replaced
}

/// The functions that stand at the top level of a text, each with the comment lines right above it, in order.
pub fn functions(text: &str) -> Vec<(String, &str)> {
    let pieces = pieces(text);
    let (mut found, mut depth, mut begun): (_, usize, Option<usize>) = (Vec::new(), 0, None);
    for (i, piece) in pieces.iter().enumerate() {
        match (piece.kind, piece.text) {
            (Kind::Keyword, "fn") if depth == 0 => begun = Some(i),
            (Kind::Sign, "(" | "[" | "{") => depth += 1,
            (Kind::Sign, ")" | "]" | "}") => {
                depth = depth.saturating_sub(1);
                if depth == 0
                    && piece.text == "}"
                    && let Some(at) = begun.take()
                {
                    let name =
                        pieces[at..].iter().find(|piece| piece.kind == Kind::Word).map_or("", |piece| piece.text);
                    let from = above(&pieces[..at]).unwrap_or(pieces[at].start);
                    found.push((name.to_string(), &text[from..piece.start + 1]));
                }
            }
            _ => {}
        }
    }
    found
}

/// Where the comment (and `private`) that leads up to a function begins.
fn above(before: &[Piece<'_>]) -> Option<usize> {
    let near = |piece: &&Piece<'_>| match piece.kind {
        Kind::Space => piece.text.matches('\n').count() < 2,
        Kind::Comment => true,
        _ => piece.text == "private",
    };
    before.iter().rev().take_while(near).filter(|piece| piece.kind != Kind::Space).last().map(|piece| piece.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_text() {
        let texts = [
            "let x = 1.5e-3 .. 2..3; // end",
            "`a ${ f(\"}\") } b` + #\"raw \"x\"#",
            "x.y::z(|a| a) /* /* */ */ 'c'",
            "é\u{301} \"open",
            "1.abs()",
        ];
        for text in texts {
            let whole: String = pieces(text).iter().map(|piece| piece.text).collect();
            assert_eq!(whole, text);
        }
        let kinds: Vec<_> = pieces("let x=-1.5e-3;//e").iter().map(|piece| (piece.kind, piece.text)).collect();
        assert_eq!(
            kinds,
            [
                (Kind::Keyword, "let"),
                (Kind::Space, " "),
                (Kind::Word, "x"),
                (Kind::Sign, "=-"),
                (Kind::Number, "1.5e-3"),
                (Kind::Sign, ";"),
                (Kind::Comment, "//e"),
            ]
        );
        assert_eq!(pieces("`a ${ f(\"}`\") } b`x")[0].text, "`a ${ f(\"}`\") } b`");
        assert_eq!(pieces("1.abs()")[0].text, "1");
    }

    #[test]
    fn what_is_unfinished_goes_on() {
        for text in
            ["fn f(x) {", "let x = ", "f(1,", "[1, 2", "`open", "/* open", "a +", "x.", "let f = |x|", "#{ a: 1,\n"]
        {
            assert!(unfinished(text), "{text}");
        }
        for text in ["fn f(x) { x }", "1 + 1", "\"open", "f(\"(\")", "x // (", "a)", "", "1;", "f('(')"] {
            assert!(!unfinished(text), "{text}");
        }
    }

    #[test]
    fn the_last_value_has_a_short_name_except_in_a_switch() {
        assert_eq!(replace_blank("_ + f(_) // _", "ans"), "ans + f(ans) // _");
        assert_eq!(replace_blank("switch _ { 1 => 2, _ => 3 }", "ans"), "switch ans { 1 => 2, _ => 3 }");
        assert_eq!(replace_blank("my_x + _y + \"_\"", "ans"), "my_x + _y + \"_\"");
    }

    #[test]
    fn the_last_statement_is_found() {
        let last = |text: &'static str| &text[last_statement(text)..];
        assert_eq!(last("let x = 1; (x + 1) * 2"), "(x + 1) * 2");
        assert_eq!(last("fn f() { 1; }\nf() // c"), "f() // c");
        assert_eq!(last("f(); if a { 1; } else { 2 }"), "if a { 1; } else { 2 }");
        assert_eq!(last("a;\n#{ b: [1; 2] };\n"), "#{ b: [1; 2] };\n");
    }

    #[test]
    fn functions_are_found_with_their_comments() {
        let text = "//! Head.\n\nimport \"x\" as x;\n/// One.\nfn one(a) {\n  if a { 1 } else { 2 }\n}\n\n// alone\n\nprivate fn two() { }\nlet f = || { 3 };\n";
        let found = functions(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], ("one".to_string(), "/// One.\nfn one(a) {\n  if a { 1 } else { 2 }\n}"));
        assert_eq!(found[1], ("two".to_string(), "private fn two() { }"));
    }

    #[test]
    fn a_semicolon_at_the_end_is_seen_behind_comments() {
        assert!(ends_silently("f(x);  // done\n") && !ends_silently("f(x) // ;"));
        assert!(mentions("ans + 1", "ans") && !mentions("\"ans\" + answer", "ans"));
    }

    #[test]
    fn names_are_declared_in_code_and_nowhere_else() {
        let text = "let /* let y */ x = \"let z = 1\"; // let w\nif a { let v = `let u`; }\nconst K = 1;";
        assert_eq!((declared(text, "let"), declared(text, "const")), (vec!["x", "v"], vec!["K"]));
    }
}
