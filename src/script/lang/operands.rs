//! What stands on both sides of an operator, or between the brackets of a call, in a line of a script: so that an error
//! about shapes can name the variables that have them.

use crate::script::lang::lex::{self, Kind, Piece};

/// The operands at `column` (from 1, in characters) of a line: two of an operator, the arguments of a call. Empty where
/// the text there is neither.
pub fn at(line: &str, column: usize) -> Vec<String> {
    let Some(start) = line.char_indices().nth(column - 1).map(|(i, _)| i) else { return Vec::new() };
    let pieces: Vec<Piece<'_>> = lex::pieces(line).into_iter().filter(|piece| piece.kind != Kind::Space).collect();
    let Some(here) = pieces.iter().position(|piece| piece.start <= start && start < piece.start + piece.text.len())
    else {
        return Vec::new();
    };
    let text = |from: usize, to: usize| match pieces.get(to) {
        Some(last) if from <= to => line[pieces[from].start..last.start + last.text.len()].to_string(),
        _ => String::new(),
    };
    let found = match pieces[here].kind {
        Kind::Sign if !is_bracket(pieces[here].text) => {
            let (Some(left), Some(right)) = (before(&pieces, here), after(&pieces, here + 1)) else {
                return Vec::new();
            };
            vec![text(left, here - 1), text(here + 1, right)]
        }
        Kind::Word => arguments(&pieces, here).into_iter().map(|(from, to)| text(from, to)).collect(),
        _ => Vec::new(),
    };
    if found.iter().any(String::is_empty) { Vec::new() } else { found }
}

fn is_bracket(text: &str) -> bool {
    ["(", ")", "[", "]", "{", "}", ",", ";"].contains(&text)
}

fn joins(piece: &Piece<'_>) -> bool {
    piece.kind == Kind::Sign && matches!(piece.text, "." | "::")
}

/// The first piece of the operand that ends before `end`: a name with what hangs on it, brackets and all.
fn before(pieces: &[Piece<'_>], end: usize) -> Option<usize> {
    let mut i = end.checked_sub(1)?;
    loop {
        if [")", "]"].contains(&pieces[i].text) {
            i = opening(pieces, i)?;
            // What is in brackets may be called or indexed by what stands before it.
            match i.checked_sub(1).filter(|&j| pieces[j].kind == Kind::Word || [")", "]"].contains(&pieces[j].text)) {
                Some(j) => i = j,
                None => return Some(i),
            }
            continue;
        }
        match i.checked_sub(1).filter(|&j| joins(&pieces[j])) {
            Some(j) => i = j.checked_sub(1)?,
            None => return Some(i),
        }
    }
}

/// The last piece of the operand that begins at `start`.
fn after(pieces: &[Piece<'_>], start: usize) -> Option<usize> {
    let mut i = start;
    // A sign of its own belongs to the operand.
    if pieces.get(i).is_some_and(|piece| ["-", "!"].contains(&piece.text)) {
        i += 1;
    }
    pieces.get(i)?;
    if ["(", "["].contains(&pieces[i].text) {
        i = closing(pieces, i)?;
    }
    loop {
        match pieces.get(i + 1) {
            Some(next) if joins(next) => i += 2,
            Some(next) if ["(", "["].contains(&next.text) => i = closing(pieces, i + 1)?,
            _ => return (i < pieces.len()).then_some(i),
        }
    }
}

fn opening(pieces: &[Piece<'_>], close: usize) -> Option<usize> {
    let mut depth = 0;
    (0..=close).rev().find(|&i| {
        match pieces[i].text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn closing(pieces: &[Piece<'_>], open: usize) -> Option<usize> {
    let mut depth = 0;
    (open..pieces.len()).find(|&i| {
        match pieces[i].text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// The arguments of the call whose name stands at `name`; of a method, what it is called on comes first.
fn arguments(pieces: &[Piece<'_>], name: usize) -> Vec<(usize, usize)> {
    let open = name + 1;
    let Some(close) = pieces.get(open).filter(|piece| piece.text == "(").and_then(|_| closing(pieces, open)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if let Some(point) = name.checked_sub(1).filter(|&i| pieces[i].text == ".")
        && let Some(from) = before(pieces, point)
    {
        found.push((from, point - 1));
    }
    let (mut depth, mut from) = (0, open + 1);
    for (i, piece) in pieces.iter().enumerate().take(close + 1).skip(open + 1) {
        match piece.text {
            "(" | "[" | "{" => depth += 1,
            "," if depth == 0 => {
                found.push((from, i - 1));
                from = i + 1;
            }
            _ if i == close && from < close => found.push((from, close - 1)),
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operands(line: &str, sign: &str) -> Vec<String> {
        at(line, line.find(sign).expect("it is there") + 1)
    }

    #[test]
    fn both_sides_of_an_operator_are_whole() {
        assert_eq!(operands("let x = logp - b.old_logprob;", "- "), ["logp", "b.old_logprob"]);
        assert_eq!(operands("f(a[0].x(1, 2)) * (c + d).e", "* "), ["f(a[0].x(1, 2))", "(c + d).e"]);
        assert_eq!(operands("x + -kl::k3(a, b)[0]", "+ "), ["x", "-kl::k3(a, b)[0]"]);
        assert_eq!(operands("x +", "+"), [""; 0]);
    }

    #[test]
    fn a_call_has_its_arguments() {
        assert_eq!(operands("let l = seq_mean(ratio * a, b.mask);", "seq_mean"), ["ratio * a", "b.mask"]);
        assert_eq!(operands("x.matmul(y.transpose())", "matmul"), ["x", "y.transpose()"]);
        assert_eq!(operands("f()", "f"), [""; 0]);
    }
}
