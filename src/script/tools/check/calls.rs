//! Calls: functions that there are not, wrong numbers of arguments, and options that no function takes.

use super::finding::Finding;
use super::walk::{declares, expressions, imports};
use crate::script::host::Host;
use crate::script::lang::loader::Source;
use crate::script::lang::messages::did_you_mean;
use crate::script::lang::native::{Declaration, Form, Opt};
use crate::script::lang::python;
use rhai::{AST, Expr, FnCallExpr, Ident, Position};
use std::collections::{BTreeMap, BTreeSet};

/// What the language handles itself, whatever the arguments.
const KEYWORDS: [&str; 9] = ["Fn", "call", "curry", "eval", "is_def_fn", "is_def_var", "is_shared", "type_of", "debug"];

/// Names (`kl::k3` in a module) with the numbers of arguments that there are.
type Arities = BTreeMap<String, BTreeSet<usize>>;

pub fn findings(host: &Host, source: &Source, ast: &AST) -> Vec<Finding> {
    let known = known(host, source, ast);
    let mut found = Vec::new();
    expressions(ast, &mut |expr| match expr {
        Expr::FnCall(call, pos) => found.extend(examine(host, (source, ast), &known, call, 0, *pos)),
        Expr::MethodCall(call, pos) => found.extend(examine(host, (source, ast), &known, call, 1, *pos)),
        _ => {}
    });
    found
}

/// Everything that can be called in a script: natives, its own functions and those of the modules it imports.
fn known(host: &Host, source: &Source, ast: &AST) -> Arities {
    let mut known = Arities::new();
    let mut add = |name: String, arguments: usize| known.entry(name).or_default().insert(arguments);
    for (name, arguments) in host.natives() {
        add(name, arguments);
    }
    for function in ast.iter_functions() {
        add(function.name.to_string(), function.params.len());
    }
    for (path, alias) in imports(ast) {
        for (name, arguments) in host.module_functions(path, &source.label).unwrap_or_default() {
            add(format!("{alias}::{name}"), arguments);
        }
    }
    known
}

/// `own` is 1 for a method, whose object is an argument as well.
fn examine(
    host: &Host,
    (source, ast): (&Source, &AST),
    known: &Arities,
    call: &FnCallExpr,
    own: usize,
    pos: Position,
) -> Option<Finding> {
    if call.op_token.is_some() || KEYWORDS.contains(&call.name.as_str()) {
        return None;
    }
    let name = match call.namespace.is_empty() {
        true => call.name.to_string(),
        false => format!("{}::{}", call.namespace, call.name),
    };
    let finding = |message: String, hint: Option<String>| Some(Finding::at(&source.label, pos, message, hint));
    let given = call.args.len();
    let Some(takes) = known.get(&name) else {
        let hint = match declares(ast, &name) {
            true => Some(format!("a closure in a variable is called by `{name}.call(…)`")),
            false => python::function(&name).or_else(|| did_you_mean(&name, known.keys())),
        };
        return finding(format!("there is no function `{name}`"), hint);
    };
    // The object of a method that the script has itself is `this`, and no argument.
    let is_own = |f: rhai::ScriptFnMetadata| f.name == call.name.as_str() && f.params.len() == given;
    if own == 1 && ast.iter_functions().any(is_own) {
        return None;
    }
    if !takes.contains(&(given + own)) {
        let takes: Vec<String> = takes.iter().filter_map(|n| n.checked_sub(own)).map(|n| n.to_string()).collect();
        let signature = host.docs().iter().find(|doc| doc.path() == name).map(|doc| doc.signatures().join(" or "));
        let plural = if takes == ["1"] { "argument" } else { "arguments" };
        return finding(format!("`{name}` takes {} {plural}, found {given}", takes.join(" or ")), signature);
    }
    options(host, &name, own, call).map(|(key, pos, known)| {
        let message = format!("`{name}` has no option `{key}`");
        let hint = did_you_mean(&key, &known).unwrap_or_else(|| format!("it takes {}", known.join(", ")));
        Finding::at(&source.label, pos, message, Some(hint))
    })
}

/// The first key of a call's option map that no form takes, and what they take.
fn options(host: &Host, name: &str, own: usize, call: &FnCallExpr) -> Option<(String, Position, Vec<&'static str>)> {
    let Some(Expr::Map(map, _)) = call.args.last() else { return None };
    // A method is known by its name alone: whose it is shows only when it runs.
    let same = |doc: &&Declaration| doc.path() == name && doc.is_method() == (own == 1);
    // The map stands behind all other arguments: what stands among those has another meaning.
    let given = own + call.args.len();
    let fits = |form: &&Form| (form.arguments().0..=form.arguments().1).contains(&given);
    let forms: Vec<&Form> = host.docs().iter().filter(same).flat_map(|doc| &doc.forms).filter(fits).collect();
    let takes = |form: &&Form| !form.options().is_empty() && form.arguments().1 == given;
    if forms.is_empty() || !forms.iter().all(takes) {
        return None;
    }
    unknown(&map.0, &forms.iter().flat_map(|form| form.options()).collect::<Vec<_>>())
}

/// The first key that is no option, or that is none of an option which is a map itself.
fn unknown(map: &[(Ident, Expr)], options: &[&Opt]) -> Option<(String, Position, Vec<&'static str>)> {
    map.iter().find_map(|(key, value)| {
        let named: Vec<&&Opt> = options.iter().filter(|opt| opt.name == key.name.as_str()).collect();
        if named.is_empty() {
            return Some((key.name.to_string(), key.pos, options.iter().map(|opt| opt.name).collect()));
        }
        let nested: Vec<&Opt> = named.iter().flat_map(|opt| &opt.nested).collect();
        match value {
            Expr::Map(inner, _) if !nested.is_empty() => unknown(&inner.0, &nested),
            _ => None,
        }
    })
}
