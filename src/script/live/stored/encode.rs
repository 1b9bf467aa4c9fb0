//! Values of a loop on their way into a checkpoint.
//!
//! Numbers, texts, arrays and maps become JSON; tensors, batches, weights and moments become files beside it. What the
//! prologue of a continued run makes again, and has not changed, is only named.

use super::objects::{Mark, ScriptMap};
use super::objects::{
    Objects, Opt, Saved, SavedData, SavedModel, SavedOptimizer, captured, hash_of, is_remade, remade,
};
use crate::data::{Batch, stored};
use crate::engine::{Engine, Gradient, ModelHandle, Snapshot, State, Stateful};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::script::bind::data::Data;
use crate::script::bind::encode::AnyPrompts;
use crate::script::lang::order;
use crate::script::lang::value::describe;
use crate::tensor::{DType, Tensor};
use rhai::{Array, Dynamic, FnPtr};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How Rhai names what has no name.
const ANONYMOUS: &str = "anon$";

/// Writes values; without a folder it only finds out what would be written.
pub(super) struct Encoder<'a> {
    engine: &'a dyn Engine,
    known: &'a Objects,
    part: Option<Location>,
    /// Whether tensors and batches are written, and not only what has an identity.
    whole: bool,
    /// Files that are written, named by their content.
    files: BTreeSet<String>,
    /// Ids of models that are in the table, in its order.
    ids: Vec<u64>,
    models: Vec<SavedModel>,
    made: Vec<Opt>,
    optimizers: Vec<SavedOptimizer>,
    drawn: Vec<Data>,
    data: Vec<SavedData>,
}

impl<'a> Encoder<'a> {
    pub fn new(engine: &'a dyn Engine, known: &'a Objects, part: Option<Location>) -> Self {
        let (files, ids, models, made) = (BTreeSet::new(), Vec::new(), Vec::new(), Vec::new());
        let (optimizers, drawn, data) = (Vec::new(), Vec::new(), Vec::new());
        Self { engine, known, part, whole: true, files, ids, models, made, optimizers, drawn, data }
    }

    /// A variable; `null` where it is still what the prologue made, whose form has the hash `entry`.
    ///
    /// # Errors
    /// A value that cannot be stored.
    pub fn variable(&mut self, name: &str, value: &Dynamic, entry: Option<&String>) -> Result<Value> {
        // Found out before anything is written: a long list of rows that nobody has changed stays out.
        let form = Encoder::new(self.engine, self.known, None).value(name, value)?;
        let same = entry.is_some_and(|entry| *entry == hash_of(form.to_string().as_bytes()));
        // The objects in a variable that is as it was may have changed.
        self.whole = !same;
        let node = self.value(name, value)?;
        Ok(if same { Value::Null } else { json!({ "is": node }) })
    }

    /// A value at a path.
    ///
    /// # Errors
    /// One that cannot be stored.
    pub fn value(&mut self, path: &str, value: &Dynamic) -> Result<Value> {
        let value = value.flatten_clone();
        if let Some(plain) = plain(&value) {
            return Ok(plain);
        }
        if let Ok(map) = value.as_map_ref() {
            return self.map(path, &value, &map);
        }
        if let Ok(array) = value.as_array_ref() {
            return self.array(path, &array);
        }
        if let Ok(blob) = value.as_blob_ref() {
            return Ok(json!({ "blob": self.file(&blob)? }));
        }
        if let Some(tensor) = value.read_lock::<Tensor>() {
            return self.tensor(&tensor);
        }
        if let Some(b) = value.read_lock::<Batch>() {
            let bytes = stored::to_bytes(&b, Path::new("a checkpoint"))?;
            return Ok(json!({ "batch": self.file(&bytes)? }));
        }
        if let Some(model) = value.read_lock::<ModelHandle>() {
            return self.model(path, &model);
        }
        if let Some(g) = value.read_lock::<Gradient>() {
            return self.vector("gradient", path, &g.model, &self.engine.state(Stateful::Gradient(&g))?);
        }
        if let Some(s) = value.read_lock::<Snapshot>() {
            return self.vector("snapshot", path, &s.model, &s.state);
        }
        if let Some(opt) = value.read_lock::<Opt>() {
            return self.optimizer(path, &opt);
        }
        if let Some(data) = value.read_lock::<Data>() {
            return self.data(&data);
        }
        if let Some(prompts) = value.read_lock::<AnyPrompts>()
            && let AnyPrompts::Fresh(prompts) = &*prompts
        {
            return Ok(json!({ "prompts": prompts.to_value() }));
        }
        self.remade(path, &value)
    }

