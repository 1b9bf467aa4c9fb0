//! Sets of options, declared once: the struct that a body reads is what `check`, completion and the reference know.
//!
//! A set is the trailing map of a call: `sample(model, prompts, #{ n: 8 })`. Owns no ranges: the engine has them.

use super::declaration::{Opt, Presence};
use super::value::{Argument, Place, number};
use crate::error::{Error, Result};
use crate::script::lang::value::describe;
use rhai::{Dynamic, INT, Map};
use std::any::TypeId;

/// A map of options being read. Every key that is asked for is a known one; `finish` refuses the rest.
#[derive(Debug)]
pub struct OptionReader {
    function: String,
    map: Map,
    known: Vec<&'static str>,
}

impl OptionReader {
    /// `function` is named in errors.
    pub fn new(function: &str, map: Map) -> Self {
        Self { function: function.to_string(), map, known: Vec::new() }
    }

    /// An option's value; `()` stands for none.
    ///
    /// # Errors
    /// A value that the option cannot have.
    pub fn read<T: OptionValue>(&mut self, key: &'static str) -> Result<Option<T>> {
        self.known.push(key);
        let Some(value) = self.map.remove(key).filter(|value| !value.is_unit()) else { return Ok(None) };
        T::read(value, Place { function: &self.function, name: key }).map(Some)
    }

    /// Refuses keys that were never asked for, suggesting the nearest one that was.
    ///
    /// # Errors
    /// There is such a key.
    pub fn finish(self) -> Result<()> {
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        Err(Error::unknown(&format!("option of `{}`:", self.function), key, &self.known))
    }
}

/// A struct whose fields are the options of a call. Made by `options!`.
pub trait OptionSet: Sized {
    /// In the order in which they are documented.
    fn list() -> Vec<Opt>;

    /// # Errors
    /// A value that an option cannot have.
    fn fill(reader: &mut OptionReader) -> Result<Self>;

    /// # Errors
    /// Those of `fill`, and a key that is no option.
    fn of(function: &str, map: Map) -> Result<Self> {
        let mut reader = OptionReader::new(function, map);
        let set = Self::fill(&mut reader)?;
        reader.finish()?;
        Ok(set)
    }
}

/// A set as the last parameter of a function: without a map all options have their defaults.
impl<T: OptionSet> Argument for Options<T> {
    const TYPE: &'static str = "map";
    const PRESENCE: Presence = Presence::Options;

    fn dispatch() -> Vec<TypeId> {
        vec![TypeId::of::<Map>()]
    }

    fn options() -> Vec<Opt> {
        T::list()
    }

    fn take(value: Option<Dynamic>, place: Place<'_>) -> Result<Self> {
        let map = value.map_or_else(|| Ok(Map::new()), |value| map(value, place))?;
        T::of(place.function, map).map(Self)
    }
}

/// The options of a call, as a parameter: `Options(options): Options<Choices>`.
#[derive(Debug, Clone)]
pub struct Options<T>(pub T);

/// A set as an option of another: `load_model(name, #{ lora: #{ rank: 4 } })`.
impl<T: OptionSet> OptionValue for Options<T> {
    const TYPE: &'static str = "map";

    fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
        let Place { function, name } = place;
        let map = value.try_cast_result::<Map>().map_err(|other| place.refused("a map", &other))?;
        T::of(&format!("{function}: {name}"), map).map(Self)
    }

    fn nested() -> Vec<Opt> {
        T::list()
    }
}

fn map(value: Dynamic, place: Place<'_>) -> Result<Map> {
    value.try_cast_result::<Map>().map_err(|other| {
        Error::value(format!("`{}`: options must be a map, found {}", place.function, describe(&other)))
            .hint("write them as #{ name: value, … }")
    })
}

