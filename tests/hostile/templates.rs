//! Chat templates that would run for ever or fill the memory: each ends with an error, soon, and honest ones do not.

use rhopo::model::chat::ChatTemplate;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longer than any of these may take, on a busy machine as well.
const LONGEST: Duration = Duration::from_secs(12);

const ALONE: &str = "RHOPO_TEMPLATES_ALONE";

/// A name, and what stands in the template.
const HOSTILE: &[(&str, &str)] = &[
    ("loops", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"),
    (
        "empty loops",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% if j %}{% endif %}{% endfor %}{% endfor %}",
    ),
    (
        "doubled text",
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ),
    (
        "added text",
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    ),
    ("doubled list", "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}"),
    ("repeated text", "{{ 'a' * 100000000000 }}"),
    ("repeated list", "{{ [1] * 100000000000 }}"),
    ("tojson indent", "{{ {'a': 1}|tojson(indent=4611686018427387904) }}"),
    (
        "tojson nested",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|tojson }}",
    ),
    (
        "tojson sorted",
        "{% set n = namespace(x={'a': 1}) %}{% for i in range(60) %}{% set n.x = {'b': n.x, 'a': n.x} %}{% endfor %}{{ n.x|tojson(sort_keys=true) }}",
    ),
    (
        "tojson separators",
        "{% set n = namespace(x='a') %}{% for i in range(22) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ range(9999)|list|tojson(separators=[n.x, ':']) }}",
    ),
    (
        "printed nested",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    ),
    (
        "printed maps",
        "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x|string }}",
    ),
    ("indent", "{{ 'a\nb'|indent(10000000000) }}"),
    (
        "replace",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x|replace('a', 'aa') %}{% endfor %}",
    ),
    (
        "method replace",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x.replace('a', 'aa') %}{% endfor %}",
    ),
    (
        "squared replace",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x.replace('a', n.x) ~ 'a' %}{% endfor %}",
    ),
    ("join", "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = [n.x, n.x]|join(n.x) %}{% endfor %}"),
    (
        "method join",
        "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x.join([n.x, n.x]) %}{% endfor %}",
    ),
    ("join of nothing", "{% for i in range(99999) %}{{ range(99999)|join }}{% endfor %}"),
    ("ljust", "{{ 'a'.ljust(10000000000) }}"),
    (
        "ljust grows",
        "{% set n = namespace(x='') %}{% for i in range(99999) %}{% set n.x = n.x ~ 'a'.ljust(1000000) %}{% endfor %}",
    ),
    ("format width", "{{ '%1000000000d' % 1 }}"),
    ("format star", "{{ '%*d' % (1000000000, 1) }}"),
    ("filter format", "{{ '%10000000000s'|format('a') }}"),
    ("method format", "{{ '{:>10000000000}'.format('a') }}"),
    (
        "method format fields",
        "{% set n = namespace(x='a', f='{0}') %}{% for i in range(24) %}{% set n.x = n.x ~ n.x %}{% set n.f = n.f ~ n.f %}{% endfor %}{{ n.f.format(n.x) }}",
    ),
    ("batch", "{{ [1]|batch(10000000000, 0)|list }}"),
    ("slice", "{{ [1]|slice(10000000000)|list }}"),
    ("ranges", "{% for i in range(99999) %}{% set y = range(99999)|list %}{% endfor %}"),
    ("sorted", "{% for i in range(99999) %}{% set y = range(99999)|sort|unique|list %}{% endfor %}"),
    ("searched", "{% set x = range(99999)|list %}{% for i in range(99999) %}{% set y = x.index(99998) %}{% endfor %}"),
    ("membership", "{% set x = range(99999)|list %}{% for i in range(99999) %}{% set y = -1 in x %}{% endfor %}"),
    (
        "method search",
        "{% set x = 'ab'.ljust(1000000) %}{% for i in range(99999) %}{% set y = x.rfind('ab') %}{% endfor %}",
    ),
    (
        "split",
        "{% set n = namespace(x='a ') %}{% for i in range(23) %}{% set n.x = n.x ~ n.x %}{% endfor %}{% for i in range(99) %}{% set y = n.x.split(' ') %}{% endfor %}",
    ),
    (
        "lines",
        "{% set n = namespace(x='\n') %}{% for i in range(25) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x.splitlines()|length }}",
    ),
    ("macros", "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}"),
    ("capture", "{% set x %}{% for i in range(99999) %}{{ 'a'.ljust(100000) }}{% endfor %}{% endset %}"),
    ("select", "{% for i in range(99999) %}{% set y = range(99999)|select('odd')|list %}{% endfor %}"),
    ("map", "{% for i in range(99999) %}{% set y = range(99999)|map('string')|join %}{% endfor %}"),
    (
        "groupby",
        "{% for i in range(99999) %}{% set y = messages|groupby('role')|list %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ),
    (
        "compared",
        "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
    ),
    (
        "titles",
        "{% for i in range(99999) %}{% set y = (range(9999)|join('a')).title().swapcase().casefold() %}{% endfor %}",
    ),
    ("reversed", "{% for i in range(99999) %}{% set y = ('a'.ljust(1000000))[::-1] %}{% endfor %}"),
];

fn rendered(template: &str, messages: &[Value]) -> rhopo::error::Result<String> {
    ChatTemplate::from_text("chat_template.jinja", template, BTreeMap::new()).render(messages, true)
}

/// In a process of its own: what is left alone computes until its process ends.
#[test]
fn templates_that_never_end_are_stopped() {
    if std::env::var_os(ALONE).is_some() {
        return all_are_stopped();
    }
    let own = std::env::current_exe().expect("a test program");
    let mut command = Command::new(own);
    command.args(["--exact", "templates::templates_that_never_end_are_stopped", "--nocapture"]).env(ALONE, "1");
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("hostile templates stopped"), "{said}");
    said.lines().filter(|line| line.contains("stopped")).for_each(|line| println!("{line}"));
}

fn all_are_stopped() {
    let messages = [json!({"role": "user", "content": "x"})];
    let (mut ended, mut longest) = (0, (Duration::ZERO, ""));
    for (name, template) in HOSTILE {
        let begun = Instant::now();
        let error = rendered(template, &messages).expect_err(name);
        let took = begun.elapsed();
        assert!(error.what.starts_with("the chat template"), "{name}: {error}");
        assert!(took < LONGEST, "{name}: {took:?}");
        longest = longest.max((took, name));
        ended += 1;
    }
    println!("{ended} hostile templates stopped, the longest after {longest:?}");
}

#[test]
fn long_honest_dialogues_are_rendered() {
    // A million tokens, about, as a template with Python's methods goes through them.
    let template = "{% for message in messages %}<|{{ message.role }}|>{% set parts = message.content.strip().split('\n') %}\
        {% for part in parts %}{{ part.rstrip().replace('\t', '    ') }}\n{% endfor %}{{ message|tojson }}<|end|>{% endfor %}";
    let text = "a line of text that is neither long nor short\n".repeat(90);
    let messages: Vec<Value> = (0..1000).map(|_| json!({"role": "user", "content": text})).collect();
    let text = rendered(template, &messages).expect("an honest template");
    assert!(text.len() > 8_000_000, "{}", text.len());
}
