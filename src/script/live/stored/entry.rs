//! What a loop's variables were when it began: by this a checkpoint leaves out what has not changed, and a continued run
//! knows that its own prologue came out the same.

use super::encode::Encoder;
use super::objects::{Mark, Objects, Variable, hash_of, is_plain};
use crate::data::Batch;
use crate::engine::{Engine, ModelHandle, Stateful};
use crate::error::{Error, Result};
use crate::script::lang::value::describe;
use crate::tensor::Tensor;
use rhai::Dynamic;
use std::collections::BTreeMap;
use twox_hash::xxhash3_128::Hasher;

/// Numbers that are hashed at a time.
const BLOCK: usize = 1 << 14;

/// What is to be thought of a variable that came out differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Differing {
    No,
    /// A hyper-parameter was changed, another loop came before, or the checkpoint holds its value.
    Allowed,
    /// The script was edited, and the checkpoint takes the value from the prologue.
    Edited,
}

/// What the prologue has made.
pub(super) struct Entry {
    pub objects: Objects,
    /// The hash of what would be written of each variable.
    pub nodes: BTreeMap<String, String>,
    /// By which a continued run knows its own: of each variable and each object.
    pub marks: BTreeMap<String, Mark>,
}

impl Entry {
    /// # Errors
    /// A value that cannot be stored.
    pub fn of(engine: &dyn Engine, variables: &[Variable]) -> Result<Self> {
        let objects = Objects::of(variables);
        let (mut nodes, mut marks) = (BTreeMap::new(), BTreeMap::new());
        let mut encoder = Encoder::new(engine, &objects, None);
        for Variable { name, value } in variables {
            let hash = hash_of(encoder.value(name, value)?.to_string().as_bytes());
            marks.insert(name.clone(), Mark { what: shown(value), hash: hash.clone() });
            nodes.insert(name.clone(), hash);
        }
        for (path, model, _) in &objects.models {
            marks.insert(format!("{path}: weights"), Mark { what: model.to_string(), hash: weights(engine, model)? });
        }
        for (path, digest) in &objects.tasks {
            let what = "the task".to_string();
            marks.insert(format!("{path}: its rows"), Mark { what, hash: digest.clone() });
        }
        for (path, data) in &objects.data {
            marks.insert(
                format!("{path}: rows"),
                Mark { what: data.to_string(), hash: hash_of(data.to_value().to_string().as_bytes()) },
            );
        }
        Ok(Self { objects, nodes, marks })
    }

    /// Whether the prologue of a continued run came out as that of the run itself. Weights and rows must be the same, and so
    /// must be variables, but for those that `may` differ.
    ///
    /// # Errors
    /// It did not.
    pub fn check(&self, then: &BTreeMap<String, Mark>, later: bool, may: impl Fn(&str) -> Differing) -> Result<()> {
        let failed = |what: String| {
            Error::value(format!("the code before the loop gave a different result than in the run: {what}"))
        };
        let differs = |what: String| {
            Err(failed(what).hint("continue with the same files, models and build of rhopo, or begin a new run"))
        };
        for (name, now) in &self.marks {
            match then.get(name) {
                None if later => {}
                None => return differs(format!("`{name}` is new")),
                Some(then) if then == now => {}
                Some(_) if !name.contains(": ") && may(name) == Differing::Allowed => {}
                Some(_) if !name.contains(": ") && may(name) == Differing::Edited => {
                    return Err(failed(format!("`{name}` comes of what was edited while the run went on")).hint(
                        "say the edited value on the command line, --set NAME=VALUE: what comes of it is made anew",
                    ));
                }
                Some(then) if then.what == now.what => {
                    return differs(format!("`{name}` holds other numbers ({})", now.what));
                }
                Some(then) => return differs(format!("`{name}` is {}, and was {}", now.what, then.what)),
            }
        }
        let missing = |name: &&String| !self.marks.contains_key(*name) && !later;
        match then.keys().find(missing) {
            Some(name) => differs(format!("`{name}` is missing")),
            None => Ok(()),
        }
    }
}

/// Of the numbers that are trained; frozen models are what the prologue copies or opens.
fn weights(engine: &dyn Engine, model: &ModelHandle) -> Result<String> {
    let mut hasher = Hasher::new();
    if model.trainable() {
        for (name, values) in engine.state(Stateful::Model(model))?.tensors {
            hasher.write(name.as_bytes());
            for block in values.chunks(BLOCK) {
                hasher.write(&block.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
            }
        }
    }
    Ok(format!("{:032x}", hasher.finish_128()))
}

/// A value for people, short.
fn shown(value: &Dynamic) -> String {
    const LONGEST: usize = 60;
    let value = value.flatten_clone();
    let n = value.as_array_ref().map(|array| array.len()).or_else(|_| value.as_map_ref().map(|map| map.len()));
    match n {
        Ok(n) => format!("{} of {n}", describe(&value)),
        _ if is_plain(&value) && !value.is::<Batch>() && !value.is::<Tensor>() => {
            value.to_string().chars().take(LONGEST).collect()
        }
        _ => describe(&value),
    }
}
