//! What a loop's variables hold that has an identity: models, optimizers, data sets, each known by where it was found when
//! the loop began. And what a checkpoint says of all values.

use crate::engine::{Fisher, ModelHandle, Optimizer};
use crate::run::Run;
use crate::run::steps::Steps;
use crate::script::bind::data::Data;
use crate::script::bind::model::Frozen;
use crate::script::bind::task::{TaskHandle, UserHandle};
use crate::script::bind::tracked::State;
use crate::script::lang::order;
use rhai::{Dynamic, FnPtr, INT, Map};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;
use twox_hash::XxHash3_128;

/// An optimizer as scripts hold it.
pub(super) type Opt = Rc<RefCell<Optimizer>>;

/// What was found when the loop began, each with its path: `policy`, `models[0]`, `cfg.x`.
#[derive(Default)]
pub(super) struct Objects {
    pub models: Vec<(String, ModelHandle, u64)>,
    pub optimizers: Vec<(String, Opt)>,
    pub data: Vec<(String, Data)>,
    /// What the prologue makes again, as a text that tells it from others.
    pub remade: BTreeMap<String, (String, Dynamic)>,
    /// Of each task with rows of a file, their hash.
    pub tasks: Vec<(String, String)>,
}

/// A variable as the loop has it: what closures share with it is shared with this as well.
pub(super) struct Variable {
    pub name: String,
    pub value: Dynamic,
}

impl Objects {
    pub fn of(variables: &[Variable]) -> Self {
        let mut found = Self::default();
        variables.iter().for_each(|variable| found.visit(&variable.name, &variable.value));
        found
    }

    fn visit(&mut self, path: &str, value: &Dynamic) {
        let value = value.flatten_clone();
        if let Ok(map) = value.as_map_ref() {
            order::keys(&value, &map).into_iter().for_each(|key| self.visit(&format!("{path}.{key}"), &map[key]));
        } else if let Ok(array) = value.as_array_ref() {
            array.iter().enumerate().for_each(|(i, item)| self.visit(&format!("{path}[{i}]"), item));
        } else if let Some(model) = value.read_lock::<ModelHandle>() {
            if self.model(&model).is_none() {
                self.models.push((path.into(), model.clone(), model.version()));
            }
        } else if let Some(opt) = value.read_lock::<Opt>() {
            if self.optimizer(&opt).is_none() {
                self.optimizers.push((path.into(), opt.clone()));
            }
        } else if let Some(data) = value.read_lock::<Data>() {
            if self.data(&data).is_none() {
                self.data.push((path.into(), data.clone()));
            }
        } else if let Some(function) = value.read_lock::<FnPtr>() {
            self.remade.insert(path.into(), (remade(&value), value.clone()));
            function.curry().iter().enumerate().for_each(|(i, cell)| self.visit(&captured(path, i), cell));
        } else if is_remade(&value) {
            if let Some(digest) = value.read_lock::<TaskHandle>().and_then(|task| task.rows_digest()) {
                self.tasks.push((path.into(), hash_of(digest.as_bytes())));
            }
            self.remade.insert(path.into(), (remade(&value), value.clone()));
        }
    }

    /// What was made between two loops is made again as well; what was there before stays what it was when the first began.
    pub fn add_remade(&mut self, later: Self) {
        for (path, made) in later.remade {
            self.remade.entry(path).or_insert(made);
        }
    }

    pub fn model(&self, model: &ModelHandle) -> Option<&(String, ModelHandle, u64)> {
        self.models.iter().find(|(_, known, _)| known.id == model.id)
    }

    pub fn optimizer(&self, opt: &Opt) -> Option<&(String, Opt)> {
        self.optimizers.iter().find(|(_, known)| Rc::ptr_eq(known, opt))
    }

    pub fn data(&self, data: &Data) -> Option<&(String, Data)> {
        self.data.iter().find(|(_, known)| known.is(data))
    }
}

/// The path of what a closure has captured.
pub(super) fn captured(path: &str, i: usize) -> String {
    format!("{path} captures {i}")
}

/// What a remade value is known by: its type, and of a function its name.
pub(super) fn remade(value: &Dynamic) -> String {
    match value.read_lock::<FnPtr>() {
        Some(function) => format!("Fn {}", function.fn_name()),
        None => value.type_name().to_string(),
    }
}

/// Whether the prologue makes a value again, and no script can change it.
pub(super) fn is_remade(value: &Dynamic) -> bool {
    value.is::<FnPtr>()
        || value.is::<TaskHandle>()
        || value.is::<UserHandle>()
        || value.is::<Frozen>()
        || value.is::<Fisher>()
        || value.is::<Rc<Run>>()
        || value.is::<Steps>()
        || value.is::<State>()
        || value.is_timestamp()
        || value.is::<Range<INT>>()
        || value.is::<RangeInclusive<INT>>()
}

/// Whether a value is written as it is.
pub(super) fn is_plain(value: &Dynamic) -> bool {
    value.is_unit()
        || value.is_bool()
        || value.is_int()
        || value.is_float()
        || value.is_string()
        || value.is_char()
        || value.is_blob()
        || value.is::<u64>()
        || value.is::<crate::tensor::Tensor>()
        || value.is::<crate::data::Batch>()
}

/// What a variable was when the loop began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// For people.
    pub what: String,
    pub hash: String,
}

pub(super) fn hash_of(bytes: &[u8]) -> String {
    format!("{:032x}", XxHash3_128::oneshot(bytes))
}

/// Everything that a checkpoint holds of a script's values.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    pub marks: BTreeMap<String, Mark>,
    pub variables: BTreeMap<String, Value>,
    pub models: Vec<SavedModel>,
    pub optimizers: Vec<SavedOptimizer>,
    pub data: Vec<SavedData>,
}

/// A model whose numbers are not those of the prologue.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedModel {
    /// The model that has them, or of which a frozen copy had them.
    pub of: String,
    pub frozen: bool,
    pub file: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedOptimizer {
    /// The prologue's; else one that the loop has made, of these models.
    pub of: Option<String>,
    pub models: Vec<Value>,
    /// lr, both betas, eps, weight decay and largest norm.
    pub options: [String; 6],
    pub steps: Vec<u64>,
    pub file: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedData {
    /// The prologue's; else one that the loop has made, of these rows.
    pub of: Option<String>,
    pub rows: Option<Value>,
    pub epoch: u64,
    pub row: u64,
}

/// `Map` in scripts; here for its keys.
pub(super) type ScriptMap = Map;
