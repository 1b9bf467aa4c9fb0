//! Texts of others within YAML, Markdown and a command line, each one scalar, one line of prose, one word; and where a person
//! reads them, without anything that a terminal or a reader obeys.

/// A scalar in double quotes. Everything that a reader could refuse or fold is escaped.
pub fn yaml(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c => quoted += &format!("\\U{:08X}", u32::from(c)),
        }
    }
    quoted + "\""
}

/// A line of prose, also within a cell of a table, that looks as the text does.
pub fn markdown(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => line += "&lt;",
            '>' => line += "&gt;",
            '&' => line += "&amp;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' | '#' => line.extend(['\\', c]),
            c if hides(c) => line += &format!("\\\\u{{{:x}}}", u32::from(c)),
            c => line.push(c),
        }
    }
    line
}

/// The text with a code in the place of whatever moves a cursor, changes colours or turns the direction of what follows: `\x1b`
/// for ESC, `\u{202e}` beyond a byte. Line breaks and tabs stay.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown += &format!("\\x{:02x}", u32::from(c)),
            c if hides(c) => shown += &format!("\\u{{{:x}}}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// The same on one line.
pub fn one_line(text: &str) -> String {
    visible(text).replace('\n', "⏎").replace('\t', " ")
}

/// The text with a sign in the place of each such character, line breaks and tabs as well but for those in `kept`: the others stay
/// where they are.
pub fn masked(text: &str, kept: &str) -> String {
    text.chars().map(|c| if hides(c) && !kept.contains(c) { '�' } else { c }).collect()
}

/// Ends a line, moves a cursor, or turns the direction of what follows.
pub fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A word as a shell reads it, on one line.
pub fn shell(word: &str) -> String {
    let bare = |c: char| c.is_alphanumeric() || "-_=./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        return word.to_string();
    }
    if !word.chars().any(hides) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut quoted = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if hides(c) => quoted += &format!("\\U{:08X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_stays_one() {
        assert_eq!(yaml("grpo"), "\"grpo\"");
        assert_eq!(
            yaml("a\"b\\\n---\n日本\u{7f}\u{202e}"),
            "\"a\\\"b\\\\\\U0000000A---\\U0000000A日本\\U0000007F\\U0000202E\""
        );
    }

    #[test]
    fn prose_stays_a_line_without_markup() {
        assert_eq!(markdown("a|b\\|<i>*x*"), "a\\|b\\\\\\|&lt;i&gt;\\*x\\*");
        assert_eq!(markdown("# $x$ [a](b) `c`\n&amp;"), "\\# \\$x\\$ \\[a\\](b) \\`c\\`\\\\u{a}&amp;amp;");
        assert_eq!(markdown("GRPO: mean, 0.5 (arXiv:2402.03300) ρ"), "GRPO: mean, 0.5 (arXiv:2402.03300) ρ");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(
            visible("\u{1b}[31mred\r\u{8}\u{0}\u{7f}\u{9b}\u{202e}a\tb\n日本"),
            "\\x1b[31mred\\x0d\\x08\\x00\\x7f\\x9b\\u{202e}a\tb\n日本"
        );
    }

    #[test]
    fn a_word_stays_one_for_a_shell() {
        for (word, quoted) in [
            ("lr=2e-5", "lr=2e-5"),
            ("", "''"),
            ("it's", "'it'\\''s'"),
            ("a $(b) `c`", "'a $(b) `c`'"),
            ("a\nb'", "$'a\\U0000000Ab\\''"),
        ] {
            assert_eq!(shell(word), quoted);
        }
    }
}
