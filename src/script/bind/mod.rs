//! What scripts can call, one file per part. Each only converts and delegates.

pub mod args;
pub mod assert;
pub mod batch;
pub mod chat;
mod choices;
mod convert;
pub mod data;
pub mod dialogue;
pub mod encode;
pub mod engine;
pub mod frozen;
pub mod language;
pub mod model;
pub mod plot;
pub mod rl;
pub mod run;
pub mod script;
pub mod task;
pub mod tensor;

use crate::run::Session;
use crate::script::callee::Callees;
use crate::script::loader::Loader;
use crate::script::registry::Registry;
use std::rc::Rc;

/// Registers everything.
pub fn register(reg: &mut Registry, session: &Rc<Session>, loader: &Rc<Loader>, callees: &Callees) {
    language::register(reg, session);
    tensor::register(reg.topic("Tensors"), session);
    rl::register(reg.topic("Objectives"), session);
    model::register(reg.topic("Models"), session);
    chat::register(reg);
    frozen::register(reg, session);
    encode::register(reg.topic("Batches"), session);
    batch::register(reg, session);
    dialogue::register(reg.topic("Dialogues and resets"), session);
    engine::register(reg.topic("Sampling and training"), session);
    task::register(reg.topic("Tasks"), session);
    data::register(reg.topic("Data"), session);
    run::register(reg.topic("Runs"), session);
    args::register(reg, session);
    plot::register(reg, session);
    script::register(reg, session, loader, callees);
    assert::register(reg.topic("Checks"));
}
