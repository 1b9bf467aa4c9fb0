//! Every native function that a script can call, with its documentation, in one place: help, the reference
//! and completion are made from here, and a test runs every example.
//!
//! Owns no function bodies (those are in `bind/`) and no rendering.

use rhai::{Engine, Module};
use std::collections::BTreeMap;

/// A parameter: its name in the signature, its type or shape, and what it means (with its unit, if it has one).
#[derive(Debug, Clone)]
pub struct Param {
    pub name: &'static str,
    pub shape: &'static str,
    pub about: &'static str,
}

/// What help says about one function (all its overloads).
#[derive(Debug, Clone)]
pub struct Doc {
    /// The page of the reference that it stands on: `Tensors`.
    pub topic: &'static str,
    /// `""` for global functions, else the module: `kl`, `advantage`.
    pub module: &'static str,
    /// The name that scripts call; an operator's symbol for operators.
    pub name: &'static str,
    /// `seq_sum(x: Tensor, mask: Tensor) -> Tensor`
    pub signature: &'static str,
    /// One sentence.
    pub summary: &'static str,
    pub params: Vec<Param>,
    /// When it fails, one sentence; empty where it cannot.
    pub errors: &'static str,
    /// The paper and equation, where there is one.
    pub source: &'static str,
    /// A script that runs; `assert`s in it are checked.
    pub example: &'static str,
}

impl Param {
    pub const fn new(name: &'static str, shape: &'static str, about: &'static str) -> Self {
        Self { name, shape, about }
    }
}

impl Doc {
    /// `signature` is `name(params) -> type`; the name is read from it.
    pub fn new(signature: &'static str, summary: &'static str) -> Self {
        let name = signature.split('(').next().unwrap_or(signature).trim();
        let name = name.rsplit("::").next().unwrap_or(name);
        Self {
            topic: "",
            module: "",
            name,
            signature,
            summary,
            params: Vec::new(),
            errors: "",
            source: "",
            example: "",
        }
    }

    /// For operators and properties, whose name is not what stands before the bracket.
    pub fn named(name: &'static str, signature: &'static str, summary: &'static str) -> Self {
        Self { name, ..Self::new(signature, summary) }
    }

    pub fn param(mut self, name: &'static str, shape: &'static str, about: &'static str) -> Self {
        self.params.push(Param { name, shape, about });
        self
    }

    /// Options that several functions take.
    pub fn params(mut self, params: &[Param]) -> Self {
        self.params.extend_from_slice(params);
        self
    }

    pub fn errors(mut self, errors: &'static str) -> Self {
        self.errors = errors;
        self
    }

    pub fn source(mut self, source: &'static str) -> Self {
        self.source = source;
        self
    }

    pub fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// What a script writes to call it: `kl::k3`, `exp`.
    pub fn path(&self) -> String {
        if self.module.is_empty() { self.name.to_string() } else { format!("{}::{}", self.module, self.name) }
    }
}

/// Collects functions with their documentation, then hands them to an engine.
#[derive(Default)]
pub struct Registry {
    topic: &'static str,
    docs: Vec<Doc>,
    global: Module,
    modules: BTreeMap<&'static str, Module>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// The topic of what is added from here on.
    pub fn topic(&mut self, topic: &'static str) -> &mut Self {
        self.topic = topic;
        self
    }

    /// Adds a global function; `overloads` registers its bodies (`m.set_native_fn(name, closure)`).
    pub fn add(&mut self, doc: Doc, overloads: impl FnOnce(&mut Module)) {
        overloads(&mut self.global);
        self.docs.push(Doc { topic: self.topic, ..doc });
    }

    /// Adds a function of a static module: `reg.add_to("kl", Doc::new("kl::k1(…)", …), |m| …)`.
    pub fn add_to(&mut self, module: &'static str, doc: Doc, overloads: impl FnOnce(&mut Module)) {
        overloads(self.modules.entry(module).or_default());
        self.docs.push(Doc { topic: self.topic, module, ..doc });
    }

    /// The global module itself, for what needs no page of its own (type names, iterators).
    pub fn global(&mut self) -> &mut Module {
        &mut self.global
    }

    /// Makes everything callable in `engine` and returns the documentation, in the order of registration.
    pub fn install(self, engine: &mut Engine) -> Vec<Doc> {
        engine.register_global_module(self.global.into());
        for (name, module) in self.modules {
            engine.register_static_module(name, module.into());
        }
        self.docs
    }
}
