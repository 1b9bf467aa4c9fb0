//! The Rhai layer, in four rooms, each above the one before it.
//!
//! - `lang/`: the language itself, how native functions are declared (`native/`), and errors in it.
//! - `bind/`: what scripts can call. Each file only converts and delegates.
//! - `live/`: scripts that are entered while they run.
//! - `tools/`: what works on scripts from outside, above the host.
//!
//! `host` runs a script and `builder` puts a host together from the first three.

pub mod bind;
pub mod builder;
pub mod host;
pub mod lang;
pub mod live;
pub mod tools;
