//! Collects declarations, registers their overloads, and refuses what does not fit together: a name that is taken
//! twice, a function without a page, a page that speaks of something else. Owns not which overloads there are
//! (`overload.rs`).

use super::body::{Body, Call, Signature};
use super::declaration::{Declaration, Form, Param, Presence, Shape};
use super::overload::{Binding, Overloads, Slot, products};
use super::page::{self, Section};
use super::value::{Handle, Receiver};
use crate::error::{Error, Kind, Result};
use crate::run::Session;
use rhai::{Dynamic, Engine, EvalAltResult, Module, NativeCallContext, RhaiFunc, Shared};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A body without its types.
type Erased =
    Shared<dyn Fn(Option<NativeCallContext>, &mut [&mut Dynamic]) -> std::result::Result<Dynamic, Box<EvalAltResult>>>;

/// Where functions are declared.
pub struct Registry {
    session: Rc<Session>,
    topic: String,
    /// What the page says of functions that are still to come.
    sections: BTreeMap<String, Section>,
    declarations: Vec<Declaration>,
    overloads: Overloads,
    types: BTreeMap<&'static str, TypeId>,
    modules: BTreeMap<&'static str, Module>,
    defects: Vec<String>,
}

impl Registry {
    pub fn new(session: &Rc<Session>) -> Self {
        Self {
            session: session.clone(),
            topic: String::new(),
            sections: BTreeMap::new(),
            declarations: Vec::new(),
            overloads: Overloads::default(),
            types: BTreeMap::new(),
            modules: BTreeMap::new(),
            defects: Vec::new(),
        }
    }

    /// The page, in Markdown, that speaks of the functions declared from here on.
    pub fn page(&mut self, text: &str) -> &mut Self {
        self.close_page();
        (self.topic, self.sections) = page::read(text);
        self
    }

    fn close_page(&mut self) {
        for name in std::mem::take(&mut self.sections).into_keys() {
            self.defects.push(format!("the page {} speaks of `{name}`, which is not declared", self.topic));
        }
    }

    /// A type that scripts hold values of; `show` is how they print.
    pub fn handle<T: Handle>(&mut self, show: fn(&T) -> String) {
        self.handle_in_session(move |_, own| show(own));
    }

    /// The same where printing asks the session.
    pub fn handle_in_session<T: Handle>(&mut self, show: impl Fn(&Session, &T) -> String + Copy + 'static) {
        if self.types.insert(T::NAME, TypeId::of::<T>()).is_some() {
            self.defects.push(format!("the type name `{}` is taken twice", T::NAME));
        }
        self.global().set_custom_type::<T>(T::NAME);
        for name in ["to_string", "to_debug"] {
            self.hidden(name, [], move |call: &Call, own: &mut T| show(call.session, own));
        }
    }

