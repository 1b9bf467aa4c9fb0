//! What `~` joins in a template goes through `string`: minijinja's own `~` writes numbers and lists in another way than
//! Python. Owns no other part of a template's text (`source.rs`).

use super::source::{after_text, end_of_tag};

/// Words that bind less than `~`, and those of `include`.
const LOOSE: [&str; 13] =
    ["and", "or", "not", "in", "if", "else", "for", "recursive", "ignore", "missing", "with", "without", "context"];

/// `a ~ b` in the inside of a tag as `(a)|string ~ (b)|string`. `statement`: its first word says what kind of tag it is.
pub(super) fn as_texts(inside: &str, statement: bool) -> String {
    if !inside.contains('~') {
        return inside.to_string();
    }
    // White space control, which is no sign of what follows.
    let control = |c: char| c == '-' || c == '+';
    let begin = inside.len() - inside.strip_prefix(control).unwrap_or(inside).len();
    let end = inside.strip_suffix(control).map_or(inside.len(), str::len).max(begin);
    let body = &inside[begin..end];
    let gap = body.len() - body.trim_start().len();
    let word = if statement { body[gap..].find(|c| !is_word(c)).unwrap_or(body.len() - gap) } else { 0 };
    let (head, expression) = body.split_at(gap + word);
    format!("{}{head}{}{}", &inside[..begin], Operands::of(expression), &inside[end..])
}

/// What stands between two operators that bind less than `~`, cut at every `~`.
struct Operands {
    done: String,
    parts: Vec<String>,
}

impl Operands {
    /// An expression with its concatenations rewritten, those within brackets among them.
    fn of(expression: &str) -> String {
        let mut own = Self { done: String::with_capacity(expression.len()), parts: vec![String::new()] };
        // Behind an operand `-` is the operator; elsewhere it is a sign.
        let (mut at, mut behind, mut before) = (0, false, "");
        while let Some(c) = expression[at..].chars().next() {
            let end = piece(expression, at);
            let text = &expression[at..end];
            at = end;
            let loose = LOOSE.contains(&text) && before != "is" && before != ".";
            match c {
                '~' => own.parts.push(String::new()),
                '(' | '[' | '{' if text.len() > 1 => {
                    own.put(&text[..1]);
                    own.put(&Self::of(&text[1..text.len() - 1]));
                    own.put(&text[text.len() - 1..]);
                }
                '+' | '-' if !behind => own.put(text),
                '=' | '!' | '<' | '>' | ',' | ':' | '+' | '-' => own.end(text),
                _ if loose => own.end(text),
                _ => own.put(text),
            }
            if !c.is_whitespace() {
                behind = !loose && (is_word(c) || "'\"([{".contains(c));
                before = text;
            }
        }
        own.end("");
        own.done
    }

    fn put(&mut self, text: &str) {
        if let Some(part) = self.parts.last_mut() {
            part.push_str(text);
        }
    }

    /// Writes what `~` joins, and the operator behind it.
    fn end(&mut self, operator: &str) {
        let joined = self.parts.len() > 1;
        let parts: Vec<String> = self.parts.drain(..).map(|part| if joined { as_text(&part) } else { part }).collect();
        self.done += &parts.join("~");
        self.done += operator;
        self.parts.push(String::new());
    }
}

/// An operand as text; what is one already stays.
fn as_text(part: &str) -> String {
    let operand = part.trim();
    let literal = operand.starts_with(['\'', '"']) && after_text(operand, 0) == Some(operand.len());
    match operand.is_empty() || literal {
        true => part.to_string(),
        false => part.replacen(operand, &format!("({operand})|string"), 1),
    }
}

/// Where the piece that begins at `at` ends: white space, a text, a word or number, a bracket with what is in it, a sign.
fn piece(expression: &str, at: usize) -> usize {
    let rest = &expression[at..];
    let run = |is: fn(char) -> bool| rest.find(|c| !is(c)).map_or(expression.len(), |length| at + length);
    let bracket = |close| end_of_tag(expression, at + 1, close).map_or(at + 1, |end| end + 1);
    let Some(c) = rest.chars().next() else { return at };
    match c {
        '\'' | '"' => after_text(expression, at).unwrap_or(expression.len()),
        '(' => bracket(")"),
        '[' => bracket("]"),
        '{' => bracket("}"),
        _ if c.is_whitespace() => run(char::is_whitespace),
        _ if c.is_ascii_digit() => number(expression, at),
        _ if is_word(c) => run(is_word),
        _ => at + c.len_utf8(),
    }
}

/// Where `12`, `1.5` and `1e-7` end.
fn number(expression: &str, at: usize) -> usize {
    let mut before = ' ';
    for (i, c) in expression[at..].char_indices() {
        let sign = (c == '-' || c == '+') && matches!(before, 'e' | 'E');
        if !is_word(c) && c != '.' && !sign {
            return at + i;
        }
        before = c;
    }
    expression.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::as_texts;

    #[test]
    fn operands_become_texts_as_jinja_binds_them() {
        let expression = |text: &str, expected: &str| assert_eq!(as_texts(text, false), expected);
        let statement = |text: &str, expected: &str| assert_eq!(as_texts(text, true), expected);
        expression(" 'a' ~ x ", " 'a' ~ (x)|string ");
        expression("- -x ~ y|upper -", "- (-x)|string ~ (y|upper)|string -");
        expression(" 2 * 1e-7 ~ f(a ~ 'b')[0] + c ", " (2 * 1e-7)|string ~ (f((a)|string ~ 'b')[0])|string + c ");
        expression(" x if y is not none else z ~ w ", " x if y is not none else (z)|string ~ (w)|string ");
        expression(" {'k': a ~ b, 'l': 3 - 1} ", " {'k': (a)|string ~ (b)|string, 'l': 3 - 1} ");
        expression(" '~' | upper ", " '~' | upper ");
        statement("- set ns.t = ns.t ~ m.role -", "- set ns.t = (ns.t)|string ~ (m.role)|string -");
        statement(" if a ~ b == c and not d ~ e ", " if (a)|string ~ (b)|string == c and not (d)|string ~ (e)|string ");
    }
}
