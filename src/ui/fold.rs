//! Lines of text that fit a width. Control sequences, which set colours, take no room.

use unicode_width::UnicodeWidthChar;

/// The text with no line wider than `width`, as far as its words allow; what a line goes on with is indented below it.
pub(super) fn fold(text: &str, width: usize) -> String {
    text.lines().map(|line| fold_line(line, width)).collect::<Vec<_>>().join("\n")
}

fn fold_line(line: &str, width: usize) -> String {
    if columns(line) <= width {
        return line.to_string();
    }
    let indent = line.len() - line.trim_start_matches(' ').len();
    let (mut folded, mut used) = (String::new(), 0);
    for word in line.split_whitespace() {
        let blanks = match used {
            0 => indent,
            _ if used + 1 + columns(word) > width => {
                folded.push('\n');
                used = 0;
                indent + 2
            }
            _ => 1,
        };
        folded += &" ".repeat(blanks);
        folded += word;
        used += blanks + columns(word);
    }
    folded
}

/// The columns that a terminal shows of it.
pub(super) fn columns(text: &str) -> usize {
    let (mut width, mut control) = (0, false);
    for c in text.chars() {
        match c {
            '\u{1b}' => control = true,
            'm' if control => control = false,
            _ if control => {}
            c => width += c.width().unwrap_or(0),
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_go_on_below_themselves() {
        assert_eq!(fold("short\n  one two three", 9), "short\n  one two\n    three");
        assert_eq!(fold("a wordlongerthanthewidth b", 6), "a\n  wordlongerthanthewidth\n  b");
        assert_eq!(fold("\u{1b}[31mone\u{1b}[0m two", 7), "\u{1b}[31mone\u{1b}[0m two", "colours take no room");
        assert_eq!(fold("日本 x", 6), "日本 x");
    }
}