    fn map(&mut self, path: &str, value: &Dynamic, map: &ScriptMap) -> Result<Value> {
        let entry =
            |key: &rhai::Identifier| Ok(json!([key.as_str(), self.value(&format!("{path}.{key}"), &map[key])?]));
        Ok(json!({ "map": order::keys(value, map).into_iter().map(entry).collect::<Result<Vec<_>>>()? }))
    }

    fn array(&mut self, path: &str, array: &Array) -> Result<Value> {
        let item = |(i, item): (usize, &Dynamic)| self.value(&format!("{path}[{i}]"), item);
        Ok(Value::Array(array.iter().enumerate().map(item).collect::<Result<_>>()?))
    }

    fn tensor(&mut self, tensor: &Tensor) -> Result<Value> {
        let bytes: Vec<u8> = tensor.to_vec()?.iter().flat_map(|x| x.to_le_bytes()).collect();
        let dtype = if tensor.dtype() == DType::F64 { "f64" } else { "f32" };
        let mut form = json!({ "tensor": self.file(&bytes)?, "shape": tensor.dims(), "dtype": dtype });
        if tensor.is_variable() {
            form["variable"] = true.into();
        }
        Ok(form)
    }

    /// Numbers of a model's parameters that the model itself does not have.
    fn vector(&mut self, kind: &str, path: &str, model: &ModelHandle, state: &State) -> Result<Value> {
        let bytes: Vec<u8> = state.tensors.values().flatten().flat_map(|x| x.to_le_bytes()).collect();
        let sizes: Vec<(&String, usize)> = state.tensors.iter().map(|(name, x)| (name, x.len())).collect();
        Ok(json!({ kind: self.file(&bytes)?, "sizes": sizes, "of": self.model(&format!("{path}: its model"), model)? }))
    }

    /// What the prologue makes again.
    fn remade(&mut self, path: &str, value: &Dynamic) -> Result<Value> {
        let text = remade(value);
        let same = |path: &String| self.known.remade.get(path).is_some_and(|(known, _)| *known == text);
        // Another of those that the prologue has made may have taken its place.
        let own = Some(path.to_string()).filter(same);
        let at = own.or_else(|| self.known.remade.keys().find(|path| value.is::<FnPtr>() && same(path)).cloned());
        let Some(at) = at.filter(|_| is_remade(value)) else {
            let what = format!("a checkpoint cannot hold `{path}`: the loop has made it {}", describe(value));
            return Err(Error::value(what).hint("make it before the loop, or hold it within one step"));
        };
        let mut cells = Vec::new();
        if let Some(function) = value.read_lock::<FnPtr>() {
            for (i, cell) in function.curry().iter().enumerate() {
                cells.push(self.value(&captured(path, i), cell)?);
            }
        }
        // The name of an anonymous function is another one in every process.
        let text = text.split(ANONYMOUS).next().unwrap_or_default();
        Ok(json!({ "remade": text, "at": at, "captures": cells }))
    }

