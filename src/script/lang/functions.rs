//! The functions of a file, callable without running its body: what they see, calling them, and closures that go from
//! one file to another.

use crate::error::{Error, Kind};
use crate::script::lang::limits::CALL_LEVELS;
use crate::script::lang::loader::{Source, compile};
use rhai::{
    AST, ASTNode, Array, Dynamic, Engine, EvalAltResult, Expr, FnPtr, GlobalRuntimeState, Map, NativeCallContext,
    Position, Stmt,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The native function that hands an evaluated file's environment back; no script has a reason to call it.
const ENVIRONMENT: &str = "environment_of_this_file";

/// Declares the hyper-parameters of a script.
pub const ARGS: &str = "args";

pub type Fallible<T> = Result<T, Box<EvalAltResult>>;

/// What the functions of a file see: each other, its imports and its constants.
pub type Environment = Rc<GlobalRuntimeState>;

/// Reads files and calls their functions; copies are the same one.
#[derive(Clone, Default)]
pub struct CallStack {
    /// Levels that are in use outside of the call being made: Rhai counts anew in each environment.
    depth: Rc<Cell<usize>>,
    captured: Rc<RefCell<Option<GlobalRuntimeState>>>,
}

impl CallStack {
    /// Makes environments readable in an engine.
    pub fn install(&self, module: &mut rhai::Module) {
        let captured = self.captured.clone();
        module.set_native_fn(ENVIRONMENT, move |ctx: NativeCallContext| {
            *captured.borrow_mut() = Some(ctx.global_runtime_state().clone());
            Ok(())
        });
    }

    /// Compiles a file and runs its imports and constants, and nothing else of its body.
    pub fn read(&self, engine: &Engine, source: &Source) -> Fallible<Environment> {
        let in_file = |e| EvalAltResult::ErrorInModule(source.label.clone(), e, Position::NONE);
        let ast = compile(engine, source).map_err(in_file)?;
        Ok(Rc::new(self.evaluate(engine, &ast).map_err(in_file)?))
    }

    fn evaluate(&self, engine: &Engine, ast: &AST) -> Fallible<GlobalRuntimeState> {
        let capture = engine.compile(format!("{ENVIRONMENT}()"))?;
        let body = ast.statements().iter().filter_map(declaration).chain(capture.statements().iter().cloned());
        let mut reduced = AST::new(body.collect::<Vec<_>>(), ast.shared_lib().clone());
        if let Some(source) = ast.source() {
            reduced.set_source(source);
        }
        engine.eval_ast::<()>(&reduced)?;
        let lost = || Error::new(Kind::Internal, "a file's environment was not captured");
        Ok(self.captured.borrow_mut().take().ok_or_else(lost)?)
    }

    /// Calls a function of the file `label`, if it has one that takes so many values. Closures among the arguments keep
    /// what they see, as do those it returns.
    pub fn call(
        &self,
        ctx: &NativeCallContext,
        environment: &Environment,
        label: &str,
        function: &str,
        values: Array,
    ) -> Fallible<Dynamic> {
        if !has_function(environment, function, values.len()) {
            return Err(missing(environment, label, function, values.len()).into());
        }
        let caller = Rc::new(ctx.global_runtime_state().clone());
        let mut values: Vec<Dynamic> =
            values.into_iter().map(|v| carry(v.flatten(), &caller)).collect::<Fallible<_>>()?;
        let mut values: Vec<&mut Dynamic> = values.iter_mut().collect();
        let inside = NativeCallContext::new_with_all_fields(
            ctx.engine(),
            function,
            Some(label),
            environment,
            ctx.call_position(),
        );
        let result = inside.call_fn_raw(function, false, false, &mut values)?;
        carry(result, environment)
    }

    /// Counts a level of calls until the answer is dropped.
    ///
    /// # Errors
    /// Too many levels.
    pub fn deeper(&self, ctx: &NativeCallContext) -> Fallible<Level> {
        let outer = self.depth.get();
        let inner = outer + ctx.call_level() + 1;
        if inner > CALL_LEVELS {
            return Err(EvalAltResult::ErrorStackOverflow(ctx.call_position()).into());
        }
        self.depth.set(inner);
        Ok(Level { depth: self.depth.clone(), outer })
    }
}

/// The functions of one file, called from anywhere; copies are the same ones.
#[derive(Clone)]
pub struct FileFunctions {
    calls: CallStack,
    environment: Environment,
    label: String,
}

impl FileFunctions {
    /// Reads a file as [`CallStack::read`] does.
    ///
    /// # Errors
    /// Those of the file's imports and constants.
    pub fn read(calls: &CallStack, ctx: &NativeCallContext, source: &Source) -> Fallible<Self> {
        let _level = calls.deeper(ctx)?;
        let environment = calls.read(ctx.engine(), source)?;
        Ok(Self { calls: calls.clone(), environment, label: source.label.clone() })
    }

    /// What errors call the file.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether there is a function that takes so many values.
    pub fn takes(&self, function: &str, values: usize) -> bool {
        has_function(&self.environment, function, values)
    }

    /// The numbers of arguments that functions of this name take.
    pub fn arities(&self, function: &str) -> Vec<usize> {
        let all = self.environment.lib.iter().flat_map(|lib| lib.iter_script_fn_info());
        all.filter(|f| f.2 == function).map(|f| f.3).collect()
    }

    /// # Errors
    /// No such function, and those of the function.
    pub fn call(&self, ctx: &NativeCallContext, function: &str, values: Array) -> Fallible<Dynamic> {
        let _level = self.calls.deeper(ctx)?;
        self.calls.call(ctx, &self.environment, &self.label, function, values)
    }
}

/// The functions of a file that is edited while a run follows it. Those of an edit are on trial: where they fail, those
/// before it come back.
pub struct Trial {
    now: Environment,
    before: Option<Environment>,
}

impl Trial {
    pub fn new(now: Environment) -> Self {
        Self { now, before: None }
    }

    pub fn now(&self) -> &Environment {
        &self.now
    }

    /// Takes an edit over, on trial.
    pub fn edit(&mut self, edited: Environment) {
        self.before = Some(std::mem::replace(&mut self.now, edited));
    }

    /// The edit stays.
    pub fn settle(&mut self) {
        self.before = None;
    }

    fn go_back(&mut self, before: Environment) {
        *self = Self::new(before);
    }
}

/// Calls a function of a file that may have been edited. Where an edit on trial fails, `failed` is told why, and the
/// functions before it are called.
///
/// # Errors
/// Those of the call.
pub fn call_on_trial(
    trial: &RefCell<Trial>,
    values: Array,
    call: impl Fn(&Environment, Array) -> Fallible<Dynamic>,
    failed: impl FnOnce(&EvalAltResult),
) -> Fallible<Dynamic> {
    let now = trial.borrow().now.clone();
    let again = trial.borrow().before.clone().map(|before| (before, values.clone()));
    match (call(&now, values), again) {
        (Err(e), Some((before, values))) if !matches!(*e, EvalAltResult::ErrorTerminated(..)) => {
            failed(&e);
            trial.borrow_mut().go_back(before.clone());
            call(&before, values)
        }
        (done, _) => done,
    }
}

/// Gives the levels back when a call ends, however it ends.
pub struct Level {
    depth: Rc<Cell<usize>>,
    outer: usize,
}

impl Drop for Level {
    fn drop(&mut self) {
        self.depth.set(self.outer);
    }
}

/// Imports and constants stay; a `let` keeps its place, empty, because variables are found by their distance.
fn declaration(stmt: &Stmt) -> Option<Stmt> {
    match stmt {
        Stmt::Import(..) => Some(stmt.clone()),
        Stmt::Var(var, flags, pos) if !stmt_is_constant(stmt) => {
            let (name, _, index) = &**var;
            Some(Stmt::Var(Box::new((name.clone(), Expr::Unit(*pos), *index)), *flags, *pos))
        }
        Stmt::Var(..) => Some(stmt.clone()),
        _ => None,
    }
}

fn stmt_is_constant(stmt: &Stmt) -> bool {
    matches!(stmt, Stmt::Var(_, flags, _) if flags.contains(rhai::ASTFlags::CONSTANT))
}

/// The variable that a script's hyper-parameters are in, and the map that it gives to `args`.
pub fn hyper_parameters(ast: &AST) -> Option<(String, Expr)> {
    declared(ast).map(|(_, name, map)| (name, map))
}

/// The same, and the number of the statement.
fn declared(ast: &AST) -> Option<(usize, String, Expr)> {
    ast.statements().iter().enumerate().find_map(|(i, statement)| match statement {
        Stmt::Var(var, ..) => match &var.1 {
            Expr::FnCall(call, _) if call.name == ARGS => Some((i, var.0.name.to_string(), call.args.first()?.clone())),
            _ => None,
        },
        _ => None,
    })
}

/// Whether a map needs what stands before it: a variable, or a function of a module.
fn needs_others(alone: &AST) -> bool {
    let mut needs = false;
    alone.walk(&mut |path: &[ASTNode]| {
        needs |= match path.last() {
            Some(ASTNode::Expr(Expr::Variable(..))) => true,
            Some(ASTNode::Expr(Expr::FnCall(call, _))) => !call.namespace.is_empty(),
            _ => false,
        };
        !needs
    });
    needs
}

/// The map that a script gives to `args`, evaluated where nothing else of the script is but the declarations and imports
/// before it, if it needs them.
pub fn defaults(engine: &Engine, source: &Source) -> Fallible<Map> {
    let in_file = |e| EvalAltResult::ErrorInModule(source.label.clone(), e, Position::NONE);
    let ast = compile(engine, source).map_err(in_file)?;
    let (at, _, map) = declared(&ast).ok_or_else(|| {
        Error::value(format!("{} declares no hyper-parameters", source.label))
            .hint("a script declares them in one statement: let cfg = args(#{ … });")
    })?;
    let mut alone = AST::new(vec![Stmt::Expr(map.into())], ast.shared_lib().clone());
    if needs_others(&alone) {
        // Nothing else adds variables, which are found by their places.
        let before = ast.statements()[..at].iter().filter(|s| matches!(s, Stmt::Var(..) | Stmt::Import(..)));
        let all = before.chain(alone.statements()).cloned().collect::<Vec<_>>();
        alone = AST::new(all, ast.shared_lib().clone());
    }
    engine.eval_ast::<Map>(&alone).map_err(|e| in_file(e).into())
}

/// Whether a file has a function of that name and number of arguments.
pub fn has_function(environment: &GlobalRuntimeState, name: &str, arguments: usize) -> bool {
    environment.lib.iter().any(|lib| lib.get_script_fn(name, arguments).is_some())
}

/// What is wrong with a call that `has_function` denies.
fn missing(environment: &GlobalRuntimeState, label: &str, name: &str, arguments: usize) -> Error {
    let functions: Vec<_> = environment.lib.iter().flat_map(|lib| lib.iter_script_fn_info()).collect();
    let same: Vec<usize> = functions.iter().filter(|f| f.2 == name).map(|f| f.3).collect();
    if let Some(takes) = same.first() {
        let what = format!("`{name}` of {label} takes {takes} arguments, and {arguments} were given");
        return Error::value(what).hint("the arguments stand in one array: s.call(\"loss\", [logp, b, cfg])");
    }
    let mut names: Vec<&str> = functions.iter().map(|f| f.2).filter(|name| !name.starts_with("anon$")).collect();
    names.sort_unstable();
    names.dedup();
    Error::unknown(&format!("function of {label}:"), name, &names)
}

/// Makes the closures in a value callable outside the file they were written in: each keeps its environment.
fn carry(value: Dynamic, environment: &Environment) -> Fallible<Dynamic> {
    if let Ok(array) = value.as_array_ref() {
        return array.iter().map(|v| carry(v.clone(), environment)).collect::<Fallible<Array>>().map(Dynamic::from);
    }
    if let Ok(map) = value.as_map_ref() {
        let entries = map.iter().map(|(k, v)| Ok((k.clone(), carry(v.clone(), environment)?)));
        return entries.collect::<Fallible<Map>>().map(Dynamic::from);
    }
    match value.try_cast_result::<FnPtr>() {
        Ok(closure) if closure.is_anonymous() || in_script(&closure, environment) => {
            let environment = environment.clone();
            let name = closure.fn_name().to_string();
            let carried = native("closure", move |ctx, args| {
                let own: Vec<Dynamic> = args.iter_mut().map(|v| std::mem::take(*v)).collect();
                let source = environment.source.as_deref();
                let at = ctx.call_position();
                let inside = NativeCallContext::new_with_all_fields(ctx.engine(), &name, source, &environment, at);
                closure.call_raw(&inside, None, own)
            })?;
            Ok(Dynamic::from(carried))
        }
        Ok(other) => Ok(Dynamic::from(other)),
        Err(value) => Ok(value),
    }
}

fn in_script(pointer: &FnPtr, environment: &GlobalRuntimeState) -> bool {
    environment.lib.iter().any(|lib| lib.iter_script_fn_info().any(|f| f.2 == pointer.fn_name()))
}

/// A function pointer made from a native function.
// Rhai marks the constructor as volatile by calling it deprecated; its version is pinned by the lock file.
#[allow(deprecated)]
pub fn native(
    name: &str,
    body: impl Fn(NativeCallContext, &mut [&mut Dynamic]) -> Fallible<Dynamic> + 'static,
) -> Fallible<FnPtr> {
    FnPtr::from_fn(name, move |ctx, args| body(ctx, args))
}
