//! Templates are written for Jinja; what minijinja does not read is rewritten before it reads it.
//!
//! `{% generation %}…{% endgeneration %}` marks what the assistant wrote and prints its body, as `{% if true %}` does.
//! `"…" % values` becomes a filter, since minijinja's `%` is for numbers alone.
//! What `~` joins is `joined.rs`'.

use super::joined;

/// The filter that stands for Python's `%` of a text.
pub(super) const PERCENT: &str = "percent";

/// `source` as minijinja reads it.
pub(super) fn for_minijinja(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(open) = rest.find(['{']).filter(|&at| at + 1 < rest.len()) {
        let kind = rest.as_bytes()[open + 1];
        let (body, close) = match kind {
            b'#' if !raw => (open + 2, rest[open + 2..].find("#}").map(|at| open + 2 + at)),
            b'{' if !raw => (open + 2, end_of_tag(rest, open + 2, "}}")),
            b'%' => (open + 2, end_of_tag(rest, open + 2, "%}")),
            _ => {
                out.push_str(&rest[..=open]);
                rest = &rest[open + 1..];
                continue;
            }
        };
        let Some(close) = close else { break };
        let inside = &rest[body..close];
        out.push_str(&rest[..body]);
        let name = inside.trim_matches(['-', '+']).trim();
        match (kind, name) {
            (b'%', "raw") => raw = true,
            (b'%', "endraw") => raw = false,
            _ => {}
        }
        match (kind, name) {
            (b'#', _) => out.push_str(inside),
            _ if raw => out.push_str(inside),
            (b'%', "generation") => out.push_str(&inside.replace("generation", "if true")),
            (b'%', "endgeneration") => out.push_str(&inside.replace("endgeneration", "endif")),
            _ => out.push_str(&joined::as_texts(&percents(inside), kind == b'%')),
        }
        rest = &rest[close..];
    }
    out + rest
}

/// Where the tag whose inside begins at `from` ends: the first `end` outside of texts and brackets.
pub(super) fn end_of_tag(source: &str, from: usize, end: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut depth) = (from, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => at = after_text(source, at)?,
            _ if depth == 0 && source[at..].starts_with(end) => return Some(at),
            b'{' | b'[' | b'(' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' | b')' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += source[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    None
}

/// The byte after the text in quotes that begins at `at`.
pub(super) fn after_text(source: &str, at: usize) -> Option<usize> {
    let quote = source[at..].chars().next()?;
    let mut escaped = false;
    for (i, c) in source[at + 1..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1 + i + 1),
            _ => {}
        }
    }
    None
}

/// `"…" % operand` of an expression as `"…"|percent(operand)`.
fn percents(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut at = 0;
    while let Some(c) = expression[at..].chars().next() {
        if c != '\'' && c != '"' {
            out.push(c);
            at += c.len_utf8();
            continue;
        }
        let Some(end) = after_text(expression, at) else { break };
        out.push_str(&expression[at..end]);
        at = end;
        let gap = expression[end..].len() - expression[end..].trim_start().len();
        let Some(operator) = expression[end + gap..].strip_prefix('%') else { continue };
        let from = expression.len() - operator.trim_start().len();
        if let Some(to) = operand(expression, from) {
            out.push_str(&format!("|{PERCENT}({})", percents(&expression[from..to])));
            at = to;
        }
    }
    out + &expression[at..]
}

/// Where the operand that begins at `at` ends: a text, a bracket or a name, with what is called of it.
fn operand(expression: &str, at: usize) -> Option<usize> {
    let word = |at: usize| {
        let length = expression[at..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(expression.len() - at);
        (length > 0).then_some(at + length)
    };
    let bracket = |at: usize| {
        let close = match expression.as_bytes().get(at)? {
            b'(' => ")",
            b'[' => "]",
            b'{' => "}",
            _ => return None,
        };
        end_of_tag(expression, at + 1, close).map(|end| end + 1)
    };
    let quoted = matches!(expression.as_bytes().get(at)?, b'\'' | b'"');
    let mut end = if quoted { after_text(expression, at)? } else { bracket(at).or_else(|| word(at))? };
    loop {
        let gap = end + expression[end..].len() - expression[end..].trim_start().len();
        let next = expression[gap..].chars().next();
        let further = match next {
            Some('.') => word(gap + 1),
            Some('|') => word(expression.len() - expression[gap + 1..].trim_start().len()),
            Some('(' | '[') => bracket(gap),
            _ => None,
        };
        match further {
            Some(further) => end = further,
            None => return Some(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::for_minijinja;

    #[test]
    fn percent_of_a_text_becomes_a_filter() {
        let same = |text: &str| assert_eq!(for_minijinja(text), text);
        let rewritten = |text: &str, expected: &str| assert_eq!(for_minijinja(text), expected);
        rewritten("{{ '%s-%d' % (c, 3) }}", "{{ '%s-%d'|percent((c, 3)) }}");
        rewritten("{{ \"%s\" % m.name | upper ~ 'x' }}", "{{ (\"%s\"|percent(m.name | upper))|string ~ 'x' }}");
        rewritten("{%- set a = '%02d' % (n) + '%' %}", "{%- set a = '%02d'|percent((n)) + '%' %}");
        rewritten("{{ '%s' % f('}}', x[1])['a'] }} 'b' % c", "{{ '%s'|percent(f('}}', x[1])['a']) }} 'b' % c");
        same("{{ n % 2 }}{% if 'a' %}b{% endif %}{# '%s' % x #}{{ {'a': {'b': 1}} }}");
        same("{% raw %}{{ '%s' % x }}{% endraw %}");
        rewritten("{%- generation -%}a{% endgeneration %}", "{%- if true -%}a{% endif %}");
    }
}
