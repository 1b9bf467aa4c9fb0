//! Chat templates against transformers: Python's text methods and numbers, several templates by name, tools, contents
//! that are null or in parts (`templates.json`, made by `gen_templates.py`).

use crate::common::{copied, json};
use rhopo::gpu::Place;
use rhopo::model::chat::ChatTemplate;
use rhopo::model::{Model, SaveDtype};
use serde_json::{Map, Value, json};

fn template(source: &Value) -> ChatTemplate {
    let list = |named: &Map<String, Value>| -> Value {
        named.iter().map(|(name, template)| json!({"name": name, "template": template})).collect()
    };
    let config = json!({"chat_template": source.as_object().map_or(source.clone(), list)});
    let bytes = serde_json::to_vec(&config).expect("JSON");
    ChatTemplate::from_files(Some(&bytes), None, &[]).expect("files").expect("a template")
}

#[test]
fn templates_print_what_transformers_prints() {
    let mut wrong = Vec::new();
    for case in json("templates.json").as_array().expect("cases") {
        let mut variables = case.get("variables").and_then(Value::as_object).cloned().unwrap_or_default();
        for name in ["tools", "chat_template"] {
            variables.extend(case.get(name).map(|value| (name.to_string(), value.clone())));
        }
        let messages = case["messages"].as_array().expect("messages");
        let found = template(&case["template"]).render_with(messages, false, &variables);
        let expected = case["text"].as_str().expect("a text");
        if found.as_deref().ok() != Some(expected) {
            wrong.push(format!("{}\nexpected {expected}\nfound {found:?}", case["template"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn methods_that_change_a_value_are_refused_as_transformers_sandbox_does() {
    for method in ["[1].append(2)", "{'a': 1}.update({})", "{'a': 1}.pop('a')", "'a'.split('')", "'a'.index('b')"] {
        let text = json!(format!("{{{{ {method} }}}}"));
        assert!(template(&text).render(&[json!({"role": "user", "content": "x"})], false).is_err(), "{method}");
    }
}

#[test]
fn templates_in_files_of_their_own_are_found_and_saved() {
    let dir = copied("qwen2");
    let named = dir.path().join("additional_chat_templates");
    std::fs::create_dir(&named).expect("made");
    std::fs::write(dir.path().join("chat_template.jinja"), "D{{ messages[0].content }}").expect("written");
    std::fs::write(named.join("tool_use.jinja"), "T{{ tools | length }}{{ messages[0].content }}").expect("written");
    let model = Model::load(&rhopo::files::anywhere(dir.path()), &Place::Host).expect("opens");
    let out = tempfile::tempdir().expect("a folder");
    model.save(&rhopo::files::anywhere(out.path()), SaveDtype::F32).expect("saved");
    let again = Model::load(&rhopo::files::anywhere(out.path()), &Place::Host).expect("opens");
    for model in [&model, &again] {
        let render = |variables: Value| {
            let chat = model.chat.as_ref().expect("a template");
            chat.render_with(&[json!({"role": "user", "content": "hi"})], false, variables.as_object().expect("a map"))
        };
        assert_eq!(render(json!({})).expect("a chat"), "Dhi");
        assert_eq!(render(json!({"tools": [{"name": "f"}]})).expect("a chat"), "T1hi");
        assert_eq!(render(json!({"chat_template": "default", "tools": [1]})).expect("a chat"), "Dhi");
        let e = render(json!({"chat_template": "tool_us"})).expect_err("no such template");
        assert_eq!(
            (e.what.as_str(), e.hint.as_deref()),
            ("unknown chat template `tool_us`", Some("did you mean `tool_use`?"))
        );
    }
}

/// What Python 3 prints of `str(x)` for each.
#[test]
fn what_a_tilde_joins_is_printed_as_python_prints_it() {
    let cases = [
        ("{{ 0.00001 ~ '|' ~ 1e16 ~ '|' ~ 0.0001 ~ '|' ~ 1e15 }}", "1e-05|1e+16|0.0001|1000000000000000.0"),
        ("{{ -1e-7 ~ 2 * 0.000005 }}", "-1e-071e-05"),
        ("{{ x ~ y ~ z }}", "1.5e-101e+22123456789.0"),
        ("{%- set t = 'n=' ~ [x, 'it'] -%}{{ t }}", "n=[1.5e-10, 'it']"),
        ("{{ (x ~ '') | upper }}{{ none ~ true ~ 1 }}", "1.5E-10NoneTrue1"),
        ("{{ {'k': x ~ ''}['k'] }}{% if 'a' ~ 1e16 == 'a1e+16' %}same{% endif %}", "1.5e-10same"),
        ("{{ messages[0].content ~ '~' ~ nothing }}", "hi~"),
        ("{{- 'a' ~ loop_end if false else 'b' ~ x -}}", "b1.5e-10"),
    ];
    let variables = json!({"x": 1.5e-10, "y": 1e22, "z": 123456789.0});
    for (text, expected) in cases {
        let messages = [json!({"role": "user", "content": "hi"})];
        let found = template(&json!(text)).render_with(&messages, false, variables.as_object().expect("a map"));
        assert_eq!(found.as_deref().ok(), Some(expected), "{text}: {found:?}");
    }
}
