//! Which overloads there are: under what name and for which types of arguments Rhai finds a body. Owns no bodies.

use super::declaration::Shape;
use rhai::{Dynamic, FuncRegistration};
use std::any::TypeId;
use std::collections::BTreeMap;

/// What Rhai calls a function for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    Function,
    /// A method that changes what it is called on, which must be no constant.
    InPlace,
    Getter,
    Setter,
    Index,
    SetIndex,
}

impl From<Shape> for Binding {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Call | Shape::Infix => Self::Function,
            Shape::Property => Self::Getter,
            Shape::Index | Shape::Column => Self::Index,
            Shape::SetColumn => Self::SetIndex,
        }
    }
}

/// Where a body goes.
pub struct Slot {
    pub module: &'static str,
    pub name: &'static str,
    pub binding: Binding,
    /// Which declaration it is of; `None` for what has no page.
    pub declaration: Option<usize>,
}

impl Slot {
    /// What a script writes to call it.
    pub fn path(&self) -> String {
        if self.module.is_empty() { self.name.to_string() } else { format!("{}::{}", self.module, self.name) }
    }

    /// How Rhai is told of it.
    pub fn registration(&self) -> FuncRegistration {
        match self.binding {
            Binding::Function | Binding::InPlace => FuncRegistration::new(self.name).in_internal_namespace(),
            Binding::Getter => FuncRegistration::new_getter(self.name),
            Binding::Setter => FuncRegistration::new_setter(self.name),
            Binding::Index => FuncRegistration::new_index_getter(),
            Binding::SetIndex => FuncRegistration::new_index_setter(),
        }
    }
}

/// An overload that is there.
struct Overload {
    binding: Binding,
    types: Vec<TypeId>,
    declaration: Option<usize>,
}

/// All that are there, by module and name: they are some thousands, and a new one is held against those of its name.
#[derive(Default)]
pub struct Overloads(BTreeMap<[&'static str; 2], Vec<Overload>>);

impl Overloads {
    /// Adds one; false where a function of that name is there already for such types.
    pub fn take(&mut self, slot: &Slot, types: &[TypeId]) -> bool {
        let anything = TypeId::of::<Dynamic>();
        let Slot { module, name, binding, declaration } = *slot;
        let known = self.0.entry([module, name]).or_default();
        let overlap = |other: &Overload| {
            // What is declared for anything may have a special case: in its own declaration, or without a page.
            let apart = other.declaration.zip(declaration).is_some_and(|(a, b)| a != b);
            let meet = |(a, b): (&TypeId, &TypeId)| a == b || (apart && (*a == anything || *b == anything));
            other.binding == binding && types.len() == other.types.len() && types.iter().zip(&other.types).all(meet)
        };
        let free = !known.iter().any(overlap);
        known.push(Overload { binding, types: types.to_vec(), declaration });
        free
    }
}

/// Every choice of one type from each list.
pub fn products(lists: &[Vec<TypeId>]) -> Vec<Vec<TypeId>> {
    lists.iter().fold(vec![Vec::new()], |begun, list| {
        begun.iter().flat_map(|types| list.iter().map(|one| [&types[..], &[*one]].concat())).collect()
    })
}
