//! What a script has given to its run beside numbers: the handles that it tracks, the task that it opened last.
//!
//! Owns these values only; evaluations between two steps read them.

use crate::engine::ModelHandle;
use crate::error::{Error, Result};
use crate::model::Head;
use rhai::{Dynamic, Map};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The name under which scripts track what they train.
const POLICY: &str = "policy";

/// Copies are the same one.
#[derive(Clone, Default)]
pub struct Tracked(Rc<Values>);

#[derive(Default)]
struct Values {
    handles: RefCell<BTreeMap<String, Dynamic>>,
    task: RefCell<Option<Dynamic>>,
    state: RefCell<Option<State>>,
}

/// What `run.state` gives: copies are the same one.
#[derive(Clone)]
pub struct State(Rc<RefCell<Map>>);

impl State {
    pub(super) fn get(&self, name: &str) -> Option<Dynamic> {
        self.0.borrow().get(name).cloned()
    }

    pub(super) fn set(&self, name: &str, value: Dynamic) -> bool {
        self.0.borrow_mut().get_mut(name).map(|slot| *slot = value).is_some()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.borrow().keys().map(ToString::to_string).collect()
    }
}

impl Tracked {
    /// A run begins: what an earlier one tracked is of the past. Its task may have been opened before.
    pub(super) fn begin(&self) {
        self.0.handles.borrow_mut().clear();
        self.0.state.replace(None);
    }

    pub(super) fn track(&self, handles: Map) {
        self.0.handles.borrow_mut().extend(handles.into_iter().map(|(name, value)| (name.to_string(), value)));
    }

    pub(super) fn opened<T: Clone + 'static>(&self, task: &T) {
        *self.0.task.borrow_mut() = Some(Dynamic::from(task.clone()));
    }

    /// The run's state: these values at first, and later what was set.
    pub(super) fn state(&self, values: Map) -> State {
        self.0.state.borrow_mut().get_or_insert_with(|| State(Rc::new(RefCell::new(values)))).clone()
    }

    /// The values of the run's state, if it has one.
    pub fn values(&self) -> Option<Map> {
        self.0.state.borrow().as_ref().map(|state| state.0.borrow().clone())
    }

    /// Puts stored values into the run's state.
    pub fn set_values(&self, values: Map) {
        if let Some(state) = &*self.0.state.borrow() {
            *state.0.borrow_mut() = values;
        }
    }

    /// What the script tracks, by name.
    pub fn handles(&self) -> Vec<(String, Dynamic)> {
        self.0.handles.borrow().iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The task that is tracked, else the one that was opened last.
    ///
    /// # Errors
    /// None was opened.
    pub fn task<T: Clone + 'static>(&self) -> Result<T> {
        let tracked = self.handles().into_iter().find_map(|(_, value)| value.try_cast::<T>());
        tracked.or_else(|| self.0.task.borrow().clone()?.try_cast()).ok_or_else(|| {
            Error::value("eval_every: the script has opened no task").hint("let task = load_task(cfg.task);")
        })
    }

    /// What is tracked as `policy`, else the only model that is trained.
    ///
    /// # Errors
    /// None, or several without that name.
    pub fn policy(&self) -> Result<ModelHandle> {
        let models =
            self.handles().into_iter().filter_map(|(name, value)| Some((name, value.try_cast::<ModelHandle>()?)));
        let trained: Vec<(String, ModelHandle)> = models.filter(|(_, model)| model.trainable()).collect();
        let named = trained.iter().find(|(name, _)| name == POLICY);
        match (named, &trained[..]) {
            (Some((_, model)), _) | (None, [(_, model)]) if model.head.has(Head::Lm) => Ok(model.clone()),
            (Some((name, model)), _) | (None, [(name, model)]) => {
                let what = format!("eval_every: `{name}` is {}, which answers nothing", **model);
                Err(Error::value(what).hint("leave eval_every out: it is for scripts that train a language model"))
            }
            (None, found) => {
                let what = if found.is_empty() { "no model that is trained" } else { "several models" };
                Err(Error::value(format!("eval_every: the script tracks {what}, and none as `policy`"))
                    .hint("run.track(#{ policy: policy })"))
            }
        }
    }
}
