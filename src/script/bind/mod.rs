//! What scripts can call, one file per part; `pages/` says what each function means. Each only converts and delegates.

pub mod args;
pub mod arrays;
pub mod assert;
pub mod batch;
mod caller;
pub mod chat;
mod choices;
mod convert;
pub mod data;
pub mod dialogue;
pub mod encode;
pub mod engine;
pub mod frozen;
pub mod language;
mod likelihood;
pub mod load_run;
pub mod maps;
mod mixture;
pub mod model;
pub mod patterns;
pub mod plot;
mod ranges;
pub mod rl;
pub mod run;
pub mod script;
pub mod task;
pub mod tensor;
pub mod texts;
pub mod tracked;
mod weights;

use crate::run::Session;
use crate::script::lang::functions::CallStack;
use crate::script::lang::loader::Loader;
use crate::script::lang::native::Registry;
use std::rc::Rc;
use tracked::Tracked;

/// Declares everything, in the order of the reference.
pub fn register(reg: &mut Registry, session: &Rc<Session>, loader: &Rc<Loader>, calls: &CallStack, tracked: &Tracked) {
    language::register(reg);
    register_numbers(reg);
    texts::register(reg.page(include_str!("pages/texts.md")));
    arrays::register(reg.page(include_str!("pages/arrays.md")));
    maps::register(reg.page(include_str!("pages/maps.md")));
    reg.page(include_str!("pages/models.md"));
    model::register(reg);
    chat::register(reg);
    frozen::register(reg);
    reg.page(include_str!("pages/batches.md"));
    encode::register(reg);
    batch::register(reg);
    dialogue::register(reg.page(include_str!("pages/dialogues-and-resets.md")));
    engine::register(reg.page(include_str!("pages/sampling-and-training.md")));
    weights::register(reg.page(include_str!("pages/weights.md")));
    task::register(reg.page(include_str!("pages/tasks.md")), loader, calls, tracked);
    data::register(reg.page(include_str!("pages/data.md")));
    patterns::register(reg.page(include_str!("pages/patterns.md")));
    reg.page(include_str!("pages/runs.md"));
    run::register(reg, tracked);
    load_run::register(reg);
    args::register(reg);
    plot::register(reg);
    script::register(reg, session, loader, calls);
    assert::register(reg.page(include_str!("pages/checks.md")));
}

/// Tensors and what objectives are made of: what needs no model.
pub fn register_numbers(reg: &mut Registry) {
    tensor::register(reg.page(include_str!("pages/tensors.md")));
    rl::register(reg.page(include_str!("pages/objectives.md")));
}