/// What an option may hold.
pub trait OptionValue: Sized {
    /// As signatures write it.
    const TYPE: &'static str;
    /// # Errors
    /// A value of another type, or one that means nothing: `place.refused(…)`.
    fn read(value: Dynamic, place: Place<'_>) -> Result<Self>;

    /// As a script writes it.
    fn written(&self) -> String {
        String::new()
    }

    /// Of a map with options of its own: those.
    fn nested() -> Vec<Opt> {
        Vec::new()
    }
}

/// How a field of a set is filled: an option that is `None` where it is not given, or one that has a default.
pub trait OptionField: Sized {
    type Value: OptionValue;

    fn absent() -> Self;
    fn given(value: Self::Value) -> Self;
}

impl<T: OptionValue> OptionField for Option<T> {
    type Value = T;

    fn absent() -> Self {
        None
    }

    fn given(value: T) -> Self {
        Some(value)
    }
}

macro_rules! values {
    ($($type:ty, $name:literal, $wanted:literal, $of:expr, $written:expr;)*) => { $(
        impl OptionValue for $type {
            const TYPE: &'static str = $name;

            fn read(value: Dynamic, place: Place<'_>) -> Result<Self> {
                $of(&value).ok_or_else(|| place.refused($wanted, &value))
            }

            fn written(&self) -> String {
                $written(self)
            }
        }
    )* };
}

values! {
    usize, "int", "a whole number, 0 or more", count, ToString::to_string;
    u64, "int", "a whole number, 0 or more", |value| count(value).map(|n| n as u64), ToString::to_string;
    f64, "float", "a number", number, short;
    bool, "bool", "true or false", |value: &Dynamic| value.as_bool().ok(), ToString::to_string;
    String, "string", "a string", text, |text: &String| format!("{text:?}");
    Vec<String>, "array of string", "an array of strings", texts, |all: &Vec<String>| format!("{all:?}");
    Map, "map", "a map", |value: &Dynamic| value.as_map_ref().ok().map(|map| map.clone()), |_: &Map| "#{}".to_string();
}

/// Whatever was given: a handle, a tensor, a closure.
impl OptionValue for Dynamic {
    const TYPE: &'static str = "any";

