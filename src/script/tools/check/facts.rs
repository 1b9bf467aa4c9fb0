//! What a script is, read off its syntax tree. Owns no findings.

use super::walk::{expressions, imports, is_variable, read_off};
use crate::script::lang::functions;
use rhai::{AST, Expr, Position};

pub const LOSS: &str = "loss";
/// Opens a run.
const OPENS: &str = "open_run";
const GROUP: &str = "group";
const PAIRS: [&str; 3] = ["pair_first", "pair_second", "pair_diff"];
/// The module for pairs.
const PAIRING: &str = "std/pairing";

/// Whether a script opens a run, and so has a loop of its own.
pub fn trains(ast: &AST) -> bool {
    let mut found = false;
    expressions(ast, &mut |expr| found |= matches!(expr, Expr::FnCall(call, _) if call.name == OPENS));
    found
}

/// Rows that belong together: 4 where the script has groups, 2 where it has pairs, else 1.
pub fn unit(ast: &AST) -> usize {
    let hyper = functions::hyper_parameters(ast).map(|(variable, _)| variable);
    let cfg = loss_parameter(ast, 2);
    let modules: Vec<&str> = imports(ast).filter(|(path, _)| *path == PAIRING).map(|(_, alias)| alias).collect();
    let (mut grouped, mut paired) = (false, false);
    expressions(ast, &mut |expr| {
        if let Some((of, GROUP, _)) = read_off(expr) {
            grouped |= [&hyper, &cfg].into_iter().flatten().any(|name| is_variable(of, name));
        }
        if let Expr::FnCall(call, _) | Expr::MethodCall(call, _) = expr {
            let module = call.namespace.to_string();
            paired |= match module.is_empty() {
                true => PAIRS.contains(&call.name.as_str()),
                false => modules.contains(&module.as_str()),
            };
        }
    });
    match (grouped, paired) {
        (true, _) => 4,
        (false, true) => 2,
        (false, false) => 1,
    }
}

/// What a parameter of `loss(logp, b, cfg)` is called, from 0.
pub fn loss_parameter(ast: &AST, place: usize) -> Option<String> {
    let loss = ast.iter_functions().find(|f| f.name == LOSS && f.params.len() == 3)?;
    loss.params.get(place).map(ToString::to_string)
}

/// Whether `loss` reads hyper-parameters that the script itself does not declare: what they are only its callers know.
pub fn leaves_hyper_parameters_open(ast: &AST) -> bool {
    let (None, Some(cfg)) = (functions::hyper_parameters(ast), loss_parameter(ast, 2)) else { return false };
    let mut loss = ast.clone_functions_only();
    loss.retain_functions(|_, _, name, parameters| name == LOSS && parameters == 3);
    let mut read = false;
    expressions(&loss, &mut |expr| read |= is_variable(expr, &cfg));
    read
}

/// The line on which a function's body begins.
pub fn line_of(ast: &AST, function: &str, parameters: usize) -> Position {
    let all = ast.shared_lib().iter_script_fn_info();
    let mut found = all.filter(|(_, _, name, n, _)| *name == function && *n == parameters);
    let line = found.find_map(|(.., function)| function.body.start_position().line()).unwrap_or(1);
    Position::new(u16::try_from(line).unwrap_or(u16::MAX), 1)
}
