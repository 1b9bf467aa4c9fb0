//! Values of a checkpoint on their way back into a loop whose prologue has run again.

use super::objects::{Objects, Opt, Saved, SavedOptimizer, captured};
use crate::data::{Prompts, stored};
use crate::engine::{AdamwOptions, Engine, ModelHandle, Optimizer, Snapshot, State, Stateful};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::script::bind::data::Data;
use crate::script::bind::encode::AnyPrompts;
use crate::script::lang::order;
use crate::tensor::{DType, Device, Tensor};
use rhai::{Array, Dynamic, FnPtr};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Reads values.
pub(super) struct Decoder<'a> {
    engine: &'a dyn Engine,
    known: &'a Objects,
    folder: &'a Location,
    /// Of the table of models; none at the place of one that the prologue has.
    frozen: Vec<Option<ModelHandle>>,
    optimizers: Vec<Opt>,
    data: Vec<Option<Data>>,
}

impl<'a> Decoder<'a> {
    pub fn new(engine: &'a dyn Engine, known: &'a Objects, folder: &'a Location) -> Self {
        Self { engine, known, folder, frozen: Vec::new(), optimizers: Vec::new(), data: Vec::new() }
    }

    /// Puts the states of models, optimizers and data sets back, and makes anew what the loop had made.
    ///
    /// # Errors
    /// States that do not fit.
    pub fn objects(&mut self, saved: &Saved) -> Result<()> {
        // Copies first: each passes through the model of which it was one.
        for model in &saved.models {
            self.frozen.push(match model.frozen {
                true => {
                    self.engine.restore(Stateful::Model(self.model(&model.of)?), &self.state(&model.file, &[])?)?;
                    Some(self.engine.frozen(self.model(&model.of)?)?)
                }
                false => None,
            });
        }
        for model in saved.models.iter().filter(|model| !model.frozen) {
            self.engine.restore(Stateful::Model(self.model(&model.of)?), &self.state(&model.file, &[])?)?;
        }
        for optimizer in &saved.optimizers {
            let opt = self.optimizer(optimizer)?;
            self.optimizers.push(opt);
        }
        for data in &saved.data {
            let made = data.rows.as_ref().map(Data::from_value).transpose()?;
            let target = match (&made, &data.of) {
                (Some(made), _) => made.clone(),
                (None, Some(of)) => found(&self.known.data, of)?.clone(),
                (None, None) => return Err(unreadable("a data set without rows")),
            };
            target.go_to(data.epoch, data.row)?;
            self.data.push(made);
        }
        Ok(())
    }

    fn optimizer(&self, saved: &SavedOptimizer) -> Result<Opt> {
        let number = |i: usize| saved.options[i].parse::<f64>().map_err(|_| unreadable("an optimizer's options"));
        let options = AdamwOptions {
            lr: number(0)?,
            betas: (number(1)?, number(2)?),
            eps: number(3)?,
            weight_decay: number(4)?,
            max_norm: number(5)?,
        };
        let opt = match &saved.of {
            Some(of) => found(&self.known.optimizers, of)?.clone(),
            None => {
                let handle = |node: &Value| self.handle(node);
                let models = saved.models.iter().map(handle).collect::<Result<Vec<_>>>()?;
                Rc::new(RefCell::new(Optimizer::adamw(self.engine, &models, options)?))
            }
        };
        opt.borrow_mut().set_options(options)?;
        let state = self.state(&saved.file, &saved.steps)?;
        self.engine.restore(Stateful::Optimizer(opt.borrow().moments()), &state)?;
        Ok(opt)
    }

    fn model(&self, path: &str) -> Result<&ModelHandle> {
        let model = self.known.models.iter().find(|(known, ..)| known == path);
        model.map(|(_, model, _)| model).ok_or_else(|| unreadable(&format!("no model `{path}`")))
    }

    fn handle(&self, node: &Value) -> Result<ModelHandle> {
        if let Some(path) = node["model"].as_str() {
            return self.model(path).cloned();
        }
        let copy = node["frozen"].as_u64().and_then(|i| self.frozen.get(i as usize).cloned().flatten());
        copy.ok_or_else(|| unreadable("a model that is not there"))
    }

    /// A variable's new value; nothing where it is what the prologue has made.
    ///
    /// # Errors
    /// A form that was not written by [`super::encode::Encoder`].
    pub fn variable(&self, name: &str, node: &Value, now: &Dynamic) -> Result<Option<Dynamic>> {
        match node.get("is") {
            Some(node) => self.value(name, node, Some(now)).map(Some),
            None => Ok(None),
        }
    }

    fn value(&self, path: &str, node: &Value, now: Option<&Dynamic>) -> Result<Dynamic> {
        let wrong = || unreadable(&format!("`{path}`: {node}"));
        match node {
            Value::Bool(x) => Ok((*x).into()),
            Value::Number(x) => x.as_i64().map(Dynamic::from_int).ok_or_else(wrong),
            Value::String(text) => Ok(text.into()),
            Value::Array(items) => self.array(path, items, now),
            Value::Object(form) => self.form(path, form, now),
            Value::Null => Err(wrong()),
        }
    }

    fn array(&self, path: &str, items: &[Value], now: Option<&Dynamic>) -> Result<Dynamic> {
        let now = now.map(Dynamic::flatten_clone).and_then(|now| now.try_cast::<Array>());
        let item = |(i, item)| self.value(&format!("{path}[{i}]"), item, now.as_ref().and_then(|now| now.get(i)));
        Ok(Dynamic::from_array(items.iter().enumerate().map(item).collect::<Result<_>>()?))
    }

