//! What is known of a native function without calling it: plain data, made from its types and its page.

use super::page::Section;

/// Whether a call must have an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Needed,
    Optional,
    /// A trailing map of options, which may be left out.
    Options,
}

/// What is known of an option.
#[derive(Debug, Clone, PartialEq)]
pub struct Opt {
    pub name: &'static str,
    /// As signatures write types: `int`, `array of string`.
    pub kind: &'static str,
    pub about: String,
    /// What it is unless given, as a script writes it.
    pub default: Option<String>,
    /// Of an option that is a map itself: what that may hold.
    pub nested: Vec<Opt>,
}

impl Opt {
    /// What it means, with its default.
    pub fn meaning(&self) -> String {
        match &self.default {
            Some(default) => format!("{}; {default} unless given", self.about),
            None => self.about.clone(),
        }
    }
}

/// A parameter of a form.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    pub name: String,
    /// As signatures write it: `Model`, `Prompts | array`; empty where it is not known.
    pub kind: String,
    pub presence: Presence,
    /// What the map of options may hold.
    pub options: Vec<Opt>,
}

impl Param {
    /// A parameter that a call must have.
    pub fn needed(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { name: name.into(), kind: kind.into(), presence: Presence::Needed, options: Vec::new() }
    }

    /// `axis?: int`
    fn signature(&self) -> String {
        let mark = if self.presence == Presence::Needed { "" } else { "?" };
        if self.kind.is_empty() { self.name.clone() } else { format!("{}{mark}: {}", self.name, self.kind) }
    }
}

/// How a function is written where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `f(x)`, or `x.f(y)` where there is a receiver.
    Call,
    /// `x.f`
    Property,
    /// `a + b`
    Infix,
    /// `x[i]`
    Index,
    /// `b.name`, of whatever name.
    Column,
    /// `b.name = value`
    SetColumn,
}

/// One way to call a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// Whose method it is: `task` and `Task` of `task.prompts(n)`.
    pub receiver: Option<Param>,
    pub params: Vec<Param>,
    /// The type of the result; empty where there is none.
    pub returns: String,
}

impl Form {
    /// How many arguments, the receiver among them, a call may have: the fewest and the most.
    pub fn arguments(&self) -> (usize, usize) {
        let own = usize::from(self.receiver.is_some());
        let needed = self.params.iter().filter(|param| param.presence == Presence::Needed).count();
        (own + needed, own + self.params.len())
    }

    /// The options that the form takes.
    pub fn options(&self) -> &[Opt] {
        self.params.last().map_or(&[], |param| &param.options)
    }

    /// `sample(model: Model, prompts: Prompts | array, options?: map) -> Batch`
    pub fn signature(&self, path: &str, shape: Shape) -> String {
        let own = self.receiver.as_ref().map_or("", |receiver| &receiver.name);
        let params: Vec<String> = self.params.iter().map(Param::signature).collect();
        let name = |at: usize| self.params.get(at).map_or("", |param| &param.name);
        let called = match shape {
            Shape::Call if own.is_empty() => format!("{path}({})", params.join(", ")),
            Shape::Call => format!("{own}.{path}({})", params.join(", ")),
            Shape::Property => format!("{own}.{path}"),
            Shape::Infix => format!("{} {path} {}", name(0), name(1)),
            Shape::Index => format!("{own}[{}]", params.join(", ")),
            Shape::Column => format!("{own}.name"),
            Shape::SetColumn => format!("{own}.name = {}", name(0)),
        };
        if self.returns.is_empty() { called } else { format!("{called} -> {}", self.returns) }
    }
}

/// A native function with all its forms and what its page says.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// The page of the reference that it stands on: `Tensors`.
    pub topic: String,
    /// `""` for global functions, else the module: `kl`, `advantage`.
    pub module: &'static str,
    /// The name that scripts call; an operator's symbol for operators.
    pub name: &'static str,
    pub shape: Shape,
    pub forms: Vec<Form>,
    /// Summary, meaning of the parameters, errors, notes and an example.
    pub section: Section,
}

impl Declaration {
    /// What a script writes to call it: `kl::k3`, `exp`.
    pub fn path(&self) -> String {
        if self.module.is_empty() { self.name.to_string() } else { format!("{}::{}", self.module, self.name) }
    }

    /// One for each form.
    pub fn signatures(&self) -> Vec<String> {
        self.forms.iter().map(|form| form.signature(&self.path(), self.shape)).collect()
    }

    /// Whether it is written behind the point of a value.
    pub fn is_method(&self) -> bool {
        self.forms.iter().any(|form| form.receiver.is_some())
    }

    /// How its section of the page is headed: `kl::k3`, `task.prompts`, `a + b`, `x[i]`.
    pub(super) fn heading(&self) -> String {
        let bare = |form: &Form| Form {
            receiver: form.receiver.clone(),
            params: form.params.iter().map(|param| Param::needed(&param.name, "")).collect(),
            returns: String::new(),
        };
        let text = self.forms.first().map(|form| bare(form).signature(&self.path(), self.shape)).unwrap_or_default();
        match self.shape {
            Shape::Call => text.split('(').next().unwrap_or_default().to_string(),
            _ => text,
        }
    }

    /// Parameters that the page does not explain, and ones that it explains and that there are not.
    pub(super) fn unexplained(&self) -> Vec<String> {
        let params = || self.forms.iter().flat_map(|form| &form.params);
        let silent = params().filter(|param| param.presence != Presence::Options);
        let silent = silent.filter(|param| self.section.param(&param.name).is_none_or(|(_, about)| about.is_empty()));
        let named = self.section.params.iter().flat_map(|[names, ..]| names.split(", "));
        let foreign = named.filter(|name| !params().any(|param| param.name == *name));
        let silent = silent.map(|param| format!("the page says nothing of `{}` of `{}`", param.name, self.path()));
        silent.chain(foreign.map(|name| format!("`{}` has no parameter `{name}`", self.path()))).collect()
    }
}
