//! Closures as bodies of native functions: their parameter types are the declaration.
//!
//! Four kinds are told apart by their first parameters: `|a, b|`, `|call: &Call, a, b|`, `|own: &mut T, a, b|` and
//! `|call: &Call, own: &mut T, a, b|`; the last two are methods of a `T`.

use super::declaration::{Form, Param, Presence};
use super::value::{Argument, IntoScript, Place, Receiver, Typed};
use crate::error::{Error, Kind, Result};
use crate::run::Session;
use rhai::{Dynamic, EvalAltResult, NativeCallContext};
use std::any::TypeId;
use std::rc::Rc;

/// The result of whatever Rhai calls.
pub type Fallible<T> = std::result::Result<T, Box<EvalAltResult>>;

/// What a body may want to know of the call that it answers.
pub struct Call<'a> {
    /// The function's path, for errors: `kl::k3`.
    pub function: &'a str,
    pub session: &'a Rc<Session>,
    pub context: &'a NativeCallContext<'a>,
}

impl Call<'_> {
    /// The place of the call, for errors that send the reader back to it.
    pub fn site(&self) -> String {
        let line = self.context.call_position().line().map_or("?".into(), |line| line.to_string());
        match self.context.call_source() {
            Some(source) => format!("{source}:{line}"),
            None => format!("line {line}"),
        }
    }

    /// An error with the place of the call: Rhai adds it to the errors of global functions, but not of a module's.
    fn placed(&self, e: Error) -> Box<EvalAltResult> {
        let mut e: Box<EvalAltResult> = e.into();
        e.set_position(self.context.call_position());
        e
    }

    fn argument<A: Argument>(&self, names: &[&str], args: &mut [&mut Dynamic], at: usize, own: usize) -> Fallible<A> {
        let place = Place { function: self.function, name: names.get(at).copied().unwrap_or_default() };
        let value = args.get_mut(own + at).map(|value| std::mem::take(*value).flatten());
        A::take(value, place).map_err(|e| self.placed(e))
    }
}

/// What a body may return: a value, or a value or an error.
pub trait Outcome {
    const TYPE: &'static str;

    fn outcome(self, call: &Call<'_>) -> Fallible<Dynamic>;
}

impl<T: IntoScript> Outcome for T {
    const TYPE: &'static str = <T as Typed>::TYPE;

    fn outcome(self, _: &Call<'_>) -> Fallible<Dynamic> {
        Ok(self.write())
    }
}

impl<T: IntoScript> Outcome for Result<T> {
    const TYPE: &'static str = <T as Typed>::TYPE;

    fn outcome(self, call: &Call<'_>) -> Fallible<Dynamic> {
        self.map(T::write).map_err(|e| call.placed(e))
    }
}

/// For bodies that call functions of scripts, whose errors have their own places.
impl<T: IntoScript> Outcome for Fallible<T> {
    const TYPE: &'static str = <T as Typed>::TYPE;

    fn outcome(self, _: &Call<'_>) -> Fallible<Dynamic> {
        self.map(T::write)
    }
}

/// A form and the types that Rhai chooses it by, for each of its parameters and for the receiver first.
pub struct Signature {
    pub form: Form,
    pub dispatch: Vec<Vec<TypeId>>,
}

/// A closure with `N` parameters that scripts fill in, the receiver left out. `Marker` tells the kinds apart.
pub trait Body<Marker, const N: usize>: 'static {
    /// Whether the first argument is changed in place.
    const IS_METHOD: bool;

