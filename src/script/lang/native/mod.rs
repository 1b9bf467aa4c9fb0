//! Native functions, declared once: name, arguments, options, result and errors are Rust types, and everything else
//! follows from them — the overloads that Rhai chooses among, `check`, completion, definitions and the reference.
//!
//! A binder writes `reg.function("sum", ["x", "axis"], |x: Tensor, axis: Option<i64>| x.sum(axis))`, and the section
//! `## sum` of its page (`bind/pages/`) says what that means. Owns no function bodies: those are in `bind/`.

mod body;
mod declaration;
mod options;
mod overload;
mod page;
mod registry;
mod value;

pub use body::{Body, Call, Fallible, Outcome};
pub use declaration::{Declaration, Form, Opt, Param, Presence, Shape};
pub(crate) use options::options;
pub use options::{OptionField, OptionReader, OptionSet, OptionValue, Options};
pub use page::Section;
pub use registry::Registry;
pub use value::{Argument, FromScript, Handle, IntoScript, Number, Place, Receiver, Typed, number};