    /// A function, `kl::k3` in a module or `sample` anywhere, or a method where `body` begins with `&mut T`.
    pub fn function<M, const N: usize>(&mut self, path: &'static str, names: [&'static str; N], body: impl Body<M, N>) {
        self.declare(Shape::Call, path, names, None, body);
    }

    /// `x.name`
    pub fn property<M>(&mut self, name: &'static str, body: impl Body<M, 0>) {
        self.declare(Shape::Property, name, [], None, body);
    }

    /// `x.name = value`, of a property that has been declared.
    pub fn setter<M>(&mut self, name: &'static str, body: impl Body<M, 1>) {
        let declaration = self.declarations.len().checked_sub(1);
        self.register(Slot { module: "", name, binding: Binding::Setter, declaration }, ["value"], None, body);
    }

    /// `x[i]`
    pub fn index<M>(&mut self, names: [&'static str; 1], body: impl Body<M, 1>) {
        self.declare(Shape::Index, "[]", names, None, body);
    }

    /// `b.name`, whatever the name.
    pub fn column<M>(&mut self, body: impl Body<M, 1>) {
        self.declare(Shape::Column, "b.name", ["name"], None, body);
    }

    /// `b.name = value`, whatever the name.
    pub fn set_column<M>(&mut self, body: impl Body<M, 2>) {
        self.declare(Shape::SetColumn, "b.name =", ["name", "value"], None, body);
    }

    /// `a + b`, for these types alone: the language keeps its own for others.
    pub fn operator<M>(&mut self, sign: &'static str, types: &[[TypeId; 2]], body: impl Body<M, 2>) {
        self.declare(Shape::Infix, sign, ["a", "b"], Some(&lists(types)), body);
    }

    /// A function for these types alone: the language keeps its own for others, and loses its own for these.
    pub fn function_on<M, const N: usize>(
        &mut self,
        path: &'static str,
        names: [&'static str; N],
        types: &[[TypeId; N]],
        body: impl Body<M, N>,
    ) {
        self.declare(Shape::Call, path, names, Some(&lists(types)), body);
    }

    /// A method that changes the value it is called on: a constant has none.
    pub fn in_place<M, const N: usize>(&mut self, name: &'static str, names: [&'static str; N], body: impl Body<M, N>) {
        self.declare_as(Binding::InPlace, Shape::Call, name, names, None, body);
    }

    /// A method of a `T` that the language has itself and that stays as it is: parameters with their types (`start?` may be
    /// left out), and the type of the result.
    pub fn of_the_language<T: Receiver>(
        &mut self,
        name: &'static str,
        params: &[(&'static str, &'static str)],
        returns: &str,
    ) {
        let param = |(name, kind): &(&'static str, &'static str)| match name.strip_suffix('?') {
            Some(name) => Param { presence: Presence::Optional, ..Param::needed(name, *kind) },
            None => Param::needed(*name, *kind),
        };
        let receiver = Some(Param::needed(T::RECEIVER, T::NAME));
        let form = Form { receiver, params: params.iter().map(param).collect(), returns: returns.into() };
        self.describe("", name, Shape::Call, form);
    }

    /// Another form of what was declared last.
    pub fn form<M, const N: usize>(&mut self, names: [&'static str; N], body: impl Body<M, N>) {
        let Some(binding) = self.declarations.last().map(|last| last.shape.into()) else { return };
        self.form_as(binding, names, body);
    }

    /// Another form of a method that was declared last, which changes the value as well.
    pub fn form_in_place<M, const N: usize>(&mut self, names: [&'static str; N], body: impl Body<M, N>) {
        self.form_as(Binding::InPlace, names, body);
    }

    fn form_as<M, const N: usize>(&mut self, binding: Binding, names: [&'static str; N], body: impl Body<M, N>) {
        let Some(last) = self.declarations.len().checked_sub(1) else { return };
        let Declaration { module, name, .. } = self.declarations[last];
        let slot = Slot { module, name, binding, declaration: Some(last) };
        let form = self.register(slot, names, None, body);
        self.declarations[last].forms.push(form);
    }

    /// What has no page: how values print, and functions of the language that are bound anew.
    pub fn hidden<M, const N: usize>(&mut self, name: &'static str, names: [&'static str; N], body: impl Body<M, N>) {
        self.register(Slot { module: "", name, binding: Binding::Function, declaration: None }, names, None, body);
    }

    /// The same for these types alone.
    pub fn hidden_on<M, const N: usize>(
        &mut self,
        name: &'static str,
        names: [&'static str; N],
        types: &[[TypeId; N]],
        body: impl Body<M, N>,
    ) {
        let slot = Slot { module: "", name, binding: Binding::Function, declaration: None };
        self.register(slot, names, Some(&lists(types)), body);
    }

    fn declare<M, const N: usize>(
        &mut self,
        shape: Shape,
        path: &'static str,
        names: [&'static str; N],
        only: Option<&[Vec<TypeId>]>,
        body: impl Body<M, N>,
    ) {
        self.declare_as(shape.into(), shape, path, names, only, body);
    }

    fn declare_as<M, const N: usize>(
        &mut self,
        binding: Binding,
        shape: Shape,
        path: &'static str,
        names: [&'static str; N],
        only: Option<&[Vec<TypeId>]>,
        body: impl Body<M, N>,
    ) {
        let (module, name) = path.split_once("::").unwrap_or(("", path));
        let slot = Slot { module, name, binding, declaration: Some(self.declarations.len()) };
        let mut form = self.register(slot, names, only, body);
        if matches!(shape, Shape::Column | Shape::SetColumn) {
            form.params.remove(0); // the column's own name, which stands behind the point
        }
        self.describe(module, name, shape, form);
    }

    /// A declaration with the page's section on it.
    fn describe(&mut self, module: &'static str, name: &'static str, shape: Shape, form: Form) {
        let (topic, section) = (self.topic.clone(), Section::default());
        let mut found = Declaration { topic, module, name, shape, forms: vec![form], section };
        let title = found.heading();
        match self.sections.remove(&title) {
            Some(section) => found.section = section,
            None => self.defects.push(format!("the page {} says nothing of `{title}`", self.topic)),
        }
        self.declarations.push(found);
    }

    /// Registers an overload for each number of arguments and each choice of their types.
    fn register<M, const N: usize>(
        &mut self,
        slot: Slot,
        names: [&'static str; N],
        only: Option<&[Vec<TypeId>]>,
        body: impl Body<M, N>,
    ) -> Form {
        let is_method = is_method(&body);
        let Signature { form, dispatch } = signature(&body, names);
        let (function, session) = (slot.path(), self.session.clone());
        let erased: Erased = Shared::new(move |context, args| {
            let context = context.expect("every body is registered with a context");
            let call = Call { function: &function, session: &session, context: &context };
            body.call(&call, names, args)
        });
        let (fewest, most) = form.arguments();
        let choices = match only {
            Some(only) => only.to_vec(),
            None => (fewest..=most).flat_map(|count| products(&dispatch[..count])).collect(),
        };
        for types in choices {
            if !self.overloads.take(&slot, &types) {
                self.defects.push(format!("`{}` is declared twice for the same types of arguments", slot.path()));
            }
            let (func, has_context, is_volatile) = (erased.clone(), true, true);
            // What sets something must not be called on a constant.
            let is_pure = !matches!(slot.binding, Binding::Setter | Binding::SetIndex | Binding::InPlace);
            let func = match is_method {
                true => RhaiFunc::Method { func, has_context, is_pure, is_volatile },
                false => RhaiFunc::Pure { func, has_context, is_pure, is_volatile },
            };
            let module = self.modules.entry(slot.module).or_default();
            slot.registration().set_into_module_raw(module, types, func);
        }
        form
    }

    /// The global module itself, for what is no function: iterators, and types of errors.
    pub fn global(&mut self) -> &mut Module {
        self.modules.entry("").or_default()
    }

    /// Makes everything callable in `engine` and returns what was declared, in that order.
    ///
    /// # Errors
    /// Declarations that do not fit together, all of them.
    pub fn install(mut self, engine: &mut Engine) -> Result<Vec<Declaration>> {
        self.close_page();
        self.defects.extend(self.declarations.iter().flat_map(Declaration::unexplained));
        if !self.defects.is_empty() {
            return Err(Error::new(Kind::Internal, self.defects.join("; ")));
        }
        for (name, module) in self.modules {
            match name {
                "" => engine.register_global_module(module.into()),
                name => engine.register_static_module(name, module.into()),
            };
        }
        Ok(self.declarations)
    }
}

fn is_method<M, const N: usize, B: Body<M, N>>(_: &B) -> bool {
    B::IS_METHOD
}

fn signature<M, const N: usize, B: Body<M, N>>(_: &B, names: [&'static str; N]) -> Signature {
    B::signature(names)
}

fn lists<const N: usize>(types: &[[TypeId; N]]) -> Vec<Vec<TypeId>> {
    types.iter().map(|one| one.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Settings;
    use crate::gpu::Place;
    use rhai::INT;

    #[derive(Clone)]
    struct Cup;

    impl Handle for Cup {
        const NAME: &'static str = "Cup";
        const RECEIVER: &'static str = "cup";
    }

    #[derive(Clone)]
    struct Mug;

    impl Handle for Mug {
        const NAME: &'static str = "Cup";
        const RECEIVER: &'static str = "mug";
    }

    const PAGE: &str = "# Cups\n\n## f\n\nHalf of x.\n\n- `x`: what\n";

    fn registry(page: &str) -> Registry {
        let mut reg = Registry::new(&Session::new(Place::Host, Settings::default(), 0));
        reg.page(page);
        reg
    }

    fn refused(reg: Registry) -> String {
        reg.install(&mut Engine::new()).expect_err("refused").to_string()
    }

    #[test]
    fn a_declaration_registers_an_overload_for_each_number_of_arguments() {
        let mut reg = registry("# Cups\n\n## m::f\n\nx and y.\n\n- `x, y`: whole numbers\n");
        reg.function("m::f", ["x", "y"], |x: INT, y: Option<INT>| x + y.unwrap_or(1));
        let mut engine = Engine::new();
        let declared = reg.install(&mut engine).expect("fits together");
        assert_eq!(declared[0].signatures(), ["m::f(x: int, y?: int) -> int"]);
        assert_eq!(engine.eval::<INT>("m::f(1) + m::f(1, 2)").expect("both"), 5);
    }

    #[test]
    fn a_name_of_types_is_taken_once() {
        let mut reg = registry("# Cups\n");
        reg.handle::<Cup>(|_| String::new());
        reg.handle::<Mug>(|_| String::new());
        assert_eq!(refused(reg), "the type name `Cup` is taken twice");
    }

    #[test]
    fn a_name_of_functions_is_taken_once_for_the_same_types() {
        let mut reg = registry(PAGE);
        reg.function("f", ["x"], |x: INT| x / 2);
        reg.page(PAGE);
        // Anything may be a whole number as well.
        reg.function("f", ["x"], |x: Dynamic| x);
        assert_eq!(refused(reg), "`f` is declared twice for the same types of arguments");
    }

    #[test]
    fn other_types_make_another_function() {
        let mut reg = registry(PAGE);
        reg.function("f", ["x"], |x: INT| x / 2);
        reg.page(PAGE);
        reg.function("f", ["x"], |x: bool| x);
        assert_eq!(reg.install(&mut Engine::new()).expect("fits together").len(), 2);
    }

    #[test]
    fn pages_and_declarations_speak_of_the_same() {
        let mut reg = registry(PAGE);
        reg.function("f", ["y"], |y: INT| y / 2);
        reg.function("g", [], || 1_i64);
        reg.page("# Mugs\n\n## h\n\nNothing.\n");
        assert_eq!(
            refused(reg),
            "the page Cups says nothing of `g`; the page Mugs speaks of `h`, which is not declared; \
             the page says nothing of `y` of `f`; `f` has no parameter `x`"
        );
    }

    #[test]
    fn arguments_that_do_not_fit_are_named() {
        let mut reg = registry(PAGE);
        reg.function("f", ["x"], |x: usize| x / 2);
        let mut engine = Engine::new();
        reg.install(&mut engine).expect("fits together");
        let e = engine.eval::<INT>("1 + f(-4)").expect_err("below 0");
        assert_eq!((e.position().line(), e.position().position()), (Some(1), Some(5)));
        let EvalAltResult::ErrorRuntime(token, _) = *e else { panic!("{e}") };
        assert_eq!(token.cast::<Error>().what, "`f`: x must not be negative, found -4");
    }
}