    fn read(value: Dynamic, _: Place<'_>) -> Result<Self> {
        Ok(value)
    }
}

fn count(value: &Dynamic) -> Option<usize> {
    value.as_int().ok().and_then(|i: INT| i.try_into().ok())
}

fn text(value: &Dynamic) -> Option<String> {
    value.clone().into_string().ok()
}

/// An array of strings; one string stands for an array of one.
fn texts(value: &Dynamic) -> Option<Vec<String>> {
    match text(value) {
        Some(one) => Some(vec![one]),
        None => value.as_array_ref().ok()?.iter().map(text).collect(),
    }
}

/// `0.001`, but `1e-8`.
fn short(x: &f64) -> String {
    let (plain, exponent) = (x.to_string(), format!("{x:e}"));
    if plain.len() <= exponent.len() + 1 { plain } else { exponent }
}

/// Declares a set of options: a struct, how it is read, and what it documents, which are its doc comments.
///
/// A field with a default has that type; one without is an `Option`. `options!(struct Answering: choices: Choices {…})`
/// takes over the options of another set.
macro_rules! options {
    (
        $(#[doc = $head:literal])*
        $vis:vis struct $name:ident $(: $base:ident: $Base:ty)? {
            $( $(#[doc = $about:literal])+ $field:ident: $type:ty $(= $default:expr)?, )*
        }
    ) => {
        $(#[doc = $head])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $( pub $base: $Base, )?
            $( $(#[doc = $about])+ pub $field: $type, )*
        }

        impl $crate::script::lang::native::OptionSet for $name {
            fn list() -> Vec<$crate::script::lang::native::Opt> {
                let mut list: Vec<$crate::script::lang::native::Opt> = Vec::new();
                $( list.extend(<$Base as $crate::script::lang::native::OptionSet>::list()); )?
                list.extend([$( $crate::script::lang::native::options!(
                    @opt stringify!($field), concat!($($about),+), $type $(, $default)?
                ) ),*]);
                list
            }

            fn fill(reader: &mut $crate::script::lang::native::OptionReader) -> $crate::error::Result<Self> {
                Ok(Self {
                    $( $base: <$Base as $crate::script::lang::native::OptionSet>::fill(reader)?, )?
                    $( $field: $crate::script::lang::native::options!(
                        @read reader, stringify!($field), $type $(, $default)?
                    ), )*
                })
            }
        }
    };
    (@opt $name:expr, $about:expr, $type:ty, $default:expr) => {
        $crate::script::lang::native::Opt {
            name: $name,
            kind: <$type as $crate::script::lang::native::OptionValue>::TYPE,
            about: $about.trim().to_string(),
            default: Some(<$type as $crate::script::lang::native::OptionValue>::written(&$default)),
            nested: <$type as $crate::script::lang::native::OptionValue>::nested(),
        }
    };
    (@opt $name:expr, $about:expr, $type:ty) => {
        $crate::script::lang::native::Opt {
            name: $name,
            kind: <<$type as $crate::script::lang::native::OptionField>::Value as $crate::script::lang::native::OptionValue>::TYPE,
            about: $about.trim().to_string(),
            default: None,
            nested: <<$type as $crate::script::lang::native::OptionField>::Value
                as $crate::script::lang::native::OptionValue>::nested(),
        }
    };
    (@read $reader:ident, $name:expr, $type:ty, $default:expr) => {
        match $reader.read::<$type>($name)? {
            Some(value) => value,
            None => $default,
        }
    };
    (@read $reader:ident, $name:expr, $type:ty) => {
        match $reader.read::<<$type as $crate::script::lang::native::OptionField>::Value>($name)? {
            Some(value) => $crate::script::lang::native::OptionField::given(value),
            None => $crate::script::lang::native::OptionField::absent(),
        }
    };
}
pub(crate) use options;

#[cfg(test)]
mod tests {
    use super::*;

    options! {
        /// How something is drawn.
        struct Drawing {
            /// how many,
            /// in rows
            n: usize = 1,
            /// texts that end it
            stop: Option<Vec<String>>,
        }
    }

    options! {
        /// And how fast.
        struct Training: drawing: Drawing {
            /// learning rate
            lr: f64 = 1e-8,
        }
    }

    fn read(text: &str) -> Result<Training> {
        Training::of("sample", rhai::Engine::new().eval(text).expect("a map"))
    }

    #[test]
    fn what_is_declared_is_read() {
        let set = read("#{ n: 3, lr: 1, stop: \"x\" }").expect("reads");
        assert_eq!((set.drawing.n, set.lr, set.drawing.stop), (3, 1.0, Some(vec!["x".to_string()])));
        let set = read("#{ stop: () }").expect("reads");
        assert_eq!((set.drawing.n, set.lr, set.drawing.stop), (1, 1e-8, None));
    }

    #[test]
    fn what_is_declared_is_known() {
        let list = Training::list();
        assert_eq!(
            list.iter().map(|opt| (opt.name, opt.kind)).collect::<Vec<_>>(),
            [("n", "int"), ("stop", "array of string"), ("lr", "float")]
        );
        assert_eq!(list[0].meaning(), "how many, in rows; 1 unless given");
        assert_eq!(list[1].meaning(), "texts that end it");
        assert_eq!(list[2].meaning(), "learning rate; 1e-8 unless given");
    }

    #[test]
    fn a_wrong_type_says_what_was_found() {
        let e = read("#{ n: 2.5 }").expect_err("a float is no count");
        assert_eq!(e.to_string(), "`sample`: option `n` must be a whole number, 0 or more, found the float 2.5");
    }

    #[test]
    fn an_unknown_key_gets_a_suggestion() {
        let e = read("#{ stopp: [] }").expect_err("misspelt");
        assert_eq!(e.to_string(), "unknown option of `sample`: `stopp`");
        assert_eq!(e.hint.as_deref(), Some("did you mean `stop`?"));
    }
}
