//! What works on scripts from outside: `check`, tests, the reference's pages, definitions for editors, a prompt of its
//! own. Above the host.

pub mod check;
pub mod compare;
pub mod definitions;
pub mod dry;
pub mod embed;
mod embedded_value;
pub mod pages;
pub mod query;
pub mod repl_host;
pub mod testing;