    fn form(&self, path: &str, form: &Map<String, Value>, now: Option<&Dynamic>) -> Result<Dynamic> {
        let wrong = || unreadable(&format!("`{path}`"));
        let (kind, content) = form.iter().next().ok_or_else(wrong)?;
        let text = || content.as_str().ok_or_else(wrong);
        let place = || content.as_u64().map(|i| i as usize).ok_or_else(wrong);
        match kind.as_str() {
            "unit" => Ok(Dynamic::UNIT),
            "float" => text()?.parse().map(Dynamic::from_float).map_err(|_| wrong()),
            "char" => text()?.chars().next().map(Dynamic::from_char).ok_or_else(wrong),
            "u64" => text()?.parse::<u64>().map(Dynamic::from).map_err(|_| wrong()),
            "map" => self.map(path, content.as_array().ok_or_else(wrong)?, now),
            "blob" => files::bytes(&self.folder.join(text()?)).map(Dynamic::from_blob),
            "tensor" => self.tensor(text()?, form).map(Dynamic::from),
            "batch" => stored::load(&self.folder.join(text()?), &Device::Cpu).map(Dynamic::from),
            "prompts" => Ok(Dynamic::from(AnyPrompts::Fresh(Prompts::from_value(content)?))),
            "model" | "frozen" => self.handle(&Value::Object(form.clone())).map(Dynamic::from),
            "gradient" => {
                let (model, state) = self.vector(text()?, form)?;
                self.engine.gradient(&model, &state).map(Dynamic::from)
            }
            "snapshot" => {
                let (model, state) = self.vector(text()?, form)?;
                Ok(Dynamic::from(Snapshot { model, state: Rc::new(state) }))
            }
            "optimizer" => found(&self.known.optimizers, text()?).map(|opt| Dynamic::from(opt.clone())),
            "made" => self.optimizers.get(place()?).map(|opt| Dynamic::from(opt.clone())).ok_or_else(wrong),
            "data" => found(&self.known.data, text()?).map(|data| Dynamic::from(data.clone())),
            "rows" => self.data.get(place()?).cloned().flatten().map(Dynamic::from).ok_or_else(wrong),
            "remade" => self.remade(path, form),
            _ => Err(wrong()),
        }
    }

    fn map(&self, path: &str, entries: &[Value], now: Option<&Dynamic>) -> Result<Dynamic> {
        let now = now.map(Dynamic::flatten_clone).and_then(|now| now.try_cast::<rhai::Map>());
        let entry = |entry: &Value| {
            let key = entry[0].as_str().ok_or_else(|| unreadable(&format!("`{path}`")))?;
            let old = now.as_ref().and_then(|now| now.get(key));
            Ok((key.into(), self.value(&format!("{path}.{key}"), &entry[1], old)?))
        };
        Ok(order::map(entries.iter().map(entry).collect::<Result<Vec<_>>>()?))
    }

    fn tensor(&self, file: &str, form: &Map<String, Value>) -> Result<Tensor> {
        let shape: Vec<usize> = serde_json::from_value(form["shape"].clone()).map_err(|_| unreadable("a shape"))?;
        let bytes = files::bytes(&self.folder.join(file))?;
        let number = |bytes: &[u8]| f64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        let values = bytes.chunks_exact(size_of::<f64>()).map(number).collect();
        let dtype = if form["dtype"] == "f64" { DType::F64 } else { DType::F32 };
        let tensor = Tensor::from_vec_f64(values, &shape, &Device::Cpu)?.to_dtype(dtype)?;
        Ok(if form.get("variable") == Some(&Value::Bool(true)) { tensor.with_grad() } else { tensor })
    }

    /// Numbers of a model's parameters, and the model.
    fn vector(&self, file: &str, form: &Map<String, Value>) -> Result<(ModelHandle, State)> {
        let wrong = || unreadable("numbers of parameters");
        let sizes: Vec<(String, usize)> = serde_json::from_value(form["sizes"].clone()).map_err(|_| wrong())?;
        let bytes = files::bytes(&self.folder.join(file))?;
        let mut numbers =
            bytes.chunks_exact(size_of::<f32>()).map(|x| f32::from_le_bytes(std::array::from_fn(|i| x[i])));
        let tensors: BTreeMap<String, Vec<f32>> =
            sizes.into_iter().map(|(name, n)| (name, numbers.by_ref().take(n).collect())).collect();
        Ok((self.handle(&form["of"])?, State { steps: Vec::new(), tensors }))
    }

    /// What the prologue has made again; what a function has captured is written into it.
    fn remade(&self, path: &str, form: &Map<String, Value>) -> Result<Dynamic> {
        let place = form["at"].as_str().and_then(|at| self.known.remade.get(at));
        let Some((_, now)) = place else {
            return Err(unreadable(&format!("`{path}` is no longer made before the loop")));
        };
        let cells = form["captures"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(function) = now.read_lock::<FnPtr>() {
            for (i, (cell, node)) in function.curry().iter().zip(cells).enumerate() {
                let value = self.value(&captured(path, i), node, Some(cell))?;
                let mut cell = cell.clone();
                if cell.is_shared() {
                    *cell.write_lock::<Dynamic>().expect("a shared value can be written between two steps") = value;
                }
            }
        }
        Ok(now.clone())
    }

    fn state(&self, file: &str, steps: &[u64]) -> Result<State> {
        State::read(&self.folder.join(file), steps.to_vec())
    }
}

fn found<'a, T>(known: &'a [(String, T)], path: &str) -> Result<&'a T> {
    let place = known.iter().find(|(known, _)| known == path);
    place.map(|(_, object)| object).ok_or_else(|| unreadable(&format!("nothing at `{path}`")))
}

fn unreadable(what: &str) -> Error {
    Error::file(format!("the checkpoint cannot be read: {what}")).hint("was it written by another version of rhopo?")
}
