//! Conversion between the values of scripts and those of Rust, each with the name that signatures give its type.

use super::declaration::{Opt, Presence};
use crate::error::{Error, Result};
use crate::script::lang::value::describe;
use rhai::{Array, Dynamic, FLOAT, FnPtr, INT, ImmutableString, Map};
use std::any::TypeId;

/// A Rust type that scripts have a name for.
pub trait Typed {
    /// As signatures write it: `Model`, `int`, `Prompts | array`; empty for nothing.
    const TYPE: &'static str;
}

/// An opaque value that scripts hold and pass on.
pub trait Handle: Clone + 'static {
    /// What `type_of` says: `Task`.
    const NAME: &'static str;
    /// What signatures of its methods call it: `task` of `task.prompts(n)`.
    const RECEIVER: &'static str;

    /// Types of the language that are read as one where one is an argument.
    fn also() -> Vec<TypeId> {
        Vec::new()
    }

    /// A value of such a type; nothing where it is of another.
    ///
    /// # Errors
    /// One that does not stand for anything.
    fn of_other(_value: &Dynamic, _place: Place<'_>) -> Result<Option<Self>> {
        Ok(None)
    }
}

/// A value that has methods, which may change it in place.
pub trait Receiver: Clone + 'static {
    const NAME: &'static str;
    const RECEIVER: &'static str;
}

impl<T: Handle> Receiver for T {
    const NAME: &'static str = <T as Handle>::NAME;
    const RECEIVER: &'static str = <T as Handle>::RECEIVER;
}

impl Receiver for ImmutableString {
    const NAME: &'static str = "string";
    const RECEIVER: &'static str = "text";
}

impl Receiver for Array {
    const NAME: &'static str = "array";
    const RECEIVER: &'static str = "list";
}

impl Receiver for Map {
    const NAME: &'static str = "map";
    const RECEIVER: &'static str = "map";
}

impl<T: Handle> Typed for T {
    const TYPE: &'static str = <T as Handle>::NAME;
}

/// Where a value stands, for errors.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub function: &'a str,
    /// The parameter.
    pub name: &'a str,
}

impl Place<'_> {
    /// "`full`: value must be a number, found the string "x"".
    pub fn wrong(&self, wanted: &str, found: &Dynamic) -> Error {
        Error::value(format!("`{}`: {} must be {wanted}, found {}", self.function, self.name, describe(found)))
    }

    /// As `wrong`, for an option.
    pub fn refused(&self, wanted: &str, found: &Dynamic) -> Error {
        let found = describe(found);
        Error::value(format!("`{}`: option `{}` must be {wanted}, found {found}", self.function, self.name))
    }
}

/// A value that a native function takes.
pub trait FromScript: Typed + Sized {
    /// The types that Rhai chooses an overload by, one overload for each; `Dynamic` stands for anything, so that what
    /// does not fit gets an error of `read`.
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Dynamic>()]
    }

    /// # Errors
    /// A value of another type, or outside its range.
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self>;
}

/// A value that a native function returns.
pub trait IntoScript: Typed {
    fn write(self) -> Dynamic;
}

/// A parameter of a native function: a value, a value that may be left out (`Option`), or a set of options.
pub trait Argument: Sized {
    const TYPE: &'static str;
    const PRESENCE: Presence;

    fn dispatch() -> Vec<TypeId>;

    /// What a map of options may hold.
    fn options() -> Vec<Opt> {
        Vec::new()
    }

    /// # Errors
    /// Those of the value; `None` where a call must have it.
    fn take(value: Option<Dynamic>, place: Place<'_>) -> Result<Self>;
}

impl<T: FromScript> Argument for T {
    const TYPE: &'static str = <T as Typed>::TYPE;
    const PRESENCE: Presence = Presence::Needed;

    fn dispatch() -> Vec<TypeId> {
        T::dispatch()
    }

    fn take(value: Option<Dynamic>, place: Place<'_>) -> Result<Self> {
        T::read(value.unwrap_or_default(), place)
    }
}

impl<T: FromScript> Argument for Option<T> {
    const TYPE: &'static str = <T as Typed>::TYPE;
    const PRESENCE: Presence = Presence::Optional;

