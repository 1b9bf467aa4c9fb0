//! What follows from the declarations of native functions: `check`, completion, the reference and Rhai agree with them.

use rhopo::script::builder::HostBuilder;
use rhopo::script::host::Host;
use rhopo::script::lang::loader::Source;
use rhopo::script::lang::native::{Declaration, Form, Opt, Shape};
use rhopo::script::lang::reference;
use rhopo::script::live::console::complete::{Known, candidates};
use rhopo::script::tools::check::check;
use rhopo::script::tools::pages;
use std::collections::BTreeSet;

/// Native functions that no script has a reason to call: what the runtime asks itself, and how values print.
const WITHOUT_A_PAGE: [&str; 6] =
    ["environment_of_this_file", "newest_function_of_this_file", "to_string", "to_debug", "print", "debug"];

fn host() -> Host {
    HostBuilder::new().strict().build()
}

/// Forms with options, and the text of a call up to the brackets of its map: `sample(1, 2, #{`.
fn taking_options(host: &Host) -> Vec<(&Declaration, &Form, String)> {
    let call = |doc: &Declaration, form: &Form| {
        let before: String = (1..form.params.len()).map(|i| format!("{i}, ")).collect();
        let own = if form.receiver.is_some() { "run." } else { "" };
        format!("{own}{}({before}#{{ ", doc.path())
    };
    let forms = host.docs().iter().flat_map(|doc| doc.forms.iter().map(move |form| (doc, form)));
    let forms = forms.filter(|(_, form)| !form.options().is_empty());
    forms.map(|(doc, form)| (doc, form, call(doc, form))).collect()
}

/// What `check` says of a line that stands after the variable `run`.
fn said(host: &Host, line: &str) -> Vec<String> {
    let source = Source { label: "own.rhai".into(), text: format!("let run = ();\n{line}") };
    check(host, &source).into_iter().map(|finding| finding.message).collect()
}

#[test]
fn every_option_passes_check_and_others_do_not() {
    let host = host();
    let mut seen = BTreeSet::new();
    for (doc, form, call) in taking_options(&host) {
        seen.insert(doc.path());
        for opt in form.options() {
            assert_eq!(said(&host, &format!("{call}{}: 1 }});", opt.name)), [""; 0], "{call}");
            for nested in &opt.nested {
                let line = format!("{call}{}: #{{ {}: 1 }} }});", opt.name, nested.name);
                assert_eq!(said(&host, &line), [""; 0], "{line}");
            }
        }
        let expected = format!("`{}` has no option `xyzzy`", doc.path());
        assert_eq!(said(&host, &format!("{call}xyzzy: 1 }});")), [expected]);
    }
    let all = ["sample", "generate", "converse", "encode", "load_model", "load_task", "adamw", "evaluate", "chat"];
    assert!(all.iter().all(|name| seen.contains(*name)), "{seen:?}");
    assert_eq!(said(&host, "load_model(1, #{ lora: #{ ranks: 4 } });"), ["`load_model` has no option `ranks`"]);
}

#[test]
fn every_option_is_completed_and_documented() {
    let host = host();
    let known = Known { entries: reference::entries(host.docs()), ..Known::default() };
    for (doc, form, call) in taking_options(&host) {
        let offered = candidates(&call, call.len(), &known).1;
        let entry = known.entries.iter().find(|entry| entry.forms.contains(form)).expect("an entry");
        let page = pages::items(entry).join("\n");
        for opt in form.options() {
            assert!(offered.iter().any(|name| name == opt.name), "{call}: {offered:?} without {}", opt.name);
            assert!(page.contains(&format!("- `{}` ({}): ", opt.name, opt.kind)), "{}: {}", doc.path(), opt.name);
        }
    }
}

#[test]
fn answers_are_drawn_by_the_same_options_everywhere() {
    let host = host();
    let of = |name: &str| -> Vec<Opt> {
        let found = taking_options(&host).into_iter().find(|(doc, ..)| doc.path() == name);
        found.map(|(_, form, _)| form.options().to_vec()).expect("it takes options")
    };
    let shared = ["n", "max_tokens", "temperature", "top_k", "top_p", "min_p", "greedy", "seed"];
    for name in ["sample", "generate", "converse"] {
        let options = of(name);
        assert!(shared.iter().all(|opt| options.iter().any(|known| known.name == *opt)), "{name}");
    }
    assert_eq!(of("sample"), of("generate"));
    let drawn = |options: Vec<Opt>| options.into_iter().filter(|opt| shared.contains(&opt.name)).collect::<Vec<_>>();
    assert_eq!(drawn(of("sample")), drawn(of("converse")));
}

/// Path and number of arguments.
type Function = (String, usize);

#[test]
fn what_is_declared_is_registered_and_what_is_registered_is_declared() {
    let host = host();
    let registered: BTreeSet<Function> = host.natives().into_iter().collect();
    let named = |doc: &Declaration| match doc.shape {
        Shape::Property => format!("get${}", doc.name),
        Shape::Index | Shape::Column => "index$get$".to_string(),
        Shape::SetColumn => "index$set$".to_string(),
        Shape::Call | Shape::Infix => doc.path(),
    };
    let counts = |doc: &Declaration, form: &Form| match doc.shape {
        Shape::Column => 2..=2,
        Shape::SetColumn => 3..=3,
        _ => form.arguments().0..=form.arguments().1,
    };
    let mut declared: BTreeSet<Function> = BTreeSet::new();
    for doc in host.docs() {
        for form in &doc.forms {
            declared.extend(counts(doc, form).map(|count| (named(doc), count)));
        }
    }
    let missing: Vec<&Function> = declared.difference(&registered).collect();
    assert!(missing.is_empty(), "declared, and not to be called: {missing:?}");
    let language: BTreeSet<Function> = natives_of_the_language();
    let strange = registered.difference(&declared).filter(|function| !language.contains(*function));
    // A property's setter is part of the property; those of errors belong to `catch`.
    let known = |name: &str| {
        let property = name.strip_prefix("set$").map(|name| (format!("get${name}"), 1));
        property.is_some_and(|getter| declared.contains(&getter))
            || ["get$message", "get$hint"].contains(&name)
            || WITHOUT_A_PAGE.contains(&name)
    };
    let strange: Vec<&Function> = strange.filter(|(name, _)| !known(name)).collect();
    assert!(strange.is_empty(), "registered, and not declared: {strange:?}");
}

fn natives_of_the_language() -> BTreeSet<Function> {
    let name = |f: rhai::FuncInfo<'_>| Some((f.metadata.name.to_string(), f.metadata.num_params));
    rhai::Engine::new().collect_fn_metadata(None, name, true).into_iter().collect()
}

#[test]
fn what_stands_behind_a_value_is_completed_by_its_type() {
    use rhopo::script::live::console::complete::Variable;
    let host = host();
    let variable = |name: &str, kind: &str| Variable {
        name: name.into(),
        kind: kind.into(),
        constant: false,
        value: String::new(),
        members: Vec::new(),
    };
    let variables = vec![variable("asked", "Frozen"), variable("states", "Prompts"), variable("opt", "Optimizer")];
    let known = Known { entries: reference::entries(host.docs()), variables, ..Known::default() };
    let of = |text: &str| candidates(text, text.len(), &known).1;
    let frozen = ["chat", "detokenize", "frozen", "name", "parameters", "tokenize", "trainable", "trained"];
    assert_eq!(of("asked."), frozen);
    assert_eq!(of("states."), ["len", "to_array"]);
    assert_eq!(of("opt."), ["lr", "step"]);
}