    fn model(&mut self, path: &str, model: &ModelHandle) -> Result<Value> {
        if let Some((of, _, version)) = self.known.model(model) {
            if model.version() != *version {
                self.put_trained(model, of)?;
            }
            return Ok(json!({ "model": of }));
        }
        if let Some(i) = self.ids.iter().position(|id| *id == model.id) {
            return Ok(json!({ "frozen": i }));
        }
        let known = self.known;
        let trained =
            known.models.iter().filter(|(_, of, _)| of.trainable() && !model.trainable() && is_copy(model, of));
        let copied = |(path, of, _): &'a (String, ModelHandle, u64)| {
            Some((path, of, self.engine.state(Stateful::Copy { copy: model, of }).ok()?))
        };
        let Some((name, trained, state)) = trained.into_iter().find_map(copied) else {
            let what = format!("a checkpoint cannot hold `{path}`: the loop has opened {}", **model);
            return Err(Error::value(what).hint("open models before the loop; a frozen copy of one of them is stored"));
        };
        // On its way back the copy passes through the model of which it is one.
        self.put_trained(trained, name)?;
        let i = self.put_model(model.id, name.clone(), true, &state)?;
        Ok(json!({ "frozen": i }))
    }

    fn put_trained(&mut self, model: &ModelHandle, of: &str) -> Result<()> {
        if self.part.is_none() || self.ids.contains(&model.id) {
            return Ok(());
        }
        let state = self.engine.state(Stateful::Model(model))?;
        self.put_model(model.id, of.into(), false, &state).map(drop)
    }

    fn put_model(&mut self, id: u64, of: String, frozen: bool, state: &State) -> Result<usize> {
        let i = self.models.len();
        let file = format!("model-{i}.safetensors");
        self.state(&file, state)?;
        self.ids.push(id);
        self.models.push(SavedModel { of, frozen, file });
        Ok(i)
    }

    fn optimizer(&mut self, path: &str, opt: &Opt) -> Result<Value> {
        let of = self.known.optimizer(opt).map(|(of, _)| of.clone());
        let i = match self.made.iter().position(|known| std::rc::Rc::ptr_eq(known, opt)) {
            Some(i) => i,
            None => self.put_optimizer(path, opt, of.clone())?,
        };
        Ok(of.map_or_else(|| json!({ "made": i }), |of| json!({ "optimizer": of })))
    }

    fn put_optimizer(&mut self, path: &str, opt: &Opt, of: Option<String>) -> Result<usize> {
        let i = self.made.len();
        self.made.push(opt.clone());
        let opt = opt.borrow();
        let state = match self.part {
            Some(_) => self.engine.state(Stateful::Optimizer(opt.moments()))?,
            None => State::default(),
        };
        let file = format!("optimizer-{i}.safetensors");
        self.state(&file, &state)?;
        let models = opt.models().iter().enumerate();
        let models =
            models.map(|(k, model)| self.model(&format!("{path}: model {k}"), model)).collect::<Result<_>>()?;
        let o = opt.options();
        let options = [o.lr, o.betas.0, o.betas.1, o.eps, o.weight_decay, o.max_norm].map(|x| x.to_string());
        self.optimizers.push(SavedOptimizer { of, models, options, steps: state.steps, file });
        Ok(i)
    }

    fn data(&mut self, data: &Data) -> Result<Value> {
        let of = self.known.data(data).map(|(of, _)| of.clone());
        let i = match self.drawn.iter().position(|known| known.is(data)) {
            Some(i) => i,
            None => {
                let (epoch, row) = data.at();
                let rows = of.is_none().then(|| data.to_value());
                self.drawn.push(data.clone());
                self.data.push(SavedData { of: of.clone(), rows, epoch, row });
                self.data.len() - 1
            }
        };
        Ok(of.map_or_else(|| json!({ "rows": i }), |of| json!({ "data": of })))
    }

    /// Writes bytes into a file that is named by them; returns the name.
    fn file(&mut self, bytes: &[u8]) -> Result<String> {
        let name = format!("{}.bin", hash_of(bytes));
        if let Some(part) = self.part.as_ref().filter(|_| self.whole)
            && self.files.insert(name.clone())
        {
            files::write(&part.join(&name), bytes)?;
        }
        Ok(name)
    }

    fn state(&self, file: &str, state: &State) -> Result<()> {
        self.part.as_ref().map_or(Ok(()), |part| state.write(&part.join(file)))
    }

    /// Everything, once all variables are written.
    pub fn finish(self, marks: BTreeMap<String, Mark>, variables: BTreeMap<String, Value>) -> Saved {
        let Self { models, optimizers, data, .. } = self;
        Saved { marks, variables, models, optimizers, data }
    }
}

/// Whether a frozen model can be a copy of one that is trained.
fn is_copy(copy: &ModelHandle, of: &ModelHandle) -> bool {
    (&copy.name, &copy.architecture, copy.size, copy.rank) == (&of.name, &of.architecture, of.size, of.rank)
}

/// What has a form of its own in JSON. Floats are texts: JSON has no infinities, and readers of it round.
fn plain(value: &Dynamic) -> Option<Value> {
    if value.is_unit() {
        return Some(json!({ "unit": null }));
    }
    if let Ok(x) = value.as_bool() {
        return Some(x.into());
    }
    if let Ok(x) = value.as_int() {
        return Some(x.into());
    }
    if let Ok(x) = value.as_float() {
        return Some(json!({ "float": x.to_string() }));
    }
    if let Ok(x) = value.as_char() {
        return Some(json!({ "char": x.to_string() }));
    }
    if let Some(x) = value.clone().try_cast::<u64>() {
        return Some(json!({ "u64": x.to_string() }));
    }
    value.clone().into_string().ok().map(Value::from)
}