    fn dispatch() -> Vec<TypeId> {
        T::dispatch()
    }

    fn take(value: Option<Dynamic>, place: Place<'_>) -> Result<Self> {
        value.map(|value| T::read(value, place)).transpose()
    }
}

impl<T: Handle> FromScript for T {
    fn dispatch() -> Vec<TypeId> {
        std::iter::once(TypeId::of::<T>()).chain(T::also()).collect()
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        match T::of_other(&value, place)? {
            Some(read) => Ok(read),
            None => exactly(value, place),
        }
    }
}

impl<T: Handle> IntoScript for T {
    fn write(self) -> Dynamic {
        Dynamic::from(self)
    }
}

/// Rhai has chosen by the type already; a value handed on by a script's function pointer may still be another.
fn exactly<T: Typed + Clone + 'static>(value: Dynamic, place: Place<'_>) -> Result<T> {
    value.try_cast_result::<T>().map_err(|found| place.wrong(&format!("a {}", T::TYPE), &found))
}

/// Types of the language that a function takes and returns as they are.
macro_rules! plain {
    ($($type:ty = $name:literal),*) => { $(
        impl Typed for $type {
            const TYPE: &'static str = $name;
        }

        impl FromScript for $type {
            fn dispatch() -> Vec<TypeId> {
                vec![TypeId::of::<$type>()]
            }

            fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
                exactly(value, place)
            }
        }

        impl IntoScript for $type {
            fn write(self) -> Dynamic {
                Dynamic::from(self)
            }
        }
    )* };
}

plain!(INT = "int", bool = "bool", ImmutableString = "string", Map = "map", FnPtr = "Fn");

impl<T> Typed for Vec<T> {
    const TYPE: &'static str = "array";
}

impl FromScript for Array {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Array>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        exactly(value, place)
    }
}

impl<T: IntoScript> IntoScript for Vec<T> {
    fn write(self) -> Dynamic {
        self.into_iter().map(T::write).collect::<Array>().into()
    }
}

impl Typed for Dynamic {
    const TYPE: &'static str = "any";
}

impl FromScript for Dynamic {
    fn read(value: Dynamic, _: Place<'_>) -> Result<Self> {
        Ok(value)
    }
}

impl IntoScript for Dynamic {
    fn write(self) -> Dynamic {
        self
    }
}

impl Typed for usize {
    const TYPE: &'static str = "int";
}

/// A count: at least 0.
impl FromScript for usize {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<INT>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let int = INT::read(value, place)?;
        let Place { function, name } = place;
        usize::try_from(int)
            .map_err(|_| Error::value(format!("`{function}`: {name} must not be negative, found {int}")))
    }
}

impl IntoScript for usize {
    fn write(self) -> Dynamic {
        // No count of ours comes near the largest int.
        Dynamic::from(self as INT)
    }
}

impl Typed for f64 {
    const TYPE: &'static str = "float";
}

impl IntoScript for f64 {
    fn write(self) -> Dynamic {
        Dynamic::from(self)
    }
}

/// A plain number that is an argument: an int stands for a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(pub f64);

impl Typed for Number {
    const TYPE: &'static str = "number";
}

impl FromScript for Number {
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        number(&value).map(Self).ok_or_else(|| place.wrong("a number", &value))
    }
}

/// An int or a float.
pub fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().ok().or_else(|| value.as_int().ok().map(|i| i as FLOAT))
}

impl Typed for String {
    const TYPE: &'static str = "string";
}

impl FromScript for String {
    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<ImmutableString>()]
    }

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        ImmutableString::read(value, place).map(Into::into)
    }
}

impl IntoScript for String {
    fn write(self) -> Dynamic {
        self.into()
    }
}

impl Typed for () {
    const TYPE: &'static str = "";
}

impl IntoScript for () {
    fn write(self) -> Dynamic {
        Dynamic::UNIT
    }
}