    fn signature(names: [&'static str; N]) -> Signature;

    /// # Errors
    /// An argument that does not fit, and those of the closure.
    fn call(&self, call: &Call<'_>, names: [&'static str; N], args: &mut [&mut Dynamic]) -> Fallible<Dynamic>;
}

fn param<A: Argument>(name: &str) -> Param {
    Param { name: name.into(), kind: A::TYPE.into(), presence: A::PRESENCE, options: A::options() }
}

fn signature<R: Outcome>(receiver: Option<(Param, TypeId)>, params: Vec<Param>, types: Vec<Vec<TypeId>>) -> Signature {
    let (receiver, own) = receiver.unzip();
    let dispatch = own.into_iter().map(|own| vec![own]).chain(types).collect();
    Signature { form: Form { receiver, params, returns: R::TYPE.into() }, dispatch }
}

fn receiver<T: Receiver>() -> (Param, TypeId) {
    let param =
        Param { name: T::RECEIVER.into(), kind: T::NAME.into(), presence: Presence::Needed, options: Vec::new() };
    (param, TypeId::of::<T>())
}

/// Runs `body` on the value itself.
fn within<T: Receiver, R>(
    args: &mut [&mut Dynamic],
    body: impl FnOnce(&mut T, &mut [&mut Dynamic]) -> R,
) -> Fallible<R> {
    let lost = || Error::new(Kind::Internal, format!("a method of {} was called without one", T::NAME));
    let Some((own, rest)) = args.split_first_mut() else { return Err(lost().into()) };
    let mut own = own.write_lock::<T>().ok_or_else(lost)?;
    Ok(body(&mut own, rest))
}

pub struct Plain;
pub struct WithCall;
pub struct Method;
pub struct MethodWithCall;

/// A closure that is called as a function; `$given` is what it is given before the arguments of scripts.
macro_rules! function {
    ($marker:ident, $call:ident, [$($given:ident: $type:ty)?], $count:literal: $($arg:ident $at:literal),*) => {
        impl<F, R, $($arg),*> Body<($marker, R, $($arg,)*), $count> for F
        where
            F: Fn($($type,)? $($arg),*) -> R + 'static,
            R: Outcome,
            $($arg: Argument,)*
        {
            const IS_METHOD: bool = false;

            fn signature(_names: [&'static str; $count]) -> Signature {
                signature::<R>(None, vec![$(param::<$arg>(_names[$at])),*], vec![$($arg::dispatch()),*])
            }

            fn call(
                &self,
                $call: &Call<'_>,
                _names: [&'static str; $count],
                _args: &mut [&mut Dynamic],
            ) -> Fallible<Dynamic> {
                self($($given,)? $($call.argument::<$arg>(&_names, _args, $at, 0)?),*).outcome($call)
            }
        }
    };
}

/// A closure that is called as a method, on a value that it may change.
macro_rules! method {
    ($marker:ident, $call:ident, [$($given:ident: $type:ty)?], $count:literal: $($arg:ident $at:literal),*) => {
        impl<F, T, R, $($arg),*> Body<($marker, T, R, $($arg,)*), $count> for F
        where
            F: Fn($($type,)? &mut T, $($arg),*) -> R + 'static,
            T: Receiver,
            R: Outcome,
            $($arg: Argument,)*
        {
            const IS_METHOD: bool = true;

            fn signature(_names: [&'static str; $count]) -> Signature {
                let params = vec![$(param::<$arg>(_names[$at])),*];
                signature::<R>(Some(receiver::<T>()), params, vec![$($arg::dispatch()),*])
            }

            fn call(
                &self,
                $call: &Call<'_>,
                _names: [&'static str; $count],
                args: &mut [&mut Dynamic],
            ) -> Fallible<Dynamic> {
                within(args, |own: &mut T, _rest| {
                    self($($given,)? own, $($call.argument::<$arg>(&_names, _rest, $at, 0)?),*).outcome($call)
                })?
            }
        }
    };
}

macro_rules! bodies {
    ($($form:tt)*) => {
        function!(Plain, call, [], $($form)*);
        function!(WithCall, call, [call: &Call<'_>], $($form)*);
        method!(Method, call, [], $($form)*);
        method!(MethodWithCall, call, [call: &Call<'_>], $($form)*);
    };
}

bodies!(0:);
bodies!(1: A 0);
bodies!(2: A 0, B 1);
bodies!(3: A 0, B 1, C 2);
bodies!(4: A 0, B 1, C 2, D 3);
bodies!(5: A 0, B 1, C 2, D 3, E 4);
